//! A whole small world in memory: queue, hosts, run folders, disks, DHCP server, clock. It keeps real state, as the things
//! it stands for do, and fails on demand. The product's own planner, executor and SQLite state work on it unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use labwright::apply::Clock;
use labwright::disks::{DiskError, DiskOrigin, Disks, Published, Stamp, Standing};
use labwright::host::dhcp::{Dhcp, DhcpError, Reservation};
use labwright::id::{RunId, VmName};
use labwright::run::{Batch, Control, Event, Record, RunFileError, RunSpec, Runs, StopReason, Wanted};
use labwright::scheduler::{Ended, Host, JobId, Scheduler, SchedulerError, Submission, Task, TaskId, TaskState};

/// What panics carry when the controller is killed.
pub(crate) struct Killed;

#[derive(Default)]
pub(crate) struct World {
    inner: Mutex<Inner>,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) now: Timestamp,
    next_job: u64,
    pub(crate) tasks: BTreeMap<TaskId, SimTask>,
    pub(crate) runs: BTreeMap<RunId, SimRun>,
    batches: BTreeMap<PathBuf, Batch>,
    pub(crate) disks: BTreeMap<PathBuf, SimDisk>,
    pub(crate) images: BTreeMap<PathBuf, SimImage>,
    pub(crate) reservations: BTreeMap<String, Reservation>,
    pub(crate) faults: Faults,
    /// Jobs of others in the same queue, by name.
    pub(crate) foreign: BTreeMap<TaskId, String>,
    /// Submits so far, whatever became of them.
    pub(crate) submits: u64,
    /// Calls from the controller so far.
    pub(crate) calls: u64,
    /// What the batch system wrote down of tasks that are over.
    pub(crate) books: Vec<Ended>,
    pub(crate) looks_at_books: u32,
    /// Tasks of lost hosts that somebody has killed.
    pub(crate) asked_to_go: BTreeSet<TaskId>,
}

/// What goes wrong, until it is taken back.
#[derive(Default, Debug, Clone)]
pub(crate) struct Faults {
    /// The controller dies at this many calls from now, before the call acts.
    pub(crate) kill_in: Option<u64>,
    /// The next submit is accepted and its answer lost.
    pub(crate) lose_submit_answer: bool,
    /// The next submit is refused.
    pub(crate) refuse_submit: bool,
    /// The queue does not answer.
    pub(crate) queue_down: bool,
    /// A job that was just submitted shows up in the queue only after this many lists.
    pub(crate) appear_late: u32,
    pub(crate) storage_full: bool,
    pub(crate) storage_gone: bool,
    pub(crate) dhcp_down: bool,
    pub(crate) killed: bool,
    pub(crate) hiccups: Hiccups,
}

/// How many of the next calls go wrong in a way that passes.
#[derive(Default, Debug, Clone)]
pub(crate) struct Hiccups {
    /// The DHCP server restarts.
    pub(crate) dhcp: u32,
    /// The file server fails over.
    pub(crate) storage: u32,
    /// The queue says "try again later".
    pub(crate) queue: u32,
}

/// Whether this call is one that goes wrong.
fn hiccups(left: &mut u32) -> bool {
    let hiccups = *left > 0;
    *left = left.saturating_sub(1);
    hiccups
}

pub(crate) struct SimTask {
    pub(crate) name: String,
    pub(crate) run: RunId,
    pub(crate) state: TaskState,
    pub(crate) hidden_for: u32,
}

pub(crate) struct SimRun {
    pub(crate) spec: RunSpec,
    pub(crate) control: Control,
    pub(crate) records: Vec<Record>,
    /// Guest hangs: it does not react to being asked.
    pub(crate) hung: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SimDisk {
    pub(crate) origin: DiskOrigin,
    /// Who has written on it: work that must never be lost.
    pub(crate) work_of: Option<VmName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SimImage {
    pub(crate) stamp: Stamp,
    pub(crate) sha256: String,
}

fn io_error(what: &str) -> std::io::Error {
    std::io::Error::other(what.to_owned())
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self::default();
        world.with(|inner| inner.now = "2027-01-12T08:00:00Z".parse().unwrap());
        world
    }

    /// Looks at or changes the world from outside.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Every call of the controller passes here: the place where it can die.
    fn call<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.calls += 1;
        if let Some(left) = &mut inner.faults.kill_in {
            *left = left.saturating_sub(1);
            if *left == 0 {
                inner.faults.kill_in = None;
                inner.faults.killed = true;
            }
        }
        if inner.faults.killed {
            drop(inner);
            std::panic::panic_any(Killed);
        }
        act(&mut inner)
    }
}

