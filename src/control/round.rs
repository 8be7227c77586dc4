//! One round of the site's loop: what every lab needs to stay as it was last applied, with what people claim. No folder's files
//! are looked at. In: the site. Out: the labs that need something, and for each how that went. The daemon's loop and
//! `labwright reconcile --once` are this.
//!
//! ```text
//! look       all labs, one query of the queue, no lock; mostly nothing is to be done, and that is all
//! keep       one lab for which something is, as an apply does it: planned again under the lock, which is given back before it acts
//! together   the same for what people ask of a lab's vms by command, all that came at about the same time in one plan
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use jiff::Timestamp;

use super::apply::{Client, Done, Request, decide_and_act, reconcile};
use super::collect::Words;
use super::permissions::Rights;
use super::plan::Scope;
use super::power::{self, Power};
use super::template::require_install;
use super::upload::require_owner;
use super::{Caller, Context, ControlError, session, understood};
use crate::access::Person;
use crate::apply::{BatchKind, Goal, Progress, Readiness, Summary};
use crate::model::address::{Address, AddressPattern};
use crate::model::audit::Act;
use crate::model::id::{LabName, RunId, VmName};
use crate::model::lab::{Desired, Object};
use crate::plan::{Ask, Plan, Refusal, Wish, upkeep};
use crate::resolve::with_claims;
use crate::run;
use crate::scheduler::Seen;
use crate::state::Recorded;

/// Effects of one plan that run side by side.
const PARALLELISM: usize = 4;

/// Whether the time has come for a vm of a lab to be started again.
pub type MayStart<'a> = dyn Fn(&LabName, &VmName) -> bool + Sync + 'a;

/// What a look found.
#[derive(Debug)]
#[must_use = "a look does nothing about what it finds"]
pub struct Look {
    /// Labs that need something, or that cannot be looked at.
    pub labs: BTreeMap<LabName, Result<Plan, ControlError>>,
    /// Runs that are not over, by our records.
    pub live: Vec<RunId>,
    /// Labs in which files are to be collected, at once or when their guests are off.
    pub waiting: Vec<LabName>,
}

/// Looks at every lab of the site. A frozen one needs nothing.
pub fn look(context: &Context, may_start: &MayStart<'_>) -> Result<Look, ControlError> {
    let mut store = context.known_store()?;
    let labs = store.recorded_of_all()?;
    // Before the queue is asked: what is submitted after this is known to neither.
    let scheduler = context.scheduler();
    let queue = Seen::new(&*scheduler);
    let runs = labs.iter().flat_map(|(_, recorded)| recorded.vms.values()).filter_map(|vm| vm.run.as_ref());
    let live = runs.filter(|run| !run.is_over()).map(|run| run.run.clone()).collect();
    let plan = |lab: &LabName, recorded: &Recorded| {
        let desired = understood(lab.clone(), recorded)?;
        let plan = context.plan_in(&queue, &desired, recorded, &[], &BTreeMap::new())?;
        Ok(upkeep(plan, recorded, &|vm| may_start(lab, vm)))
    };
    let waits = |recorded: &Recorded| session::is_waiting(recorded, Timestamp::now());
    let waiting = labs.iter().filter(|(_, recorded)| waits(recorded)).map(|(lab, _)| lab.clone()).collect();
    let thawed = labs.iter().filter(|(_, recorded)| recorded.frozen.is_none());
    let plans = thawed.map(|(lab, recorded)| (lab.clone(), plan(lab, recorded)));
    let labs = plans.filter(|(_, plan)| plan.as_ref().map_or(true, |plan| !plan.is_empty() && !plan.is_refused()));
    Ok(Look { labs: labs.collect(), live, waiting })
}

