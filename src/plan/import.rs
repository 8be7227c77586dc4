//! Whether a run that lives, and that no record knows, is a vm's: after the state was restored from an older copy, say. In:
//! the job as the queue shows it, what its run's files say, and what is recorded of the vm. Out: what to record, or every
//! reason why not. Pure.

use std::path::{Path, PathBuf};

use super::{Inputs, objects};
use crate::model::id::{RunId, VmName};
use crate::model::job::{Task, TaskState};
use crate::observe::Phase;
use crate::observe::{Life, life};
use crate::run::{Batch, BatchId, Control, RunSpec, Wanted};
use crate::state::{Change, RecordedVm, Started};

/// A job that somebody wants to be a vm's, with the files that its mark leads to.
#[derive(Debug, Clone)]
pub struct FoundJob {
    pub task: Task,
    /// Account that our jobs belong to.
    pub account: String,
    /// The index of its batch, if there is one.
    pub index: Option<Batch>,
    pub spec: Option<RunSpec>,
    pub control: Option<Control>,
    /// What its report says in the end; `None`: it waits in the queue.
    pub phase: Option<Phase>,
}

/// What to record so that the job is the vm's run, or every reason why it must not be.
pub fn import_job(
    inputs: &Inputs<'_>,
    name: &VmName,
    known: &RecordedVm,
    job: &FoundJob,
) -> Result<Vec<Change>, Vec<String>> {
    let mut reasons = strangers(inputs, job);
    let run = run_of(inputs, job).map_err(|reason| reasons.push(reason)).ok();
    reasons.extend(refuse_running(inputs, name, known));
    let spec = run.as_ref().and_then(|(_, run)| match &job.spec {
        Some(spec) => {
            reasons.extend(unlike(inputs, name, known, run, spec));
            reasons.extend(ending(job, spec));
            Some(spec)
        }
        None => {
            reasons.push(format!("run {run} has no spec.json any more"));
            None
        }
    });
    match (run, spec, &job.index) {
        (Some((batch, run)), Some(spec), Some(index)) if reasons.is_empty() => {
            let over = known.run.as_ref().filter(|run| !run.is_over());
            let over = over.map(|run| Change::Ended { run: run.run.clone(), reason: end_of(inputs, known) });
            Ok(over.into_iter().chain(records(name, known, job, batch, run, spec, index)).collect())
        }
        _ => Err(reasons),
    }
}

/// Whether the job has our mark, and our account.
fn strangers(inputs: &Inputs<'_>, job: &FoundJob) -> Vec<String> {
    let (task, account) = (&job.task, &job.account);
    let ours = BatchId::job_names(&inputs.recorded.site, &inputs.desired.lab);
    let of_lab =
        BatchId::from_job_name(&task.name, &inputs.recorded.site).filter(|(lab, _)| *lab == inputs.desired.lab);
    let mut reasons = Vec::new();
    if of_lab.is_none() {
        reasons.push(format!("its name is `{}`; those of this lab's jobs begin with `{ours}`", task.name));
    }
    if task.owner != *account {
        reasons.push(format!("it belongs to `{}`; our jobs belong to `{account}`", task.owner));
    }
    reasons
}

/// The run that the index of its batch names for the job.
fn run_of(inputs: &Inputs<'_>, job: &FoundJob) -> Result<(BatchId, RunId), String> {
    let task = job.task.id.task;
    let index = job.index.as_ref().ok_or_else(|| "no index on storage says which run it is".to_owned())?;
    let batch = BatchId::from_job_name(&job.task.name, &inputs.recorded.site).map(|(_, batch)| batch);
    if batch.as_ref() != Some(&index.id) || index.lab != inputs.desired.lab {
        return Err(format!("the index of its batch is of batch {} of lab `{}`", index.id, index.lab));
    }
    let run = index.run(task).ok_or_else(|| format!("the index of its batch names no run for task {task}"))?;
    let (seen, found) = (inputs.observed, (index.id.clone(), task));
    if seen.tasks.contains_key(&found) && !seen.unknown_tasks.contains(&found) {
        return Err(format!("its run {run} is recorded already"));
    }
    Ok((index.id.clone(), run.clone()))
}

