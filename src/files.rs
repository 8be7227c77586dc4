//! Small files, read and written in the one way that is safe: root works in folders that belong to an account it does not
//! trust, and everybody reads what others replace at any moment. In: a folder and a name. Out: a file's whole content, never
//! more than a bound; or a file that is there whole or not at all.
//!
//! - A link, pipe or device under the name is refused, not followed. A folder is opened once, and what is done in it
//!   afterwards cannot be led elsewhere.
//! - What is written gets a new file of a name that is not known before, with owner and mode set by hand, whatever the
//!   caller's umask; it is flushed, then takes the place of the old one, and the folder is flushed too.

mod file_system;
pub(crate) mod ranges;

pub(crate) use file_system::foreign_file_system;

use std::collections::hash_map::RandomState;
use std::fs::{File, Metadata};
use std::hash::BuildHasher as _;
use std::io::{Error, ErrorKind, Read as _, Result as IoResult, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, OpenHow, ResolveFlag, open, openat, openat2, renameat};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, linkat, unlinkat};

/// Longer than any file of ours but images and pictures.
pub const BYTES_MAX: u64 = 64 << 20;
/// How long a lock is waited for: it is held for one small write.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_LOOK: Duration = Duration::from_millis(5);
/// How many names for a draft are tried; the first is taken by nobody, unless somebody tries all.
const DRAFTS_MAX: u32 = 8;

/// What went wrong with a small file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct FileError {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: Error,
}

/// When what was written is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// When the call returns, with its name.
    Now,
    /// Some time: whoever writes many files flushes the file system once, or nobody needs them after a power cut.
    Later,
}

/// A folder, held open.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    handle: File,
}

/// Reads a file; `None` where there is none.
pub fn read_bounded(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, FileError> {
    let Some((folder, name)) = split(path)? else { return Ok(None) };
    folder.read(&name, bytes_max)
}

/// Writes a file whole or not at all: a reader sees the old text or the new one, also after a crash. Written by root, it
/// belongs to whom its folder belongs.
pub fn write_atomically(path: &Path, text: &[u8], mode: u32, flush: Flush) -> Result<(), FileError> {
    let found = split(path)?;
    let missing = || FileError { action: "write", path: path.to_owned(), source: ErrorKind::NotFound.into() };
    let (folder, name) = found.ok_or_else(missing)?;
    folder.write(&name, text, mode, flush)
}

/// Whether there is anything in a folder, or may be: one that cannot be looked into may hold anything.
pub fn may_hold_anything(folder: &Path) -> bool {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => !is_absence(&error),
    }
}

/// Whether something is there, or may be: it cannot be seen.
pub fn may_be_there(path: &Path) -> bool {
    std::fs::metadata(path).map_or_else(|error| !is_absence(&error), |_| true)
}

fn is_absence(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The folder of a file, wherever links lead to it: a person or a setting has named it.
fn split(path: &Path) -> Result<Option<(Folder, String)>, FileError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(Folder::open_linked(parent)?.map(|folder| (folder, name)))
}

impl Folder {
    /// Opens a folder, which is not reached by a link as the last step; `None` where there is none.
    pub fn open(path: &Path) -> Result<Option<Self>, FileError> {
        Self::open_with(path, OFlag::O_NOFOLLOW)
    }

