//! What is really there: the scheduler's jobs, the starters' reports, the disks and images on storage. Changes nothing.
//! One bulk query of the queue, whatever the size of the lab.

mod bases;
mod images;
mod life;
pub mod past;
mod reports;
mod sizes;

pub use bases::Bases;
pub use images::ImageFact;
pub use life::{Life, fenced_after, is_fenced, life, life_of};
pub use reports::{Mapping, Phase, RunReport, fold};

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::images::{images, unrecorded};
use self::reports::{last_words_of_gone, reports, silences};
use crate::dhcp::{Dhcp, DhcpError};
use crate::disks::{DiskError, Disks, Stamp, Standing};
use crate::model::address::Address;
use crate::model::disk::DiskSize;
use crate::model::id::{LabName, RunId, UserName, VmName};
use crate::model::job::Task;
use crate::model::lab::Desired;
use crate::model::reservation::Reservation;
use crate::model::site::Storage;
use crate::run::{BatchId, Clock, RunFileError, Runs, Wanted};
use crate::scheduler::{Scheduler, SchedulerError};
use crate::state::{ImageDigest, Ledger, Recorded, RecordedDisk, RecordedRun, RecordedVm, StateError};

/// What was seen, as plain values for the planner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Tasks in the queue that carry this site's mark, belong to this lab and to the account that submits our jobs, by
    /// batch and task number.
    pub tasks: BTreeMap<(BatchId, u32), Task>,
    /// Those of them that belong to no run that was ever recorded.
    pub unknown_tasks: BTreeSet<(BatchId, u32)>,
    /// Tasks with the mark of this lab that belong to somebody else.
    pub foreign_tasks: Vec<Task>,
    /// Tasks of ours that belong to the site's other labs.
    pub tasks_elsewhere: BTreeMap<(BatchId, u32), Task>,
    /// What those run and store in other labs whose vms are to be started here, or get disks, where that was looked at.
    pub elsewhere: BTreeMap<UserName, Elsewhere>,
    /// What the starters of runs that are not recorded as ended reported.
    pub runs: BTreeMap<RunId, RunReport>,
    /// How long the starters of those among them were silent whose job is gone or on a host that does not answer, by the
    /// storage server's clock. None is here that never began.
    pub silences: BTreeMap<RunId, Duration>,
    /// What the tasks of such runs wrote into their logs whose starters never reported and are not in the queue any more.
    pub last_words: BTreeMap<RunId, String>,
    /// Runs that an apply had told to stop when it was cut short. They may not have heard it yet.
    pub told_to_stop: BTreeSet<RunId>,
    /// Runs whose guests it had told to be off until they get other disks, and that wait for these.
    pub told_to_be_off: BTreeSet<RunId>,
    /// The times that runs were told which are not recorded as ended, of vms that sessions are about.
    pub clocks: BTreeMap<RunId, Clock>,
    /// Recorded disks that are not there.
    pub disks_missing: BTreeSet<PathBuf>,
    /// Disks set aside, of vms that come back, to which nothing was ever written.
    pub aside_unwritten: BTreeSet<PathBuf>,
    /// Recorded disks that are something else than recorded, with what they are, such as `lies over /other.qcow2`.
    pub disks_strange: BTreeMap<PathBuf, String>,
    /// Published images that are not what was published.
    pub bases: Bases,
    /// Images that the manifest names.
    pub images: BTreeMap<PathBuf, ImageFact>,
    /// Digests of files that stand where a template's next version would go and that no record knows: their apply was cut
    /// short, or the state is an older copy.
    pub unrecorded: BTreeMap<PathBuf, String>,
    /// Vms whose recorded reservation the DHCP server does not have.
    pub reservations_missing: BTreeSet<VmName>,
    /// Disks of people who are to get new ones, and what these are copied from.
    pub sizes: BTreeMap<PathBuf, DiskSize>,
}

impl Observed {
    /// Digests that are known now, for those who come later.
    pub fn digests(&self) -> BTreeMap<PathBuf, ImageDigest> {
        let there = self.images.iter().filter_map(|(path, fact)| match fact {
            ImageFact::There { bytes, mtime_ns, sha256: Some(sha256) } => {
                let digest = ImageDigest { bytes: *bytes, mtime_ns: *mtime_ns, sha256: sha256.clone() };
                Some((path.clone(), digest))
            }
            _ => None,
        });
        let bases = self.bases.read.iter().map(|(path, digest)| (path.clone(), digest.clone()));
        there.chain(bases).collect()
    }