impl Inner {
    fn put_image(&mut self, path: &Path, content: &str) {
        let bytes = content.len() as u64;
        let mtime_ns = i64::try_from(self.now.as_nanosecond()).unwrap();
        self.images.insert(
            path.to_owned(),
            SimImage { stamp: Stamp { bytes, mtime_ns }, sha256: format!("sha-of-{content}") },
        );
    }

    /// Makes or changes an image file.
    pub(crate) fn write_image(&mut self, path: &Path, content: &str) {
        self.now += jiff::SignedDuration::from_secs(1);
        self.put_image(path, content);
    }

    fn say(&mut self, run: &RunId, event: Event) {
        let at = self.now;
        let sim = self.runs.get_mut(run).expect("a run that speaks exists");
        let generation = sim.spec.generation;
        sim.records.push(Record { run: run.clone(), generation, at, event });
    }

    /// A waiting task begins: its starter reads spec and control, and refuses what is over.
    pub(crate) fn start_task(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id).filter(|task| matches!(task.state, TaskState::Pending { .. })) else {
            return;
        };
        task.state = TaskState::Running;
        let run = task.run.clone();
        let sim = &self.runs[&run];
        let (generation, control) = (sim.spec.generation, sim.control.clone());
        if control.generation > generation || control.wanted == Wanted::Stopped {
            let reason = if control.generation > generation { StopReason::Superseded } else { StopReason::Asked };
            self.end_run(&run, reason);
            return;
        }
        let spec = self.runs[&run].spec.clone();
        for disk in &spec.disks {
            if let Some(disk) = self.disks.get_mut(&disk.path) {
                disk.work_of = Some(spec.vm.clone());
            }
        }
        self.say(&run, Event::Prepared { host: "h1".into() });
        self.say(&run, Event::Networked { tap: run.tap() });
        let network = &spec.network;
        let event = Event::Running {
            host: "h1".into(),
            pid: 1000,
            tap: run.tap(),
            vnc: "127.0.0.1:5900".into(),
            ip: network.ip,
            mac: network.mac,
            isolated: network.isolated,
            accel: "tcg".into(),
            clock_offset_ms: 0,
        };
        self.say(&run, event);
        self.say(&run, Event::Ready);
    }

    pub(crate) fn start_all(&mut self) {
        let waiting: Vec<TaskId> = self.tasks.keys().copied().collect();
        waiting.into_iter().for_each(|id| self.start_task(id));
    }

    /// The starter says its last word and its task leaves the queue.
    pub(crate) fn end_run(&mut self, run: &RunId, reason: StopReason) {
        self.say(run, Event::Stopped { reason, exit: None });
        self.tasks.retain(|_, task| task.run != *run);
    }

    /// The host stops answering; what runs on it goes on, or not.
    pub(crate) fn lose_host(&mut self) {
        for task in self.tasks.values_mut().filter(|task| task.state == TaskState::Running) {
            task.state = TaskState::Unknown;
        }
    }

    /// The host answers again, and its starters read what was wanted of them meanwhile.
    pub(crate) fn host_returns(&mut self) {
        for task in self.tasks.values_mut().filter(|task| task.state == TaskState::Unknown) {
            task.state = TaskState::Running;
        }
        self.obey();
    }

    pub(crate) fn pass(&mut self, seconds: i64) {
        self.now += jiff::SignedDuration::from_secs(seconds);
    }

    /// The starter dies without a word.
    pub(crate) fn kill_run(&mut self, run: &RunId) {
        self.tasks.retain(|_, task| task.run != *run);
    }

    /// Vms with a guest that runs, with the runs that run them.
    pub(crate) fn live(&self) -> BTreeMap<VmName, Vec<RunId>> {
        let mut live: BTreeMap<VmName, Vec<RunId>> = BTreeMap::new();
        let running =
            self.tasks.values().filter(|task| !matches!(task.state, TaskState::Pending { .. } | TaskState::Held));
        for task in running {
            live.entry(self.runs[&task.run].spec.vm.clone()).or_default().push(task.run.clone());
        }
        live
    }

    pub(crate) fn run_of(&self, vm: &str) -> RunId {
        let found = self.tasks.values().filter(|task| self.runs[&task.run].spec.vm.as_str() == vm);
        found.map(|task| task.run.clone()).next_back().unwrap_or_else(|| panic!("{vm} has no task"))
    }

    /// Guests do what control.json asks of them; a hung one does not.
    fn obey(&mut self) {
        let over: Vec<(RunId, StopReason)> = self
            .tasks
            .values()
            .filter(|task| task.state == TaskState::Running)
            .filter_map(|task| {
                let sim = &self.runs[&task.run];
                let superseded = sim.control.generation > sim.spec.generation;
                let over = superseded || sim.control.wanted == Wanted::Stopped;
                let reason = if superseded { StopReason::Superseded } else { StopReason::Asked };
                (over && !sim.hung).then(|| (task.run.clone(), reason))
            })
            .collect();
        over.into_iter().for_each(|(run, reason)| self.end_run(&run, reason));
    }
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        self.call(|inner| inner.now)
    }

    fn sleep(&self, duration: Duration) {
        self.call(|inner| {
            inner.now += jiff::SignedDuration::try_from(duration).unwrap();
            inner.obey();
        });
    }
}

