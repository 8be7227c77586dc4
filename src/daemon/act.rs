//! What changes something: each is one part of the lab's plan, carried out at once and told in the words of the command line.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use axum::http::StatusCode;

use super::api::No;
use super::messages::{Acted, Derive, Power};
use crate::apply::{BatchKind, Goal, Progress, Readiness, Summary};
use crate::control::apply::{Client, Done, Request, reconcile};
use crate::control::own::{self, Lab};
use crate::control::{self, Code, Context, ControlError};
use crate::model::address::Address;
use crate::model::id::VmName;
use crate::model::lab::Desired;
use crate::plan::{Answer, Ground, Plan, Refusal};
use crate::report;
use crate::state::Recorded;

/// Effects of one request that run side by side.
const PARALLELISM: usize = 4;

/// A request that is carried out.
pub(super) struct Asked<'a> {
    pub(super) context: &'a Context,
    pub(super) desired: &'a Desired,
    pub(super) interrupts: Arc<AtomicU8>,
}

pub(super) fn derive(asked: &Asked<'_>, wanted: &Derive) -> Result<Acted, No> {
    let wanted = wanted.clone().wanted(&asked.context.caller.name);
    let wanted = wanted.map_err(|error| No::of(StatusCode::BAD_REQUEST, Code::Usage, error.to_string()))?;
    let lab = Lab::AsApplied(&asked.desired.lab);
    let name = own::derive(asked.context, lab, &wanted).map_err(|error| No::told(&error))?;
    let made = asked.part_about(&name, false);
    if made.is_err() {
        own::withdraw(asked.context, lab.name(), &name).map_err(|error| No::told(&error))?;
    }
    made
}

pub(super) fn give_up(asked: &Asked<'_>, vm: &VmName) -> Result<Acted, No> {
    let lab = Lab::AsApplied(&asked.desired.lab);
    if own::give_up(asked.context, lab, vm).map_err(|error| No::told(&error))? {
        return asked.part_about(vm, true);
    }
    let plan = format!("vm {vm} was never made; nobody claims it any more\n");
    Ok(Acted { vm: vm.clone(), changed: true, plan, outcome: String::new() })
}

pub(super) fn power(asked: &Asked<'_>, vm: VmName, power: &Power) -> Result<Acted, No> {
    let doing = power_command(&vm, power);
    let power = control::power::Power { vm, wish: power.wanted, isolated: power.isolated, by_name: power.by_name };
    let make = |recorded: &Recorded| {
        // As it is at the moment of the decision: somebody may have applied it anew since the request came.
        let desired = Lab::AsApplied(&asked.desired.lab).desired(recorded)?;
        control::power::plan(asked.context, &desired, recorded, &power)
    };
    asked.carry_out(&power.vm, &make, &doing)
}

/// For the history, and to type again.
pub(super) fn power_command(vm: &VmName, power: &Power) -> String {
    format!("vm {} {vm}{}", power.wanted.verb(), if power.isolated { " --isolate" } else { "" })
}

impl Asked<'_> {
    /// The part of the plan that is about this vm.
    fn part_about(&self, vm: &VmName, is_meant: bool) -> Result<Acted, No> {
        let scope = own::part(vm, is_meant.then(|| Address::vm(vm).into()).into_iter().collect());
        let make = |recorded: &Recorded| {
            let desired = Lab::AsApplied(&self.desired.lab).desired(recorded)?;
            scope.plan(self.context, &desired, recorded)
        };
        self.carry_out(vm, &make, &self.context.caller.command)
    }

    fn carry_out(
        &self,
        vm: &VmName,
        make: &dyn Fn(&Recorded) -> Result<Plan, ControlError>,
        doing: &str,
    ) -> Result<Acted, No> {
        let request = Request { doing, parallelism: PARALLELISM, is_root: true, is_agreed: true };
        let mut teller = Teller { interrupts: Arc::clone(&self.interrupts), shown: None };
        match reconcile(self.context, self.desired, make, &request, &mut teller) {
            Ok(Done { plan, summary }) => told(vm, &plan, &summary, doing),
            Err(error @ ControlError::PlanRefused) => Err(refused(No::told(&error), teller.shown.as_ref(), vm)),
            Err(error) => Err(No::told(&error)),
        }
    }
}

