//! Signals read as data, so that what is under way ends in order.

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::sys::ignore_signal;

/// Grid Engine announces a suspension by USR1 and a kill by USR2, to the whole process group.
const IGNORED_BY_CHILDREN: [Signal; 2] = [Signal::SIGUSR1, Signal::SIGUSR2];

/// From now on `signals`, and those by which Grid Engine announces what it does to a job, are read from what is answered.
///
/// Must be called while the process has one thread. Children start with an empty mask, so that what they must not hear is set to
/// be ignored, which they inherit; blocked as well, it still reaches this process as data.
pub fn hold_back(signals: &[Signal]) -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in signals.iter().chain(&IGNORED_BY_CHILDREN) {
        set.add(*signal);
    }
    set.thread_block()?;
    for signal in IGNORED_BY_CHILDREN {
        ignore_signal(signal)?;
    }
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// What would end this process, for work that is taken away first.
#[derive(Debug)]
pub struct Interrupt {
    signals: SignalFd,
    has_come: Cell<bool>,
}

impl Interrupt {
    /// See `hold_back`.
    pub fn hold_back() -> nix::Result<Self> {
        let signals = hold_back(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])?;
        Ok(Self { signals, has_come: Cell::new(false) })
    }

    /// Whether somebody wanted this to end, now or before.
    pub fn has_come(&self) -> bool {
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

/// How often Ctrl-C was typed since this was first asked. At the second one `leave` is called, which does not come back.
pub fn count_interrupts(leave: fn() -> !) -> Arc<AtomicU8> {
    static INTERRUPTS: LazyLock<Arc<AtomicU8>> = LazyLock::new(Arc::default);
    static WATCHED: std::sync::Once = std::sync::Once::new();
    WATCHED.call_once(|| {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        // Blocked here and thus in every thread made from now on; only the watcher takes the signal in.
        if signals.thread_block().is_ok() {
            std::thread::spawn(move || {
                while signals.wait().is_ok() {
                    if INTERRUPTS.fetch_add(1, Ordering::Relaxed) > 0 {
                        leave();
                    }
                }
            });
        }
    });
    Arc::clone(&INTERRUPTS)
}
