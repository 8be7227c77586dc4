//! The part of a lab's plan that keeps it as it was applied, with nobody looking on. In: the plan of the lab as it was last applied,
//! with what people claim. Out: what is left of it:
//!
//! ```text
//! vms     run or stand still as they are wanted to, and what an apply or a command began on them is finished
//! starts  not of a vm that its manifest, or a session, wants to run and that somebody stopped by command: the next apply does that
//! else    nothing: what is recorded of users, groups, sessions and images, and what is published, an apply does alone
//! ```
//!
//! What a guard refuses stays refused: nobody is there who could mean it.

use std::collections::BTreeSet;

use super::{Action, ActionId, Change, Effect, Held, Plan, Reason, Verb};
use crate::model::address::Kind;
use crate::model::id::VmName;
use crate::model::lab::PowerState;
use crate::run::StopReason;
use crate::state::{Recorded, RecordedVm, RunState};

/// Keeps what is done without being asked. `may_start` says of a vm whether its time has come: one whose runs keep failing waits.
pub fn upkeep(mut plan: Plan, recorded: &Recorded, may_start: &dyn Fn(&VmName) -> bool) -> Plan {
    let mut dropped: BTreeSet<ActionId> = BTreeSet::new();
    for change in &mut plan.changes {
        let needs = |action: &Action| action.needs.iter().any(|need| dropped.contains(need));
        if change.address.kind != Kind::Vm || change.actions.iter().any(needs) {
            dropped.extend(change.actions.drain(..).map(|action| action.id));
        } else if starts_from_off(change) && !is_to_start(change, recorded, may_start) {
            keep_news(change);
        }
    }
    plan.changes.retain(|change| !change.actions.is_empty());
    plan.rights.clear();
    plan.refusals.retain(|refusal| match &refusal.holds {
        Held::Everything => true,
        Held::Only(held) => held.iter().chain([&refusal.address]).any(|address| address.kind == Kind::Vm),
    });
    plan
}

fn starts_from_off(change: &Change) -> bool {
    let is = |of: fn(&Effect) -> bool| change.actions.iter().any(|action| of(&action.effect));
    is(|effect| matches!(effect, Effect::Start { .. })) && !is(|effect| matches!(effect, Effect::Stop { .. }))
}

fn is_to_start(change: &Change, recorded: &Recorded, may_start: &dyn Fn(&VmName) -> bool) -> bool {
    let name = change.actions.iter().find_map(|action| action.effect.vm());
    name.is_none_or(|name| !was_stopped(change, name, recorded) && may_start(name))
}

/// Whether somebody ended a vm's latest run, and nothing but its manifest, or a session, wants it to run. An end that came with
/// a session's time is none for a session that goes on: somebody was given more.
fn was_stopped(change: &Change, name: &VmName, recorded: &Recorded) -> bool {
    let is_for_session = change.reasons.iter().any(|reason| matches!(reason, Reason::ForSession { .. }));
    let is_wanted = |known: &&RecordedVm| known.vm.state == PowerState::Running || is_for_session;
    let Some(known) = recorded.vms.get(name).filter(is_wanted) else { return false };
    let is_meant = |reason: &Option<StopReason>| match reason {
        Some(StopReason::Asked) => true,
        Some(StopReason::Deadline) => !is_for_session,
        _ => false,
    };
    let by_news = change.actions.iter().any(|action| match &action.effect {
        Effect::RecordEnd { reason, .. } => is_meant(reason),
        _ => false,
    });
    let state = known.run.as_ref().map(|run| &run.state);
    by_news || matches!(state, Some(RunState::Ended { reason }) if is_meant(reason))
}

/// Only what became of its run.
fn keep_news(change: &mut Change) {
    change.actions.retain(|action| {
        matches!(action.effect, Effect::Fence { .. } | Effect::RecordEnd { .. } | Effect::Adopt { .. })
    });
    let kept: BTreeSet<ActionId> = change.actions.iter().map(|action| action.id).collect();
    for action in &mut change.actions {
        action.needs.retain(|need| kept.contains(need));
    }
    change.verb = Verb::Record;
    change.before.clear();
    change.after.clear();
    change.touches = None;
}
