//! A batch system in memory, for tests and the simulation. It keeps a real queue: what was submitted is listed, what was
//! killed is gone. Only the test moves time: it starts and ends tasks, loses hosts, and says which call goes wrong next
//! and how. No clock, no randomness, no thread of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Ended, Host, HostUsage, Scheduler, SchedulerError, Submission};
use crate::model::job::{JobId, Task, TaskId, TaskState};

/// The calls of the trait, to count and to disturb them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Submit,
    List,
    Kill,
    Capacity,
}

/// What goes wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The batch system says no; nothing happened.
    Refused,
    /// Nothing happened, and no answer came.
    RequestLost,
    /// It happened, and no answer came.
    AnswerLost,
    /// It happened and was answered, but `list` shows the queue as it was before until `catch_up`.
    Late,
}

/// The batch system.
#[derive(Debug, Default)]
pub struct Fake {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    hosts: Vec<FakeHost>,
    last_job: u64,
    entries: BTreeMap<TaskId, Entry>,
    submissions: BTreeMap<JobId, Submission>,
    faults: VecDeque<(Call, Fault)>,
    calls: BTreeMap<Call, usize>,
    /// What `list` answers while the queue is late.
    shown: Option<Vec<Task>>,
}

#[derive(Debug)]
struct FakeHost {
    name: String,
    slots: u32,
    memory_mib: u64,
    answers: bool,
}

#[derive(Debug)]
struct Entry {
    name: String,
    memory_mib: u64,
    progress: Progress,
    killed: bool,
}

/// ```text
/// waiting ──start──▶ on a host ──finish──▶ (gone)
///    │ fail_start                 `unknown` while the host is lost, `deleting` once killed
///    ▼
///  broken ──kill──▶ (gone)
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    Waiting,
    Broken { reason: String },
    On { host: usize },
}

impl Fake {
    /// The account that the fake's jobs belong to.
    pub const OWNER: &'static str = "labwright";

    /// A batch system with these hosts: name, slots, memory in MiB.
    pub fn new(hosts: &[(&str, u32, u64)]) -> Self {
        let host = |(name, slots, memory_mib): &(&str, u32, u64)| FakeHost {
            name: (*name).to_owned(),
            slots: *slots,
            memory_mib: *memory_mib,
            answers: true,
        };
        Self { queue: Mutex::new(Queue { hosts: hosts.iter().map(host).collect(), ..Queue::default() }) }
    }

    /// The next `call` that has no fault yet goes wrong like this.
    pub fn disturb(&self, call: Call, fault: Fault) {
        self.queue().faults.push_back((call, fault));
    }

    /// How often `call` was made, disturbed or not.
    pub fn calls(&self, call: Call) -> usize {
        self.queue().calls.get(&call).copied().unwrap_or(0)
    }

    /// What is really in the queue, late or not; no call of the trait.
    pub fn tasks(&self) -> Vec<Task> {
        self.queue().tasks()
    }

    /// What a job was submitted with.
    pub fn submission(&self, job: JobId) -> Option<Submission> {
        self.queue().submissions.get(&job).cloned()
    }

    /// Lets `list` show the queue as it is again.
    pub fn catch_up(&self) {
        self.queue().shown = None;
    }

    /// Starts what waits, lowest job and task first, each on the first host with room; answers what it started. As in
    /// the real ones, nothing overtakes a task that finds no room.
    pub fn dispatch(&self) -> Vec<TaskId> {
        let mut queue = self.queue();
        let waiting: Vec<TaskId> = queue.ids(|entry| entry.progress == Progress::Waiting);
        let mut started = Vec::new();
        for id in waiting {
            let Some(host) = queue.room_for(queue.entries[&id].memory_mib) else { break };
            queue.entry(id).progress = Progress::On { host };
            started.push(id);
        }
        started
    }

    /// A started task's program ended, for whatever reason.
    pub fn finish(&self, id: TaskId) {
        let mut queue = self.queue();
        assert!(matches!(queue.entry(id).progress, Progress::On { .. }), "task {id} was not started");
        queue.entries.remove(&id);
    }

    /// A waiting task cannot be started and needs a person, like Grid Engine's `Eqw`.
    pub fn fail_start(&self, id: TaskId, reason: &str) {
        let mut queue = self.queue();
        assert_eq!(queue.entry(id).progress, Progress::Waiting, "task {id} does not wait");
        queue.entry(id).progress = Progress::Broken { reason: reason.to_owned() };
    }

    /// The host stops answering; nobody knows what its tasks do.
    pub fn host_lost(&self, name: &str) {
        self.queue().host(name).answers = false;
    }

