//! What the service account can get to. It owns the guests' disks and runs qemu, and sees of the machine what any account
//! without groups sees: a folder in somebody's home is often closed to it, and no guest can start from there.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};

/// Prints each operand that cannot be entered, or read where it is no folder.
const LOOK: &str = r#"for path; do
  if [ -d "$path" ]; then [ -x "$path" ]; else [ -r "$path" ]; fi || printf '%s\0' "$path"
done"#;

/// Which of these, or of the folders above them, the account may not enter or read: for each the uppermost, so that what
/// is named is what is to be mended. What is not there yet is left out.
///
/// It is asked as the account, since modes alone are not all: access lists and file servers have their say too.
pub fn closed_to(account: &User, paths: &[&Path]) -> std::io::Result<Vec<PathBuf>> {
    let all: BTreeSet<&Path> = paths.iter().flat_map(|path| path.ancestors()).filter(|path| path.exists()).collect();
    if !Uid::effective().is_root() || all.is_empty() {
        return Ok(Vec::new());
    }
    let output = Command::new("/bin/sh")
        .args(["-c", LOOK, "sh"])
        .args(&all)
        .uid(account.uid.as_raw())
        .gid(account.gid.as_raw())
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    let named = |path: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(path));
    let closed: Vec<PathBuf> =
        output.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(named).collect();
    let uppermost = |path: &PathBuf| !closed.iter().any(|other| other != path && path.starts_with(other));
    Ok(closed.iter().filter(|path| uppermost(path)).cloned().collect())
}

/// Whether an account that nobody knows yet could pass through all of these folders: by their modes, which is as much as
/// can be seen without it.
pub fn is_open_to_all(folder: &Path) -> bool {
    const OTHERS_ENTER: u32 = 0o001;
    let enters = |folder: &Path| folder.metadata().is_ok_and(|found| found.permissions().mode() & OTHERS_ENTER != 0);
    folder.ancestors().filter(|folder| folder.exists()).all(enters)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit tests run as root (see `tests/run`).
    #[test]
    fn the_uppermost_closed_folder_is_named() {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let deep = folder.path().join("a b/c");
        std::fs::create_dir_all(&deep).unwrap();
        let file = deep.join("image");
        std::fs::write(&file, "").unwrap();
        let nobody = User::from_name("nobody").unwrap().unwrap();
        let closed = || closed_to(&nobody, &[&file, &deep.join("not there")]).unwrap();
        mode(folder.path(), 0o711);
        assert_eq!((closed(), is_open_to_all(&deep)), (vec![], true));
        mode(&file, 0o600);
        assert_eq!(closed(), std::slice::from_ref(&file));
        mode(&folder.path().join("a b"), 0o700);
        assert_eq!((closed(), is_open_to_all(&deep)), (vec![folder.path().join("a b")], false));
    }
}
