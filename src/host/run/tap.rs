//! The guest's network interface. Not persistent: it is gone when the last descriptor of it is closed, so that nothing
//! has to clean up after a starter and a qemu that were killed.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const TUN: &str = "/dev/net/tun";
/// Every frame begins with a virtio header of this size; all zero, it asks for nothing.
const HEADER_BYTES: usize = 10;
/// More than a frame of any MTU.
const FRAME_BYTES_MAX: usize = 1 << 16;

/// An open tap.
#[derive(Debug)]
pub struct Tap {
    name: String,
    file: File,
}

/// What went wrong with a guest's interface.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    #[error("this host has no {TUN}: load the kernel module with `modprobe tun`")]
    NoTun,
    #[error("cannot open {TUN}; the starter needs root or CAP_NET_ADMIN")]
    Open(#[source] std::io::Error),
    #[error("cannot make the network interface `{name}`")]
    Bind { name: String, source: nix::Error },
    #[error("cannot hand the network interface `{name}` to qemu")]
    Hand { name: String, source: nix::Error },
}

/// Says early whether taps can be made here at all.
pub fn ensure_possible(tun: &Path) -> Result<(), TapError> {
    if tun.exists() { Ok(()) } else { Err(TapError::NoTun) }
}

impl Tap {
    pub fn open(name: &str) -> Result<Self, TapError> {
        let file = OpenOptions::new().read(true).write(true).open(TUN).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => TapError::NoTun,
            _ => TapError::Open(source),
        })?;
        crate::host::sys::bind_tap(file.as_fd(), name)
            .map_err(|source| TapError::Bind { name: name.to_owned(), source })?;
        Ok(Self { name: name.to_owned(), file })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a frame as if a guest did.
    pub fn send(&self, frame: &[u8]) -> std::io::Result<()> {
        (&self.file).write_all(&[&[0; HEADER_BYTES], frame].concat())
    }

    /// The next frame that a guest behind this tap would get; `None` when none comes in time.
    pub fn receive(&self, wait: Duration) -> std::io::Result<Option<Vec<u8>>> {
        let mut ready = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        if poll(&mut ready, wait)? == 0 {
            return Ok(None);
        }
        let mut frame = vec![0; HEADER_BYTES + FRAME_BYTES_MAX];
        let length = (&self.file).read(&mut frame)?;
        Ok(frame.get(HEADER_BYTES..length).map(<[u8]>::to_vec))
    }

    /// Lets the next child have the descriptor (`Shared`), or no child (`Private`). It is private except at the moment
    /// in which qemu is started.
    pub fn inherit(&self, to: Inherit) -> Result<RawFd, TapError> {
        inherit(&self.file, to).map_err(|source| TapError::Hand { name: self.name.clone(), source })
    }
}

/// Whether children get a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inherit {
    Shared,
    Private,
}

/// Sets whether children get `fd`, and returns its number.
pub fn inherit(fd: &impl AsFd, to: Inherit) -> nix::Result<RawFd> {
    let flags = match to {
        Inherit::Shared => FdFlag::empty(),
        Inherit::Private => FdFlag::FD_CLOEXEC,
    };
    fcntl(fd.as_fd(), FcntlArg::F_SETFD(flags))?;
    Ok(fd.as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_tun_is_told_how_to_get_it() {
        let error = ensure_possible(Path::new("/nonexistent/tun")).unwrap_err();
        assert_eq!(error.to_string(), "this host has no /dev/net/tun: load the kernel module with `modprobe tun`");
    }
}
