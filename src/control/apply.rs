//! The one way to change a lab: plan, ask, act, and if that is wanted see the guests come up.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use super::journal::Decides;
use super::readiness::refuse_unready;
use super::{Context, ControlError, Note, clear};
use crate::apply::{self, Awaited, Clock as _, Goal, Progress, Readiness, Summary, SystemClock, Wait, WaitEnd, World};
use crate::model::audit::Act;
use crate::model::id::{RunId, VmName};
use crate::model::lab::Desired;
use crate::observe::Observed;
use crate::plan::{Effect, Plan, Refusal};
use crate::run::last_words;
use crate::state::{ApplyInfo, Recorded, StateError, Store};

/// How a plan is to be carried out.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What is done, for others who find the lock, such as `apply`.
    pub doing: &'a str,
    /// How many effects run side by side.
    pub parallelism: usize,
    /// Whether disks may be made and vms started, which takes root.
    pub is_root: bool,
    /// Whoever asks goes along with whatever plan comes out, so that nobody is asked.
    pub is_agreed: bool,
    /// What each of several people asked for, as far as it is done: they all are in the audit, and not the caller.
    pub together: Option<&'a RefCell<Vec<Act>>>,
}

/// Who asked for a plan, sees it, and may still say no.
pub trait Client: Progress {
    /// The plan that is about to be carried out, or refused.
    fn shows(&mut self, plan: &Plan);

    /// Whether to carry it out; `None` where there is nobody to ask.
    fn agrees(&mut self, plan: &Plan) -> Option<bool>;

    /// Work begins. The counter says from now on how often the caller has asked to stop: once finishes what is under way.
    fn begins(&mut self) -> Arc<AtomicU8>;

    /// How far the guests are that are waited for.
    fn looks(&mut self, readiness: &Readiness, goal: Goal);
}

/// What came of a plan.
#[derive(Debug)]
#[must_use = "what failed is for the user"]
pub struct Done {
    pub plan: Plan,
    pub summary: Summary,
}

/// Carries out what `make` plans, and writes down who asked for it, also where it is refused.
pub fn reconcile(
    context: &Context,
    desired: &Desired,
    make: &dyn Fn(&Recorded) -> Result<Plan, ControlError>,
    request: &Request<'_>,
    client: &mut dyn Client,
) -> Result<Done, ControlError> {
    let mut refusals = Vec::new();
    let came = decide_and_act(context, desired, make, request, client, &mut refusals);
    came.inspect_err(|error| context.audit_refusal(Some(&desired.lab), error, &refusals))
}

/// The lock is held from the look that decides until it is written down what is going to be done,
/// and never while somebody thinks: what they agreed to is planned again under it, and where something else comes out, that is
/// shown and asked about.
pub(super) fn decide_and_act(
    context: &Context,
    desired: &Desired,
    make: &dyn Fn(&Recorded) -> Result<Plan, ControlError>,
    request: &Request<'_>,
    client: &mut dyn Client,
    refusals: &mut Vec<Refusal>,
) -> Result<Done, ControlError> {
    let mut good: Option<Plan> = None;
    let doing = || format!("{} {}", request.doing, desired.lab);
    loop {
        let mut store = context.store()?;
        let decides = (request.is_agreed || good.is_some()).then(|| Decides::begin(context, doing()));
        let decides = decides.transpose()?;
        let recorded = store.recorded(&desired.lab)?;
        if let (Some(_), Some(frozen)) = (&good, &recorded.frozen) {
            return Err(StateError::Frozen { frozen: frozen.clone() }.into());
        }
        let plan = make(&recorded)?;
        refusals.clone_from(&plan.refusals);
        let is_good = good.as_ref().is_some_and(|good| good.does_the_same(&plan));
        if !is_good {
            if good.is_some() {
                context.listener.note(&Note::PlanMoved { lab: &desired.lab });
            }
            client.shows(&plan);
            if !may_begin(&plan, request)? {
                keep_particulars(&mut store, desired)?;
                return Ok(Done { plan, summary: Summary::default() });
            }
        }
        if let Some(decides) = decides.filter(|_| is_good || request.is_agreed) {
            if !is_good {
                // Looked at under the lock, which takes some milliseconds: a second plan would ask the whole queue once more.
                refuse_unready(context, desired, &plan)?;
            }
            let summary = act(context, &plan, &mut store, decides, request, client)?;
            keep_particulars(&mut store, desired)?;
            clear::piece(context, &plan.lab, &recorded, &mut store);
            return Ok(Done { plan, summary });
        }
        // The lock is given back by now; nor is the state kept open.
        drop(store);
        refuse_unready(context, desired, &plan)?;
        agree(&plan, client)?;
        good = Some(plan);
    }
}

/// Who people are by the rosters is no part of a plan, which others may read.
fn keep_particulars(store: &mut Store, desired: &Desired) -> Result<(), StateError> {
    desired.particulars.as_ref().map_or(Ok(()), |people| store.keep_particulars(&desired.lab, people))
}

fn agree(plan: &Plan, client: &mut dyn Client) -> Result<(), ControlError> {
    match client.agrees(plan) {
        Some(true) => Ok(()),
        Some(false) => Err(ControlError::NotConfirmed),
        None => Err(ControlError::NobodyToAsk),
    }
}

