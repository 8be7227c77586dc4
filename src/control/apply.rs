//! The one way to change a lab: plan, ask, act, and if that is wanted see the guests come up.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use super::journal::Decides;
use super::readiness::{Ready, refuse_unready};
use super::{Context, ControlError, Note, clear, session};
use crate::apply::{self, Awaited, Goal, Progress, Readiness, Summary, Wait, WaitEnd, World};
use crate::model::audit::Act;
use crate::model::id::{RunId, VmName};
use crate::model::lab::Desired;
use crate::observe::Observed;
use crate::plan::{Effect, Plan, Refusal};
use crate::resolve::with_claims;
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

/// The lock is held while something is decided and until it is written down what is going to be done; never while somebody thinks,
/// nor while a machine or a queue is looked at that may be slow to answer.
pub(super) fn decide_and_act(
    context: &Context,
    desired: &Desired,
    make: &dyn Fn(&Recorded) -> Result<Plan, ControlError>,
    request: &Request<'_>,
    client: &mut dyn Client,
    refusals: &mut Vec<Refusal>,
) -> Result<Done, ControlError> {
    let mut deciding = Deciding { context, desired, make, request, client, refusals };
    if request.is_agreed { deciding.at_once() } else { deciding.with_a_person() }
}

/// What is decided, for whom, and how.
struct Deciding<'a> {
    context: &'a Context,
    desired: &'a Desired,
    make: &'a dyn Fn(&Recorded) -> Result<Plan, ControlError>,
    request: &'a Request<'a>,
    client: &'a mut dyn Client,
    /// What the latest plan refuses.
    refusals: &'a mut Vec<Refusal>,
}

/// A plan, and what it was made from.
struct Planned {
    recorded: Recorded,
    plan: Plan,
}

impl Deciding<'_> {
    /// Whatever comes out is done. It is planned before the lock is taken, and that stands if nothing was written meanwhile on
    /// which it could depend; else it is planned again under the lock.
    fn at_once(&mut self) -> Result<Done, ControlError> {
        let mut store = self.context.store()?;
        let standing = store.standing(&self.desired.lab)?;
        let recorded = store.recorded(&self.desired.lab)?;
        let early = self.plan(recorded)?;
        let ready = match self.ready(&early, &Ready::default()) {
            Ok(Some(ready)) => ready,
            other => {
                self.client.shows(&early.plan);
                other?;
                return self.nothing_to_do(&mut store, early.plan);
            }
        };
        let decides = self.lock()?;
        let planned = if store.standing(&self.desired.lab)? == standing {
            early
        } else {
            let recorded = store.recorded(&self.desired.lab)?;
            self.plan(recorded)?
        };
        self.client.shows(&planned.plan);
        match self.ready(&planned, &ready)? {
            Some(_) => self.act(store, decides, planned),
            None => self.nothing_to_do(&mut store, planned.plan),
        }
    }

    /// What a person agrees to is planned again under the lock, and where something else comes out, that is shown and asked about.
    fn with_a_person(&mut self) -> Result<Done, ControlError> {
        let mut store = self.context.store()?;
        let recorded = store.recorded(&self.desired.lab)?;
        let mut shown = self.plan(recorded)?;
        loop {
            self.client.shows(&shown.plan);
            if self.ready(&shown, &Ready::default())?.is_none() {
                return self.nothing_to_do(&mut store, shown.plan);
            }
            // The state is not kept open while somebody thinks.
            drop(store);
            agree(&shown.plan, self.client)?;
            store = self.context.store()?;
            let decides = self.lock()?;
            let recorded = store.recorded(&self.desired.lab)?;
            if let Some(frozen) = recorded.frozen {
                return Err(StateError::Frozen { frozen }.into());
            }
            let planned = self.plan(recorded)?;
            if shown.plan.does_the_same(&planned.plan) {
                return self.act(store, decides, planned);
            }
            self.context.listener.note(&Note::PlanMoved { lab: &self.desired.lab });
            shown = planned;
        }
    }

    fn plan(&mut self, recorded: Recorded) -> Result<Planned, ControlError> {
        let plan = (self.make)(&recorded)?;
        self.refusals.clone_from(&plan.refusals);
        Ok(Planned { recorded, plan })
    }

    /// What this machine is ready for, of what it was not found ready for `already`; `None` where there is nothing to do. An error
    /// where it must not be done.
    fn ready(&self, planned: &Planned, already: &Ready) -> Result<Option<Ready>, ControlError> {
        let desired = with_claims(self.desired, &planned.recorded.claims);
        match may_begin(&planned.plan, self.request)? {
            true => refuse_unready(self.context, &desired, &planned.plan, already).map(Some),
            false => Ok(None),
        }
    }

    fn lock(&self) -> Result<Decides, ControlError> {
        Decides::begin(self.context, format!("{} {}", self.request.doing, self.desired.lab))
    }

    fn nothing_to_do(&self, store: &mut Store, plan: Plan) -> Result<Done, ControlError> {
        keep_particulars(store, self.desired)?;
        Ok(Done { plan, summary: Summary::default() })
    }

    fn act(&mut self, mut store: Store, decides: Decides, planned: Planned) -> Result<Done, ControlError> {
        let Planned { recorded, plan } = planned;
        let summary = act(self.context, &plan, &mut store, decides, self.request, self.client)?;
        session::tell_what_came(self.context, &plan.lab, &recorded, &mut store)?;
        keep_particulars(&mut store, self.desired)?;
        clear::piece(self.context, &plan.lab, &recorded, &mut store);
        Ok(Done { plan, summary })
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
    let clock = context.clock();
    let world = World {
        site: &context.site,
        lab: &plan.lab,
        scheduler: &*scheduler,
        dhcp: &*dhcp,
        program: &context.caller.program,
        runs: &*runs,
        disks: &*disks,
        clock: &*clock,
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
    let wait = Wait { folders: &*folders, scheduler: &*scheduler, runs: &runs, goal, timeout, interrupts: &interrupts };
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
