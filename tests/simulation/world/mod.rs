//! A whole small world in memory: queue, hosts, starters, run folders, disks, DHCP server, clocks. It keeps real state, as
//! the things it stands for do, and fails on demand. The product's own planner, executor, report reader and SQLite state
//! work on it unchanged.
//!
//! ```text
//! mod.rs    what there is, what goes wrong, and the place where the controller dies
//! hosts.rs  hosts, and the starters and guests on them: heartbeats, self-fence, obedience
//! calls.rs  the product's traits: what the controller asks of this world
//! ```
//!
//! A promise that breaks between two looks, such as a disk that two guests have open, is noted in `Inner::broken` at once.

mod calls;
mod hosts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use labwright::disks::Stamp;
use labwright::model::disk::DiskOrigin;
use labwright::model::id::{RunId, VmName};
use labwright::model::job::{TaskId, TaskState};
use labwright::model::reservation::Reservation;
use labwright::run::{Batch, Control, Record, RunSpec};
use labwright::scheduler::Ended;

pub(crate) use hosts::{Guest, SimHost, SimRun};

/// What panics carry when the controller is killed.
pub(crate) struct Killed;

#[derive(Default)]
pub(crate) struct World {
    inner: Mutex<Inner>,
    /// Woken when a controller stalls, and when it may go on.
    stall: Condvar,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) now: Timestamp,
    /// The controller's clock minus the world's time.
    pub(crate) controller_ahead: SignedDuration,
    next_job: u64,
    next_disk: u64,
    pub(crate) hosts: BTreeMap<&'static str, SimHost>,
    pub(crate) tasks: BTreeMap<TaskId, SimTask>,
    /// Tasks on hosts that nobody hears of, which the scheduler kills when it hears of them again.
    pub(crate) asked_to_go: BTreeSet<TaskId>,
    pub(crate) runs: BTreeMap<RunId, SimRun>,
    /// Runs that the state lost sight of: that they live is told by the queue alone, so they stay in it for as long.
    pub(crate) unrecorded: BTreeSet<RunId>,
    /// Runs that were fenced off, also those whose folder nobody has made.
    fences: BTreeMap<RunId, Control>,
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
    /// The first promise that broke, in words.
    pub(crate) broken: Option<String>,
    stalled: bool,
}

