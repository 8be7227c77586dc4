//! Who may read the state: it names everybody. Root writes it, members of the service account's group look, nobody else does.
//! SQLite gives the files that it makes beside it the same mode and owners.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::{LOG, StateError, Store, with_suffix};

const OWNERS_ALONE: u32 = 0o600;
const GROUP_LOOKS: u32 = 0o640;

impl Store {
    /// Keeps strangers out, and lets the group in that `group` tells, where nobody has decided that yet.
    pub fn keep_from_strangers(&self, group: impl FnOnce() -> Option<u32>) -> Result<(), StateError> {
        let io = |source| StateError::Io { action: "look at", path: self.path.clone(), source };
        if self.read_only || !geteuid().is_root() {
            return Ok(());
        }
        let found = std::fs::metadata(&self.path).map_err(io)?;
        let is_open = found.mode() & 0o007 != 0;
        let is_undecided = found.mode() & 0o070 == 0 && found.gid() == 0;
        if !is_open && !is_undecided {
            return Ok(());
        }
        match group() {
            Some(gid) => [Some(self.path.clone()), self.beside(LOG), self.beside("-shm")]
                .into_iter()
                .flatten()
                .try_for_each(|file| set(&file, Some(gid), GROUP_LOOKS)),
            None if is_open => owners_alone(&self.path),
            None => Ok(()),
        }
    }

    fn beside(&self, suffix: &str) -> Option<PathBuf> {
        Some(with_suffix(&self.path, suffix)).filter(|file| file.exists())
    }
}

/// Nobody but whose it is reads a copy.
pub(super) fn owners_alone(path: &Path) -> Result<(), StateError> {
    set(path, None, OWNERS_ALONE)
}

fn set(path: &Path, gid: Option<u32>, mode: u32) -> Result<(), StateError> {
    let io = |source| StateError::Io { action: "keep strangers from", path: path.to_owned(), source };
    gid.map_or(Ok(()), |gid| chown(path, None, Some(gid))).map_err(io)?;
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(io)
}
