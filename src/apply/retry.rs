//! What goes wrong with an effect, and whether the same effect is worth another try. Only effects that may be repeated are
//! tried again, so never a submit whose answer is open.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use nix::errno::Errno;

use super::batch::{Message, tell_of_retry};
use super::{BatchKind, World};
use crate::dhcp::{DhcpError, OmapiError, Problem};
use crate::disks::DiskError;
use crate::error::chain;
use crate::run::RunFileError;
use crate::scheduler::SchedulerError;

/// How long we wait before each further try: a DHCP server restarts in a second or two, a file server that fails over takes
/// longer. What lasts longer than all of them is for a person, and for the next apply.
pub(super) const BACKOFF: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

/// How network file systems speak while their server is away for a moment.
const TRANSIENT_STORAGE_ERRORS: [Errno; 11] = [
    Errno::ESTALE,
    Errno::EIO,
    Errno::ETIMEDOUT,
    Errno::EAGAIN,
    Errno::EBUSY,
    Errno::EINTR,
    Errno::ENOTCONN,
    Errno::ECONNRESET,
    Errno::EHOSTDOWN,
    Errno::EHOSTUNREACH,
    Errno::ENETUNREACH,
];

/// A failed effect.
#[derive(Debug, Clone)]
pub(super) struct EffectError {
    /// What was tried, and the program's own words.
    pub(super) detail: String,
    /// Whether the same effect is worth another try.
    pub(super) is_transient: bool,
}

impl EffectError {
    /// One that another try would meet again.
    pub(super) fn permanent(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), is_transient: false }
    }

    /// A submit that went wrong. Only one that was certainly not accepted may be sent again, and only if the batch system
    /// itself says that it is a matter of time.
    pub(super) fn of_submit(error: &SchedulerError) -> Self {
        Self { detail: chain(error), is_transient: says_later(error) }
    }
}

impl From<DiskError> for EffectError {
    fn from(error: DiskError) -> Self {
        let is_transient = matches!(&error, DiskError::Io { source, .. } if is_transient_io(source));
        Self { detail: chain(&error), is_transient }
    }
}

impl From<RunFileError> for EffectError {
    fn from(error: RunFileError) -> Self {
        let is_transient = matches!(&error, RunFileError::Io { source, .. } if is_transient_io(source));
        Self { detail: chain(&error), is_transient }
    }
}

impl From<DhcpError> for EffectError {
    fn from(error: DhcpError) -> Self {
        let is_transient = match &error {
            DhcpError::Io { source, .. } => is_transient_io(source),
            // It ended between the look at its number and the signal: one that is restarted has another number.
            DhcpError::Signal { source, .. } => *source == Errno::ESRCH,
            DhcpError::Omapi(OmapiError::Server { problem, .. }) => {
                matches!(problem, Problem::Unreachable(_) | Problem::Silent(_) | Problem::Broken(_))
            }
            // Where a lease stands after ten seconds of asking, dnsmasq is not well.
            DhcpError::Omapi(OmapiError::Key(_))
            | DhcpError::NotSetUp { .. }
            | DhcpError::Lease { .. }
            | DhcpError::NoServer { .. }
            | DhcpError::Release { .. }
            | DhcpError::Interfaces(_) => false,
        };
        Self { detail: chain(&error), is_transient }
    }
}

/// To end a job may be asked twice, so an answer that was lost is no hindrance. A submit has its own function.
impl From<SchedulerError> for EffectError {
    fn from(error: SchedulerError) -> Self {
        let is_transient = match &error {
            SchedulerError::Doubtful { .. } => true,
            SchedulerError::Io { source, .. } => is_transient_io(source),
            error => says_later(error),
        };
        Self { detail: chain(&error), is_transient }
    }
}

fn is_transient_io(error: &std::io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| TRANSIENT_STORAGE_ERRORS.contains(&Errno::from_raw(code)))
}

fn says_later(error: &SchedulerError) -> bool {
    let SchedulerError::Refused { detail, .. } = error else { return false };
    let detail = detail.to_lowercase();
    ["try again later", "try later"].iter().any(|words| detail.contains(words))
}

/// Does one thing until it works, fails for good, or was tried often enough.
pub(super) fn with_retries(
    kind: BatchKind,
    world: &World<'_>,
    sender: &Sender<Message>,
    act: impl Fn() -> Result<(), EffectError>,
) -> Result<(), String> {
    for pause in BACKOFF {
        match act() {
            Err(EffectError { detail, is_transient: true }) if world.interrupts.load(Ordering::Relaxed) == 0 => {
                tell_of_retry(sender, kind, 1, pause, &detail);
                world.clock.sleep(pause);
            }
            result => return result.map_err(|error| error.detail),
        }
    }
    act().map_err(|error| error.detail)
}
