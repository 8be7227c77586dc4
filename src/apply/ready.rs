//! Waits until the guests that were submitted use their addresses, or, where the site keeps guests paused, until they run.

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

/// When a guest is what its starter was asked to make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// It has used its address.
    Ready,
    /// qemu holds it before its first instruction, as the site wants it.
    Held,
}

impl Goal {
    /// What guests are that have reached it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Held => "held",
        }
    }
}

impl Readiness {
    /// How many are where they are to be.
    pub fn reached(&self, goal: Goal) -> usize {
        match goal {
            Goal::Ready => self.ready,
            Goal::Held => self.ready + self.running,
        }
    }

    fn settled(&self, goal: Goal) -> bool {
        self.reached(goal) + self.ended.len() == self.wanted
    }
}

/// Why the wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitEnd {
    /// Every run has reached its goal or is over.
    Settled,
    TimedOut,
    Interrupted,
}

/// Polls the reports until every run has reached its goal or is over; `tell` hears of every look.
pub fn wait_until_ready(
    folders: &dyn Runs,
    runs: &[RunId],
    goal: Goal,
    timeout: Duration,
    interrupts: &AtomicU8,
    tell: &mut dyn FnMut(&Readiness),
) -> Result<(Readiness, WaitEnd), RunFileError> {
    let deadline = Instant::now() + timeout;
    loop {
        let readiness = look(folders, runs)?;
        tell(&readiness);
        if readiness.settled(goal) {
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
