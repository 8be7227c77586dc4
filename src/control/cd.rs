//! CDs that people name, for the drive of a vm. A guest's host opens one by its name, as the guests' account: whoever could change
//! what is behind the name would have a file read to them that is not theirs. So root and admins name any, and others one below the
//! lab's image roots that nobody but root can change or put another in the place of.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::Context;
use super::template::TemplateError;
use super::upload::sees_all_labs;
use crate::disks::Images;
use crate::model::id::LabName;

/// A CD begins so, from its 17th sector on (ECMA-119): a disk image or a picture of a CD in another format does not.
const CD_MARK: (u64, &[u8; 5]) = (16 * 2048 + 1, b"CD001");
/// Others may write there, and none but root can rename or delete what is root's.
const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o022;

/// The CD that who asks names, for a vm of this lab.
pub fn named(context: &Context, lab: &LabName, file: &Path) -> Result<PathBuf, TemplateError> {
    if sees_all_labs(context) {
        return anywhere(file);
    }
    let outside = || TemplateError::CdOutside { file: file.to_owned() };
    let share = context.site.labs.get(lab).ok_or_else(outside)?;
    // What is not there reads like what is not theirs to name.
    let opened = Images::Below(share.image_roots.clone()).open(file).map_err(|_| outside())?;
    let path = file.canonicalize().map_err(|_| outside())?;
    if !is_of_root_alone(&path, &opened).map_err(|_| outside())? {
        return Err(TemplateError::CdOfOthers { file: file.to_owned() });
    }
    refuse_no_cd(&opened, file)?;
    Ok(path)
}

/// The same for who reads and writes here with their own rights.
pub fn anywhere(file: &Path) -> Result<PathBuf, TemplateError> {
    let unread = |source| TemplateError::CdUnread { file: file.to_owned(), source };
    let path = file.canonicalize().map_err(unread)?;
    if !path.is_file() {
        return Err(TemplateError::NoCd { file: file.to_owned() });
    }
    refuse_no_cd(&File::open(&path).map_err(unread)?, file)?;
    Ok(path)
}

fn refuse_no_cd(opened: &File, file: &Path) -> Result<(), TemplateError> {
    let mut mark = [0; CD_MARK.1.len()];
    let is_cd = opened.read_exact_at(&mut mark, CD_MARK.0).is_ok() && mark == *CD_MARK.1;
    if is_cd { Ok(()) } else { Err(TemplateError::NoCd { file: file.to_owned() }) }
}

/// Whether the file of this path, which has no links in it, is this one, and nobody but root can change that.
fn is_of_root_alone(path: &Path, opened: &File) -> std::io::Result<bool> {
    let (there, opened) = (path.symlink_metadata()?, opened.metadata()?);
    let mut is_roots = (there.dev(), there.ino()) == (opened.dev(), opened.ino());
    for at in path.ancestors() {
        let found = at.symlink_metadata()?;
        let others_write = found.mode() & OTHERS_WRITE != 0 && !(found.is_dir() && found.mode() & STICKY != 0);
        is_roots &= found.uid() == 0 && !others_write && !found.is_symlink();
    }
    Ok(is_roots)
}
