//! Whether an image can be read to its end: `qemu-img check` walks all its tables. Disks live on a published image for
//! good, so one that a broken download cut off must never become one.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use nix::unistd::geteuid;

use super::qcow2::{open_disk, read_header};
use super::{DiskError, Owner};

/// Exit code for space that nothing refers to: a waste, no damage.
const ONLY_LEAKS: i32 = 3;

/// The whole format is said, so that qemu-img guesses none, and opens nothing that the disk says lies below it.
const ITSELF_ALONE: &str = r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"/dev/stdin"},"backing":null}"#;

/// Refuses `stored`, which belongs to `owner`, where qemu-img finds damage; `image` is the name for messages. The caller
/// has looked at the header: nothing below it and no other file is opened.
pub(super) fn check_sound(stored: &File, image: &Path, owner: Owner) -> Result<(), DiskError> {
    match complaint(stored, image, owner)? {
        Some(found) => Err(DiskError::Damaged { path: image.to_owned(), found }),
        None => Ok(()),
    }
}

/// Refuses a vm's disk where qemu-img finds damage. It is only read.
pub fn check_disk(path: &Path, owner: Owner) -> Result<(), DiskError> {
    let file = open_disk(path)?;
    read_header(&file, path)?;
    match complaint(&file, path, owner)? {
        Some(found) => Err(DiskError::Unsound { path: path.to_owned(), found }),
        None => Ok(()),
    }
}

/// What qemu-img finds wrong, if anything.
fn complaint(stored: &File, image: &Path, owner: Owner) -> Result<Option<String>, DiskError> {
    let mut stdin = stored.try_clone().map_err(|source| DiskError::io("open", image, source))?;
    stdin.seek(SeekFrom::Start(0)).map_err(|source| DiskError::io("read", image, source))?;
    let mut command = Command::new("qemu-img");
    command.args(["check", "-U", ITSELF_ALONE]).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    // What a stranger wrote is parsed with the rights of the account that will run it, not with root's.
    if geteuid().is_root() {
        command.uid(owner.uid).gid(owner.gid).current_dir("/");
    }
    let output = command.output().map_err(|source| DiskError::QemuImgMissing { source: Arc::new(source) })?;
    if output.status.success() || output.status.code() == Some(ONLY_LEAKS) {
        return Ok(None);
    }
    Ok(Some(first_complaint(&output)))
}

/// The first line that says something is wrong; there can be one per cluster.
fn first_complaint(output: &Output) -> String {
    let text = [&output.stderr[..], &output.stdout[..]].map(String::from_utf8_lossy);
    let lines = || text.iter().flat_map(|text| text.lines()).map(str::trim).filter(|line| !line.is_empty());
    let line = lines().find(|line| line.starts_with("ERROR")).or_else(|| lines().next());
    let words = line.map(|line| {
        line.trim_start_matches("ERROR").trim_start_matches("qemu-img: ").trim_start_matches([':', ' ']).to_owned()
    });
    words.unwrap_or_else(|| output.status.to_string())
}
