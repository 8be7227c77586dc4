//! `labwright import`: what exists already becomes a vm's: a disk from elsewhere, or a run that no record knows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::context::open;
use super::{Ended, LabOption};
use crate::control::aside::disks_word;
use crate::control::plan::Scope;
use crate::control::{Context, pick};
use crate::disks;
use crate::exit::Exit;
use crate::model::address::{Address, Kind};
use crate::model::id::VmName;
use crate::model::job::{JobId, Task};
use crate::model::lab::Desired;
use crate::observe::fold;
use crate::plan::{Effect, FoundJob, Inputs, Plan, import_job};
use crate::report::{Failure, Ui};
use crate::run::{Batch, BatchId, Control, RunSpec, read_report};
use crate::state::{Change, Intent, Outcome, Recorded, RecordedDisk, StateError, Store};

/// Take over a disk from elsewhere, or a running job that no record knows
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true),
    after_help = "A disk is copied and stays where it is; its vm must stand in the manifest and was never applied.

A job is taken over after the state was restored from a copy older than the job: only if it has the
lab's mark and our account, and if the files of its run name this vm, its address and its disks. The
vm must not have another run. A job whose submit was cut short needs no import: the next apply
adopts it.

Examples:
  labwright import vm/doraz-old --disk /srv/doraz.qcow2
  labwright plan && labwright import vm/doraz-gsr --job 4711.3"
)]
pub(super) struct Arguments {
    /// The vm, as `vm/NAME`; it must stand in the manifest.
    address: Address,
    /// The disk; several for a vm with several.
    #[arg(long, value_name = "FILE", group = "what")]
    disk: Vec<PathBuf>,
    /// The job, with its task where it has several.
    #[arg(long, value_name = "JOB[.TASK]", group = "what")]
    job: Option<WantedJob>,
    #[command(flatten)]
    lab: LabOption,
}

/// A job as a person names it.
#[derive(Debug, Clone, Copy)]
struct WantedJob {
    job: JobId,
    task: Option<u32>,
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
    fn find(self, queue: Vec<Task>) -> Result<Task, Failure> {
        let Self { job, task } = self;
        let mut found: Vec<Task> =
            queue.into_iter().filter(|t| t.id.job == job && task.is_none_or(|task| t.id.task == task)).collect();
        match (found.pop(), found.is_empty()) {
            (Some(task), true) => Ok(task),
            (Some(_), false) => Err(Failure::new(
                Exit::Usage,
                format!("job {job} has {} tasks in the queue: which one is it?", found.len() + 1),
            )
            .hint(format!("write it as `--job {job}.TASK`; `labwright plan` names those that no record knows"))),
            (None, _) => {
                let name = task.map_or_else(|| job.to_string(), |task| format!("{job}.{task}"));
                Err(Failure::new(
                    Exit::Failed,
                    format!("there is no job {name} in the queue of our account; nothing was changed"),
                )
                .hint("`labwright plan` names the jobs that no record knows"))
            }
        }
    }
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    vm_only(&arguments.address)?;
    let context = open(site, &arguments.lab.lab)?;
    let desired = context.desired()?;
    let mut store = context.store()?;
    let _lock = context.lock(format!("import {}", arguments.address))?;
    let recorded = store.recorded(&desired.lab)?;
    refuse_held(&Scope::default().plan(&context, &desired, &recorded)?, &arguments.address)?;
    let import = Import { context: &context, desired: &desired, recorded: &recorded, address: &arguments.address };
    match arguments.job {
        Some(job) => import.job(job, &mut store, ui),
        None => import.disks(&arguments.disk, &mut store, ui),
    }
}

fn vm_only(address: &Address) -> Result<(), Failure> {
    if address.kind == Kind::Vm {
        Ok(())
    } else {
        Err(Failure::new(Exit::Usage, format!("{address} has no disks: write `vm/NAME`")))
    }
}

/// An import is a change of the lab like any other: what holds back the vm or the lab holds it back too.
fn refuse_held(plan: &Plan, address: &Address) -> Result<(), Failure> {
    let Some(refusal) = plan.refusals.iter().find(|refusal| refusal.holds(address)) else { return Ok(()) };
    let what = format!("{address} must not be changed now; nothing was imported");
    let mut failure = Failure::new(Exit::Refused, what);
    failure.causes = vec![format!("{}: {}", refusal.address, refusal.text)];
    Err(failure.hint(&refusal.hint))
}

struct Import<'a> {
    context: &'a Context,
    desired: &'a Desired,
    recorded: &'a Recorded,
    address: &'a Address,
}