    /// The host answers again; its tasks went on meanwhile.
    pub fn host_back(&self, name: &str) {
        self.queue().host(name).answers = true;
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A test that panicked while driving the queue has failed already.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and carries it out, or not, as its fault says.
    fn call<T>(
        &self,
        call: Call,
        request: &str,
        act: impl FnOnce(&mut Queue) -> Result<T, SchedulerError>,
    ) -> Result<T, SchedulerError> {
        let mut queue = self.queue();
        *queue.calls.entry(call).or_default() += 1;
        let next = queue.faults.iter().position(|(of, _)| *of == call);
        let fault = next.and_then(|at| queue.faults.remove(at)).map(|(_, fault)| fault);
        let request = request.to_owned();
        let doubtful = |request| SchedulerError::Doubtful { request, detail: "no answer in time".to_owned() };
        match fault {
            None => act(&mut queue),
            Some(Fault::Refused) => Err(SchedulerError::Refused { request, detail: "denied: try later".to_owned() }),
            Some(Fault::RequestLost) => Err(doubtful(request)),
            Some(Fault::AnswerLost) => act(&mut queue).and_then(|_| Err(doubtful(request))),
            Some(Fault::Late) => {
                let before = queue.shown.take().unwrap_or_else(|| queue.tasks());
                queue.shown = Some(before);
                act(&mut queue)
            }
        }
    }
}

impl Queue {
    fn entry(&mut self, id: TaskId) -> &mut Entry {
        self.entries.get_mut(&id).unwrap_or_else(|| panic!("there is no task {id}"))
    }

    fn host(&mut self, name: &str) -> &mut FakeHost {
        self.hosts.iter_mut().find(|host| host.name == name).unwrap_or_else(|| panic!("there is no host {name}"))
    }

    fn ids(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<TaskId> {
        self.entries.iter().filter(|(_, entry)| wanted(entry)).map(|(id, _)| *id).collect()
    }

    /// Slots and memory in use on a host.
    fn used(&self, host: usize) -> (u32, u64) {
        let on_host = self.entries.values().filter(|entry| entry.progress == Progress::On { host });
        on_host.fold((0, 0), |(slots, mib), entry| (slots + 1, mib + entry.memory_mib))
    }

    fn room_for(&self, memory_mib: u64) -> Option<usize> {
        (0..self.hosts.len()).find(|at| {
            let (host, (slots, used_mib)) = (&self.hosts[*at], self.used(*at));
            host.answers && slots < host.slots && used_mib + memory_mib <= host.memory_mib
        })
    }

    fn tasks(&self) -> Vec<Task> {
        self.entries.iter().map(|(id, entry)| self.task(*id, entry)).collect()
    }

    fn task(&self, id: TaskId, entry: &Entry) -> Task {
        let (state, host) = match &entry.progress {
            Progress::Waiting => (TaskState::Pending { reason: None }, None),
            Progress::Broken { reason } => (TaskState::Error { reason: Some(reason.clone()), again: None }, None),
            Progress::On { host } => {
                let host = &self.hosts[*host];
                let state = match (host.answers, entry.killed) {
                    (false, _) => TaskState::Unknown,
                    (true, true) => TaskState::Deleting,
                    (true, false) => TaskState::Running,
                };
                (state, Some(host.name.clone()))
            }
        };
        Task { id, name: entry.name.clone(), owner: Fake::OWNER.to_owned(), state, host }
    }

    fn submit(&mut self, submission: &Submission) -> Result<JobId, SchedulerError> {
        let site_mib = self.hosts.iter().map(|host| host.memory_mib).max().unwrap_or(0);
        if submission.memory_mib > site_mib {
            return Err(SchedulerError::NeverFits { wanted_mib: submission.memory_mib, site_mib });
        }
        self.last_job += 1;
        let job = JobId(self.last_job);
        for task in 1..=submission.tasks {
            let entry = Entry {
                name: submission.name.clone(),
                memory_mib: submission.memory_mib,
                progress: Progress::Waiting,
                killed: false,
            };
            self.entries.insert(TaskId { job, task }, entry);
        }
        self.submissions.insert(job, submission.clone());
        Ok(job)
    }

    fn kill(&mut self, tasks: &[TaskId]) {
        for id in tasks {
            match self.entries.get_mut(id) {
                Some(entry) if matches!(entry.progress, Progress::On { .. }) => entry.killed = true,
                // One that waits is gone, one that is no more is no error.
                Some(_) | None => drop(self.entries.remove(id)),
            }
        }
    }

    fn capacity(&self) -> Vec<Host> {
        let usage = |at: usize, host: &FakeHost| {
            let (slots_used, memory_used_mib) = self.used(at);
            HostUsage { slots: host.slots, slots_used, memory_mib: host.memory_mib, memory_used_mib }
        };
        let host = |(at, host): (usize, &FakeHost)| Host {
            name: host.name.clone(),
            usage: host.answers.then(|| usage(at, host)),
            closed: None,
        };
        self.hosts.iter().enumerate().map(host).collect()
    }
}

impl Scheduler for Fake {
    fn submit(&self, submission: &Submission) -> Result<JobId, SchedulerError> {
        self.call(Call::Submit, &format!("submit {}", submission.name), |queue| queue.submit(submission))
    }