/// Does for a lab what it needs, by what is there now.
pub fn keep(
    context: &Context,
    lab: &LabName,
    may_start: &MayStart<'_>,
    client: &mut dyn Client,
) -> Result<Done, ControlError> {
    let (context, desired) = context.of_applied_lab(lab)?;
    // Nobody asked: no rights are at stake, and git is not asked about a folder that is not looked at.
    let context = context.with_caller(Caller { person: Person::Nobody, ..context.caller.clone() });
    let make = |recorded: &Recorded| {
        let desired = understood(lab.clone(), recorded)?;
        let plan = context.plan(&desired, recorded, &[], &BTreeMap::new())?;
        Ok(upkeep(plan, recorded, &|vm| may_start(lab, vm)))
    };
    reconcile(&context, &desired, &make, &request("reconcile"), client)
}

/// Collects the files of vms whose sessions are over for their owners, in the labs where a look found some waiting; answers what
/// came of each. A frozen lab's, too: a freeze is about plans.
pub fn submissions(
    context: &Context,
    labs: Vec<LabName>,
    words: Words,
) -> BTreeMap<LabName, Result<usize, ControlError>> {
    let collect = |lab: LabName| {
        let came = session::collect_due(context, &lab, words);
        (lab, came)
    };
    labs.into_iter().map(collect).collect()
}

fn request(doing: &str) -> Request<'_> {
    Request { doing, parallelism: PARALLELISM, is_root: true, is_agreed: true, together: None }
}

/// Leaves word that a round is over, for those who ask whether anybody looks after the site.
pub fn over(context: &Context) {
    if let Err(error) = run::note_round(&context.site.storage.runs) {
        tracing::warn!(%error, "nobody will know of this round");
    }
}

/// What people ask of vms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    Power(Wish),
    /// A vm that they claimed for themselves is made.
    Make,
    /// One of theirs is to be otherwise, as its claim says.
    Change,
    /// A vm of their own, which they claim no more, leaves.
    GiveUp,
}

impl Doing {
    /// As it is typed.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Power(wish) => wish.verb(),
            Self::Make => "derive",
            Self::Change => "set",
            Self::GiveUp => "delete",
        }
    }
}

/// What one person asks of one vm.
#[derive(Debug, Clone)]
pub struct Asking {
    pub caller: Caller,
    pub vm: VmName,
    /// See `Power`.
    pub isolated: bool,
    pub by_name: bool,
    /// See `plan::Ask`.
    pub key: Option<String>,
    /// A CD that they may name: its empty disk is installed.
    pub cdrom: Option<PathBuf>,
}

/// What came of what several people asked.
#[derive(Debug)]
#[must_use = "each is for who asked"]
pub struct Together {
    pub done: Done,
    /// Why it may not be, for each in turn.
    pub refused: Vec<Option<ControlError>>,
}

/// Does what is asked of vms of one lab in one plan. Whether each may have it is judged under the lock, by what is recorded then.
pub fn together(
    context: &Context,
    lab: &LabName,
    doing: Doing,
    asked: &[Asking],
    client: &mut dyn Client,
) -> Result<Together, ControlError> {
    let (context, desired) = context.of_applied_lab(lab)?;
    let context = context.with_caller(caller_of_all(&context.caller, doing, asked));
    let (refused, acts, made) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()), RefCell::new(None));
    let make = |recorded: &Recorded| {
        let desired = understood(lab.clone(), recorded)?;
        let (judged, plan) = plan_together(&context, &desired, recorded, doing, asked)?;
        *acts.borrow_mut() = acts_of(&context, asked, &judged, &plan);
        *refused.borrow_mut() = judged;
        *made.borrow_mut() = Some(plan.clone());
        Ok(plan)
    };
    let request = Request { together: Some(&acts), ..request(&context.caller.command) };
    let mut refusals = Vec::new();
    let done = decide_and_act(&context, &desired, &make, &request, client, &mut refusals);
    let refused = refused.into_inner();
    audit_refused(&context, lab, asked, (&refused, &refusals), done.as_ref().err());
    let done = match (done, made.into_inner()) {
        // Why, each finds in it.
        (Err(ControlError::PlanRefused), Some(plan)) => Done { plan, summary: Summary::default() },
        (done, _) => done?,
    };
    Ok(Together { done, refused })
}