impl Scheduler for World {
    fn submit(&self, submission: &Submission) -> Result<JobId, SchedulerError> {
        self.call(|inner| {
            inner.submits += 1;
            if hiccups(&mut inner.faults.hiccups.queue) {
                let detail = "too many jobs are waiting, please try again later".into();
                return Err(SchedulerError::Refused { request: "submit".into(), detail });
            }
            let doubtful = |detail: &str| SchedulerError::Doubtful { request: "submit".into(), detail: detail.into() };
            if inner.faults.queue_down || std::mem::take(&mut inner.faults.refuse_submit) {
                return Err(doubtful("the queue does not answer"));
            }
            inner.next_job += 1;
            let job = JobId(inner.next_job);
            let index = Path::new(submission.command.last().unwrap());
            let runs = inner.batches[index].runs.clone();
            assert_eq!(runs.len(), submission.tasks as usize, "one task per run");
            let hidden_for = inner.faults.appear_late;
            for (task, run) in (1..).zip(runs) {
                let state = TaskState::Pending { reason: None };
                let sim = SimTask { name: submission.name.clone(), run, state, hidden_for };
                inner.tasks.insert(TaskId { job, task }, sim);
            }
            if std::mem::take(&mut inner.faults.lose_submit_answer) {
                Err(doubtful("the answer was lost"))
            } else {
                Ok(job)
            }
        })
    }

    fn account(&self) -> Result<String, SchedulerError> {
        Ok("root".into())
    }

    fn list(&self) -> Result<Vec<Task>, SchedulerError> {
        self.call(|inner| {
            if inner.faults.queue_down {
                return Err(SchedulerError::Doubtful {
                    request: "list".into(),
                    detail: "the queue does not answer".into(),
                });
            }
            let mut listed = Vec::new();
            for (id, task) in &mut inner.tasks {
                if task.hidden_for > 0 && matches!(task.state, TaskState::Pending { .. }) {
                    task.hidden_for -= 1;
                    continue;
                }
                let on_host = matches!(task.state, TaskState::Running | TaskState::Unknown);
                let host = on_host.then(|| "h1".to_owned());
                listed.push(Task {
                    id: *id,
                    name: task.name.clone(),
                    owner: "root".into(),
                    state: task.state.clone(),
                    host,
                });
            }
            for (id, name) in &inner.foreign {
                let (name, owner) = (name.clone(), "other".to_owned());
                listed.push(Task { id: *id, name, owner, state: TaskState::Running, host: Some("h9".into()) });
            }
            Ok(listed)
        })
    }

