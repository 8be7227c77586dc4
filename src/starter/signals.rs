//! Signals as data.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use crate::host::signals::hold_back;

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

impl Signals {
    /// Must be called while the process has one thread.
    pub(super) fn take() -> nix::Result<Self> {
        hold_back(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD]).map(Self)
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
