//! What is done to a lab beside the plan of its manifest, in the history like any apply: every intent is written down before the
//! first effect, and what each came to before the next begins. A kill in between is seen there, and the same request goes on.
//!
//! These are no actions of a plan: a plan decides what a manifest asks for, may be kept for later and is carried out with
//! others side by side, while here a person names the disks, and they move one after the other or not at all.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::{Context, ControlError};
use crate::error::chain;
use crate::model::address::Address;
use crate::model::id::{LabName, Mac};
use crate::state::{Change, Decision, Entry, Hold, Intent, Lock, Outcome, StateError, Store};

/// One effect.
pub(super) struct Step<'a> {
    pub(super) address: Address,
    /// For the history.
    pub(super) effect: &'static str,
    /// What must be known of it even if we die in the middle.
    pub(super) before: Vec<Change>,
    pub(super) act: Box<dyn Fn() -> Result<(), ControlError> + 'a>,
    /// What is recorded once it is done.
    pub(super) after: Vec<Change>,
}

impl Step<'_> {
    /// An effect on our records alone.
    pub(super) fn record(address: Address, effect: &'static str, after: Vec<Change>) -> Self {
        Self { address, effect, before: Vec::new(), act: Box::new(|| Ok(())), after }
    }
}

/// What one step means to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Each needs the one before it: the first failure ends it.
    Chain,
    /// They have nothing to do with each other.
    Any,
}

/// The lab that steps are about, as it was when they were decided.
pub(super) struct Lab<'a> {
    pub(super) context: &'a Context,
    pub(super) name: &'a LabName,
    /// Its latest apply then.
    pub(super) after: i64,
    /// What is done, for others who would do something to the same things, such as `restored`.
    pub(super) doing: &'static str,
}

impl Lab<'_> {
    /// Changes our records alone, where nothing outside can fail.
    pub(super) fn record(
        &self,
        store: &mut Store,
        lock: Lock,
        summary: &str,
        steps: Vec<Step<'_>>,
    ) -> Result<(), ControlError> {
        let failed = self.carry_out(store, Some(lock), summary, Order::Any, steps)?;
        failed.into_iter().next().map_or(Ok(()), Err)
    }

    /// Carries steps out; what failed comes back in their order. An error of the state ends it at once. The lock under which they
    /// were decided is given back as soon as others can see what they are about.
    pub(super) fn carry_out(
        &self,
        store: &mut Store,
        lock: Option<Lock>,
        summary: &str,
        order: Order,
        mut steps: Vec<Step<'_>>,
    ) -> Result<Vec<ControlError>, StateError> {
        let (lab, now) = (self.name, jiff::Timestamp::now);
        let apply = store.begin(lab, &self.decision(&steps), &self.context.apply_info(summary), now())?;
        drop(lock);
        let before: Vec<Change> = steps.iter_mut().flat_map(|step| std::mem::take(&mut step.before)).collect();
        let intent = |step: &Step<'_>| Intent { address: step.address.clone(), effect: step.effect };
        let lines = store.intend(lab, apply, &steps.iter().map(intent).collect::<Vec<_>>(), &before, now())?;
        let (all, mut done, mut failed) = (steps.len(), 0, Vec::new());
        for (line, step) in lines.into_iter().zip(steps) {
            let result = (step.act)();
            let (outcome, changes) = match &result {
                Ok(()) => (Outcome::Done, step.after),
                Err(error) => (Outcome::Failed { detail: chain(error) }, Vec::new()),
            };
            store.settle(lab, apply, &[(line, outcome)], &changes, now())?;
            done += usize::from(result.is_ok());
            failed.extend(result.err());
            if order == Order::Chain && !failed.is_empty() {
                break;
            }
        }
        let (failures, skipped) = (failed.len(), all - done - failed.len());
        store.end(apply, &format!("{done} done, {failures} failed, {skipped} skipped"), now())?;
        Ok(failed)
    }

    fn decision(&self, steps: &[Step<'_>]) -> Decision {
        let mut holds: BTreeMap<&Address, Hold> = BTreeMap::new();
        for Step { address, after, .. } in steps {
            let hold = Hold { address: address.clone(), doing: self.doing.to_owned(), seat: None, run: None };
            let hold = holds.entry(address).or_insert(hold);
            hold.seat = hold.seat.or_else(|| after.iter().find_map(|change| seat(change, address)));
        }
        Decision { after: self.after, holds: holds.into_values().collect() }
    }
}

fn seat(change: &Change, address: &Address) -> Option<(Ipv4Addr, Mac)> {
    match change {
        Change::Entry(Entry::Vm { name, ip, mac, .. }) if Address::vm(name) == *address => Some((*ip, *mac)),
        _ => None,
    }
}
