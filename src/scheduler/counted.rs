//! A batch system whose conversations are counted: each may cost it a second on a large cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Ended, Finding, Host, Scheduler, SchedulerError, Submission, ThisHost};
use crate::model::job::{JobId, Task, TaskId};
use crate::model::site::Timing;

/// How often each was asked for, since the program began.
#[derive(Debug, Default)]
pub struct Calls {
    submit: AtomicU64,
    list: AtomicU64,
    kill: AtomicU64,
    capacity: AtomicU64,
    ended: AtomicU64,
}

impl Calls {
    /// By name.
    pub fn counts(&self) -> [(&'static str, u64); 5] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("capacity", of(&self.capacity)),
            ("ended", of(&self.ended)),
            ("kill", of(&self.kill)),
            ("list", of(&self.list)),
            ("submit", of(&self.submit)),
        ]
    }
}

pub(super) struct Counted {
    pub(super) of: Box<dyn Scheduler>,
    pub(super) calls: Arc<Calls>,
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl Scheduler for Counted {
    fn submit(&self, submission: &Submission) -> Result<JobId, SchedulerError> {
        one_more(&self.calls.submit);
        self.of.submit(submission)
    }

    fn account(&self) -> Result<String, SchedulerError> {
        self.of.account()
    }

    fn list(&self) -> Result<Vec<Task>, SchedulerError> {
        one_more(&self.calls.list);
        self.of.list()
    }

    fn kill(&self, tasks: &[TaskId]) -> Result<(), SchedulerError> {
        one_more(&self.calls.kill);
        self.of.kill(tasks)
    }

    fn capacity(&self) -> Result<Vec<Host>, SchedulerError> {
        one_more(&self.calls.capacity);
        self.of.capacity()
    }

    fn ended(&self, name_prefix: &str) -> Result<Vec<Ended>, SchedulerError> {
        one_more(&self.calls.ended);
        self.of.ended(name_prefix)
    }

    fn check(&self, timing: &Timing) -> Result<Option<Vec<Finding>>, SchedulerError> {
        self.of.check(timing)
    }

    fn check_here(&self, host: &ThisHost<'_>) -> Option<Vec<Finding>> {
        self.of.check_here(host)
    }
}
