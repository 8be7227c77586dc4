//! The host-local folder of a run, its lock, and the boot slots that all runs of a host share.
//!
//! ```text
//! /run/labwright/
//!   accel.json        what `host setup` found out                        -> accel
//!   boot/<n>          locked by a run whose guest is booting
//!   <run>/            qemu's while it comes up, root's from the guest's first instruction on
//!     lock            locked by the starter as long as it lives
//!     serial.sock     the guest's serial port; root's, as the next
//!     vnc.sock        its screen, where the site says `vnc_bind: socket`; the starter's, as any port is
//!     screen.sock     what qemu listens on for viewers, while it comes up: nobody is to connect  -> screen
//!     request-7.png   a pipe, for a screen on its way to the answers
//! ```
//!
//! All guests of a host run under one account, so that no socket may be that account's while a guest executes: one that broke
//! out could use the others' consoles and screens.
//!
//! A guest that breaks out of qemu makes nothing here and removes nothing: neither files that would fill `/run`, which
//! every starter of the host needs, nor the lock. qemu makes its sockets before its guest begins, so that it needs the
//! folder no longer than that; a picture goes through a pipe, which holds no more than its reader is behind.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chown, mkfifo};

use crate::model::id::RunId;

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
    /// The service user, which qemu runs as.
    uid: Uid,
    gid: Gid,
    _lock: Flock<File>,
}

/// A picture of the largest screen takes less.
const PICTURE_BYTES_MAX: u64 = 64 << 20;
/// How often a pipe that is empty is read again.
const PICTURE_LOOK: Duration = Duration::from_millis(1);

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
        let folder = Self { path, uid, gid, _lock: lock };
        folder.close()?;
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For a qemu that comes up: it may make its sockets.
    pub fn open(&self) -> Result<(), RunFolderError> {
        self.give_to(self.uid, 0o700)
    }

    /// Before a guest's first instruction: its qemu serves the sockets that it made, and can make and remove nothing.
    pub fn close(&self) -> Result<(), RunFolderError> {
        self.give_to(Uid::effective(), 0o710)?;
        let done = |action, path: PathBuf, result: std::io::Result<()>| match result {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(RunFolderError::Io { action, path, source })
            }
            _ => Ok(()),
        };
        let (screen, serial) = (qemu_screen_socket(&self.path), serial_socket(&self.path));
        let removed = std::fs::remove_file(&screen);
        done("remove", screen, removed)?;
        let given = lchown(&serial, Some(Uid::effective().as_raw()), Some(Gid::effective().as_raw()));
        done("change the owner of", serial, given)
    }

    fn give_to(&self, owner: Uid, mode: u32) -> Result<(), RunFolderError> {
        let given = chown(&self.path, Some(owner), Some(self.gid)).map_err(std::io::Error::from);
        let given = given.and_then(|()| std::fs::set_permissions(&self.path, Permissions::from_mode(mode)));
        given.map_err(|source| RunFolderError::Io { action: "change the owner of", path: self.path.clone(), source })
    }

    /// What qemu writes to a path of the folder while `ask` asks it to, up to a bound; and what `ask` came to. Nobody waits
    /// for a writer that goes on, or stays, after `ask`.
    pub fn receive<T>(&self, name: &str, ask: impl FnOnce(&Path) -> T) -> std::io::Result<(T, Vec<u8>)> {
        let path = self.path.join(name);
        // A starter that was killed may have left one.
        drop(std::fs::remove_file(&path));
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        chown(&path, Some(self.uid), Some(self.gid))?;
        let pipe = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&path)?;
        let asked = AtomicBool::new(false);
        let received = std::thread::scope(|scope| {
            let reader = scope.spawn(|| read_until(pipe, &asked));
            let result = ask(&path);
            asked.store(true, Ordering::Release);
            let content = reader.join().expect("the reader only returns errors");
            content.map(|content| (result, content))
        });
        // It goes with the folder at the latest.
        drop(std::fs::remove_file(&path));
        received
    }
}

/// Reads a pipe whose writer may not have come yet, until it is empty after `last` was set.
fn read_until(mut pipe: File, last: &AtomicBool) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let was_last = last.load(Ordering::Acquire);
        let before = content.len() as u64;
        match pipe.by_ref().take(PICTURE_BYTES_MAX - before).read_to_end(&mut content) {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error),
            _ if was_last || content.len() as u64 == PICTURE_BYTES_MAX => return Ok(content),
            _ if content.len() as u64 == before => std::thread::sleep(PICTURE_LOOK),
            _ => {}
        }
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

/// Where the qemu of the run in `folder` listens for viewers while it comes up.
pub fn qemu_screen_socket(folder: &Path) -> PathBuf {
    folder.join("screen.sock")
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
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::Error::other("it is not a plain file any more")) }
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
    use crate::model::id::SiteTag;

    fn folder(root: &Path) -> RunFolder {
        let run = RunId::new(SiteTag::new("k3f9").unwrap(), 1);
        RunFolder::create(root, &run, Uid::current(), Gid::current()).unwrap()
    }

    /// Larger than a pipe holds, and opened as qemu opens it.
    #[test]
    fn a_picture_comes_through_the_pipe_whole() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (written, received) = folder.receive("request-7.png", |path| std::fs::write(path, &sent)).unwrap();
        written.unwrap();
        assert!(received == sent);
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [LOCK]);
    }

    /// A qemu that was broken out of may keep the pipe open, write without end, or never open it.
    #[test]
    fn nobody_waits_for_what_a_pipe_does_not_bring() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        let (held, received) =
            folder.receive("request-1.png", |path| OpenOptions::new().write(true).open(path).unwrap()).unwrap();
        assert!(received.is_empty());
        drop(held);
        let ((), received) = folder.receive("request-2.png", |_| ()).unwrap();
        assert!(received.is_empty());
        let (error, received) = folder
            .receive("request-3.png", |path| std::io::copy(&mut std::io::repeat(7), &mut File::create(path)?))
            .unwrap();
        assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        assert_eq!(received.len() as u64, PICTURE_BYTES_MAX);
    }
}