    /// What an image holds, where that is known.
    pub fn digest(&self, image: &Path) -> Option<&String> {
        match self.images.get(image) {
            Some(ImageFact::There { sha256, .. }) => sha256.as_ref(),
            _ => None,
        }
    }

    /// Whether an image holds these bytes.
    pub fn holds(&self, image: &Path, sha256: &str) -> bool {
        self.digest(image).is_some_and(|found| found == sha256)
    }
}

/// What somebody runs in other labs of the site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elsewhere {
    pub running: BTreeSet<(LabName, VmName)>,
    /// Runs that are over, although no record says so yet.
    pub over: BTreeSet<RunId>,
    /// Their disks, with what each takes.
    pub stored: BTreeMap<PathBuf, u64>,
}

/// What could not be looked at. A plan is made from a whole look or not at all.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    #[error("cannot see the queue")]
    Queue(#[source] SchedulerError),
    #[error("cannot read what a starter reported")]
    Report(#[source] RunFileError),
    #[error("cannot look at {path}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("cannot look at the vms' disks")]
    Disk(#[source] DiskError),
    #[error("cannot ask the DHCP server")]
    Dhcp(#[source] DhcpError),
    #[error("cannot tell whose jobs these are")]
    Ledger(#[source] StateError),
}

/// Where to look.
pub struct World<'a> {
    pub runs: &'a dyn Runs,
    pub disks: &'a dyn Disks,
    pub scheduler: &'a dyn Scheduler,
    pub dhcp: &'a dyn Dhcp,
    pub storage: &'a Storage,
    pub ledger: &'a Ledger,
}

/// Looks at all that a plan of this lab depends on.
pub fn observe(world: &World<'_>, desired: &Desired, recorded: &Recorded) -> Result<Observed, ObserveError> {
    let mut observed = Observed::default();
    let waiting = recorded.waiting.values().flat_map(|waiting| &waiting.disks);
    // What others work on is nobody's business here, and another thing at each look.
    let at_rest = recorded.vms.iter().filter(|(name, _)| !recorded.held.contains_key(&Address::vm(name)));
    let disks: Vec<&RecordedDisk> = at_rest.flat_map(|(_, vm)| &vm.disks).chain(waiting).collect();
    // Also where no run is recorded: the state may be a copy older than what is in the queue.
    let ask = || if recorded.vms.is_empty() { Ok(None) } else { queue(world.scheduler).map(Some) };
    let look = || {
        let reports = reports(world.runs, &live_runs(recorded))?;
        let unlike = look_at_each(&disks, world.disks.at_once(), |disk| unlike_recorded(world.disks, recorded, disk));
        Ok((reports, unlike?))
    };
    let (queue, (first_reports, unlike)) = side_by_side(world.runs.at_once() > 1, ask, look)?;
    observed.runs = first_reports;
    if let Some((account, tasks)) = queue {
        sort_tasks(&account, tasks, desired, recorded, &mut observed);
        observed.unknown_tasks = unknown_tasks(world.ledger, desired, recorded, &observed)?;
    }
    if recorded.vms.values().any(|vm| live(vm.run.as_ref())) {
        // A run that ended after its report was read and before the queue was has said so by now.
        let gone = gone_runs(recorded, &observed);
        observed.runs.extend(reports(world.runs, &gone)?);
        let known = recorded.vms.values().filter_map(|vm| vm.run.as_ref());
        observed.silences = silences(world.runs, known, &observed)?;
        observed.last_words = last_words_of_gone(world.storage, recorded, &observed);
        observed.clocks = clocks(world.runs, desired, recorded)?;
        let is_off = |run: &&RunId| observed.runs.get(*run).is_some_and(|report| report.phase == Phase::Off);
        let runs: Vec<&RunId> =
            live_runs(recorded).into_iter().filter(|run| recorded.cut_short || is_off(run)).collect();
        (observed.told_to_stop, observed.told_to_be_off) = told(world.runs, &runs)?;
    }
    for (disk, unlike) in disks.into_iter().zip(unlike) {
        match unlike {
            Unlike::No => {}
            Unlike::Missing => drop(observed.disks_missing.insert(disk.path.clone())),
            Unlike::Strange(found) => drop(observed.disks_strange.insert(disk.path.clone(), found)),
        }
    }
    observed.aside_unwritten = aside_unwritten(world.disks, desired, recorded);
    observed.bases = bases::bases(world.disks, recorded)?;
    observed.unrecorded = unrecorded(world, desired, recorded)?;
    observed.images = images(world.disks, desired, recorded, !observed.unrecorded.is_empty())?;
    observed.sizes = sizes::sizes(world.disks, desired, recorded)?;
    observed.reservations_missing = reservations_missing(world.dhcp, desired, recorded)?;
    Ok(observed)
}

/// Looked at are only the disks of vms that come back. One that cannot be looked at may hold anything.
fn aside_unwritten(disks: &dyn Disks, desired: &Desired, recorded: &Recorded) -> BTreeSet<PathBuf> {
    let comes_back = |name: &&VmName| desired.vms.contains_key(*name) && !recorded.vms.contains_key(*name);
    let of_returning = recorded.aside.iter().filter(|(name, _)| comes_back(name)).flat_map(|(_, sets)| sets);
    let paths = of_returning.flat_map(|set| &set.disks).map(|disk| &disk.path);
    paths.filter(|path| disks.is_unwritten(path).unwrap_or(false)).cloned().collect()
}

fn live(run: Option<&RecordedRun>) -> bool {
    run.is_some_and(|run| !run.is_over())
}

/// Does both at the same time, if `apart`; else one after the other. The batch system is asked over a network, and its answer
/// about 10,000 jobs takes as long to read as all their reports.
fn side_by_side<A: Send, B>(
    apart: bool,
    one: impl FnOnce() -> Result<A, ObserveError> + Send,
    other: impl FnOnce() -> Result<B, ObserveError>,
) -> Result<(A, B), ObserveError> {
    if !apart {
        return Ok((one()?, other()?));
    }
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        let one = one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((one, other?))
    })
}

/// The account that our jobs belong to, and all tasks in the queue.
fn queue(scheduler: &dyn Scheduler) -> Result<(String, Vec<Task>), ObserveError> {
    let account = scheduler.account().map_err(ObserveError::Queue)?;
    Ok((account, scheduler.list().map_err(ObserveError::Queue)?))
}

fn sort_tasks(account: &str, tasks: Vec<Task>, desired: &Desired, recorded: &Recorded, observed: &mut Observed) {
    // All tasks of an array have one name.
    let mut latest: (String, Option<(LabName, BatchId)>) = (String::new(), None);
    for task in tasks {
        if task.name != latest.0 {
            latest = (task.name.clone(), BatchId::from_job_name(&task.name, &recorded.site));
        }
        let Some((lab, batch)) = &latest.1 else { continue };
        let (is_here, is_ours, key) = (*lab == desired.lab, task.owner == account, (batch.clone(), task.id.task));
        match (is_here, is_ours) {
            (true, true) => drop(observed.tasks.insert(key, task)),
            (true, false) => observed.foreign_tasks.push(task),
            (false, true) => drop(observed.tasks_elsewhere.insert(key, task)),
            (false, false) => {}
        }
    }
}

/// Runs that are not over, by our records, and have no job any more.
fn gone_runs<'a>(recorded: &'a Recorded, observed: &Observed) -> Vec<&'a RunId> {
    let live = recorded.vms.values().filter_map(|vm| vm.run.as_ref()).filter(|run| live(Some(run)));
    let gone = live.filter(|run| !observed.tasks.contains_key(&(run.batch.clone(), run.task)));
    gone.map(|run| &run.run).collect()
}