    /// The same wherever links lead: a person or a setting has named it.
    pub fn open_linked(path: &Path) -> Result<Option<Self>, FileError> {
        Self::open_with(path, OFlag::empty())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open_with(path: &Path, flags: OFlag) -> Result<Option<Self>, FileError> {
        let flags = flags | OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        match open(path, flags, Mode::empty()) {
            Ok(handle) => Ok(Some(Self { path: path.to_owned(), handle: handle.into() })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(FileError { action: "open", path: path.to_owned(), source: errno.into() }),
        }
    }

    /// The folder of this name in this one.
    pub fn sub(&self, name: &str) -> Result<Option<Self>, FileError> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        match openat(&self.handle, plain(name).map_err(self.error("open", name))?, flags, Mode::empty()) {
            Ok(handle) => Ok(Some(Self { path: self.path.join(name), handle: handle.into() })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.error("open", name)(errno.into())),
        }
    }

    /// A file's content; `None` where there is no such file.
    pub fn read(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, FileError> {
        self.read_whole(name, self.open_plain(name, OFlag::O_RDONLY), bytes_max)
    }

    /// The same of a file in the folder `sub` of this one, `None` where there is no such folder either. Kernels from 5.6 on need
    /// one call for what opens a folder first elsewhere: who reads thousands has them in half the time.
    pub fn read_in(&self, sub: &str, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, FileError> {
        let below = format!("{sub}/{name}");
        let opened = plain(sub).and_then(|_| plain(name)).map(|_| {
            let how = OpenHow::new().flags(OFlag::O_RDONLY | PLAIN_FLAGS).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
            openat2(&self.handle, below.as_str(), how)
        });
        match opened.map_err(self.error("read", &below))? {
            Err(Errno::ENOSYS | Errno::EPERM) => self.sub(sub)?.map_or(Ok(None), |folder| folder.read(name, bytes_max)),
            opened => self.read_whole(&below, plain_file(opened), bytes_max),
        }
    }

    fn read_whole(
        &self,
        name: &str,
        opened: IoResult<(File, Metadata)>,
        bytes_max: u64,
    ) -> Result<Option<Vec<u8>>, FileError> {
        let (file, found) = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(self.error("read", name))?,
        };
        // As long as it was when it was opened: that takes one call, where to look for its end takes another.
        let bytes = found.len().min(bytes_max + 1);
        let mut text = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
        file.take(bytes).read_to_end(&mut text).map_err(self.error("read", name))?;
        if text.len() as u64 > bytes_max {
            let source = Error::other(format!("it has more than {bytes_max} bytes, which nothing of ours has"));
            return Err(self.error("read", name)(source));
        }
        Ok(Some(text))
    }

    /// What a file has from this byte on, at most so many bytes of it; `None` where there is no such file, and where it is shorter.
    pub fn read_from(&self, name: &str, from: u64, bytes_max: u64) -> Result<Option<Vec<u8>>, FileError> {
        let (mut file, found) = match self.open_plain(name, OFlag::O_RDONLY) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(self.error("read", name))?,
        };
        if found.len() <= from {
            return Ok(None);
        }
        let mut text = Vec::new();
        let read = file.seek(SeekFrom::Start(from)).and_then(|_| file.take(bytes_max).read_to_end(&mut text));
        read.map_err(self.error("read", name))?;
        Ok(Some(text))
    }

    /// Puts a file in place of what has the name.
    pub fn write(&self, name: &str, text: &[u8], mode: u32, flush: Flush) -> Result<(), FileError> {
        let replace = |draft: &str| renameat(&self.handle, draft, &self.handle, name);
        self.write_by(name, text, mode, flush, replace).map_err(self.error("write", name))
    }

    /// The same, but only where there is no such file yet; `false` where there is one. `link(2)` never replaces a file.
    pub fn write_first(&self, name: &str, text: &[u8], mode: u32, flush: Flush) -> Result<bool, FileError> {
        let link = |draft: &str| {
            linkat(&self.handle, draft, &self.handle, name, AtFlags::empty())?;
            unlinkat(&self.handle, draft, UnlinkatFlags::NoRemoveDir)
        };
        match self.write_by(name, text, mode, flush, link) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(self.error("create", name)(error)),
        }
    }

    fn write_by(
        &self,
        name: &str,
        text: &[u8],
        mode: u32,
        flush: Flush,
        place: impl FnOnce(&str) -> nix::Result<()>,
    ) -> IoResult<()> {
        let (mut file, draft) = self.draft(plain(name)?)?;
        let written = file
            .write_all(text)
            .and_then(|()| self.own(&file, mode))
            .and_then(|()| if flush == Flush::Now { file.sync_all() } else { Ok(()) })
            .and_then(|()| Ok(place(&draft)?));
        if written.is_err() {
            // The failed write is what the user must hear of; a draft that stays is harmless.
            let _ = unlinkat(&self.handle, draft.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        written.and_then(|()| if flush == Flush::Now { self.handle.sync_all() } else { Ok(()) })
    }

    /// A new file under a name that nobody could know before.
    fn draft(&self, name: &str) -> IoResult<(File, String)> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        for number in 0..DRAFTS_MAX {
            let draft = format!(".{name}.{:016x}", RandomState::new().hash_one(number));
            match openat(&self.handle, draft.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
                Ok(file) => return Ok((file.into(), draft)),
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(Error::other("somebody takes every name for a draft"))
    }

    /// Locks a file, made where there is none, until the lock is dropped. One that was there keeps its owner: it may be
    /// another name of something else.
    pub fn lock(&self, name: &str, mode: u32) -> Result<Flock<File>, FileError> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let mut file = match openat(&self.handle, name, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(handle) => {
                let file = File::from(handle);
                self.own(&file, mode).map_err(self.error("give to the folder's owner", name))?;
                file
            }
            Err(Errno::EEXIST) => self.open_plain(name, OFlag::O_RDWR).map_err(self.error("open", name))?.0,
            Err(errno) => return Err(self.error("open", name)(errno.into())),
        };
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => return Ok(locked),
                Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < deadline => file,
                Err((_, errno)) => return Err(self.error("lock", name)(errno.into())),
            };
            std::thread::sleep(LOCK_LOOK);
        }
    }