    fn account(&self) -> Result<String, SchedulerError> {
        Ok(Self::OWNER.to_owned())
    }

    fn list(&self) -> Result<Vec<Task>, SchedulerError> {
        self.call(Call::List, "list", |queue| Ok(queue.shown.clone().unwrap_or_else(|| queue.tasks())))
    }

    fn kill(&self, tasks: &[TaskId]) -> Result<(), SchedulerError> {
        self.call(Call::Kill, "kill", |queue| {
            queue.kill(tasks);
            Ok(())
        })
    }

    fn capacity(&self) -> Result<Vec<Host>, SchedulerError> {
        self.call(Call::Capacity, "capacity", |queue| Ok(queue.capacity()))
    }

    fn ended(&self, _: &str) -> Result<Vec<Ended>, SchedulerError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission(tasks: u32, memory_mib: u64) -> Submission {
        let name = "lw.k3f9.lab.1".to_owned();
        Submission {
            name,
            tasks,
            memory_mib,
            host: None,
            command: vec!["true".into()],
            log_folder: "/tmp".into(),
            context: Vec::new(),
        }
    }

    fn states(tasks: &[Task]) -> Vec<TaskState> {
        tasks.iter().map(|task| task.state.clone()).collect()
    }

    const PENDING: TaskState = TaskState::Pending { reason: None };

    #[test]
    fn tasks_start_where_there_is_room_and_nothing_overtakes() {
        let fake = Fake::new(&[("a", 1, 1000), ("b", 4, 300)]);
        let (large, small) = (fake.submit(&submission(2, 800)).unwrap(), fake.submit(&submission(1, 100)).unwrap());
        assert_eq!(fake.dispatch(), [TaskId { job: large, task: 1 }]);
        fake.finish(TaskId { job: large, task: 1 });
        assert_eq!(fake.dispatch(), [TaskId { job: large, task: 2 }, TaskId { job: small, task: 1 }]);
        let hosts: Vec<_> = fake.list().unwrap().into_iter().map(|task| task.host.unwrap()).collect();
        assert_eq!(hosts, ["a", "b"]);
        let used: Vec<_> =
            fake.capacity().unwrap().into_iter().map(|host| host.usage.unwrap().memory_used_mib).collect();
        assert_eq!(used, [800, 100]);
        assert!(matches!(fake.submit(&submission(1, 1001)), Err(SchedulerError::NeverFits { site_mib: 1000, .. })));
    }

    #[test]
    fn a_killed_task_stays_until_its_program_ends() {
        let fake = Fake::new(&[("a", 1, 1000)]);
        let job = fake.submit(&submission(3, 100)).unwrap();
        fake.dispatch();
        fake.fail_start(TaskId { job, task: 3 }, "no such folder");
        fake.kill(&[1, 2, 3, 4].map(|task| TaskId { job, task })).unwrap();
        assert_eq!(states(&fake.list().unwrap()), [TaskState::Deleting]);
        fake.finish(TaskId { job, task: 1 });
        assert_eq!(fake.list().unwrap(), []);
    }

    #[test]
    fn tasks_of_a_lost_host_are_unknown() {
        let fake = Fake::new(&[("a", 2, 1000)]);
        fake.submit(&submission(3, 100)).unwrap();
        fake.dispatch();
        fake.host_lost("a");
        assert_eq!(states(&fake.list().unwrap()), [TaskState::Unknown, TaskState::Unknown, PENDING]);
        assert_eq!(fake.capacity().unwrap()[0].usage, None);
        assert_eq!(fake.dispatch(), []);
        fake.host_back("a");
        assert_eq!(states(&fake.list().unwrap()), [TaskState::Running, TaskState::Running, PENDING]);
    }

    #[test]
    fn each_fault_does_what_it_says() {
        let fake = Fake::new(&[("a", 9, 1000)]);
        for fault in [Fault::Refused, Fault::RequestLost, Fault::AnswerLost, Fault::Late] {
            fake.disturb(Call::Submit, fault);
        }
        fake.disturb(Call::List, Fault::RequestLost);
        let submit = || fake.submit(&submission(1, 100));
        assert!(matches!(submit(), Err(SchedulerError::Refused { .. })));
        assert!(matches!(submit(), Err(SchedulerError::Doubtful { .. })));
        assert_eq!(fake.tasks(), []);
        assert!(matches!(submit(), Err(SchedulerError::Doubtful { .. })));
        assert_eq!(fake.tasks().len(), 1);
        assert_eq!(submit().unwrap(), JobId(2));
        assert!(fake.list().is_err());
        assert_eq!((fake.list().unwrap().len(), fake.tasks().len()), (1, 2));
        fake.catch_up();
        assert_eq!(fake.list().unwrap().len(), 2);
        assert_eq!((fake.calls(Call::Submit), fake.calls(Call::List), fake.calls(Call::Kill)), (4, 3, 0));
    }
}