fn unknown_tasks(
    ledger: &Ledger,
    desired: &Desired,
    recorded: &Recorded,
    observed: &Observed,
) -> Result<BTreeSet<(BatchId, u32)>, ObserveError> {
    let runs = recorded.vms.values().filter_map(|vm| vm.run.as_ref());
    let latest: HashSet<(&BatchId, u32)> = runs.map(|run| (&run.batch, run.task)).collect();
    let is_latest = |(batch, task): &&(BatchId, u32)| latest.contains(&(batch, *task));
    let unknown: BTreeSet<(BatchId, u32)> = observed.tasks.keys().filter(|key| !is_latest(key)).cloned().collect();
    let known = ledger.known(&desired.lab, unknown.clone()).map_err(ObserveError::Ledger)?;
    Ok(&unknown - &known)
}

fn live_runs(recorded: &Recorded) -> Vec<&RunId> {
    let live = recorded.vms.values().filter_map(|vm| vm.run.as_ref()).filter(|run| live(Some(run)));
    live.map(|run| &run.run).collect()
}

/// Looked at are only those that a session is about, or was when it was last applied.
fn clocks(runs: &dyn Runs, desired: &Desired, recorded: &Recorded) -> Result<BTreeMap<RunId, Clock>, ObserveError> {
    let applied = recorded.sessions().map(|(_, session)| session);
    let vms: BTreeSet<&VmName> = applied.chain(desired.sessions.values()).flat_map(|session| &session.vms).collect();
    let runs_of = vms.into_iter().filter_map(|vm| recorded.vms.get(vm)?.run.as_ref());
    let told: Vec<&RunId> = runs_of.filter(|run| live(Some(run))).map(|run| &run.run).collect();
    let clocks = look_at_each(&told, runs.at_once(), |run| {
        let told = runs.told(run).map_err(ObserveError::Report)?;
        Ok(told.map(|clock| (RunId::clone(run), clock)))
    })?;
    Ok(clocks.into_iter().flatten().collect())
}

