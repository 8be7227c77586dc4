//! The header of a qcow2 file, read without a process. Good to show and to tell disks apart; never to be believed beyond
//! that, since a guest's disk is what the guest's qemu wrote.

use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::DiskError;
use super::folder::{Absent, Folder, split};

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Size that the guest sees.
    pub virtual_size_bytes: u64,
    /// The image below, as the header names it.
    pub backing_file: Option<PathBuf>,
}

pub(super) const MAGIC: &[u8; 4] = b"QFI\xfb";
/// Longest name of a backing file in the format.
const BACKING_BYTES_MAX: u32 = 1023;
/// Header bytes of version 2; version 3 has the feature bits behind them.
const HEADER_BYTES: usize = 72;
/// What is read at once: the header and, where qemu-img writes it, the name of the backing file behind it.
const START_BYTES: usize = 1024;
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
const INCOMPATIBLE_EXTENDED: u64 = 1 << 4;
/// Dirty, corrupt, data file, compression, extended tables: what qemu itself knows so far.
const INCOMPATIBLE_KNOWN: u64 = 0b1_1111;
/// qemu's own bound for the first table.
const L1_BYTES_MAX: u64 = 32 << 20;
/// The first table of a disk of 64 TiB; a larger one is not read to find out whether it is empty.
const UNWRITTEN_L1_BYTES_MAX: usize = 1 << 20;
/// More than anybody lists, far below qemu's bound.
pub(super) const SNAPSHOTS_MAX: u32 = 1024;
/// What guests read and write at once; qemu rounds no size for them.
const SECTOR_BYTES: u64 = 512;

/// Reads the header of the image at `path`.
pub fn inspect(path: &Path) -> Result<Image, DiskError> {
    read_header(&open_image(path)?, path)
}

/// Whether nothing was ever written to the image at `path`: its first table leads nowhere, and no snapshot is kept in it. What
/// a guest has written it cannot take back out of the table, so that a disk with somebody's work never looks like this.
pub fn is_unwritten(path: &Path) -> Result<bool, DiskError> {
    let file = open_image(path)?;
    read_header(&file, path)?;
    let read = |source| DiskError::io("read", path, source);
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).map_err(read)?;
    let (entries, snapshots, l1) = (u64::from(u32_at(&header, 36)), u32_at(&header, 60), u64_at(&header, 40));
    let Some(bytes) = usize::try_from(entries * 8).ok().filter(|bytes| *bytes <= UNWRITTEN_L1_BYTES_MAX) else {
        return Ok(false);
    };
    let mut table = vec![0; bytes];
    let is_whole = read_at_most(&file, &mut table, l1).map_err(read)? == bytes;
    Ok(is_whole && snapshots == 0 && table.iter().all(|byte| *byte == 0))
}

/// Opens a disk of the storage to read it, wherever links of root's lead to it and nobody else's.
pub fn open_disk(path: &Path) -> Result<File, DiskError> {
    let (folder, name) = split(path)?;
    let found = Folder::open(folder, Absent::Refuse)?.read(name)?;
    found.ok_or_else(|| DiskError::Missing { path: path.to_owned() })
}

/// Opens an image to read it. Not to wait for a writer is for the case that somebody put a FIFO there.
pub(super) fn open_image(path: &Path) -> Result<File, DiskError> {
    open_regular(path, || File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path))
}

/// The same, however it is opened.
pub(super) fn open_regular(path: &Path, open: impl FnOnce() -> std::io::Result<File>) -> Result<File, DiskError> {
    let file = open().map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => DiskError::Missing { path: path.to_owned() },
        _ => DiskError::io("open", path, source),
    })?;
    let metadata = file.metadata().map_err(|source| DiskError::io("look at", path, source))?;
    if metadata.is_dir() {
        return Err(DiskError::NotAFile { path: path.to_owned(), found: "a folder" });
    }
    if !metadata.is_file() {
        return Err(DiskError::NotAFile { path: path.to_owned(), found: "a device or pipe" });
    }
    Ok(file)
}

/// Like `read_header`, for an image that others will be made of: it must be whole by itself.
pub(super) fn read_standalone(file: &File, path: &Path) -> Result<Image, DiskError> {
    let image = read_header(file, path)?;
    if let Some(backing) = image.backing_file {
        return Err(DiskError::Derived { path: path.to_owned(), backing });
    }
    refuse_flawed(file, path)?;
    Ok(image)
}

/// Refuses an image from which none is to be made, whether it stands alone or not.
pub(super) fn refuse_flawed(file: &File, path: &Path) -> Result<(), DiskError> {
    let mut header = [0; START_BYTES];
    let read = |source| DiskError::io("read", path, source);
    let length = read_at_most(file, &mut header, 0).map_err(read)?;
    match flaw(&header[..length], file.metadata().map_err(read)?.len()) {
        Some(why) => Err(DiskError::NotQcow2 { path: path.to_owned(), why }),
        None => Ok(()),
    }
}

/// Why an image that begins with `header` and is `file_bytes` long is not to be published, as far as its first bytes show;
/// a half-sentence. What is in its tables only `qemu-img check` tells.
pub fn flaw(header: &[u8], file_bytes: u64) -> Option<String> {
    let version = header.get(4..8).map_or(0, |_| u32_at(header, 4));
    if header.len() < HEADER_BYTES || (version >= 3 && header.len() < HEADER_BYTES + 8) {
        return Some("it ends within its header".into());
    }
    if !(2..=3).contains(&version) {
        return Some(format!("it has version {version}, known are 2 and 3"));
    }
    flaw_of_kind(header, version).or_else(|| flaw_of_size(header)).or_else(|| cut_short(header, file_bytes))
}

