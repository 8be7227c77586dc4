//! What can go wrong with a disk, in sentences for the user. Cloneable, since one failure can be that of many targets.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;

/// What went wrong with a disk or an image. None of these has overwritten anything.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DiskError {
    #[error("{} does not exist", path.display())]
    Missing { path: PathBuf },
    #[error("{} is not a usable qcow2 image: {why}; `qemu-img convert -O qcow2` makes one of most others", path.display())]
    NotQcow2 { path: PathBuf, why: String },
    /// A half-sentence, and what helps.
    #[error("{} is {what}, and no disk is made of that; {remedy}", path.display())]
    Foreign { path: PathBuf, what: String, remedy: String },
    #[error("cannot fetch {url}: {why}; nothing was published, and the next try goes on where this one ended")]
    NotFetched { url: String, why: String },
    #[error("{url} has sha256 {found}, expected {expected}; nothing of it was kept")]
    FetchedOther { url: String, expected: String, found: String },
    #[error("cannot start curl, which fetches images: is the package curl installed?")]
    CurlMissing { source: Arc<io::Error> },
    #[error(
        "{} derives from {} and cannot stand alone; `qemu-img convert -O qcow2` makes a full image of it",
        path.display(),
        backing.display()
    )]
    Derived { path: PathBuf, backing: PathBuf },
    #[error(
        "{} stands already and is {found}, where {wanted} was to be made; it was not touched: move it away if nobody needs it",
        path.display()
    )]
    Taken { path: PathBuf, found: String, wanted: String },
    #[error(
        "{} is damaged, says `qemu-img check`: {found}; nothing was stored: copy or download it again",
        path.display()
    )]
    Damaged { path: PathBuf, found: String },
    /// Of a vm's disk, which may be mended.
    #[error("{} is damaged, says `qemu-img check`: {found}; it was not touched", path.display())]
    Unsound { path: PathBuf, found: String },
    #[error("{} has sha256 {found}, expected {expected}; nothing was stored", path.display())]
    Digest { path: PathBuf, expected: String, found: String },
    #[error("{} changed while it was copied; nothing was stored: try again when nobody writes it", path.display())]
    Changed { path: PathBuf },
    #[error(
        "no room at {}: a disk of {needed_bytes} bytes to write, {free_bytes} bytes free; no disk there was changed: make room and apply again",
        folder.display()
    )]
    Full { folder: PathBuf, needed_bytes: u64, free_bytes: u64 },
    #[error(
        "{} is a symbolic link of uid {uid}; only links made by root or by the caller are followed below the storage: replace it by what it points to",
        path.display()
    )]
    Symlink { path: PathBuf, uid: u32 },
    #[error("{} is {found}, not a plain file; it was not touched", path.display())]
    NotAFile { path: PathBuf, found: &'static str },
    #[error(
        "{} and {} are on different file systems, and a disk is set aside by renaming only: set the storage's folders to one file system",
        from.display(),
        to.display()
    )]
    OtherFileSystem { from: PathBuf, to: PathBuf },
    #[error("cannot start qemu-img: is the package qemu-utils installed?")]
    QemuImgMissing { source: Arc<io::Error> },
    #[error("`qemu-img {arguments}` failed ({status}): {stderr}")]
    QemuImg { arguments: String, status: String, stderr: String },
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: Arc<io::Error> },
}

impl DiskError {
    pub(super) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.to_owned(), source: Arc::new(source.into()) }
    }

    /// Like `io` for a write of `needed_bytes`, which can also find no room in `folder`.
    pub(super) fn write(path: &Path, needed_bytes: u64, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let no_room = [Errno::ENOSPC, Errno::EDQUOT].map(|errno| errno as i32);
        if !source.raw_os_error().is_some_and(|code| no_room.contains(&code)) {
            return Self::io("write", path, source);
        }
        let folder = path.parent().unwrap_or(path).to_owned();
        // The figure only helps the reader; where it cannot be had, 0 is close enough to the truth.
        let free_bytes = nix::sys::statvfs::statvfs(&folder).map_or(0, |s| s.blocks_available() * s.fragment_size());
        Self::Full { folder, needed_bytes, free_bytes }
    }
}
