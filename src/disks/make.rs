//! New disks by the hundred: one `qemu-img`, then plain copies of what it made.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Whence, lseek};

use super::flatten::{convert_raw, run};
use super::folder::{Absent, Draft, Folder, split, sync_all};
use super::head::{Head, read_source};
use super::meter::{Meter, Tell};
use super::qcow2::{open_image, read_header, read_standalone};
use super::sound::check_sound;
use super::{DiskError, Image, Images, Owner};

/// A guest's disk is nobody's business but its account's.
pub(super) const DISK_MODE: u32 = 0o640;

/// How many disks are under way at once; each holds two descriptors, and 1,024 is the usual limit of a process.
const TOGETHER: usize = 128;

/// Bytes that are looked at as one when an empty stretch is to stay a hole.
const BLOCK: usize = 4096;

/// Makes copy-on-write disks over `base`, one result per target. A target that stands already over this base is done.
pub fn derive(base: &Path, targets: &[PathBuf], owner: Owner) -> Vec<Result<(), DiskError>> {
    let content = || {
        let base = std::path::absolute(base).map_err(|source| DiskError::io("open", base, source))?;
        read_standalone(&open_image(&base)?, &base)?;
        let start = ["-b".as_ref(), base.as_os_str(), "-F".as_ref(), "qcow2".as_ref()];
        qemu_img_create(&start, None)
    };
    let wanted = Wanted {
        text: format!("a disk over {}", base.display()),
        is: &|image: &Image| {
            std::path::absolute(base).is_ok_and(|base| image.backing_file.as_deref() == Some(base.as_path()))
        },
    };
    make(targets, content, &wanted, owner)
}

/// Makes full copies of `image`, one result per target; of a raw disk, qcow2 ones. A target that stands already, whole by itself and of this size,
/// is done.
pub fn clone_full(
    images: &Images,
    image: &Path,
    targets: &[PathBuf],
    owner: Owner,
    tell: &Tell<'_>,
) -> Vec<Result<(), DiskError>> {
    let opened = images.open(image).and_then(|file| read_source(&file, image).map(|source| (file, source)));
    let (file, (head, header)) = match opened {
        Ok(opened) => opened,
        Err(error) => return vec![Err(error); targets.len()],
    };
    let content = || {
        let length = file.metadata().map_err(|source| DiskError::io("look at", image, source))?.len();
        let is_raw = matches!(head, Head::Raw { .. });
        Ok(Content::Image { file, path: image.to_owned(), length, is_raw, tell, sound: OnceCell::new() })
    };
    let wanted =
        Wanted { text: format!("a full copy of {}", image.display()), is: &|standing: &Image| *standing == header };
    make(targets, content, &wanted, owner)
}

/// Makes a full copy of `image`. A target that stands already is done only where it holds the very same bytes: one that is
/// of the same size may be a copy of something else.
pub fn copy_exactly(image: &Path, target: &Path, owner: Owner) -> Result<(), DiskError> {
    read_standalone(&open_image(image)?, image)?;
    clone_full(&Images::Anywhere, image, std::slice::from_ref(&target.to_owned()), owner, &|_| ())
        .into_iter()
        .collect::<Result<(), _>>()?;
    let (folder, name) = split(target)?;
    let standing = Folder::open(folder, Absent::Refuse)?.read(name)?;
    let standing = standing.ok_or_else(|| DiskError::Missing { path: target.to_owned() })?;
    if same_bytes(&open_image(image)?, &standing).map_err(|source| DiskError::io("compare", target, source))? {
        return Ok(());
    }
    let (found, wanted) =
        ("a disk of the same size with other content".to_owned(), format!("a full copy of {}", image.display()));
    Err(DiskError::Taken { path: target.to_owned(), found, wanted })
}

