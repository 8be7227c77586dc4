//! What exists already becomes a vm's: a disk from elsewhere, or a run that no record knows.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::aside::disks_word;
use super::journal::{Decides, Lab, Order, Step};
use super::pick::nothing_fits;
use super::{Code, Context, ControlError};
use crate::disks::{self, DiskError, Owner};
use crate::model::address::Address;
use crate::model::id::{InvalidName, VmName};
use crate::model::job::{JobId, Task, TaskId};
use crate::model::lab::Desired;
use crate::observe::fold;
use crate::plan::{Effect, FoundJob, Inputs, Plan, Refusal, import_job};
use crate::run::{Batch, BatchId, Control, RunSpec, read_report};
use crate::scheduler::{Scheduler as _, SchedulerError, Seen};
use crate::state::{Change, Entry, Recorded, RecordedDisk, Store};

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("{address} must not be changed now; nothing was imported")]
    Held { address: Address, by: Box<Refusal> },
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("{address} was applied already and keeps its disks; nothing was imported")]
    Applied { address: Address },
    #[error("cannot import {}", file.display())]
    Copy { file: PathBuf, source: DiskError },
    #[error("cannot see the queue")]
    Queue(#[source] SchedulerError),
    #[error("job {job} has {tasks} tasks in the queue: which one is it?")]
    Tasks { job: JobId, tasks: usize },
    #[error("there is no job {job} in the queue of our account; nothing was changed")]
    NoJob { job: WantedJob },
    #[error("job {job} is not taken over as {address}; nothing was changed")]
    Stranger { job: TaskId, address: Address, reasons: Vec<String> },
}

impl ImportError {
    pub fn code(&self) -> Code {
        match self {
            Self::Held { .. } | Self::Applied { .. } | Self::Stranger { .. } => Code::Refused,
            Self::Name(_) | Self::Tasks { .. } => Code::Usage,
            Self::Copy { .. } | Self::Queue(_) | Self::NoJob { .. } => Code::Failed,
        }
    }
}

/// A job as a person names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedJob {
    pub job: JobId,
    pub task: Option<u32>,
}

impl std::fmt::Display for WantedJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.task {
            None => self.job.fmt(f),
            Some(task) => write!(f, "{}.{task}", self.job),
        }
    }
}

impl FromStr for WantedJob {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (job, task) = text.split_once('.').map_or((text, None), |(job, task)| (job, Some(task)));
        let job = job.parse().map(JobId).ok();
        let task = task.map(|task| task.parse().ok().filter(|task| *task > 0));
        match (job, task) {
            (Some(job), None) => Ok(Self { job, task: None }),
            (Some(job), Some(Some(task))) => Ok(Self { job, task: Some(task) }),
            _ => Err("give a job's number, such as 4711, or with its task, such as 4711.3".into()),
        }
    }
}

impl WantedJob {
    /// The one task that is meant.
    fn find(self, queue: Vec<Task>) -> Result<Task, ImportError> {
        let Self { job, task } = self;
        let mut found: Vec<Task> =
            queue.into_iter().filter(|t| t.id.job == job && task.is_none_or(|task| task == t.id.task)).collect();
        match (found.pop(), found.len()) {
            (Some(task), 0) => Ok(task),
            (Some(_), others) => Err(ImportError::Tasks { job, tasks: others + 1 }),
            (None, _) => Err(ImportError::NoJob { job: self }),
        }
    }
}

/// Takes a job over as a vm's run.
pub fn job(context: &Context, desired: &Desired, address: &Address, wanted: WantedJob) -> Result<TaskId, ControlError> {
    let job = import(context, desired, address, |import, store, decides| import.job(wanted, store, decides));
    context.audited(Some(&desired.lab), job)
}

/// Copies disks, which become those of a vm that was never applied; answers its address.
pub fn disks(
    context: &Context,
    desired: &Desired,
    address: &Address,
    files: &[PathBuf],
) -> Result<Ipv4Addr, ControlError> {
    let ip = import(context, desired, address, |import, store, decides| import.disks(files, store, decides));
    context.audited(Some(&desired.lab), ip)
}

/// An import is a change of the lab like any other: what holds back the vm or the lab holds it back too.
fn import<T>(
    context: &Context,
    desired: &Desired,
    address: &Address,
    act: impl FnOnce(&Import<'_>, &mut Store, Decides) -> Result<T, ControlError>,
) -> Result<T, ControlError> {
    let mut store = context.store()?;
    let decides = Decides::begin(context, format!("import {address}"))?;
    let recorded = store.recorded(&desired.lab)?;
    recorded.refuse_held(address)?;
    // One answer serves all that is looked at under the lock.
    let scheduler = context.scheduler();
    let queue = Seen::new(&*scheduler);
    let plan = context.plan_in(&queue, desired, &recorded, &[], &BTreeMap::new())?;
    if let Some(refusal) = plan.refusals.iter().find(|refusal| refusal.holds(address)) {
        return Err(ImportError::Held { address: address.clone(), by: Box::new(refusal.clone()) }.into());
    }
    act(&Import { context, queue: &queue, desired, recorded: &recorded, plan: &plan, address }, &mut store, decides)
}

struct Import<'a> {
    context: &'a Context,
    queue: &'a Seen<'a>,
    desired: &'a Desired,
    recorded: &'a Recorded,
    /// Of the whole lab, as it would be applied now.
    plan: &'a Plan,
    address: &'a Address,
}

