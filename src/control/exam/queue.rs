//! What becomes of a job that tries its host: how long it is waited for, and what is said when it does not answer.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::host::machine::check::{Line, failed};
use crate::model::job::{Task, TaskId, TaskState};
use crate::trial::{JOB, printed};

/// How long a job may wait for its host. A scheduler that looks every 15 s needs two looks at a busy cluster.
pub(super) const START_WAIT: Duration = Duration::from_secs(90);
/// How long the answer of a job that is over may take: network file systems show a new file late.
const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// A job that was submitted.
pub(super) struct Queued {
    pub(super) job: TaskId,
    pub(super) since: Instant,
    /// The job is gone from the queue since then.
    pub(super) gone: Option<Instant>,
    pub(super) memory_mib: u64,
    /// How long it may take once it has begun.
    pub(super) seconds_max: Duration,
}

/// A look at the queue.
pub(super) enum Queue {
    Seen(Vec<Task>),
    /// It gave no answer just now.
    Hidden,
    /// Nor for a long time.
    Silent(String),
}

impl Queue {
    pub(super) fn task(&self, id: TaskId) -> Option<&Task> {
        match self {
            Self::Seen(tasks) => tasks.iter().find(|task| task.id == id),
            Self::Hidden | Self::Silent(_) => None,
        }
    }

    /// Why a job that has not answered is not waited for any longer.
    pub(super) fn judge(
        &self,
        queued: &mut Queued,
        folder: &Path,
        now: Instant,
        no_room: &dyn Fn() -> Option<String>,
    ) -> Option<Line> {
        let Queued { job, since, gone, seconds_max, .. } = queued;
        let waited = now.duration_since(*since);
        let again = "then run the check again";
        match self {
            Self::Silent(error) => {
                return Some(failed(
                    JOB,
                    format!("the batch system does not answer: {error}"),
                    "see that the qmaster is up",
                ));
            }
            Self::Seen(_) => match self.task(*job).map(|task| &task.state) {
                None => {
                    if now.duration_since(*gone.get_or_insert(now)) > ANSWER_WAIT {
                        let found = format!("job {job} ended without an answer: {}", printed(folder));
                        let mend = "the program must be the same on every host, at the same path, and the shared storage \
                                    mounted there; `qacct -j` shows how the job ended";
                        return Some(failed(JOB, found, mend));
                    }
                }
                Some(TaskState::Unknown) => {
                    let found = format!("the host of job {job} does not answer the batch system any more");
                    return Some(failed(JOB, found, format!("see the host and its execution daemon, {again}")));
                }
                Some(TaskState::Error { reason, .. }) => {
                    let why = reason.as_deref().unwrap_or("the batch system does not say why");
                    return Some(failed(JOB, format!("job {job} cannot begin: {why}"), format!("mend that, {again}")));
                }
                Some(state @ (TaskState::Pending { .. } | TaskState::Held)) if waited > START_WAIT => {
                    let why = no_room().or_else(|| state.reason());
                    let why = why.unwrap_or_else(|| "the batch system does not say why".to_owned());
                    let found = format!("job {job} is {} after {} s: {why}", state.word(), waited.as_secs());
                    return Some(failed(JOB, found, format!("make room on the host, or open its queue, {again}")));
                }
                Some(_) => {}
            },
            Self::Hidden => {}
        }
        (waited > START_WAIT + *seconds_max).then(|| {
            let found =
                format!("job {job} has not answered after {} s; it printed: {}", waited.as_secs(), printed(folder));
            failed(JOB, found, format!("see whether the host hangs, {again}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::job::JobId;

    const ID: TaskId = TaskId { job: JobId(12), task: 1 };

    /// What is said of a job that was submitted so long ago, and is gone for so long.
    fn said(state: Option<TaskState>, ago: Duration, gone: Option<Duration>) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("12.1.log"), "no such\nprogram\n").unwrap();
        let now = Instant::now();
        let before = |ago| now.checked_sub(ago).unwrap();
        let seconds_max = Duration::from_secs(330);
        let mut queued = Queued { job: ID, since: before(ago), gone: gone.map(before), memory_mib: 192, seconds_max };
        let task = |state| Task { id: ID, name: "lw-trial".into(), owner: "root".into(), state, host: None };
        let line =
            Queue::Seen(state.map(task).into_iter().collect()).judge(&mut queued, folder.path(), now, &|| None)?;
        Some(format!("{}\n  {}", line.found, line.mend.unwrap()))
    }

    #[test]
    fn no_job_is_waited_for_without_end() {
        let (soon, late) = (Duration::from_secs(20), Duration::from_secs(100));
        let never = Duration::from_secs(430);
        let pending = || TaskState::Pending { reason: Some("it offers only hc:vm_mem=100.000M".into()) };
        let again = Some("qmod -cj 12.1".to_owned());
        let error = TaskState::Error { reason: Some("can't open output file".into()), again };
        for (state, gone) in [(pending(), None), (TaskState::Running, Some(soon)), (TaskState::Transferring, None)] {
            assert_eq!(said(Some(state), soon, gone), None);
        }
        assert_eq!(said(Some(TaskState::Running), late, None), None, "it has begun");
        assert_eq!(said(None, soon, None), None, "the answer may be on its way");
        let all = [
            said(Some(pending()), late, None),
            said(Some(TaskState::Held), late, None),
            said(Some(error), soon, None),
            said(Some(TaskState::Unknown), soon, None),
            said(Some(TaskState::Running), never, None),
            said(None, soon, Some(soon)),
        ];
        insta::assert_snapshot!(all.map(Option::unwrap).join("\n"));
    }
}