/// Nobody looks on while it is done: the answer tells it all.
struct Teller {
    interrupts: Arc<AtomicU8>,
    shown: Option<Plan>,
}

impl Client for Teller {
    fn shows(&mut self, plan: &Plan) {
        self.shown = Some(plan.clone());
    }

    fn agrees(&mut self, _: &Plan) -> Option<bool> {
        None
    }

    fn begins(&mut self) -> Arc<AtomicU8> {
        Arc::clone(&self.interrupts)
    }

    fn looks(&mut self, _: &Readiness, _: Goal) {}
}

impl Progress for Teller {
    fn batch(&mut self, kind: BatchKind, done: usize, failed: usize, took: Duration) {
        tracing::debug!(?kind, done, failed, ?took, "batch");
    }

    fn retry(&mut self, kind: BatchKind, number: usize, pause: Duration, why: &str) {
        tracing::warn!(?kind, number, ?pause, why, "another try");
    }
}

/// What became of the vm. What else the plan speaks of is somebody else's.
fn told(vm: &VmName, plan: &Plan, summary: &Summary, doing: &str) -> Result<Acted, No> {
    let own = about(plan, vm);
    let again = format!("labwright {doing}");
    if !summary.failed.is_empty() || summary.interrupted {
        let outcome = report::apply::text(summary, &again, None);
        let lines = outcome.lines().map(str::to_owned).collect();
        let no = No::of(StatusCode::INTERNAL_SERVER_ERROR, Code::Failed, format!("`{again}` was not done in full"));
        return Err(no.because(lines, None));
    }
    if !own.refusals.is_empty() {
        let no = No::of(StatusCode::FORBIDDEN, Code::Refused, format!("`{again}` was refused"));
        return Err(refused(no, Some(&own), vm));
    }
    if let Some(Answer::NotDone(why)) = plan.answers.get(vm) {
        return Err(No::of(StatusCode::CONFLICT, Code::NotReady, format!("not done: {vm}: {why}")));
    }
    let look = format!("labwright get mappings {vm}");
    Ok(match plan.answers.get(vm) {
        Some(Answer::Already(why)) if plan.is_empty() => {
            Acted { vm: vm.clone(), changed: false, plan: format!("{vm} {why}\n"), outcome: String::new() }
        }
        _ => Acted {
            vm: vm.clone(),
            changed: !plan.is_empty(),
            plan: report::plan::text(&own, false),
            outcome: report::apply::text(summary, &again, Some(&look)),
        },
    })
}

/// Why the plan for this vm is refused; not whose other things come into it.
fn refused(no: No, plan: Option<&Plan>, vm: &VmName) -> No {
    let address = Address::vm(vm);
    let refusals: Vec<_> =
        plan.into_iter().flat_map(|plan| &plan.refusals).filter(|refusal| refusal.holds(&address)).collect();
    let hint = refusals.first().map(|refusal| refusal.hint());
    let words = |refusal: &&Refusal| match &refusal.why {
        // What else its owner runs is theirs.
        Ground::OverQuota { owner, limit, .. } => format!("{owner} may run {limit} vms at once"),
        // And what else runs in the lab is somebody's.
        Ground::OverShare { .. } => "the lab runs as much as the site lets it".to_owned(),
        why => why.to_string(),
    };
    no.because(refusals.iter().map(words).collect(), hint)
}

/// A plan without what is about other things.
fn about(plan: &Plan, vm: &VmName) -> Plan {
    let address = Address::vm(vm);
    let mut own = plan.clone();
    own.changes.retain(|change| change.address == address);
    own.refusals.retain(|refusal| refusal.holds(&address));
    for notes in [&mut own.drift, &mut own.waits, &mut own.notes] {
        notes.retain(|note| note.address == address);
    }
    own.unchanged.retain(|other| *other == address);
    own
}