fn same_bytes(mut one: &File, mut other: &File) -> std::io::Result<bool> {
    let length = one.metadata()?.len();
    if length != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut ones, mut others) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
    for at in (0..length).step_by(COMPARED_BYTES) {
        let bytes = usize::try_from(length - at).map_or(COMPARED_BYTES, |left| left.min(COMPARED_BYTES));
        one.read_exact(&mut ones[..bytes])?;
        other.read_exact(&mut others[..bytes])?;
        if ones[..bytes] != others[..bytes] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes empty disks of this size, one result per target. A target that stands already, whole by itself and of this size,
/// is done.
pub fn create_empty(size_bytes: u64, targets: &[PathBuf], owner: Owner) -> Vec<Result<(), DiskError>> {
    let content = || qemu_img_create(&[], Some(size_bytes));
    let wanted = Wanted {
        text: format!("a disk of {size_bytes} bytes of its own"),
        is: &|image: &Image| image.backing_file.is_none() && image.virtual_size_bytes == size_bytes,
    };
    make(targets, content, &wanted, owner)
}

/// How much of two files is compared at once.
const COMPARED_BYTES: usize = 1 << 20;

/// What is to stand at a target.
struct Wanted<'a> {
    text: String,
    is: &'a dyn Fn(&Image) -> bool,
}

/// What a new disk starts with.
enum Content<'a> {
    /// The stretches that are not empty.
    Stretches { length: u64, stretches: Vec<(u64, Vec<u8>)> },
    Image {
        file: File,
        path: PathBuf,
        length: u64,
        is_raw: bool,
        tell: &'a Tell<'a>,
        /// What the check of the first copy said; the others hold the same bytes.
        sound: OnceCell<Result<(), DiskError>>,
    },
}

impl Content<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Stretches { stretches, .. } => stretches.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
            Self::Image { length, .. } => *length,
        }
    }

    fn write(&self, draft: &Draft, owner: Owner) -> Result<(), DiskError> {
        let fail = |source: std::io::Error| DiskError::write(&draft.path(), self.bytes(), source);
        match self {
            Self::Stretches { length, stretches } => {
                draft.file.set_len(*length).map_err(fail)?;
                stretches.iter().try_for_each(|(at, bytes)| draft.file.write_all_at(bytes, *at)).map_err(fail)
            }
            Self::Image { file, path, is_raw: true, .. } => convert_raw(file, path, &draft.file),
            Self::Image { file, path, length, tell, sound, .. } => {
                copy_sparse(file, path, draft, *length, *tell)?;
                sound.get_or_init(|| check_sound(&draft.file, path, owner)).clone()
            }
        }
    }
}

fn make<'a>(
    targets: &[PathBuf],
    content: impl FnOnce() -> Result<Content<'a>, DiskError>,
    wanted: &Wanted<'_>,
    owner: Owner,
) -> Vec<Result<(), DiskError>> {
    if targets.is_empty() {
        return Vec::new();
    }
    match content() {
        Ok(content) => targets.chunks(TOGETHER).flat_map(|chunk| make_chunk(chunk, &content, wanted, owner)).collect(),
        Err(error) => vec![Err(error); targets.len()],
    }
}

fn make_chunk(
    targets: &[PathBuf],
    content: &Content<'_>,
    wanted: &Wanted<'_>,
    owner: Owner,
) -> Vec<Result<(), DiskError>> {
    let drafts: Vec<_> = targets.iter().map(|target| draft(target, content, wanted, owner)).collect();
    let files = drafts.iter().flatten().flatten().map(|draft| (&draft.file, draft.path()));
    if let Err(error) = sync_all(files, content.bytes()) {
        return drafts.into_iter().map(|draft| draft.and_then(|draft| not_synced(draft, &error))).collect();
    }
    let placed: Vec<_> = drafts.into_iter().map(|draft| draft?.map(Draft::place).transpose()).collect();
    let folders = placed.iter().flatten().flatten().map(|folder: &Folder| (&folder.handle, folder.path.clone()));
    let synced = sync_all(folders, 0);
    placed.into_iter().map(|placed| placed.and_then(|_| synced.clone())).collect()
}

/// What stood already is done whatever became of the others.
fn not_synced(draft: Option<Draft>, error: &DiskError) -> Result<(), DiskError> {
    draft.map_or(Ok(()), |_| Err(error.clone()))
}

/// Writes a target's content under a temporary name; `None` where the wanted disk stands already.
fn draft(target: &Path, content: &Content<'_>, wanted: &Wanted<'_>, owner: Owner) -> Result<Option<Draft>, DiskError> {
    let (folder, name) = split(target)?;
    let folder = Folder::open(folder, Absent::Create(owner))?;
    if let Some(standing) = folder.read(name)? {
        return check_standing(&standing, target, wanted).map(|()| None);
    }
    let draft = Draft::create(folder, name, owner, DISK_MODE)?;
    content.write(&draft, owner)?;
    Ok(Some(draft))
}