impl Import<'_> {
    fn job(&self, wanted: WantedJob, store: &mut Store, ui: &Ui) -> Ended {
        let Self { context, desired, recorded, address } = *self;
        let vm = recorded.vms.iter().find(|(name, _)| name.as_str() == address.name);
        let Some((name, known)) = vm else { return Err(self.unknown_vm()) };
        let found = self.find(wanted)?;
        let observed = context.observe(desired, recorded)?;
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
        let id = found.task.id;
        let changes = import_job(&inputs, name, known, &found).map_err(|reasons| {
            let mut failure =
                Failure::new(Exit::Refused, format!("job {id} is not taken over as {address}; nothing was changed"));
            failure.causes = reasons;
            failure
        })?;
        self.record(store, &changes, &format!("import job {id} as {address}"))?;
        ui.say(&format!("{address} runs as job {id} now; next: `labwright plan`"));
        Ok(Exit::Done)
    }

    fn unknown_vm(&self) -> Failure {
        match VmName::new(&self.address.name) {
            Ok(name) => {
                let known = self.recorded.vms.keys().map(VmName::as_str);
                pick::nothing_fits(&self.desired.lab, "vm", name.as_str(), known).into()
            }
            Err(invalid) => Failure::from_error(Exit::Usage, &invalid),
        }
    }

    /// The job, and the files that its mark leads to. What is not there is `None`; what cannot be read ends the command.
    fn find(&self, wanted: WantedJob) -> Result<FoundJob, Failure> {
        let scheduler = self.context.scheduler()?;
        let queue_failed = |error| Failure::from_error(Exit::Failed, &error).within("cannot see the queue");
        let task = wanted.find(scheduler.list().map_err(queue_failed)?)?;
        let account = scheduler.account().map_err(queue_failed)?;
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

    fn disks(&self, files: &[PathBuf], store: &mut Store, ui: &Ui) -> Ended {
        let Self { context, desired, recorded, address } = *self;
        let plan = Scope::default().plan(context, desired, recorded)?;
        let actions =
            plan.changes.iter().filter(|change| change.address == *address).flat_map(|change| &change.actions);
        let record = actions.into_iter().find_map(|action| match &action.effect {
            Effect::RecordVm { name, vm, ip, mac, .. } if !recorded.vms.contains_key(name) => {
                Some((name, vm, *ip, *mac))
            }
            _ => None,
        });
        let (name, vm, ip, mac) = record.ok_or_else(|| self.no_new_vm())?;
        let owner = context.owner()?;
        let folder = context.site.storage.vms.join(desired.lab.as_str()).join(name.as_str());
        let mut changes = vec![Change::PutVm { name: name.clone(), vm: vm.clone(), ip, mac, version: None }];
        for (slot, file) in (0..).zip(files) {
            let path = folder.join(format!("disk-{slot}.qcow2"));
            disks::copy_exactly(file, &path, owner).map_err(|error| {
                Failure::from_error(Exit::Failed, &error).within(format!("cannot import {}", file.display()))
            })?;
            let disk = RecordedDisk { slot, path, base: None, made: true, moving_to: None, image: None };
            changes.push(Change::PutDisk { vm: name.clone(), disk });
        }
        let what = disks_word(files.len());
        self.record(store, &changes, &format!("import {what} as {address}"))?;
        ui.say(&format!("{address} has {what} of its own now, at {ip}; next: `labwright apply`"));
        Ok(Exit::Done)
    }

    /// Why no disk can become this vm's.
    fn no_new_vm(&self) -> Failure {
        let Self { desired, recorded, address, .. } = *self;
        let name = address.name.as_str();
        if recorded.vms.keys().any(|known| known.as_str() == name) {
            return Failure::new(
                Exit::Refused,
                format!("{address} was applied already and keeps its disks; nothing was imported"),
            )
            .hint("a disk from elsewhere can only become that of a new vm: give it another name in the manifest");
        }
        pick::nothing_fits(&desired.lab, "vm", name, desired.vms.keys().map(VmName::as_str)).into()
    }

    /// An import has no effect outside that could be cut short, so one transaction holds all of it; the history shows it.
    fn record(&self, store: &mut Store, changes: &[Change], summary: &str) -> Result<(), StateError> {
        let (lab, now) = (&self.desired.lab, jiff::Timestamp::now());
        let info = self.context.apply_info(summary);
        let apply = store.begin(lab, self.recorded.serial, &info, now)?;
        let intent = Intent { address: self.address.clone(), effect: "import" };
        let journal = store.intend(lab, apply, &[intent], &[], now)?;
        let outcomes: Vec<_> = journal.into_iter().map(|id| (id, Outcome::Done)).collect();
        store.settle(lab, apply, &outcomes, changes, now)?;
        store.end(apply, "1 done, 0 failed, 0 skipped", now)
    }
}