/// What is done of it, for the audit: each asker's own.
fn acts_of(context: &Context, asked: &[Asking], judged: &[Option<ControlError>], plan: &Plan) -> Vec<Act> {
    let is_done = |vm: &VmName| plan.changes.iter().any(|change| change.address == Address::vm(vm));
    let done = asked.iter().zip(judged).filter(|(asking, judged)| judged.is_none() && is_done(&asking.vm));
    let act = |(asking, _): (&Asking, _)| {
        let act = context.with_caller(asking.caller.clone()).act();
        act.about_also(std::iter::once(&Address::vm(&asking.vm)))
    };
    done.map(act).collect()
}

/// And what is refused of it.
fn audit_refused(
    context: &Context,
    lab: &LabName,
    asked: &[Asking],
    (judged, refusals): (&[Option<ControlError>], &[Refusal]),
    failed: Option<&ControlError>,
) {
    for (at, asking) in asked.iter().enumerate() {
        let context = context.with_caller(asking.caller.clone());
        let own: Vec<Refusal> =
            refusals.iter().filter(|refusal| refusal.holds(&Address::vm(&asking.vm))).cloned().collect();
        match judged.get(at).and_then(Option::as_ref) {
            Some(error) => context.audit_refusal(Some(lab), error, &[]),
            None if !own.is_empty() => context.audit_refusal(Some(lab), &ControlError::PlanRefused, &own),
            None => failed.into_iter().for_each(|error| context.audit_refusal(Some(lab), error, &[])),
        }
    }
}

fn plan_together(
    context: &Context,
    desired: &Desired,
    recorded: &Recorded,
    doing: Doing,
    asked: &[Asking],
) -> Result<(Vec<Option<ControlError>>, Plan), ControlError> {
    let lab = with_claims(desired, &recorded.claims);
    let mut meant: BTreeMap<VmName, Ask> = BTreeMap::new();
    let mut refused = Vec::new();
    for asking in asked {
        let judged = judge(context, &lab, recorded, doing, asking);
        let is_gone = doing == Doing::GiveUp && !recorded.vms.contains_key(&asking.vm);
        if judged.is_ok() && !is_gone {
            meant.entry(asking.vm.clone()).or_insert_with(|| ask(doing, asking));
        }
        refused.push(judged.err());
    }
    if meant.is_empty() {
        return Ok((refused, Plan::nothing(lab.lab.clone(), recorded)));
    }
    let targets: Vec<AddressPattern> = meant.keys().map(|vm| Address::vm(vm).into()).collect();
    let plan = match doing {
        Doing::Power(_) => super::plan::power(context, desired, recorded, &[], &meant)?,
        Doing::Make | Doing::Change | Doing::GiveUp => {
            let allow = if doing == Doing::GiveUp { targets.clone() } else { Vec::new() };
            Scope { targets, allow, refresh_only: false }.plan(context, desired, recorded)?
        }
    };
    for (asking, refused) in asked.iter().zip(&mut refused).filter(|(_, refused)| refused.is_none()) {
        let asker = context.with_caller(asking.caller.clone());
        if require_owner(&asker, &lab.lab).is_err() {
            *refused = power::refuse_too_many(&plan, &asking.vm).err();
        }
    }
    Ok((refused, plan))
}

fn ask(doing: Doing, asking: &Asking) -> Ask {
    let wish = if let Doing::Power(wish) = doing { wish } else { Wish::Start };
    let (by, key, cdrom) = (Some(asking.caller.name.clone()), asking.key.clone(), asking.cdrom.clone());
    Ask { wish, by_name: asking.by_name, by, key, cdrom }
}