    fn open_plain(&self, name: &str, flags: OFlag) -> IoResult<(File, Metadata)> {
        plain_file(openat(&self.handle, plain(name)?, flags | PLAIN_FLAGS, Mode::empty()))
    }

    /// The other side of what is written here may be an unprivileged account, whose folder this is.
    fn own(&self, file: &File, mode: u32) -> IoResult<()> {
        if geteuid().is_root() {
            let folder = self.handle.metadata()?;
            fchown(file, Some(Uid::from_raw(folder.uid())), Some(Gid::from_raw(folder.gid())))?;
        }
        Ok(fchmod(file, Mode::from_bits_truncate(mode))?)
    }

    fn error(&self, action: &'static str, name: &str) -> impl FnOnce(Error) -> FileError {
        move |source| FileError { action, path: self.path.join(name), source }
    }
}

/// No link is followed, no pipe waited for.
const PLAIN_FLAGS: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

fn plain_file(opened: nix::Result<OwnedFd>) -> IoResult<(File, Metadata)> {
    let file = match opened {
        Err(Errno::ELOOP) => return Err(Error::other("it is a link, which nothing of ours is there")),
        opened => File::from(opened?),
    };
    let found = file.metadata()?;
    if found.is_file() { Ok((file, found)) } else { Err(Error::other("it is not a plain file")) }
}