/// Whether there is anything to do; an error where it must not be done.
fn may_begin(plan: &Plan, request: &Request<'_>) -> Result<bool, ControlError> {
    if plan.is_refused() || (plan.is_empty() && !plan.refusals.is_empty()) {
        return Err(ControlError::PlanRefused);
    }
    if plan.is_empty() {
        return Ok(false);
    }
    if needs_root(plan) && !request.is_root {
        return Err(ControlError::NotRoot);
    }
    Ok(true)
}

/// Disks get another owner, jobs set up taps and filters: all of that takes root.
fn needs_root(plan: &Plan) -> bool {
    plan.actions().any(|(_, action)| {
        matches!(
            action.effect,
            Effect::Publish { .. } | Effect::MakeDisk { .. } | Effect::Start { .. } | Effect::SetAside { .. }
        )
    })
}

fn act(
    context: &Context,
    plan: &Plan,
    store: &mut Store,
    decides: Decides,
    request: &Request<'_>,
    client: &mut dyn Client,
) -> Result<Summary, ControlError> {
    let (scheduler, dhcp) = (context.scheduler(), context.dhcp());
    let owner = context.owner()?;
    let (runs, disks) = (context.runs(owner), context.disks(&plan.lab, owner));
    let interrupts = client.begins();
    let clock = SystemClock;
    let world = World {
        site: &context.site,
        lab: &plan.lab,
        scheduler: &*scheduler,
        dhcp: &*dhcp,
        program: &context.caller.program,
        runs: &runs,
        disks: &disks,
        clock: &clock,
        interrupts: &interrupts,
        parallelism: request.parallelism,
    };
    let Decides { lock, info } = decides;
    let info = ApplyInfo { summary: plan.counts(), ..info };
    let info = match request.together {
        Some(acts) => ApplyInfo { act: None, acts: acts.borrow().clone(), ..info },
        None => info,
    };
    let id = store.begin(&plan.lab, &apply::decision(plan), &info, clock.now())?;
    drop(lock);
    let summary = apply::apply(plan, id, store, &world, client)?;
    store.end(id, &outcome(plan, &summary), clock.now())?;
    Ok(summary)
}

/// For the history.
fn outcome(plan: &Plan, summary: &Summary) -> String {
    let refused = match plan.refusals.len() {
        0 => String::new(),
        number => format!(", {number} refused"),
    };
    let (done, failed, skipped) = (summary.done.len(), summary.failed.len(), summary.skipped.len());
    format!("{done} done, {failed} failed, {skipped} skipped{refused}")
}

/// How the guests came up that were waited for.
#[derive(Debug)]
#[must_use = "the user waits for it"]
pub struct Waited {
    pub recorded: Recorded,
    pub observed: Observed,
    /// The vms that were waited for, by their runs.
    pub vms: BTreeMap<RunId, VmName>,
    pub readiness: Readiness,
    pub goal: Goal,
    pub end: WaitEnd,
    /// Runs whose jobs are gone, with their last words where there were any.
    pub gone: Vec<(RunId, Option<String>)>,
}

/// Waits for the vms that were asked for by name, or for every vm of the lab that is on its way up; nothing where there is
/// none.
pub fn wait(
    context: &Context,
    desired: &Desired,
    plan: &Plan,
    timeout: Duration,
    client: &mut dyn Client,
) -> Result<Option<Waited>, ControlError> {
    let recorded = context.recorded(&desired.lab)?;
    let is_meant = |name: &VmName| plan.answers.is_empty() || plan.answers.contains_key(name);
    let (mut runs, mut vms) = (Vec::new(), BTreeMap::new());
    for (name, vm) in recorded.vms.iter().filter(|(name, _)| is_meant(name)) {
        if let Some(run) = vm.run.as_ref().filter(|run| !run.is_over()) {
            let job_name = run.batch.job_name(&desired.lab);
            runs.push(Awaited { run: run.run.clone(), job_name, task: run.task });
            vms.insert(run.run.clone(), name.clone());
        }
    }
    if runs.is_empty() {
        return Ok(None);
    }
    let goal = if context.site.qemu.keeps_guests_paused() { Goal::Held } else { Goal::Ready };
    let (folders, scheduler) = (context.runs(context.owner()?), context.scheduler());
    let interrupts = client.begins();
    let wait = Wait { folders: &folders, scheduler: &*scheduler, runs: &runs, goal, timeout, interrupts: &interrupts };
    let (readiness, end) = wait.until_ready(&mut |readiness| client.looks(readiness, goal))?;
    let observed = context.observe(desired, &recorded)?;
    let gone = readiness.gone.iter().map(|run| (run.clone(), said(context, &recorded, run))).collect();
    Ok(Some(Waited { recorded, observed, vms, readiness, goal, end, gone }))
}

/// The last words of a run's job.
fn said(context: &Context, recorded: &Recorded, run: &RunId) -> Option<String> {
    let known = recorded.vms.values().filter_map(|vm| vm.run.as_ref()).find(|known| known.run == *run)?;
    last_words(&context.site.storage.runs, known.job?.0, known.task)
}