/// What it is that we, or qemu, can do nothing with.
fn flaw_of_kind(header: &[u8], version: u32) -> Option<String> {
    let incompatible = if version == 3 { u64_at(header, HEADER_BYTES) } else { 0 };
    let snapshots = u32_at(header, 60);
    if incompatible & INCOMPATIBLE_DATA_FILE != 0 {
        Some("its data is in another file".into())
    } else if incompatible & INCOMPATIBLE_CORRUPT != 0 {
        Some("it is marked as corrupt; `qemu-img check -r all` may mend it".into())
    } else if incompatible & !INCOMPATIBLE_KNOWN != 0 {
        Some(format!("it needs features that qemu does not know (bits {:#x})", incompatible & !INCOMPATIBLE_KNOWN))
    } else if u32_at(header, 32) != 0 {
        Some("it is encrypted".into())
    } else if snapshots > SNAPSHOTS_MAX {
        Some(format!("it has {snapshots} snapshots inside, more than {SNAPSHOTS_MAX}"))
    } else {
        None
    }
}

fn flaw_of_size(header: &[u8]) -> Option<String> {
    let (size, cluster_bits, l1_entries) = (u64_at(header, 24), u32_at(header, 20), u64::from(u32_at(header, 36)));
    if !(9..=21).contains(&cluster_bits) {
        return Some("its cluster size is out of range".into());
    }
    if size == 0 {
        return Some("its size is 0".into());
    }
    if size % SECTOR_BYTES != 0 {
        return Some(format!("its size of {size} bytes is not a multiple of {SECTOR_BYTES}"));
    }
    // A table of the second level is one cluster of entries of 8 bytes, or of 16 with extended tables.
    let extended = u32_at(header, 4) >= 3 && u64_at(header, HEADER_BYTES) & INCOMPATIBLE_EXTENDED != 0;
    let entry_bits = if extended { 4 } else { 3 };
    let wanted = size.div_ceil(1 << (2 * cluster_bits - entry_bits));
    if wanted > l1_entries || l1_entries * 8 > L1_BYTES_MAX {
        return Some(format!("its size of {size} bytes does not fit its tables"));
    }
    None
}

/// Whether the file ends before what its header points at.
fn cut_short(header: &[u8], file_bytes: u64) -> Option<String> {
    let (cluster_bits, l1_bytes) = (u32_at(header, 20), u64::from(u32_at(header, 36)) * 8);
    let refcounts_bytes = u64::from(u32_at(header, 56)) << cluster_bits;
    let (l1, refcounts) = (u64_at(header, 40), u64_at(header, 48));
    let needed = l1.saturating_add(l1_bytes).max(refcounts.saturating_add(refcounts_bytes));
    let aligned = (l1 | refcounts) & ((1 << cluster_bits) - 1) == 0;
    match (aligned, needed > file_bytes) {
        (false, _) => Some("its header points to no tables".into()),
        (true, true) => Some(format!(
            "it is {file_bytes} bytes long and its tables end at {needed}: the copy or the download was cut short"
        )),
        (true, false) => None,
    }
}

/// Reads the header of an open file; `path` is for messages.
pub(super) fn read_header(file: &File, path: &Path) -> Result<Image, DiskError> {
    let unusable = |why: &str| DiskError::NotQcow2 { path: path.to_owned(), why: why.to_owned() };
    let mut header = [0; START_BYTES];
    let length = read_at_most(file, &mut header, 0).map_err(|source| DiskError::io("read", path, source))?;
    if length < MAGIC.len() || !header.starts_with(MAGIC) {
        return Err(unusable("it does not start as one"));
    }
    let version = u32_at(&header, 4);
    if length < HEADER_BYTES || (version >= 3 && length < HEADER_BYTES + 8) {
        return Err(unusable("it ends within its header"));
    }
    if !(2..=3).contains(&version) {
        return Err(unusable(&format!("it has version {version}, known are 2 and 3")));
    }
    let incompatible = if version == 3 { u64_at(&header, HEADER_BYTES) } else { 0 };
    if incompatible & INCOMPATIBLE_DATA_FILE != 0 {
        return Err(unusable("its data is in another file"));
    }
    if incompatible & INCOMPATIBLE_CORRUPT != 0 {
        return Err(unusable("it is marked as corrupt; `qemu-img check -r all` may mend it"));
    }
    let backing_file = match (u64_at(&header, 8), u32_at(&header, 16)) {
        (0, _) | (_, 0) => None,
        (_, bytes) if bytes > BACKING_BYTES_MAX => return Err(unusable("the name of its backing file is too long")),
        (offset, bytes) => {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let name = match header[..length].get(start..start.saturating_add(bytes as usize)) {
                Some(name) => name.to_owned(),
                None => {
                    let mut name = vec![0; bytes as usize];
                    file.read_exact_at(&mut name, offset).map_err(|_| unusable("it ends within its header"))?;
                    name
                }
            };
            Some(PathBuf::from(std::ffi::OsString::from_vec(name)))
        }
    };
    Ok(Image { virtual_size_bytes: u64_at(&header, 24), backing_file })
}

pub(super) fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
