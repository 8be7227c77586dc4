//! The host-local folder of a run, its lock, and the boot slots that all runs of a host share.
//!
//! ```text
//! /run/labwright/
//!   accel.json        what `host setup` found out                        -> accel
//!   boot/<n>          locked by a run whose guest is booting
//!   <run>/            mode 0700, owned by the service user
//!     lock            locked by the starter as long as it lives
//!     serial.sock     the guest's serial port
//!     vnc.sock        its screen, where the site says `vnc_bind: socket`
//!     request-7.png   a screen on its way to the answers
//! ```

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Uid};

use crate::id::RunId;

#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("the run {run} is being carried out on this host by another starter")]
    InUse { run: RunId },
}

/// Removed when dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: Flock<File>,
}

/// A picture of the largest screen takes less.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The lock below a run's folder; a sweep takes a run whose lock is free for dead.
pub const LOCK: &str = "lock";

impl RunFolder {
    pub fn create(root: &Path, run: &RunId, uid: Uid, gid: Gid) -> Result<Self, RunFolderError> {
        let path = root.join(run.to_string());
        let io = |action: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| RunFolderError::Io { action, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o755).create(root).map_err(io("create", root))?;
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(io("create", &path))?;
        let lock = lock(&path.join(LOCK))?.ok_or_else(|| RunFolderError::InUse { run: run.clone() })?;
        let owner = nix::unistd::chown(&path, Some(uid), Some(gid)).map_err(std::io::Error::from);
        owner.map_err(io("give to the service user", &path))?;
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in a file of the folder, up to a bound. qemu may write there, and one that was broken out of puts there what
    /// it likes.
    pub fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        use std::io::Read as _;
        let mut content = Vec::new();
        open_plain(&self.path.join(name), OpenOptions::new().read(true))?
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut content)?;
        Ok(content)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // What stays behind is on a tmpfs, small, and taken by the next sweep.
        drop(std::fs::remove_dir_all(&self.path));
    }
}

/// Where the serial port of the run in `folder` is.
pub fn serial_socket(folder: &Path) -> PathBuf {
    folder.join("serial.sock")
}

/// Where the screen of the run in `folder` is, if it is on a socket.
pub fn vnc_socket(folder: &Path) -> PathBuf {
    folder.join("vnc.sock")
}

/// A guest that is booting holds one; the kernel takes it back from a dead starter.
#[derive(Debug)]
pub struct BootSlot(#[expect(dead_code, reason = "held, never looked at")] Flock<File>);

/// Takes one of `slots` boot slots, if one is free.
pub fn take_boot_slot(root: &Path, slots: usize) -> Result<Option<BootSlot>, RunFolderError> {
    let folder = root.join("boot");
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|source| RunFolderError::Io {
        action: "create",
        path: folder.clone(),
        source,
    })?;
    for slot in 0..slots {
        if let Some(lock) = lock(&folder.join(slot.to_string()))? {
            return Ok(Some(BootSlot(lock)));
        }
    }
    Ok(None)
}

/// Opens what qemu may have put something else in place of: a link would lead root astray, a pipe would hold it up.
fn open_plain(path: &Path, options: &mut OpenOptions) -> std::io::Result<File> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = options.custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::Error::other("it is no plain file any more")) }
}

/// Locks a file, made where there is none; `None` when somebody else has it.
pub fn lock(path: &Path) -> Result<Option<Flock<File>>, RunFolderError> {
    let io = |action, source| RunFolderError::Io { action, path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    let file = open_plain(path, options.read(true).write(true).create(true).truncate(false))
        .map_err(|source| io("open", source))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(io("lock", errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SiteTag;

    /// What a qemu that was broken out of could put in place of its files.
    #[test]
    fn neither_a_link_nor_a_pipe_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let run = RunId::new(SiteTag::new("k3f9").unwrap(), 1);
        let folder = RunFolder::create(root.path(), &run, Uid::current(), Gid::current()).unwrap();
        let secret = root.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        let (name, path) = ("request-7.png", folder.path().join("request-7.png"));
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        folder.read(name).unwrap_err();

        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        folder.read(name).unwrap_err();

        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "picture").unwrap();
        assert_eq!(folder.read(name).unwrap(), b"picture");
    }
}
