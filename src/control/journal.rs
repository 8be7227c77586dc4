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
use crate::state::{ApplyId, ApplyInfo, Change, Decision, Entry, Hold, Intent, Lock, Outcome, StateError, Store};

/// The lock under which something is decided, and what takes long to find out for the history: it is asked before the lock is
/// taken.
pub(super) struct Decides {
    pub(super) lock: Lock,
    pub(super) info: ApplyInfo,
}

impl Decides {
    pub(super) fn begin(context: &Context, doing: String) -> Result<Self, ControlError> {
        let info = context.apply_info("");
        Ok(Self { lock: context.lock(doing)?, info })
    }
}

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
        decides: Decides,
        summary: &str,
        steps: Vec<Step<'_>>,
    ) -> Result<(), ControlError> {
        let failed = self.carry_out(store, decides, summary, Order::Any, steps)?;
        failed.into_iter().next().map_or(Ok(()), Err)
    }

    /// Carries steps out; what failed comes back in their order. An error of the state ends it at once.
    pub(super) fn carry_out(
        &self,
        store: &mut Store,
        decides: Decides,
        summary: &str,
        order: Order,
        steps: Vec<Step<'_>>,
    ) -> Result<Vec<ControlError>, StateError> {
        let mut work = self.begin(store, decides, summary, &steps.iter().collect::<Vec<_>>())?;
        let failed = work.carry_out(order, steps)?;
        work.end()?;
        Ok(failed)
    }

    /// Begins what is carried out piece by piece. The lock under which it was decided is given back as soon as others can see
    /// what it is about.
    pub(super) fn begin<'w>(
        &'w self,
        store: &'w mut Store,
        decides: Decides,
        summary: &str,
        steps: &[&Step<'_>],
    ) -> Result<Work<'w>, StateError> {
        let Decides { lock, info } = decides;
        let info = ApplyInfo { summary: summary.to_owned(), ..info };
        let apply = store.begin(self.name, &self.decision(steps), &info, jiff::Timestamp::now())?;
        drop(lock);
        Ok(Work { lab: self.name, store, apply, done: 0, failed: 0, skipped: 0 })
    }

    fn decision(&self, steps: &[&Step<'_>]) -> Decision {
        let mut holds: BTreeMap<&Address, Hold> = BTreeMap::new();
        for Step { address, after, .. } in steps {
            let hold =
                Hold { address: address.clone(), doing: self.doing.to_owned(), seat: None, run: None, stores: None };
            let hold = holds.entry(address).or_insert(hold);
            hold.seat = hold.seat.or_else(|| after.iter().find_map(|change| seat(change, address)));
        }
        Decision { after: self.after, holds: holds.into_values().collect(), quotas: Vec::new(), storage: Vec::new() }
    }
}

/// What is under way. Others leave alone what it is about until it ends.
pub(super) struct Work<'w> {
    lab: &'w LabName,
    store: &'w mut Store,
    apply: ApplyId,
    done: usize,
    failed: usize,
    skipped: usize,
}

impl Work<'_> {
    /// Carries some of the steps out; what failed comes back in their order.
    pub(super) fn carry_out(
        &mut self,
        order: Order,
        mut steps: Vec<Step<'_>>,
    ) -> Result<Vec<ControlError>, StateError> {
        let (lab, now) = (self.lab, jiff::Timestamp::now);
        let before: Vec<Change> = steps.iter_mut().flat_map(|step| std::mem::take(&mut step.before)).collect();
        let intents: Vec<Intent> =
            steps.iter().map(|step| Intent { address: step.address.clone(), effect: step.effect }).collect();
        let lines = self.store.intend(lab, self.apply, &intents, &before, now())?;
        let (mut left, mut failed) = (steps.len(), Vec::new());
        for (line, step) in lines.into_iter().zip(steps) {
            let result = (step.act)();
            let (outcome, changes) = match &result {
                Ok(()) => (Outcome::Done, step.after),
                Err(error) => (Outcome::Failed { detail: chain(error) }, Vec::new()),
            };
            self.store.settle(lab, self.apply, &[(line, outcome)], &changes, now())?;
            left -= 1;
            self.done += usize::from(result.is_ok());
            failed.extend(result.err());
            if order == Order::Chain && !failed.is_empty() {
                break;
            }
        }
        self.failed += failed.len();
        self.skipped += left;
        Ok(failed)
    }

    pub(super) fn end(self) -> Result<(), StateError> {
        let Self { done, failed, skipped, .. } = self;
        let outcome = format!("{done} done, {failed} failed, {skipped} skipped");
        self.store.end(self.apply, &outcome, jiff::Timestamp::now())
    }
}

fn seat(change: &Change, address: &Address) -> Option<(Ipv4Addr, Mac)> {
    match change {
        Change::Entry(Entry::Vm { name, ip, mac, .. }) if Address::vm(name) == *address => Some((*ip, *mac)),
        _ => None,
    }
}