/// A name that leads nowhere else.
fn plain(name: &str) -> IoResult<&str> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(Error::other(format!("`{name}` is not the name of a file")));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    /// A folder of another account, and beside it a file that this account must not touch.
    fn of_another() -> (tempfile::TempDir, Folder, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (path, precious) = (root.path().join("theirs"), root.path().join("precious"));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(&precious, "root's").unwrap();
        std::fs::set_permissions(&precious, std::fs::Permissions::from_mode(0o600)).unwrap();
        if geteuid().is_root() {
            chown(&path, Some(65534), Some(65534)).unwrap();
        }
        (root, Folder::open(&path).unwrap().unwrap(), precious)
    }

    fn names(folder: &Folder) -> Vec<String> {
        let entries = std::fs::read_dir(&folder.path).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_link_in_the_way_leads_nobody_astray() {
        let (root, folder, precious) = of_another();
        let before = std::fs::metadata(&precious).unwrap();
        for name in ["control.json", "control.lock"] {
            symlink(&precious, folder.path.join(name)).unwrap();
        }
        let error = folder.read("control.json", BYTES_MAX).unwrap_err();
        assert_eq!(error.source.to_string(), "it is a link, which nothing of ours is there");
        assert!(folder.lock("control.lock", 0o660).is_err());
        folder.write("control.json", b"{}", 0o640, Flush::Now).unwrap();
        assert_eq!(folder.read("control.json", BYTES_MAX).unwrap().unwrap(), b"{}");
        let after = std::fs::metadata(&precious).unwrap();
        assert_eq!(std::fs::read(&precious).unwrap(), b"root's");
        assert_eq!((after.uid(), after.mode(), after.nlink()), (before.uid(), before.mode(), before.nlink()));

        symlink(root.path(), folder.path.join("answers")).unwrap();
        assert!(folder.sub("answers").is_err());
        let link = root.path().join("link");
        symlink(&folder.path, &link).unwrap();
        assert!(Folder::open(&link).is_err());
    }

    #[test]
    fn a_file_is_read_through_the_folder_above_its_own_as_in_its_own() {
        let (_root, folder, precious) = of_another();
        std::fs::create_dir(folder.path.join("run")).unwrap();
        std::fs::write(folder.path.join("run/report"), "all of it").unwrap();
        symlink(&precious, folder.path.join("run/link")).unwrap();
        symlink("run", folder.path.join("other")).unwrap();
        let read = |sub: &str, name: &str| folder.read_in(sub, name, 9);
        assert_eq!(read("run", "report").unwrap().unwrap(), b"all of it");
        assert!(folder.read_in("run", "report", 8).is_err());
        assert_eq!((read("run", "none").unwrap(), read("none", "report").unwrap()), (None, None));
        for (sub, name) in [("run", "link"), ("other", "report")] {
            let error = read(sub, name).unwrap_err();
            assert_eq!(error.source.to_string(), "it is a link, which nothing of ours is there");
            assert_eq!(error.path, folder.path.join(sub).join(name));
        }
        for (sub, name) in [("..", "precious"), ("run", "../run/report"), ("", "run"), ("run/.", "report")] {
            assert!(read(sub, name).is_err(), "{sub:?} {name:?}");
        }
    }

    /// The lock of a file that was there does not give it away.
    #[test]
    fn another_name_of_a_file_keeps_its_owner() {
        let (_root, folder, precious) = of_another();
        let before = std::fs::metadata(&precious).unwrap();
        std::fs::hard_link(&precious, folder.path.join("control.lock")).unwrap();
        folder.lock("control.lock", 0o660).unwrap();
        let after = std::fs::metadata(&precious).unwrap();
        assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
    }

    #[test]
    fn a_pipe_holds_nobody_up_and_a_name_leads_nowhere() {
        let (_root, folder, _) = of_another();
        nix::unistd::mkfifo(&folder.path.join("pipe"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        assert_eq!(folder.read("pipe", 10).unwrap_err().source.to_string(), "it is not a plain file");
        for name in ["../precious", "a/b", "..", ""] {
            assert!(folder.read(name, 10).is_err() && folder.write(name, b"", 0o600, Flush::Later).is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_written_has_its_owner_and_mode_whatever_the_umask() {
        let (_root, folder, _) = of_another();
        folder.write("spec.json", b"1", 0o666, Flush::Later).unwrap();
        assert!(!folder.write_first("spec.json", b"2", 0o640, Flush::Now).unwrap());
        assert!(folder.write_first("control.json", b"3", 0o640, Flush::Now).unwrap());
        drop(folder.lock("control.lock", 0o660).unwrap());
        let owner = if geteuid().is_root() { 65534 } else { geteuid().as_raw() };
        for (name, mode) in [("spec.json", 0o666), ("control.json", 0o640), ("control.lock", 0o660)] {
            let metadata = std::fs::metadata(folder.path.join(name)).unwrap();
            assert_eq!((metadata.uid(), metadata.mode() & 0o777, metadata.nlink()), (owner, mode, 1), "{name}");
        }
        assert_eq!(folder.read("spec.json", 1).unwrap().unwrap(), b"1");
        let mut left = names(&folder);
        left.sort();
        assert_eq!(left, ["control.json", "control.lock", "spec.json"], "no draft stays");
    }

    #[test]
    fn what_cannot_be_seen_may_be_there() {
        let (root, folder, precious) = of_another();
        let at = |name: &str| root.path().join(name);
        symlink(at("circle"), at("circle")).unwrap();
        let told = |path: &Path| (may_be_there(path), may_hold_anything(path));
        assert_eq!(told(&at("circle")), (true, true));
        assert_eq!((told(&at("none")), told(&precious.join("below"))), ((false, false), (false, false)));
        assert_eq!(told(&folder.path), (true, false));
        folder.write("spec.json", b"1", 0o640, Flush::Later).unwrap();
        assert_eq!(told(&folder.path), (true, true));
    }

    #[test]
    fn nothing_is_read_beyond_its_bound() {
        let (_root, folder, _) = of_another();
        folder.write("report.jsonl", &[b'x'; 11], 0o640, Flush::Later).unwrap();
        assert!(folder.read("report.jsonl", 10).is_err());
        assert_eq!(folder.read("report.jsonl", 11).unwrap().unwrap().len(), 11);
        assert_eq!(folder.read("none", 11).unwrap(), None);
    }
}
