//! A submit whose answer may be lost.

use std::time::Duration;

use super::{Scheduler, SchedulerError, Submission};
use crate::model::job::{JobId, Task};

/// When the queue is asked for a job whose submit went wrong: a busy one shows it late.
const LOOK_UP_PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

/// A submit that went wrong may have been accepted all the same, so its mark is looked for. Unless the batch system said no,
/// it is never sent again: two jobs for one run would be two guests on one disk. Where the error is an open one, a job may
/// still turn up.
pub fn submit_or_adopt(
    scheduler: &dyn Scheduler,
    submission: &Submission,
    sleep: &dyn Fn(Duration),
) -> Result<JobId, SchedulerError> {
    let error = match scheduler.submit(submission) {
        Ok(job) => return Ok(job),
        // The batch system said no, and why: there is nothing to look for.
        Err(error) if !error.is_open() => return Err(error),
        Err(error) => error,
    };
    for pause in LOOK_UP_PAUSES {
        sleep(pause);
        let ours = |task: &Task, account: &str| task.name == submission.name && task.owner == account;
        let found =
            scheduler.account().and_then(|account| Ok(scheduler.list()?.into_iter().find(|task| ours(task, &account))));
        if let Ok(Some(task)) = found {
            return Ok(task.id.job);
        }
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fake::{Call, Fake, Fault};

    fn submitted(fault: Fault) -> (Fake, Result<JobId, SchedulerError>) {
        let queue = Fake::new(&[("h1", 4, 4096)]);
        queue.disturb(Call::Submit, fault);
        let job = Submission {
            name: "lw.k3f9.net101.1".into(),
            tasks: 2,
            memory_mib: 64,
            host: None,
            command: vec!["starter".into()],
            log_folder: "/".into(),
            context: Vec::new(),
        };
        let submitted = submit_or_adopt(&queue, &job, &|_| {});
        (queue, submitted)
    }

    #[test]
    fn a_job_whose_answer_was_lost_is_found() {
        let (queue, job) = submitted(Fault::AnswerLost);
        assert_eq!(job.unwrap(), queue.tasks()[0].id.job);
        assert_eq!(queue.calls(Call::Submit), 1);
    }

    #[test]
    fn a_job_that_is_not_there_is_not_sent_again() {
        let (queue, job) = submitted(Fault::RequestLost);
        assert!(job.unwrap_err().is_open());
        assert_eq!((queue.calls(Call::Submit), queue.calls(Call::List)), (1, LOOK_UP_PAUSES.len()));
    }

    #[test]
    fn after_a_no_nothing_is_looked_for() {
        let (queue, job) = submitted(Fault::Refused);
        assert!(!job.unwrap_err().is_open());
        assert_eq!((queue.calls(Call::Submit), queue.calls(Call::List)), (1, 0));
    }
}