/// What goes wrong, until it is taken back.
#[derive(Default, Debug, Clone)]
pub(crate) struct Faults {
    /// The controller dies at this many calls from now, before the call acts.
    pub(crate) kill_in: Option<u64>,
    /// The controller stands still at this many calls from now, until it is let go on.
    pub(crate) stall_in: Option<u64>,
    pub(crate) killed: bool,
    /// The next submit is accepted and its answer lost.
    pub(crate) lose_submit_answer: bool,
    /// The next submit is refused.
    pub(crate) refuse_submit: bool,
    /// The next kill is carried out and its answer lost.
    pub(crate) lose_kill_answer: bool,
    /// The next change of reservations is made and its answer lost.
    pub(crate) lose_dhcp_answer: bool,
    /// The queue does not answer.
    pub(crate) queue_down: bool,
    /// A job that was just submitted shows up in the queue only after this many lists.
    pub(crate) appear_late: u32,
    pub(crate) storage_full: bool,
    /// Storage answers with errors, on the controller and on every host.
    pub(crate) storage_gone: bool,
    /// The controller has the storage not mounted: it sees empty folders that it cannot write to.
    pub(crate) storage_unmounted: bool,
    pub(crate) dhcp_down: bool,
    /// Starters are of a labwright that obeyed these parts of `control.json`.
    pub(crate) obeyed: Option<&'static [&'static str]>,
    /// Readers come in the middle of a write: the last line of a report is torn.
    pub(crate) torn_reports: bool,
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
    pub(crate) host: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SimDisk {
    /// Stays when the disk is moved.
    pub(crate) id: u64,
    pub(crate) origin: DiskOrigin,
    /// Digest of what a published image holds.
    sha256: Option<String>,
    /// Who has written on it: work that must never be lost.
    pub(crate) work_of: Option<VmName>,
    /// The run whose guest wrote on it last.
    last_run: Option<RunId>,
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
        world.with(|inner| {
            inner.now = "2027-01-12T08:00:00Z".parse().unwrap();
            inner.hosts.insert("h1", SimHost::default());
        });
        world
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at or changes the world from outside.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.lock())
    }

    /// Every call of the controller passes here: the place where it can die, or stand still while another one acts. The
    /// executor reads the clock before each of its writes to the state, so there is a call on either side of every write.
    fn call<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.lock();
        inner.calls += 1;
        if comes_up(&mut inner.faults.kill_in) {
            inner.faults.killed = true;
        }
        if inner.faults.killed {
            drop(inner);
            std::panic::panic_any(Killed);
        }
        if comes_up(&mut inner.faults.stall_in) {
            inner.stalled = true;
            self.stall.notify_all();
            while inner.stalled {
                inner = self.stall.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
        }
        act(&mut inner)
    }

    /// Waits until a controller stands still, or `is_over` because it never came so far.
    pub(crate) fn wait_for_stall(&self, is_over: impl Fn() -> bool) -> bool {
        let mut inner = self.lock();
        while !inner.stalled && !is_over() {
            let patience = std::time::Duration::from_micros(200);
            inner = self.stall.wait_timeout(inner, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
        inner.stalled
    }

    /// Lets the one that stands still go on.
    pub(crate) fn go_on(&self) {
        self.lock().stalled = false;
        self.stall.notify_all();
    }
}

/// Counts down; true once, at the end.
fn comes_up(countdown: &mut Option<u64>) -> bool {
    let Some(left) = countdown else { return false };
    *left = left.saturating_sub(1);
    let up = *left == 0;
    if up {
        *countdown = None;
    }
    up
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
        self.now += SignedDuration::from_secs(1);
        self.put_image(path, content);
    }

    /// Notes that a promise is broken; the first one counts.
    fn break_promise(&mut self, how: String) {
        self.broken.get_or_insert(how);
    }

    /// A disk of others, or one that is made now.
    pub(crate) fn new_disk(&mut self, origin: DiskOrigin) -> SimDisk {
        self.next_disk += 1;
        SimDisk { id: self.next_disk, origin, sha256: None, work_of: None, last_run: None }
    }

    /// Vms with a guest, on a host of their own or in the queue's eyes, with the runs that run them.
    pub(crate) fn live(&self) -> BTreeMap<VmName, Vec<RunId>> {
        let mut live: BTreeMap<VmName, Vec<RunId>> = BTreeMap::new();
        for (run, sim) in self.runs.iter().filter(|(_, sim)| sim.guest != Guest::None) {
            live.entry(sim.spec.vm.clone()).or_default().push(run.clone());
        }
        live
    }

    /// Runs whose guest executes: neither ended nor suspended.
    pub(crate) fn executing(&self) -> impl Iterator<Item = (&RunId, &RunSpec)> {
        self.runs.iter().filter(|(_, sim)| sim.guest == Guest::Executing).map(|(run, sim)| (run, &sim.spec))
    }

    pub(crate) fn run_of(&self, vm: &str) -> RunId {
        let found = self.tasks.values().filter(|task| self.runs[&task.run].spec.vm.as_str() == vm);
        found.map(|task| task.run.clone()).next_back().unwrap_or_else(|| panic!("{vm} has no task"))
    }

    /// The index of the batch that a run was submitted in.
    pub(crate) fn batch_of(&self, run: &RunId) -> Option<&Batch> {
        self.batches.values().find(|batch| batch.runs.contains(run))
    }

    /// All that the starters of all runs wrote.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.runs.values().flat_map(SimRun::records).collect()
    }

    /// Addresses that two reservations share.
    pub(crate) fn doubled_addresses(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let doubled = self.reservations.values().filter(|reservation| !seen.insert(reservation.ip));
        doubled.map(|reservation| reservation.ip.to_string()).collect()
    }
}
