//! A batch system that is asked once what there is: several labs are judged by one look at its queue.

use std::sync::OnceLock;

use super::{Ended, Host, Scheduler, SchedulerError, Submission};
use crate::model::job::{JobId, Task, TaskId};

/// What it answered first is its answer. What is recorded of the labs must have been read before that: of a job that is submitted
/// later, the answer knows nothing.
pub struct Seen<'a> {
    of: &'a dyn Scheduler,
    tasks: OnceLock<Vec<Task>>,
}

impl<'a> Seen<'a> {
    pub fn new(of: &'a dyn Scheduler) -> Self {
        Self { of, tasks: OnceLock::new() }
    }
}

impl Scheduler for Seen<'_> {
    fn submit(&self, submission: &Submission) -> Result<JobId, SchedulerError> {
        self.of.submit(submission)
    }

    fn account(&self) -> Result<String, SchedulerError> {
        self.of.account()
    }

    fn list(&self) -> Result<Vec<Task>, SchedulerError> {
        if let Some(tasks) = self.tasks.get() {
            return Ok(tasks.clone());
        }
        let tasks = self.of.list()?;
        Ok(self.tasks.get_or_init(|| tasks).clone())
    }

    fn kill(&self, tasks: &[TaskId]) -> Result<(), SchedulerError> {
        self.of.kill(tasks)
    }

    fn capacity(&self) -> Result<Vec<Host>, SchedulerError> {
        self.of.capacity()
    }

    fn ended(&self, name_prefix: &str) -> Result<Vec<Ended>, SchedulerError> {
        self.of.ended(name_prefix)
    }
}
