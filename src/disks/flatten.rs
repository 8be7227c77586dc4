//! A vm's disk, with all that lies below it, becomes an image that stands alone and never changes again.
//!
//! `qemu-img convert` writes it, since what a guest wrote is only parsed with the rights of the account that runs guests. It is
//! told what lies below a disk by our records: a disk's own header is never followed.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::sys::stat::{Mode, fchmod};
use nix::unistd::geteuid;
use serde_json::{Value, json};

use super::folder::{Absent, Draft, Folder, split};
use super::make::DISK_MODE;
use super::publish::{PUBLISHED_MODE, digest};
use super::qcow2::refuse_flawed;
use super::sound::check_sound;
use super::{DiskError, Owner, Published};

/// Until it is whole, its owner writes it.
pub(super) const DRAFT_MODE: u32 = 0o600;

/// Writes `disk`, and `base` where that lies below it, as one image to `target`, read-only. Nothing stands there before it is
/// whole and sound; what does already is not touched. A disk that a guest uses is refused: qemu holds a lock on it.
pub fn flatten(disk: &Path, base: Option<&Path>, target: &Path, owner: Owner) -> Result<Published, DiskError> {
    write_whole(disk, base, target, owner, PUBLISHED_MODE)
}

/// The same, as the disk of a vm, which its guest writes.
pub fn copy_whole(disk: &Path, base: Option<&Path>, target: &Path, owner: Owner) -> Result<(), DiskError> {
    write_whole(disk, base, target, owner, DISK_MODE).map(drop)
}

fn write_whole(
    disk: &Path,
    base: Option<&Path>,
    target: &Path,
    owner: Owner,
    mode: u32,
) -> Result<Published, DiskError> {
    let (disk_folder, disk_name) = split(disk)?;
    let opened = Folder::open(disk_folder, Absent::Refuse)?.read(disk_name)?;
    let opened = opened.ok_or_else(|| DiskError::Missing { path: disk.to_owned() })?;
    refuse_flawed(&opened, disk)?;
    let (folder, name) = split(target)?;
    let folder = Folder::open(folder, Absent::Create(owner))?;
    if folder.find(name)?.is_some() {
        let (found, wanted) = ("another file".to_owned(), format!("a full image of {}", disk.display()));
        return Err(DiskError::Taken { path: target.to_owned(), found, wanted });
    }
    let draft = Draft::create(folder, name, owner, DRAFT_MODE)?;
    convert(&source(disk, base), &draft.file, owner)?;
    check_sound(&draft.file, target, owner)?;
    let sha256 = digest(&draft.file).map_err(|source| DiskError::io("read", target, source))?;
    hand_over(&draft.file, target, mode)?;
    draft.file.sync_all().map_err(|source| DiskError::write(target, 0, source))?;
    let stored = draft.file.metadata().map_err(|source| DiskError::io("look at", target, source))?;
    draft.place()?.sync()?;
    let source_mtime_ns = stored.mtime() * 1_000_000_000 + stored.mtime_nsec();
    Ok(Published { sha256, source_sha256: None, source_bytes: stored.len(), source_mtime_ns })
}

pub(super) fn make_read_only(file: &File, target: &Path) -> Result<(), DiskError> {
    hand_over(file, target, PUBLISHED_MODE)
}

fn hand_over(file: &File, target: &Path, mode: u32) -> Result<(), DiskError> {
    fchmod(file, Mode::from_bits_truncate(mode)).map_err(|errno| DiskError::io("hand over", target, errno))
}

/// The layers by name. The last has an explicit `null`, so that a name in its header is not followed.
fn source(disk: &Path, base: Option<&Path>) -> String {
    let layer = |path: &Path, below: Value| {
        let file = json!({ "driver": "file", "filename": path });
        json!({ "driver": "qcow2", "file": file, "backing": below })
    };
    let below = base.map_or(Value::Null, |base| layer(base, Value::Null));
    format!("json:{}", layer(disk, below))
}

fn convert(source: &str, into: &File, owner: Owner) -> Result<(), DiskError> {
    let memory = PathBuf::from("the new image");
    let mut stdin = into.try_clone().map_err(|source| DiskError::io("open", &memory, source))?;
    stdin.seek(SeekFrom::Start(0)).map_err(|source| DiskError::io("open", &memory, source))?;
    let mut command = Command::new("qemu-img");
    command.args(["convert", "-q", "-O", "qcow2", source, "/dev/stdin"]);
    command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped()).current_dir("/");
    if geteuid().is_root() {
        command.uid(owner.uid).gid(owner.gid);
    }
    run(&mut command)
}

/// Writes a raw disk as a qcow2 image. There is nothing in it to understand, so it takes no other account: its file need not be
/// readable for that of the guests.
pub(super) fn convert_raw(disk: &File, path: &Path, into: &File) -> Result<(), DiskError> {
    let open = |source| DiskError::io("open", path, source);
    let mut stdin = disk.try_clone().map_err(open)?;
    stdin.seek(SeekFrom::Start(0)).map_err(open)?;
    let mut command = Command::new("qemu-img");
    command.args(["convert", "-q", "-f", "raw", "-O", "qcow2", "/dev/stdin", "/dev/stdout"]);
    command.stdin(stdin).stdout(into.try_clone().map_err(open)?).stderr(Stdio::piped()).current_dir("/");
    run(&mut command)
}

/// Runs `qemu-img` to its end.
pub(super) fn run(command: &mut Command) -> Result<(), DiskError> {
    let child = command.spawn().map_err(|source| DiskError::QemuImgMissing { source: Arc::new(source) })?;
    let output = child.wait_with_output().map_err(|source| DiskError::QemuImgMissing { source: Arc::new(source) })?;
    if output.status.success() {
        return Ok(());
    }
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    Err(DiskError::QemuImg {
        arguments: arguments.join(" "),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
