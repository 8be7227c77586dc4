//! What is over for longer than the site remembers is cleared away, a piece at a time: folders and logs of runs, then their
//! rows, then what the history says. A kill in between leaves rows without a folder, which the next piece takes.
//!
//! Kept is whatever may still be asked for: the latest run of each vm and every one that is not over; runs whose jobs the queue
//! still names, since a job of which no record knows would hold vms up; runs of vms in a session that is not over; runs of vms
//! whose disks are set aside; the run with the highest number, from which a restored state learns the next.

use std::collections::BTreeSet;

use crate::model::id::LabName;
use crate::run::{BatchId, RunFileError, Runs};
use crate::scheduler::{Scheduler, SchedulerError};
use crate::state::{OldRun, Recorded, StateError, Store};

/// How many runs one piece takes: their folders are some thousands of files.
const RUNS_AT_ONCE: usize = 300;
/// How many lines of the journal one piece takes.
const EFFECTS_AT_ONCE: usize = 3000;

#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    #[error("cannot see which jobs are left in the queue")]
    Queue(#[source] SchedulerError),
    #[error("cannot remove what a run left")]
    Run(#[source] RunFileError),
    #[error(transparent)]
    State(#[from] StateError),
}

/// Where to clear, and what counts as long ago.
pub struct Clearing<'a> {
    pub lab: &'a LabName,
    pub recorded: &'a Recorded,
    pub scheduler: &'a dyn Scheduler,
    pub runs: &'a dyn Runs,
    /// What ended before this is not remembered.
    pub before: jiff::Timestamp,
    pub now: jiff::Timestamp,
}

/// What one piece took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleared {
    pub runs: usize,
    pub effects: usize,
    /// Lines of the audit, which is the site's.
    pub acts: usize,
}

impl Cleared {
    /// Whether there may be more.
    pub fn is_full(self) -> bool {
        self.runs == RUNS_AT_ONCE || self.effects == EFFECTS_AT_ONCE
    }
}

impl Clearing<'_> {
    /// Clears one piece away.
    pub fn piece(&self, store: &mut Store) -> Result<Cleared, ClearError> {
        let runs = self.runs(store)?;
        let effects = store.forget_history(self.lab, self.before, EFFECTS_AT_ONCE)?;
        Ok(Cleared { runs, effects, acts: 0 })
    }

    fn runs(&self, store: &mut Store) -> Result<usize, ClearError> {
        let in_sessions = self.vms_in_sessions();
        let is_kept =
            |run: &OldRun| in_sessions.contains(run.vm.as_str()) || run.run.number() + 1 >= self.recorded.next_run;
        if store.old_runs(self.lab, self.before, 1, &is_kept)?.is_empty() {
            return Ok(0);
        }
        let queued = self.queued()?;
        let is_needed = |run: &OldRun| is_kept(run) || queued.contains(&(run.batch.clone(), run.task));
        let old = store.old_runs(self.lab, self.before, RUNS_AT_ONCE, &is_needed)?;
        for run in &old {
            self.runs.forget(&run.run).map_err(ClearError::Run)?;
            if let Some(job) = run.job {
                self.runs.forget_log(job, run.task, self.before).map_err(ClearError::Run)?;
            }
        }
        for batch in store.batches_without(self.lab, &old)? {
            self.runs.forget_batch(&batch).map_err(ClearError::Run)?;
        }
        store.forget_runs(&old)?;
        Ok(old.len())
    }

    /// The tasks of this lab that the batch system has not forgotten, whoever they belong to.
    fn queued(&self) -> Result<BTreeSet<(BatchId, u32)>, ClearError> {
        let tasks = self.scheduler.list().map_err(ClearError::Queue)?.into_iter();
        let batch = |name: &str| BatchId::from_job_name(name, &self.recorded.site).map(|(_, batch)| batch);
        Ok(tasks.filter_map(|task| Some((batch(&task.name)?, task.id.task))).collect())
    }

    fn vms_in_sessions(&self) -> BTreeSet<&str> {
        let sessions = self.recorded.sessions().map(|(_, session)| session);
        let goes_on = sessions.filter(|session| !session.is_held(self.now));
        goes_on.flat_map(|session| &session.vms).map(|vm| vm.as_str()).collect()
    }
}
