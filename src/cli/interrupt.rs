//! What would end this process, read as data: a trial is taken away first.

use std::cell::Cell;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::exit::Exit;
use crate::report::Failure;

pub(super) struct Interrupt {
    signals: SignalFd,
    has_come: Cell<bool>,
}

/// Grid Engine announces a suspension by USR1 and a kill by USR2, to every process of a job. The children that a trial
/// needs until it is taken away must not die of it; what is ignored and blocked still reaches this process as data.
const IGNORED_BY_CHILDREN: [Signal; 2] = [Signal::SIGUSR1, Signal::SIGUSR2];

impl Interrupt {
    /// Must be called while there is one thread; children begin without the mask.
    pub(super) fn hold_back() -> Result<Self, Failure> {
        let hold_back = || {
            let mut set = SigSet::empty();
            for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().chain(IGNORED_BY_CHILDREN) {
                set.add(signal);
            }
            set.thread_block()?;
            for signal in IGNORED_BY_CHILDREN {
                crate::host::sys::ignore_signal(signal)?;
            }
            SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        };
        let signals = hold_back().map_err(|source: nix::Error| {
            Failure::from_error(Exit::Failed, &source).within("cannot hold signals back for a trial")
        })?;
        Ok(Self { signals, has_come: Cell::new(false) })
    }

    /// Whether somebody wanted this to end, now or before.
    pub(super) fn has_come(&self) -> bool {
        let suspension = Signal::SIGUSR1 as u32;
        // Signals that cannot be read are ones that cannot be heeded later either.
        while let Some(signal) = self.signals.read_signal().transpose() {
            if !signal.is_ok_and(|signal| signal.ssi_signo == suspension) {
                self.has_come.set(true);
            }
            if self.has_come.get() {
                break;
            }
        }
        self.has_come.get()
    }
}