    fn kill(&self, tasks: &[TaskId]) -> Result<(), SchedulerError> {
        self.call(|inner| {
            for id in tasks {
                inner.foreign.remove(id);
                let Some(task) = inner.tasks.get(id) else { continue };
                let run = task.run.clone();
                if task.state == TaskState::Unknown {
                    // Its host hears nothing; the queue remembers.
                    inner.asked_to_go.insert(*id);
                } else if matches!(task.state, TaskState::Pending { .. } | TaskState::Held) {
                    inner.kill_run(&run);
                } else if !inner.runs[&run].hung {
                    inner.end_run(&run, StopReason::Asked);
                }
            }
            Ok(())
        })
    }

    fn capacity(&self) -> Result<Vec<Host>, SchedulerError> {
        Ok(Vec::new())
    }

    fn ended(&self, name_prefix: &str) -> Result<Vec<Ended>, SchedulerError> {
        self.call(|inner| {
            inner.looks_at_books += 1;
            Ok(inner.books.iter().filter(|ended| ended.name.starts_with(name_prefix)).cloned().collect())
        })
    }
}

fn run_file_error(path: &str) -> RunFileError {
    RunFileError::Io { action: "reach", path: path.into(), source: io_error("stale file handle") }
}

impl Runs for World {
    fn prepare(&self, spec: &RunSpec) -> Result<(), RunFileError> {
        self.call(|inner| {
            if inner.faults.storage_gone || inner.faults.storage_full {
                return Err(run_file_error("runs"));
            }
            let control =
                Control { generation: spec.generation, wanted: Wanted::Running, deadline: None, requests: Vec::new() };
            let sim = SimRun { spec: spec.clone(), control, records: Vec::new(), hung: false };
            let before = inner.runs.insert(spec.run.clone(), sim);
            assert!(before.is_none_or(|before| before.records.is_empty()), "a run that began is never prepared again");
            Ok(())
        })
    }

    fn write_batch(&self, batch: &Batch) -> Result<PathBuf, RunFileError> {
        self.call(|inner| {
            if inner.faults.storage_gone {
                return Err(run_file_error("batches"));
            }
            let path = PathBuf::from(format!("/runs/batches/{}.json", batch.id));
            inner.batches.insert(path.clone(), batch.clone());
            Ok(path)
        })
    }

    fn control(&self, run: &RunId, control: &Control) -> Result<(), RunFileError> {
        self.call(|inner| {
            if inner.faults.storage_gone {
                return Err(run_file_error("control.json"));
            }
            if let Some(sim) = inner.runs.get_mut(run) {
                sim.control = control.clone();
            }
            inner.obey();
            Ok(())
        })
    }

    fn wanted(&self, run: &RunId) -> Result<Option<Wanted>, RunFileError> {
        self.call(|inner| {
            if inner.faults.storage_gone {
                return Err(run_file_error("control.json"));
            }
            Ok(inner.runs.get(run).map(|sim| sim.control.wanted))
        })
    }

    fn report(&self, run: &RunId) -> Result<Vec<Record>, RunFileError> {
        self.call(|inner| {
            if inner.faults.storage_gone {
                return Err(run_file_error("report.jsonl"));
            }
            Ok(inner.runs.get(run).map(|sim| sim.records.clone()).unwrap_or_default())
        })
    }
}

impl Disks for World {
    fn stamp(&self, path: &Path) -> std::io::Result<Option<Stamp>> {
        self.call(|inner| {
            if inner.faults.storage_gone {
                return Err(io_error("stale file handle"));
            }
            let image = inner.images.get(path).map(|image| image.stamp);
            Ok(image.or_else(|| inner.disks.get(path).map(|_| Stamp { bytes: 1, mtime_ns: 1 })))
        })
    }

    fn standing(&self, path: &Path) -> Result<Standing, DiskError> {
        self.call(|inner| {
            if inner.faults.storage_gone {
                return Err(disk_error(path));
            }
            Ok(match inner.disks.get(path).map(|disk| &disk.origin) {
                None => Standing::Nothing,
                Some(DiskOrigin::Derive { base }) => Standing::Disk { base: Some(base.clone()) },
                Some(_) => Standing::Disk { base: None },
            })
        })
    }