impl Import<'_> {
    fn job(&self, wanted: WantedJob, store: &mut Store, decides: Decides) -> Result<TaskId, ControlError> {
        let Self { context, desired, recorded, address, .. } = *self;
        let vm = recorded.vms.iter().find(|(name, _)| name.as_str() == address.name);
        let Some((name, known)) = vm else { return Err(self.unknown_vm()) };
        let found = self.find(wanted)?;
        let observed = context.observe_in(self.queue, desired, recorded)?;
        let inputs = Inputs {
            desired,
            recorded,
            observed: &observed,
            site: &context.site,
            now: jiff::Timestamp::now(),
            allow: &[],
            asks: &BTreeMap::new(),
            by: &context.caller.name,
            lost_host: None,
        };
        let job = found.task.id;
        let changes = import_job(&inputs, name, known, &found).map_err(|reasons| ImportError::Stranger {
            job,
            address: address.clone(),
            reasons,
        })?;
        let step = Step::record(address.clone(), "import", changes);
        self.record(store, decides, &format!("import job {job} as {address}"), step)?;
        Ok(job)
    }

    fn unknown_vm(&self) -> ControlError {
        match VmName::new(&self.address.name) {
            Ok(name) => {
                let known = self.recorded.vms.keys().map(VmName::as_str);
                nothing_fits(&self.desired.lab, "vm", name.as_str(), known).into()
            }
            Err(invalid) => ImportError::Name(invalid).into(),
        }
    }

    /// The job, and the files that its mark leads to. What is not there is `None`; what cannot be read ends the request.
    fn find(&self, wanted: WantedJob) -> Result<FoundJob, ControlError> {
        let task = wanted.find(self.queue.list().map_err(ImportError::Queue)?)?;
        let account = self.queue.account().map_err(ImportError::Queue)?;
        let runs = &self.context.site.storage.runs;
        let mut found = FoundJob { task, account, index: None, spec: None, control: None, phase: None };
        let Some((_, batch)) = BatchId::from_job_name(&found.task.name, &self.recorded.site) else { return Ok(found) };
        found.index = Batch::read(&Batch::path(runs, &batch))?;
        let run = found.index.as_ref().and_then(|index| index.run(found.task.id.task));
        if let Some(folder) = run.map(|run| runs.join(run.to_string())) {
            found.spec = RunSpec::read(&folder)?;
            found.control = Control::read(&folder)?;
            found.phase = fold(&read_report(&folder)?).map(|report| report.phase);
        }
        Ok(found)
    }

    /// The vm is recorded when all its disks are there: one that is cut short is no vm's, and is copied anew.
    fn disks(&self, files: &[PathBuf], store: &mut Store, decides: Decides) -> Result<Ipv4Addr, ControlError> {
        let Self { context, desired, address, .. } = *self;
        let (name, ip, record) = self.new_vm().ok_or_else(|| self.no_new_vm())?;
        let owner = context.owner()?;
        let folder = context.site.storage.vms.join(desired.lab.as_str()).join(name.file_name());
        let disk = |(slot, _): (u32, _)| RecordedDisk {
            slot,
            path: folder.join(format!("disk-{slot}.qcow2")),
            base: None,
            made: true,
            moving_to: None,
            image: None,
            instance: None,
        };
        let disks: Vec<RecordedDisk> = (0..).zip(files).map(disk).collect();
        let mut step = Step::record(address.clone(), "import", vec![record]);
        step.after.extend(disks.iter().map(|disk| Change::PutDisk { vm: name.clone(), disk: disk.clone() }));
        step.act = Box::new(|| files.iter().zip(&disks).try_for_each(|(file, disk)| copy(file, disk, owner)));
        self.record(store, decides, &format!("import {} as {address}", disks_word(files.len())), step)?;
        Ok(ip)
    }

    /// The vm as its plan would record it, where it is new.
    fn new_vm(&self) -> Option<(&VmName, Ipv4Addr, Change)> {
        self.plan.actions().find_map(|(_, action)| match &action.effect {
            Effect::Record(Entry::Vm { name, vm, ip, mac, .. })
                if *self.address == Address::vm(name) && !self.recorded.vms.contains_key(name) =>
            {
                let (vm, ip, mac) = (vm.clone(), *ip, *mac);
                Some((name, ip, Entry::Vm { name: name.clone(), vm, ip, mac, version: None }.into()))
            }
            _ => None,
        })
    }

    /// Why no disk can become this vm's.
    fn no_new_vm(&self) -> ControlError {
        let Self { desired, recorded, address, .. } = *self;
        let name = address.name.as_str();
        if recorded.vms.keys().any(|known| known.as_str() == name) {
            return ImportError::Applied { address: address.clone() }.into();
        }
        nothing_fits(&desired.lab, "vm", name, desired.vms.keys().map(VmName::as_str)).into()
    }

    fn record(&self, store: &mut Store, decides: Decides, summary: &str, step: Step<'_>) -> Result<(), ControlError> {
        let lab = Lab { name: &self.desired.lab, after: self.recorded.latest, doing: "imported" };
        lab.carry_out(store, decides, summary, Order::Chain, vec![step])?.pop().map_or(Ok(()), Err)
    }
}

fn copy(file: &Path, disk: &RecordedDisk, owner: Owner) -> Result<(), ControlError> {
    disks::copy_exactly(file, &disk.path, owner)
        .map_err(|source| ImportError::Copy { file: file.to_owned(), source }.into())
}
