//! Waits until the guests that were submitted use their addresses, or, where the site keeps guests paused, until they run.
//! Their starters' reports say so; the queue says whether the starters still live to say otherwise. The reports are looked at
//! again and again, the queue seldom: now and then, and before it is said that all is well.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::model::id::RunId;
use crate::model::job::TaskState;
use crate::observe::{ObserveError, Phase, fold};
use crate::run::{Runs, StopReason};
use crate::scheduler::Scheduler;

const POLL: Duration = Duration::from_millis(250);
/// Between two looks at the queue: a starter that was killed is found soon, and a long wait costs a shared queue little.
const QUEUE_PAUSE_FIRST: Duration = Duration::from_secs(5);
const QUEUE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// A run that is waited for, and its task as the queue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    pub run: RunId,
    pub job_name: String,
    pub task: u32,
}

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
    /// Their jobs are gone, and no report says why: whatever it said last is not true any more.
    pub gone: Vec<RunId>,
    /// Their hosts do not answer, so nobody knows whether what was reported last is still true.
    pub unheard: usize,
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
        self.reached(goal) + self.ended.len() + self.gone.len() == self.wanted
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

/// What is waited for, and where to look.
pub struct Wait<'a> {
    pub folders: &'a dyn Runs,
    pub scheduler: &'a dyn Scheduler,
    pub runs: &'a [Awaited],
    pub goal: Goal,
    pub timeout: Duration,
    pub interrupts: &'a AtomicU8,
}

/// Tasks in the queue, by their jobs' names and their numbers.
type Queue = BTreeMap<(String, u32), TaskState>;