fn check_standing(file: &File, path: &Path, wanted: &Wanted<'_>) -> Result<(), DiskError> {
    let found = match read_header(file, path) {
        Ok(image) if (wanted.is)(&image) => return Ok(()),
        Ok(Image { backing_file: Some(backing), .. }) => format!("a disk over {}", backing.display()),
        Ok(Image { virtual_size_bytes, .. }) => format!("a disk of {virtual_size_bytes} bytes of its own"),
        Err(DiskError::NotQcow2 { .. }) => "no qcow2 image".to_owned(),
        Err(error) => return Err(error),
    };
    Err(DiskError::Taken { path: path.to_owned(), found, wanted: wanted.text.clone() })
}

/// Has `qemu-img` make an image in memory.
fn qemu_img_create(backing: &[&std::ffi::OsStr], size_bytes: Option<u64>) -> Result<Content<'static>, DiskError> {
    let memory = Path::new("memory");
    let file = memfd_create("disk", MFdFlags::MFD_CLOEXEC).map_err(|errno| DiskError::io("allocate", memory, errno))?;
    let mut file = File::from(file);
    let stdin = file.try_clone().map_err(|source| DiskError::io("allocate", memory, source))?;
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]).args(backing).arg("/dev/stdin");
    command.args(size_bytes.map(|bytes| bytes.to_string())).stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped());
    run(&mut command)?;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.read_to_end(&mut bytes))
        .map_err(|source| DiskError::io("read", memory, source))?;
    Ok(stretches_of(&bytes))
}

fn stretches_of(bytes: &[u8]) -> Content<'static> {
    let is_used = |block: &&(u64, Vec<u8>)| block.1.iter().any(|byte| *byte != 0);
    let blocks = bytes.chunks(BLOCK).zip(0_u64..).map(|(block, number)| (number * BLOCK as u64, block.to_vec()));
    let stretches = blocks.filter(|block| is_used(&block)).collect();
    Content::Stretches { length: bytes.len() as u64, stretches }
}

/// How much is copied between two looks at the clock.
const COPIED_AT_ONCE: u64 = 16 << 20;

/// Copies an image and keeps its holes. Where the file system can share blocks between files, the kernel does.
pub(super) fn copy_sparse(from: &File, path: &Path, to: &Draft, length: u64, tell: &Tell<'_>) -> Result<(), DiskError> {
    let read = |source: std::io::Error| DiskError::io("read", path, source);
    let write = |source: std::io::Error| DiskError::write(&to.path(), length, source);
    to.file.set_len(length).map_err(write)?;
    let mut meter = Meter::new(path, 0, tell);
    let (mut from, mut file) = (from, &to.file);
    let mut end = 0_u64;
    while let Some((start, stop)) = next_stretch(from, end, length).map_err(|errno| read(errno.into()))? {
        let stop = stop.min(start + COPIED_AT_ONCE);
        from.seek(SeekFrom::Start(start)).map_err(read)?;
        file.seek(SeekFrom::Start(start)).map_err(write)?;
        let copied = std::io::copy(&mut from.take(stop - start), &mut file).map_err(write)?;
        if copied < stop - start {
            return Err(DiskError::Changed { path: path.to_owned() });
        }
        end = stop;
        meter.is_at(end, Some(length));
    }
    Ok(())
}

/// The next stretch with data, from `at` on and before `length`.
fn next_stretch(file: &File, at: u64, length: u64) -> nix::Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    let seek = |at: u64, whence| lseek(file, at.cast_signed(), whence).map(i64::cast_unsigned);
    match seek(at, Whence::SeekData) {
        Ok(start) => Ok(Some((start, seek(start, Whence::SeekHole)?.min(length))).filter(|(start, _)| *start < length)),
        Err(Errno::ENXIO) => Ok(None),
        // A file system that knows no holes.
        Err(Errno::EINVAL) => Ok(Some((at, length))),
        Err(errno) => Err(errno),
    }
}
