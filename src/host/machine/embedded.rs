//! Where the embedded site keeps what the service account must get to: disks, runs, and the DHCP server's files. That is the
//! lab's `.labwright`, unless somebody's home is closed to that account, as root's is on most systems; then it is a folder
//! of the lab's own below `/var/lib/labwright`, and a link in `.labwright` says so.
//!
//! ```text
//! LAB/.labwright/state.db, scheduler/          root's alone
//! LAB/.labwright/{runs,vms,templates,aside,dnsmasq}/
//! LAB/.labwright/storage -> /var/lib/labwright/LAB-5f2c81aa/    instead, where LAB cannot be entered
//! ```
//!
//! What was chosen once stays: a folder whose mode changes does not lose its disks.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::account::is_open_to_all;
use crate::model::site::EMBEDDED_FOLDER;

/// The link's name in the embedded folder.
const LINK: &str = "storage";
const ELSEWHERE: &str = "/var/lib/labwright";
/// What of the embedded folder the service account must get to, by name.
const SHARED: [&str; 5] = ["runs", "vms", "templates", "aside", "dnsmasq"];

#[derive(Debug, thiserror::Error)]
#[error("cannot make {path}, where the disks of a lab are kept whose folder the guests' account cannot enter")]
pub struct PlaceError {
    path: PathBuf,
    source: std::io::Error,
}

/// The folder that these are below. Nothing is made.
pub fn place(lab_folder: &Path) -> PathBuf {
    let own = lab_folder.join(EMBEDDED_FOLDER);
    if let Some(chosen) = chosen(&own) {
        return chosen;
    }
    let is_used = SHARED.iter().any(|name| own.join(name).exists());
    if is_used || is_open_to_all(lab_folder) { own } else { elsewhere(lab_folder) }
}

/// What the link says, if it leads where we put such folders: who may write in a lab's folder must not lead root elsewhere.
fn chosen(own: &Path) -> Option<PathBuf> {
    std::fs::read_link(own.join(LINK)).ok().filter(|place| place.parent() == Some(Path::new(ELSEWHERE)))
}

/// Holds on to the choice before anything is put there. Says where that is, the first time that it is not the lab's folder.
pub fn settle(lab_folder: &Path) -> Result<Option<PathBuf>, PlaceError> {
    let (own, place) = (lab_folder.join(EMBEDDED_FOLDER), place(lab_folder));
    let link = own.join(LINK);
    if place == own {
        return Ok(None);
    }
    for folder in [&own, &place] {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(|source| PlaceError { path: folder.clone(), source })?;
    }
    match std::os::unix::fs::symlink(&place, &link) {
        Ok(()) => Ok(Some(place)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(source) => Err(PlaceError { path: link, source }),
    }
}

/// Two labs of one name are two folders.
fn elsewhere(lab_folder: &Path) -> PathBuf {
    let digest = Sha256::digest(lab_folder.as_os_str().as_bytes());
    let number = digest.iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    let name = lab_folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Path::new(ELSEWHERE).join(format!("{name}-{number:08x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_closed_folder_keeps_its_disks_elsewhere_and_for_good() {
        let home = tempfile::tempdir_in("/tmp").unwrap();
        let mode = |mode| std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let (lab, other) = (home.path().join("lab"), home.path().join("x/lab"));
        let own = lab.join(EMBEDDED_FOLDER);
        mode(0o755);
        assert_eq!(place(&lab), own);
        mode(0o700);
        let closed = place(&lab);
        assert!(closed.starts_with(ELSEWHERE) && closed != place(&other), "{}", closed.display());
        // The choice is the link's from here on.
        std::fs::create_dir_all(&own).unwrap();
        std::os::unix::fs::symlink(&closed, own.join(LINK)).unwrap();
        mode(0o755);
        assert_eq!(place(&lab), closed);
        std::fs::remove_file(own.join(LINK)).unwrap();
        std::fs::create_dir(own.join("vms")).unwrap();
        mode(0o700);
        assert_eq!(place(&lab), own, "disks that are there already stay where they are");
    }
}
