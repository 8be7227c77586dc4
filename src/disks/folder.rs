//! Folders, opened without being led astray, and files that appear in them complete or not at all.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, geteuid, linkat, syncfs, unlinkat};

use super::{DiskError, Owner};

/// Guests' disks are reached by the account that runs them and its group, by nobody else.
const FOLDER_MODE: u32 = 0o750;

/// As many as the kernel itself follows in one path.
const SYMLINKS_MAX: u32 = 40;

/// How often a folder is tried that others make too.
const CREATE_TRIES_MAX: usize = 16;

/// What to do about folders that are missing.
#[derive(Clone, Copy)]
pub(super) enum Absent {
    Create(Owner),
    Refuse,
}

/// A folder of the storage, held open.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) handle: File,
}

impl Folder {
    /// Opens the folder at `path`, one name at a time. See the module `disks` for the links that are followed.
    pub(super) fn open(path: &Path, absent: Absent) -> Result<Self, DiskError> {
        let path = std::path::absolute(path).map_err(|source| DiskError::io("open", path, source))?;
        let fail = |errno: Errno| DiskError::io("open", &path, errno);
        let mut names = names_of(&path);
        let mut here = open_root().map_err(fail)?;
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            let step = match openat(
                &here,
                name.as_os_str(),
                OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                Mode::empty(),
            ) {
                Ok(step) => step,
                Err(Errno::ENOENT) => {
                    let Absent::Create(owner) = absent else { return Err(DiskError::Missing { path }) };
                    create(&here, &name, owner).map_err(|errno| DiskError::io("make the folder", &path, errno))?;
                    names.push_front(name);
                    continue;
                }
                Err(errno) => return Err(fail(errno)),
            };
            let stat = fstat(&step).map_err(fail)?;
            match kind(&stat) {
                SFlag::S_IFDIR => here = step,
                SFlag::S_IFLNK => {
                    links += 1;
                    if links > SYMLINKS_MAX {
                        return Err(fail(Errno::ELOOP));
                    }
                    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
                        return Err(DiskError::Symlink { path, uid: stat.st_uid });
                    }
                    let target = PathBuf::from(readlinkat(&step, "").map_err(fail)?);
                    if target.is_absolute() {
                        here = open_root().map_err(fail)?;
                    }
                    names_of(&target).into_iter().rev().for_each(|name| names.push_front(name));
                }
                _ => return Err(fail(Errno::ENOTDIR)),
            }
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let handle = openat(&here, ".", flags, Mode::empty()).map_err(fail)?;
        Ok(Self { handle: handle.into(), path })
    }

    /// The plain file `name`, as `stat` shows it; `None` where there is nothing.
    pub(super) fn find(&self, name: &OsStr) -> Result<Option<FileStat>, DiskError> {
        let path = self.path.join(name);
        let stat = match fstatat(&self.handle, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(DiskError::io("look at", &path, errno)),
        };
        match kind(&stat) {
            SFlag::S_IFREG => Ok(Some(stat)),
            SFlag::S_IFLNK => Err(DiskError::Symlink { path, uid: stat.st_uid }),
            SFlag::S_IFDIR => Err(DiskError::NotAFile { path, found: "a folder" }),
            _ => Err(DiskError::NotAFile { path, found: "a device or pipe" }),
        }
    }

    /// Opens the plain file `name` to read it; `None` where there is nothing.
    pub(super) fn read(&self, name: &OsStr) -> Result<Option<File>, DiskError> {
        if self.find(name)?.is_none() {
            return Ok(None);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(&self.handle, name, flags, Mode::empty());
        file.map(|file| Some(file.into())).map_err(|errno| DiskError::io("open", &self.path.join(name), errno))
    }

    /// Gives a file that has none this name, unless something has it by now. By descriptor, not by a temporary name: what was
    /// written is what gets it, whatever others put there meanwhile.
    pub(super) fn link(&self, file: &File, name: &OsStr) -> Result<(), DiskError> {
        let content = format!("/proc/self/fd/{}", file.as_raw_fd());
        linkat(AT_FDCWD, content.as_str(), &self.handle, name, AtFlags::AT_SYMLINK_FOLLOW)
            .map_err(|errno| DiskError::write(&self.path.join(name), 0, errno))
    }

    pub(super) fn sync(&self) -> Result<(), DiskError> {
        fsync(&self.handle).map_err(|errno| DiskError::io("sync", &self.path, errno))
    }
}

/// Splits the path of a file to be into its folder and its name.
pub(super) fn split(path: &Path) -> Result<(&Path, &OsStr), DiskError> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok((folder, name)),
        _ => Err(DiskError::NotAFile { path: path.to_owned(), found: "a folder" }),
    }
}

/// A file on its way: it has a temporary name, which goes when this is dropped.
pub(super) struct Draft {
    folder: Folder,
    name: OsString,
    temporary: OsString,
    pub(super) file: File,
}

