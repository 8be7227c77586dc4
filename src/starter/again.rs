//! Starts that fail for a reason of the host, such as an nft that is kept busy, are tried again in the same job: a new one
//! would wait for its turn behind everybody else's, at the bell of an exam.

use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::machine::{self, Input};
use super::{Desk, StartError, signals};
use crate::error::chain;
use crate::run::{Event, RunSpec, StopReason};

/// How often a start is tried, and how long.
const TRIES_MAX: u32 = 5;
const TRY_WAIT_MAX: Duration = Duration::from_secs(60);

/// Carries out `start` until it succeeds, fails for a reason of its own, or is not wanted any more.
pub(super) fn try_again<T>(
    desk: &Desk<'_>,
    spec: &RunSpec,
    start: impl Fn() -> Result<T, StartError>,
) -> Result<Result<T, StopReason>, StartError> {
    let begun = desk.clock.now();
    for tried in 1.. {
        let error = match start() {
            Ok(started) => return Ok(Ok(started)),
            Err(error) => error,
        };
        let pause = Duration::from_secs(1 << tried.min(4)) / 2;
        let is_late = desk.clock.now() + pause > begun + TRY_WAIT_MAX;
        if !error.may_pass() || tried >= TRIES_MAX || is_late {
            return Err(error);
        }
        let message =
            format!("its host could not take it, and is tried again ({tried} of {TRIES_MAX}): {}", chain(&error));
        tracing::warn!("{message}");
        desk.storage.record(Event::Warning { message });
        if let Some(reason) = wait(desk, spec, pause)? {
            return Ok(Err(reason));
        }
    }
    unreachable!("the last try returns");
}

/// Waits, unless the run is over before.
fn wait(desk: &Desk<'_>, spec: &RunSpec, pause: Duration) -> Result<Option<StopReason>, StartError> {
    let end = desk.clock.now() + pause;
    loop {
        while let Some(told) = desk.signals.next().map_err(StartError::Signals)? {
            if told == signals::Meaning::Stop {
                return Ok(Some(StopReason::Asked));
            }
        }
        for told in desk.inbox.take() {
            if let Input::Control { control, .. } = told
                && let Some(reason) = machine::over(spec, &control)
            {
                return Ok(Some(reason));
            }
        }
        let left = end.saturating_sub(desk.clock.now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut wakers = [desk.signals.as_fd(), desk.inbox.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // Interrupted or not: what there is to see is looked at again.
        let _ = poll(&mut wakers, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
    }
}