    fn sha256(&self, path: &Path) -> std::io::Result<String> {
        self.call(|inner| Ok(inner.images[path].sha256.clone()))
    }

    fn publish(&self, image: &Path, target: &Path, _expected: Option<&str>) -> Result<Published, DiskError> {
        self.call(|inner| {
            if inner.faults.storage_full || inner.faults.storage_gone {
                return Err(disk_error(target));
            }
            let SimImage { stamp, sha256 } = inner.images[image].clone();
            let origin = DiskOrigin::Copy { image: image.to_owned() };
            inner.disks.entry(target.to_owned()).or_insert(SimDisk { origin, work_of: None });
            Ok(Published { sha256, source_bytes: stamp.bytes, source_mtime_ns: stamp.mtime_ns })
        })
    }

    fn make(&self, origin: &DiskOrigin, targets: &[PathBuf]) -> Vec<Result<(), DiskError>> {
        self.call(|inner| {
            targets
                .iter()
                .map(|target| {
                    if inner.faults.storage_full || inner.faults.storage_gone {
                        return Err(disk_error(target));
                    }
                    if hiccups(&mut inner.faults.hiccups.storage) {
                        let source = std::sync::Arc::new(nix::errno::Errno::ESTALE.into());
                        return Err(DiskError::Io { action: "write", path: target.clone(), source });
                    }
                    if let DiskOrigin::Derive { base } = origin {
                        assert!(inner.disks.contains_key(base), "{} derives from what is not there", target.display());
                    }
                    let disk = SimDisk { origin: origin.clone(), work_of: None };
                    let there = inner.disks.entry(target.clone()).or_insert(disk);
                    if there.origin == *origin { Ok(()) } else { Err(disk_error(target)) }
                })
                .collect()
        })
    }

    fn set_aside(&self, disks: &[PathBuf], folder: &Path) -> Result<Vec<PathBuf>, DiskError> {
        self.call(|inner| {
            if inner.faults.storage_gone {
                return Err(disk_error(folder));
            }
            let mut moved = Vec::new();
            for path in disks {
                let target = folder.join(path.file_name().unwrap());
                if let Some(disk) = inner.disks.remove(path) {
                    let before = inner.disks.insert(target.clone(), disk);
                    assert_eq!(before, None, "{} would be overwritten", target.display());
                }
                moved.push(target);
            }
            Ok(moved)
        })
    }
}

fn disk_error(path: &Path) -> DiskError {
    DiskError::Io {
        action: "write",
        path: path.to_owned(),
        source: std::sync::Arc::new(io_error("no space left on device")),
    }
}

impl Dhcp for World {
    fn reserve(&self, reservations: &[Reservation]) -> Result<(), DhcpError> {
        self.call(|inner| {
            if inner.faults.dhcp_down {
                return Err(dhcp_error());
            }
            if hiccups(&mut inner.faults.hiccups.dhcp) {
                return Err(DhcpError::Signal { pid: 1, source: nix::errno::Errno::ESRCH });
            }
            for reservation in reservations {
                inner.reservations.insert(reservation.mark.clone(), reservation.clone());
            }
            Ok(())
        })
    }

    fn release(&self, reservations: &[Reservation]) -> Result<(), DhcpError> {
        self.call(|inner| {
            if inner.faults.dhcp_down {
                return Err(dhcp_error());
            }
            reservations.iter().for_each(|reservation| drop(inner.reservations.remove(&reservation.mark)));
            Ok(())
        })
    }

    fn present(&self, reservations: &[Reservation]) -> Result<Vec<bool>, DhcpError> {
        self.call(|inner| {
            Ok(reservations.iter().map(|wanted| inner.reservations.get(&wanted.mark) == Some(wanted)).collect())
        })
    }
}

fn dhcp_error() -> DhcpError {
    DhcpError::Io { action: "reach", path: "dnsmasq".into(), source: io_error("connection refused") }
}

/// Addresses that two reservations share.
pub(crate) fn doubled_addresses(inner: &Inner) -> Vec<String> {
    let mut seen = BTreeSet::new();
    inner.reservations.values().filter(|reservation| !seen.insert(reservation.ip)).map(|r| r.ip.to_string()).collect()
}