impl Draft {
    /// Begins the file `name` in `folder`, in place of what an earlier try left.
    pub(super) fn create(folder: Folder, name: &OsStr, owner: Owner, mode: u32) -> Result<Self, DiskError> {
        let temporary = temporary(name);
        let fail = |errno: Errno| DiskError::write(&folder.path.join(&temporary), 0, errno);
        match unlinkat(&folder.handle, temporary.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(fail(errno)),
        }
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file =
            openat(&folder.handle, temporary.as_os_str(), flags, Mode::from_bits_truncate(0o600)).map_err(fail)?;
        let draft = Self { folder, name: name.to_owned(), temporary, file: file.into() };
        give(&draft.file, owner)
            .and_then(|()| fchmod(&draft.file, Mode::from_bits_truncate(mode)))
            .map_err(|errno| DiskError::io("hand over", &draft.path(), errno))?;
        Ok(draft)
    }

    /// Where the file will be.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path.join(&self.name)
    }

    /// Gives the file its name, unless something has it by now. The caller has synced the content, and syncs the folder.
    pub(super) fn place(self) -> Result<Folder, DiskError> {
        self.folder.link(&self.file, &self.name)?;
        let handle =
            self.folder.handle.try_clone().map_err(|source| DiskError::io("open", &self.folder.path, source))?;
        Ok(Folder { path: self.folder.path.clone(), handle })
    }
}

impl Draft {
    /// Gives the file its name, in place of one that has another name besides.
    pub(super) fn replace(self) -> Result<Folder, DiskError> {
        renameat(&self.folder.handle, self.temporary.as_os_str(), &self.folder.handle, self.name.as_os_str())
            .map_err(|errno| DiskError::write(&self.path(), 0, errno))?;
        let handle =
            self.folder.handle.try_clone().map_err(|source| DiskError::io("open", &self.folder.path, source))?;
        Ok(Folder { path: self.folder.path.clone(), handle })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Nobody can act on a failure here: what is left over is replaced by the next try.
        let _ = unlinkat(&self.folder.handle, self.temporary.as_os_str(), UnlinkatFlags::NoRemoveDir);
    }
}

/// Writes everything that these files' file systems hold in memory: one call for hundreds of files, where an fsync each
/// takes seconds.
pub(super) fn sync_all<'a>(
    files: impl Iterator<Item = (&'a File, PathBuf)>,
    needed_bytes: u64,
) -> Result<(), DiskError> {
    let mut devices = BTreeMap::new();
    for (file, path) in files {
        let device = fstat(file).map_err(|errno| DiskError::io("look at", &path, errno))?.st_dev;
        devices.entry(device).or_insert((file, path));
    }
    for (file, path) in devices.into_values() {
        syncfs(file).map_err(|errno| DiskError::write(&path, needed_bytes, errno))?;
    }
    Ok(())
}

fn open_root() -> nix::Result<OwnedFd> {
    open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

fn names_of(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Makes one folder, unless somebody makes it at the same moment: threads do it one after the other, and of two processes one
/// takes the other's way, or finds it done.
fn create(parent: &OwnedFd, name: &OsStr, owner: Owner) -> nix::Result<()> {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let is_there = || fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok();
    let mut tried = create_once(parent, name, owner);
    for _ in 1..CREATE_TRIES_MAX {
        match tried {
            Err(Errno::EEXIST | Errno::ENOENT) if is_there() => return Ok(()),
            Err(Errno::EEXIST | Errno::ENOENT) => tried = create_once(parent, name, owner),
            _ => break,
        }
    }
    tried
}

/// It has its name only once it belongs to its owner: after a crash in between, whoever finds it there would take it as made, and
/// the guests' account could never enter.
fn create_once(parent: &OwnedFd, name: &OsStr, owner: Owner) -> nix::Result<()> {
    if fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok() {
        return Ok(());
    }
    let temporary = temporary(name);
    match unlinkat(parent, temporary.as_os_str(), UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    mkdirat(parent, temporary.as_os_str(), Mode::from_bits_truncate(FOLDER_MODE))?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let folder = openat(parent, temporary.as_os_str(), flags, Mode::empty())?;
    give(&folder, owner)?;
    // Whatever the umask of the caller is, the guests' account must be able to enter.
    fchmod(&folder, Mode::from_bits_truncate(FOLDER_MODE))?;
    match renameat(parent, temporary.as_os_str(), parent, name) {
        Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {
            unlinkat(parent, temporary.as_os_str(), UnlinkatFlags::RemoveDir)
        }
        renamed => renamed,
    }
}

/// The name of what is not whole yet.
pub(super) fn temporary(name: &OsStr) -> OsString {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    temporary
}

/// Changes the owner where it is another one: an unprivileged caller that is the owner already needs no right for it.
fn give(file: impl AsFd, owner: Owner) -> nix::Result<()> {
    let stat = fstat(&file)?;
    if (stat.st_uid, stat.st_gid) == (owner.uid, owner.gid) {
        return Ok(());
    }
    fchown(&file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_make_the_same_folders_at_once() {
        let (scratch, owner) =
            (tempfile::tempdir().unwrap(), Owner { uid: geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() });
        for round in 0..20 {
            let path = scratch.path().join(format!("{round}/of/one/lab"));
            std::thread::scope(|scope| {
                let made = [(); 8].map(|()| scope.spawn(|| Folder::open(&path, Absent::Create(owner)).map(drop)));
                made.into_iter().for_each(|made| made.join().unwrap().unwrap());
            });
            assert_eq!(
                std::fs::read_dir(scratch.path().join(format!("{round}"))).unwrap().count(),
                1,
                "only the folder"
            );
        }
    }
}
