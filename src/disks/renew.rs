//! A disk becomes another file with the same content. What a host that was lost may still write goes into the old one, which
//! nobody uses any more.

use std::path::{Path, PathBuf};

use super::folder::{Absent, Draft, Folder, split};
use super::make::{DISK_MODE, copy_sparse};
use super::meter::Tell;
use super::{DiskError, Owner};

/// Puts a copy in the place of each disk; answers where in `folder`, which is made where it is missing, the files of before are
/// then, in order. A disk that an earlier try renewed is done.
pub fn renew(paths: &[PathBuf], folder: &Path, owner: Owner, tell: &Tell<'_>) -> Result<Vec<PathBuf>, DiskError> {
    paths.iter().map(|path| renew_one(path, folder, owner, tell)).collect()
}

/// At any moment the disk's name means the old file or a whole copy, and the old file has lost that name only when it has the
/// other one for good.
fn renew_one(path: &Path, folder: &Path, owner: Owner, tell: &Tell<'_>) -> Result<PathBuf, DiskError> {
    let (from, name) = split(path)?;
    let (from, to) = (Folder::open(from, Absent::Refuse)?, Folder::open(folder, Absent::Create(owner))?);
    let kept = folder.join(name);
    let old = from.find(name)?.ok_or_else(|| DiskError::Missing { path: path.to_owned() })?;
    match to.find(name)? {
        Some(aside) if (aside.st_dev, aside.st_ino) != (old.st_dev, old.st_ino) => return Ok(kept),
        _ => {}
    }
    let file = from.read(name)?.ok_or_else(|| DiskError::Missing { path: path.to_owned() })?;
    let bytes = file.metadata().map_err(|source| DiskError::io("look at", path, source))?.len();
    let draft = Draft::create(from, name, owner, DISK_MODE)?;
    copy_sparse(&file, path, &draft, bytes, tell)?;
    draft.file.sync_all().map_err(|source| DiskError::write(path, bytes, source))?;
    if to.find(name)?.is_none() {
        to.link(&file, name)?;
    }
    to.sync()?;
    draft.replace()?.sync()?;
    Ok(kept)
}