impl Wait<'_> {
    /// Polls until every run has reached its goal or is over; `tell` hears of every look.
    pub fn until_ready(&self, tell: &mut dyn FnMut(&Readiness)) -> Result<(Readiness, WaitEnd), ObserveError> {
        let began = Instant::now();
        let (mut queue, mut asked, mut pause) = (None, began, QUEUE_PAUSE_FIRST);
        loop {
            let mut readiness = self.look(queue.as_ref())?;
            let mut is_certain = false;
            if readiness.settled(self.goal) || asked.elapsed() >= pause {
                // Before the reports: what a starter wrote before its job went is then there to be read.
                queue = Some(self.queue()?);
                if asked.elapsed() >= pause {
                    pause = QUEUE_PAUSE_MAX.min(pause * 2);
                }
                asked = Instant::now();
                readiness = self.look(queue.as_ref())?;
                is_certain = readiness.settled(self.goal);
            }
            tell(&readiness);
            if is_certain {
                return Ok((readiness, WaitEnd::Settled));
            }
            if self.interrupts.load(Ordering::Relaxed) > 0 {
                return Ok((readiness, WaitEnd::Interrupted));
            }
            if began.elapsed() >= self.timeout {
                return Ok((readiness, WaitEnd::TimedOut));
            }
            std::thread::sleep(POLL);
        }
    }

    fn queue(&self) -> Result<Queue, ObserveError> {
        let account = self.scheduler.account().map_err(ObserveError::Queue)?;
        let tasks = self.scheduler.list().map_err(ObserveError::Queue)?;
        let ours = tasks.into_iter().filter(|task| task.owner == account);
        Ok(ours.map(|task| ((task.name, task.id.task), task.state)).collect())
    }

    /// As long as the queue was not asked, every run is taken for one that has its task there.
    fn look(&self, queue: Option<&Queue>) -> Result<Readiness, ObserveError> {
        let mut readiness = Readiness { wanted: self.runs.len(), ..Readiness::default() };
        for Awaited { run, job_name, task } in self.runs {
            let records = self.folders.report(run).map_err(ObserveError::Report)?;
            let task = queue.map(|queue| queue.get(&(job_name.clone(), *task)));
            match (fold(&records).map(|report| report.phase), task) {
                (Some(Phase::Stopped { reason, .. }), _) => readiness.ended.push((run.clone(), reason)),
                (_, Some(None)) => readiness.gone.push(run.clone()),
                (_, Some(Some(TaskState::Unknown))) => readiness.unheard += 1,
                (None, _) => readiness.queued += 1,
                (Some(Phase::Starting | Phase::Off), _) => readiness.starting += 1,
                (Some(Phase::Running | Phase::Paused { .. } | Phase::CutOff { .. } | Phase::Stopping), _) => {
                    readiness.running += 1
                }
                (Some(Phase::Ready), _) => readiness.ready += 1,
            }
        }
        Ok(readiness)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disks::Owner;
    use crate::run::{Event, OnStorage, REPORT, Record};
    use crate::scheduler::Submission;
    use crate::scheduler::fake::{Call, Fake};

    const NAME: &str = "lw.k3f9.net101.1";

    /// Two tasks on a host, whose starters said that their guests are ready.
    fn two_ready() -> (tempfile::TempDir, Fake, Vec<Awaited>) {
        let folder = tempfile::tempdir().unwrap();
        let queue = Fake::new(&[("h1", 4, 4096)]);
        let job = Submission {
            name: NAME.into(),
            tasks: 2,
            memory_mib: 64,
            host: None,
            command: vec!["starter".into()],
            log_folder: folder.path().to_owned(),
            context: Vec::new(),
        };
        queue.submit(&job).unwrap();
        queue.dispatch();
        let runs: Vec<Awaited> = (1..=2)
            .map(|task| Awaited { run: format!("k3f9-{task}").parse().unwrap(), job_name: NAME.into(), task })
            .collect();
        for Awaited { run, .. } in &runs {
            say(folder.path(), run, Event::Ready);
        }
        (folder, queue, runs)
    }

    fn say(root: &std::path::Path, run: &RunId, event: Event) {
        let record = Record {
            version: None,
            obeys: None,
            run: run.clone(),
            generation: 1,
            at: jiff::Timestamp::UNIX_EPOCH,
            event,
        };
        let folder = root.join(run.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(REPORT), serde_json::to_string(&record).unwrap() + "\n").unwrap();
    }

    /// What a wait with no patience ends with.
    fn waited(folder: &tempfile::TempDir, scheduler: &Fake, runs: &[Awaited]) -> (Readiness, WaitEnd) {
        let folders = OnStorage { root: folder.path().to_owned(), owner: Owner { uid: 0, gid: 0 } };
        let interrupts = AtomicU8::new(0);
        let (goal, timeout) = (Goal::Ready, Duration::ZERO);
        Wait { folders: &folders, scheduler, runs, goal, timeout, interrupts: &interrupts }
            .until_ready(&mut |_| {})
            .unwrap()
    }

    #[test]
    fn guests_are_ready_while_their_tasks_live() {
        let (folder, queue, runs) = two_ready();
        let (readiness, end) = waited(&folder, &queue, &runs);
        assert_eq!((readiness.ready, end), (2, WaitEnd::Settled));
        assert_eq!(queue.calls(Call::List), 1, "one look, to be certain");
    }

    #[test]
    fn a_guest_whose_starter_was_killed_is_not_ready() {
        let (folder, queue, runs) = two_ready();
        queue.finish(queue.tasks()[1].id);
        let (readiness, end) = waited(&folder, &queue, &runs);
        assert_eq!((readiness.ready, readiness.gone, end), (1, vec![runs[1].run.clone()], WaitEnd::Settled));
    }

    #[test]
    fn a_run_that_said_its_last_word_is_over_for_the_reason_it_gave() {
        let (folder, queue, runs) = two_ready();
        say(folder.path(), &runs[1].run, Event::Stopped { reason: StopReason::Guest, exit: None });
        queue.finish(queue.tasks()[1].id);
        let (readiness, end) = waited(&folder, &queue, &runs);
        assert_eq!((readiness.ended, end), (vec![(runs[1].run.clone(), StopReason::Guest)], WaitEnd::Settled));
        assert_eq!((readiness.ready, readiness.gone), (1, vec![]));
    }

    #[test]
    fn guests_on_a_host_that_does_not_answer_are_waited_for() {
        let (folder, queue, runs) = two_ready();
        queue.host_lost("h1");
        let (readiness, end) = waited(&folder, &queue, &runs);
        assert_eq!((readiness.ready, readiness.unheard, end), (0, 2, WaitEnd::TimedOut));
    }

    #[test]
    fn the_queue_is_not_asked_while_guests_boot() {
        let (folder, queue, runs) = two_ready();
        say(folder.path(), &runs[1].run, Event::Prepared { host: "h1".into() });
        let (readiness, end) = waited(&folder, &queue, &runs);
        assert_eq!((readiness.ready, readiness.starting, end), (1, 1, WaitEnd::TimedOut));
        assert_eq!(queue.calls(Call::List), 0);
    }
}
