//! What goes wrong with an effect, and whether the same effect is worth another try. Only effects that may be repeated are
//! tried again, so never a submit whose answer is open.

use std::time::Duration;

use nix::errno::Errno;

use crate::dhcp::{DhcpError, OmapiError, Problem};
use crate::disks::DiskError;
use crate::error::chain;
use crate::run::RunFileError;
use crate::scheduler::SchedulerError;

/// How long we wait before each further try: a DHCP server restarts in a second or two, a file server that fails over takes
/// longer. What lasts longer than all of them is for a person, and for the next apply.
pub(super) const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

/// How network file systems speak while their server is away for a moment.
const STORAGE_HICCUPS: [Errno; 11] = [
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
pub(super) struct Trouble {
    /// What was tried, and the program's own words.
    pub(super) detail: String,
    pub(super) may_pass: bool,
}

impl Trouble {
    /// Trouble that another try would meet again.
    pub(super) fn lasting(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), may_pass: false }
    }

    /// A submit that went wrong. Only one that was certainly not accepted may be sent again, and only if the batch system
    /// itself says that it is a matter of time.
    pub(super) fn of_submit(error: &SchedulerError) -> Self {
        Self { detail: chain(error), may_pass: says_later(error) }
    }
}

impl From<DiskError> for Trouble {
    fn from(error: DiskError) -> Self {
        let may_pass = matches!(&error, DiskError::Io { source, .. } if is_hiccup(source));
        Self { detail: chain(&error), may_pass }
    }
}

impl From<RunFileError> for Trouble {
    fn from(error: RunFileError) -> Self {
        let may_pass = matches!(&error, RunFileError::Io { source, .. } if is_hiccup(source));
        Self { detail: chain(&error), may_pass }
    }
}

impl From<DhcpError> for Trouble {
    fn from(error: DhcpError) -> Self {
        let may_pass = match &error {
            DhcpError::Io { source, .. } => is_hiccup(source),
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
        Self { detail: chain(&error), may_pass }
    }
}

/// To end a job may be asked twice, so an answer that was lost is no hindrance. A submit has its own function.
impl From<SchedulerError> for Trouble {
    fn from(error: SchedulerError) -> Self {
        let may_pass = match &error {
            SchedulerError::Doubtful { .. } => true,
            SchedulerError::Io { source, .. } => is_hiccup(source),
            error => says_later(error),
        };
        Self { detail: chain(&error), may_pass }
    }
}

fn is_hiccup(error: &std::io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| STORAGE_HICCUPS.contains(&Errno::from_raw(code)))
}

fn says_later(error: &SchedulerError) -> bool {
    let SchedulerError::Refused { detail, .. } = error else { return false };
    let detail = detail.to_lowercase();
    ["try again later", "try later"].iter().any(|words| detail.contains(words))
}