/// Whether one of them may have what they ask for.
fn judge(
    context: &Context,
    lab: &Desired,
    recorded: &Recorded,
    doing: Doing,
    asking: &Asking,
) -> Result<(), ControlError> {
    let context = context.with_caller(asking.caller.clone());
    let rights = Rights::of(&context, lab, recorded);
    rights.require_any()?;
    let vm = &asking.vm;
    match doing {
        Doing::Power(_)
            if asking.cdrom.is_some()
                && let Err(error) = require_install(&rights, lab, vm) =>
        {
            Err(error)
        }
        Doing::Power(wish) => {
            let power = Power { vm: vm.clone(), wish, isolated: asking.isolated, by_name: asking.by_name };
            power::judge(&rights, lab, &power)
        }
        // Their rights were judged when they claimed it, or gave the claim up. Once nobody claims it, a look of the loop may have
        // taken it away before its owner's turn came.
        Doing::Make | Doing::Change if lab.vms.contains_key(vm) => Ok(()),
        Doing::GiveUp => Ok(()),
        Doing::Make | Doing::Change => Err(Rights::not_known(&Object::Vm(vm.clone()))),
    }
}

/// Most of those who ask that the history names.
const NAMES_MAX: usize = 5;

/// For the history, and to type again: who asked, and what.
fn caller_of_all(daemon: &Caller, doing: Doing, asked: &[Asking]) -> Caller {
    if let [only] = asked {
        return only.caller.clone();
    }
    let people: BTreeSet<&str> = asked.iter().map(|asking| asking.caller.name.as_str()).collect();
    let mut name = people.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
    if people.len() > NAMES_MAX {
        name = format!("{name} and {} others", people.len() - NAMES_MAX);
    }
    let vms: BTreeSet<&str> = asked.iter().map(|asking| asking.vm.as_str()).collect();
    let command = match doing {
        Doing::Power(wish) => format!("vm {} {}", wish.verb(), vms.into_iter().collect::<Vec<_>>().join(" ")),
        Doing::Make | Doing::Change | Doing::GiveUp => format!("vm {} of {} vms", doing.verb(), vms.len()),
    };
    Caller { name, person: Person::Nobody, command, ..daemon.clone() }
}

/// Nobody looks on while it is done: what came of it is told in the end.
pub struct Unwatched {
    pub interrupts: Arc<AtomicU8>,
    /// Called once when the decision is made and the work begins.
    pub begun: Option<Box<dyn FnOnce() + Send>>,
}

impl Unwatched {
    pub fn new(interrupts: Arc<AtomicU8>) -> Self {
        Self { interrupts, begun: None }
    }
}

impl Client for Unwatched {
    fn shows(&mut self, _: &Plan) {}

    fn agrees(&mut self, _: &Plan) -> Option<bool> {
        None
    }

    fn begins(&mut self) -> Arc<AtomicU8> {
        if let Some(begun) = self.begun.take() {
            begun();
        }
        Arc::clone(&self.interrupts)
    }

    fn looks(&mut self, _: &Readiness, _: Goal) {}
}

impl Progress for Unwatched {
    fn batch(&mut self, kind: BatchKind, done: usize, failed: usize, took: Duration) {
        tracing::debug!(?kind, done, failed, ?took, "batch");
    }

    fn retry(&mut self, kind: BatchKind, number: usize, pause: Duration, why: &str) {
        tracing::warn!(?kind, number, ?pause, why, "another try");
    }
}

/// What of an apply is about one vm.
pub fn of_vm(summary: &Summary, plan: &Plan, vm: &VmName) -> Summary {
    let address = Address::vm(vm);
    let is_own = |of: &&Address| **of == address;
    let own_runs: BTreeSet<_> = plan.runs_of(&address).collect();
    Summary {
        done: summary.done.iter().filter(is_own).cloned().collect(),
        failed: summary.failed.iter().filter(|failure| failure.address == address).cloned().collect(),
        skipped: summary.skipped.iter().filter(is_own).cloned().collect(),
        started: summary.started.iter().filter(|run| own_runs.contains(run)).cloned().collect(),
        interrupted: summary.interrupted && !summary.done.contains(&address),
    }
}
