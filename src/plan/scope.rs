//! A part of a plan: only some addresses, or only what brings our records in line with what is there.

use std::collections::BTreeSet;

use super::{ActionId, Effect, Plan};
use crate::address::{AddressPattern, Kind};
use crate::run::StopReason;

/// Keeps the changes of the named addresses, and what they need.
pub fn target(mut plan: Plan, targets: &[AddressPattern]) -> Plan {
    let mut needed: BTreeSet<ActionId> = BTreeSet::new();
    let named = |plan: &Plan, at: usize| targets.iter().any(|target| target.matches(&plan.changes[at].address));
    let mut keep = vec![false; plan.changes.len()];
    // An action needs only earlier ones, so one walk from the end finds all.
    for at in (0..plan.changes.len()).rev() {
        let change = &plan.changes[at];
        keep[at] = named(&plan, at) || change.actions.iter().any(|action| needed.contains(&action.id));
        if keep[at] {
            needed.extend(change.actions.iter().flat_map(|action| action.needs.iter().copied()));
        }
    }
    let mut kept = keep.into_iter();
    plan.changes.retain(|_| kept.next().unwrap_or(false));
    plan.refusals.retain(|refusal| targets.iter().any(|target| target.matches(&refusal.address)));
    plan
}

/// Keeps only what takes note of the world: ends of runs, adopted jobs, touched images.
pub fn refresh_only(mut plan: Plan) -> Plan {
    for change in &mut plan.changes {
        change.actions.retain(|action| {
            matches!(
                action.effect,
                Effect::Fence { .. } | Effect::RecordEnd { .. } | Effect::Adopt { .. } | Effect::RecordImage { .. }
            )
        });
        change.verb = super::Verb::Record;
        change.reason = "our records are brought in line with what is there".into();
        change.before.clear();
        change.after.clear();
        change.touches = None;
    }
    plan.changes.retain(|change| !change.actions.is_empty());
    let kept: BTreeSet<ActionId> = plan.actions().map(|(_, action)| action.id).collect();
    for action in plan.changes.iter_mut().flat_map(|change| &mut change.actions) {
        action.needs.retain(|need| kept.contains(need));
    }
    plan.refusals.clear();
    plan
}

/// Keeps only what gives up the runs of a lost host. What forbids that is said of vms; all other guards are about what is
/// dropped here.
pub fn give_up_only(mut plan: Plan) -> Plan {
    let gives_up =
        |effect: &Effect| matches!(effect, Effect::RecordEnd { reason: Some(StopReason::HostLost { .. }), .. });
    let refusals: Vec<_> = plan.refusals.iter().filter(|refusal| refusal.address.kind == Kind::Vm).cloned().collect();
    plan.changes.retain(|change| change.actions.iter().any(|action| gives_up(&action.effect)));
    plan.drift.clear();
    plan.waits.clear();
    plan.notes.clear();
    let mut plan = refresh_only(plan);
    for change in &mut plan.changes {
        change.reason = "its run is taken for over, and fenced off should it live after all".into();
    }
    plan.refusals = refusals;
    plan
}
