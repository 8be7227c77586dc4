//! Disks that are no longer wanted are moved and can come back. They are deleted only from where they were set aside.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::folder::{Absent, Folder, split, temporary};
use super::{DiskError, Owner};

/// Moves disks into `folder`, which is made where it is missing; answers where each is then, in order. A disk that an
/// earlier try moved is done.
pub fn set_aside(paths: &[PathBuf], folder: &Path, owner: Owner) -> Result<Vec<PathBuf>, DiskError> {
    let mut taken = BTreeSet::new();
    let mut moves = Vec::with_capacity(paths.len());
    for path in paths {
        let to = folder.join(split(path)?.1);
        if !taken.insert(to.clone()) {
            let (found, wanted) = ("another disk to be set aside".to_owned(), path.display().to_string());
            return Err(DiskError::Taken { path: to, found, wanted });
        }
        moves.push((path.clone(), to));
    }
    restore(&moves, owner)?;
    Ok(moves.into_iter().map(|(_, to)| to).collect())
}

/// Removes what a killed try left of a disk that is not there, and that nobody will make any more.
pub fn give_up(path: &Path) -> Result<(), DiskError> {
    let (folder, name) = split(path)?;
    unlink(folder, &temporary(name))
}

/// Moves each first path to the second, on one file system. A move that an earlier try made is done.
pub fn restore(moves: &[(PathBuf, PathBuf)], owner: Owner) -> Result<(), DiskError> {
    moves.iter().try_for_each(|(from, to)| rename(from, to, owner))
}

/// Deletes a disk for good; one that is not there is deleted. The folders on the way belong to the guests' account, so they
/// are opened step by step: a link in the place of one leads nowhere.
pub fn delete(path: &Path) -> Result<(), DiskError> {
    let (folder, name) = split(path)?;
    unlink(folder, name)
}

fn unlink(path: &Path, name: &OsStr) -> Result<(), DiskError> {
    let folder = match Folder::open(path, Absent::Refuse) {
        Err(DiskError::Missing { .. }) => return Ok(()),
        opened => opened?,
    };
    if folder.find(name)?.is_none() {
        return Ok(());
    }
    match unlinkat(&folder.handle, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => folder.sync(),
        Err(errno) => Err(DiskError::io("delete", &path.join(name), errno)),
    }
}

/// Link and unlink, because this never replaces a file, on network file systems too. If a crash falls between the two,
/// both names mean one file, and the old one goes at the next try.
fn rename(from: &Path, to: &Path, owner: Owner) -> Result<(), DiskError> {
    let (to_folder, to_name) = split(to)?;
    let to_folder = Folder::open(to_folder, Absent::Create(owner))?;
    let moved = to_folder.find(to_name)?;
    let (from_folder, from_name) = split(from)?;
    let from_folder = match Folder::open(from_folder, Absent::Refuse) {
        Err(DiskError::Missing { .. }) if moved.is_some() => return Ok(()),
        opened => opened?,
    };
    match (from_folder.find(from_name)?, moved) {
        (None, Some(_)) => return Ok(()),
        (None, None) => return Err(DiskError::Missing { path: from.to_owned() }),
        (Some(old), Some(new)) if (old.st_dev, old.st_ino) != (new.st_dev, new.st_ino) => {
            let (found, wanted) = ("another file".to_owned(), from.display().to_string());
            return Err(DiskError::Taken { path: to.to_owned(), found, wanted });
        }
        (Some(_), Some(_)) => {}
        (Some(_), None) => {
            linkat(&from_folder.handle, from_name, &to_folder.handle, to_name, AtFlags::empty()).map_err(|errno| {
                match errno {
                    Errno::EXDEV => DiskError::OtherFileSystem { from: from.to_owned(), to: to.to_owned() },
                    errno => DiskError::write(to, 0, errno),
                }
            })?;
        }
    }
    // The new name must last before the old one goes.
    to_folder.sync()?;
    unlinkat(&from_folder.handle, from_name, UnlinkatFlags::NoRemoveDir)
        .map_err(|errno| DiskError::io("move", from, errno))?;
    from_folder.sync()
}