/// Which runs are told to stop, and which to turn their guests off.
fn told(runs: &dyn Runs, of: &[&RunId]) -> Result<(BTreeSet<RunId>, BTreeSet<RunId>), ObserveError> {
    let told = look_at_each(of, runs.at_once(), |run| runs.wanted(run).map_err(ObserveError::Report))?;
    let with = |wanted: Wanted| {
        let so = of.iter().zip(&told).filter(|(_, told)| **told == Some(wanted.clone()));
        so.map(|(run, _)| RunId::clone(run)).collect()
    };
    Ok((with(Wanted::Stopped), with(Wanted::Off)))
}

/// Looks at runs of other labs, with the tasks that were seen when this one was looked at.
pub fn runs_elsewhere(runs: &dyn Runs, of: &[&RecordedRun], seen: &Observed) -> Result<Observed, ObserveError> {
    let mut observed = Observed { tasks: seen.tasks_elsewhere.clone(), ..Observed::default() };
    observed.runs = reports(runs, &of.iter().map(|run| &run.run).collect::<Vec<_>>())?;
    observed.silences = silences(runs, of.iter().copied(), &observed)?;
    Ok(observed)
}

/// Looks at each of `items`, `at_once` of them side by side; answers in their order, or with what went wrong first.
fn look_at_each<T: Sync, R: Send>(
    items: &[T],
    at_once: usize,
    look: impl Fn(&T) -> Result<R, ObserveError> + Sync,
) -> Result<Vec<R>, ObserveError> {
    let share = items.len().div_ceil(at_once);
    // A thread costs more than a few looks.
    if at_once == 1 || share < 16 {
        return items.iter().map(look).collect();
    }
    let look_at_all = |share: &[T]| share.iter().map(&look).collect::<Result<Vec<R>, ObserveError>>();
    std::thread::scope(|scope| {
        let shares: Vec<_> = items.chunks(share).map(|share| scope.spawn(move || look_at_all(share))).collect();
        let mut all = Vec::with_capacity(items.len());
        for share in shares {
            all.append(&mut share.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(all)
    })
}

/// How a recorded disk is not what was recorded.
enum Unlike {
    No,
    Missing,
    Strange(String),
}

/// Compares a disk's header with the records. One look at a file's first bytes each: 10,000 of them take a few hundredths of
/// a second.
fn unlike_recorded(disks: &dyn Disks, recorded: &Recorded, disk: &RecordedDisk) -> Result<Unlike, ObserveError> {
    let standing = disks.standing(&disk.path).map_err(ObserveError::Disk)?;
    Ok(match standing {
        Standing::Nothing => Unlike::Missing,
        // Until it is made, whatever stands there is for the one who makes it to judge.
        _ if !disk.made => Unlike::No,
        Standing::Disk { base } if base.clone().map(|base| recorded.now_at(base)) == disk.base => Unlike::No,
        Standing::Disk { base: Some(base) } => Unlike::Strange(format!("lies over {}", base.display())),
        Standing::Disk { base: None } => Unlike::Strange("stands alone".into()),
        Standing::Other { why } => Unlike::Strange(why),
    })
}

fn stamp(disks: &dyn Disks, path: &Path) -> Result<Option<Stamp>, ObserveError> {
    disks.stamp(path).map_err(|source| ObserveError::File { path: path.to_owned(), source })
}

fn reservations_missing(
    dhcp: &dyn Dhcp,
    desired: &Desired,
    recorded: &Recorded,
) -> Result<BTreeSet<VmName>, ObserveError> {
    let of_vm =
        |(name, vm): (&VmName, &RecordedVm)| Reservation::new(&recorded.site, &desired.lab, name, vm.mac, vm.ip);
    let expected: Vec<Reservation> = recorded.vms.iter().map(of_vm).collect();
    if expected.is_empty() {
        return Ok(BTreeSet::new());
    }
    let present = dhcp.present(&expected).map_err(ObserveError::Dhcp)?;
    Ok(expected.into_iter().zip(present).filter(|(_, there)| !there).map(|(missing, _)| missing.vm).collect())
}
