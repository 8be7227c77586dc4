//! Signals as data.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that the starter reads.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

/// What a signal means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The scheduler or a person wants the run to end.
    Stop,
    /// A child has changed.
    Child,
}

/// Grid Engine announces a suspension by USR1 and a kill by USR2, to the whole process group.
const IGNORED_BY_CHILDREN: [Signal; 2] = [Signal::SIGUSR1, Signal::SIGUSR2];

impl Signals {
    /// Must be called while the process has one thread. Children start with an empty mask, so that what they must not
    /// hear is set to be ignored, which they inherit; blocked as well, it still reaches this process as data.
    pub(super) fn take() -> nix::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
            set.add(signal);
        }
        for signal in IGNORED_BY_CHILDREN {
            set.add(signal);
        }
        set.thread_block()?;
        for signal in IGNORED_BY_CHILDREN {
            crate::host::sys::ignore_signal(signal)?;
        }
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// The next signal that means something, if one has come.
    pub(super) fn next(&self) -> nix::Result<Option<Meaning>> {
        while let Some(info) = self.0.read_signal()? {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            match Signal::try_from(number) {
                Ok(Signal::SIGCHLD) => return Ok(Some(Meaning::Child)),
                Ok(Signal::SIGUSR1) | Err(_) => {}
                Ok(_) => return Ok(Some(Meaning::Stop)),
            }
        }
        Ok(None)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
