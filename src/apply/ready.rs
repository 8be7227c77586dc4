//! Waits until the guests that were submitted use their addresses.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::id::RunId;
use crate::observe::{Phase, fold};
use crate::run::{RunFileError, Runs, StopReason};

const POLL: Duration = Duration::from_millis(250);

/// How far the runs are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    pub wanted: usize,
    pub queued: usize,
    pub starting: usize,
    /// qemu runs, the guest has not used its address yet.
    pub running: usize,
    pub ready: usize,
    pub ended: Vec<(RunId, StopReason)>,
}

impl Readiness {
    fn settled(&self) -> bool {
        self.ready + self.ended.len() == self.wanted
    }
}

/// Why the wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitEnd {
    /// Every run is ready or over.
    Settled,
    TimedOut,
    Interrupted,
}

/// Polls the reports until every run is ready or over; `tell` hears of every look.
pub fn wait_until_ready(
    folders: &dyn Runs,
    runs: &[RunId],
    timeout: Duration,
    interrupts: &AtomicU8,
    tell: &mut dyn FnMut(&Readiness),
) -> Result<(Readiness, WaitEnd), RunFileError> {
    let deadline = Instant::now() + timeout;
    loop {
        let readiness = look(folders, runs)?;
        tell(&readiness);
        if readiness.settled() {
            return Ok((readiness, WaitEnd::Settled));
        }
        if interrupts.load(Ordering::Relaxed) > 0 {
            return Ok((readiness, WaitEnd::Interrupted));
        }
        if Instant::now() >= deadline {
            return Ok((readiness, WaitEnd::TimedOut));
        }
        std::thread::sleep(POLL);
    }
}

fn look(folders: &dyn Runs, runs: &[RunId]) -> Result<Readiness, RunFileError> {
    let mut readiness = Readiness { wanted: runs.len(), ..Readiness::default() };
    for run in runs {
        let records = folders.report(run)?;
        match fold(&records).map(|report| report.phase) {
            None => readiness.queued += 1,
            Some(Phase::Starting) => readiness.starting += 1,
            Some(Phase::Running | Phase::Paused { .. } | Phase::Stopping) => readiness.running += 1,
            Some(Phase::Ready) => readiness.ready += 1,
            Some(Phase::Stopped { reason, .. }) => readiness.ended.push((run.clone(), reason)),
        }
    }
    Ok(readiness)
}