/// A vm has one run at a time.
fn refuse_running(inputs: &Inputs<'_>, name: &VmName, known: &RecordedVm) -> Option<String> {
    let run = &known.run.as_ref()?.run;
    match life(known, inputs.observed, inputs.site) {
        Life::Off { news: true, reason: None } => Some(format!(
            "run {run} of vm `{name}` ended without a word, which must be recorded first: `labwright apply --refresh-only`"
        )),
        Life::Off { .. } => None,
        Life::Unknown { .. } => Some(format!("vm `{name}` has run {run}, of which nobody knows whether it lives")),
        Life::Live { .. } | Life::Lost { .. } => Some(format!("vm `{name}` runs already: its run is {run}")),
    }
}

fn end_of(inputs: &Inputs<'_>, known: &RecordedVm) -> Option<crate::run::StopReason> {
    match life(known, inputs.observed, inputs.site) {
        Life::Off { reason, .. } => reason,
        _ => None,
    }
}

/// What the run was told of itself that does not fit the vm.
fn unlike(inputs: &Inputs<'_>, name: &VmName, known: &RecordedVm, run: &RunId, spec: &RunSpec) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut compare = |what: &str, found: String, wanted: String| {
        if found != wanted {
            reasons.push(format!("its spec.json says {what} {found}, and the records say {wanted}"));
        }
    };
    compare("run", spec.run.to_string(), run.to_string());
    compare("lab", spec.lab.to_string(), inputs.desired.lab.to_string());
    compare("vm", spec.vm.to_string(), name.to_string());
    compare("address", spec.network.ip.to_string(), known.ip.to_string());
    compare("mac", spec.network.mac.to_string(), known.mac.to_string());
    let recorded = known.disks.iter().filter(|disk| disk.made && disk.moving_to.is_none());
    compare(
        "disks",
        chains(spec.disks.iter().map(|disk| (disk.path.as_path(), disk.backing.first()))),
        chains(recorded.map(|disk| (disk.path.as_path(), disk.base.as_ref()))),
    );
    reasons
}

fn chains<'a>(disks: impl Iterator<Item = (&'a Path, Option<&'a PathBuf>)>) -> String {
    let words = disks.map(|(path, base)| match base {
        Some(base) => format!("{} over {}", path.display(), base.display()),
        None => path.display().to_string(),
    });
    let words: Vec<String> = words.collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// Whether the run is on its way out: then there is nothing to take over.
fn ending(job: &FoundJob, spec: &RunSpec) -> Option<String> {
    match (&job.phase, &job.control) {
        (Some(Phase::Stopped { reason, .. }), _) => Some(format!("its report says that it is over: {reason}")),
        (Some(Phase::Stopping), _) => Some("its report says that it is being stopped".to_owned()),
        (_, None) => Some("it has no control.json any more, through which it could be stopped".to_owned()),
        (_, Some(control)) if control.generation > spec.generation => {
            Some("it was fenced off: a newer run of its vm took its place".to_owned())
        }
        (_, Some(control)) if control.wanted == Wanted::Stopped => Some("it was told to stop".to_owned()),
        _ if job.task.state == TaskState::Deleting => Some("it was deleted and is about to end".to_owned()),
        _ => None,
    }
}

fn records(
    name: &VmName,
    known: &RecordedVm,
    job: &FoundJob,
    batch: BatchId,
    run: RunId,
    spec: &RunSpec,
    index: &Batch,
) -> Vec<Change> {
    let started = Started {
        seeded: false,
        hardware: spec.hardware.clone(),
        isolated: spec.network.isolated,
        ip: spec.network.ip,
        mac: spec.network.mac,
        bridge: spec.network.bridge.clone(),
        disks: spec.disks.iter().map(|disk| disk.path.clone()).collect(),
    };
    let highest = index.runs.iter().map(RunId::number).max().unwrap_or(0);
    vec![
        Change::PutRun {
            run: run.clone(),
            vm: name.clone(),
            generation: spec.generation.max(known.generation),
            batch,
            task: job.task.id.task,
            started: objects::to_json(&started),
        },
        Change::Submitted { run, job: job.task.id.job },
        // Its neighbours in the batch have numbers too, whether they live or not.
        Change::NextRun { at_least: highest + 1 },
    ]
}
