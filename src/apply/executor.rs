//! The loop: what is ready is gathered into batches, batches run side by side, every outcome is recorded before what
//! needs it begins. One thread, this one, talks to the state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::batch::{ActionResult, Batch, Message};
use super::effects;
use super::{BatchKind, Progress, World, holds};
use crate::model::address::Address;
use crate::model::id::RunId;
use crate::plan::{Action, ActionId, Plan};
use crate::state::{ApplyId, Intent, JournalId, Outcome, StateError, Store};

/// How an apply went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "what failed is for the user"]
pub struct Summary {
    /// Changes all of whose actions were done.
    pub done: BTreeSet<Address>,
    pub failed: Vec<Failure>,
    /// Changes that were not begun, or not finished, because something they need failed or the user stopped us.
    pub skipped: BTreeSet<Address>,
    /// Runs that were submitted, or whose guests begin again.
    pub started: Vec<RunId>,
    pub interrupted: bool,
}

/// An effect that was tried and did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub address: Address,
    pub effect: &'static str,
    /// What was tried, and the program's own words.
    pub detail: String,
}

/// Says that a batch is over, also when its thread ends in a panic: the loop must not wait for it for ever.
struct EndOfBatch {
    kind: BatchKind,
    sender: Sender<Message>,
}

impl Drop for EndOfBatch {
    fn drop(&mut self) {
        // The loop outlives every batch; if it ended on an error of the state, nobody waits for this.
        drop(self.sender.send(Message::End(self.kind)));
    }
}

/// Carries out `plan`. An error is one of the state: then nothing more is begun.
pub fn apply(
    plan: &Plan,
    apply: ApplyId,
    store: &mut Store,
    world: &World<'_>,
    progress: &mut dyn Progress,
) -> Result<Summary, StateError> {
    let (sender, receiver) = channel();
    let mut walk = Walk::new(plan, apply, store, world);
    let walked = std::thread::scope(|scope| {
        let spawn = |batch: Batch| {
            let sender: Sender<Message> = sender.clone();
            scope.spawn(move || {
                let end = EndOfBatch { kind: batch.kind, sender };
                effects::run(&batch, world, &end.sender);
            });
        };
        walk.run(&spawn, &receiver, progress)
    });
    walked.map(|()| walk.summary())
}

/// One walk over a plan.
struct Walk<'a> {
    apply: ApplyId,
    store: &'a mut Store,
    world: &'a World<'a>,
    actions: BTreeMap<ActionId, (&'a Address, &'a Action)>,
    /// How many of its needs each action still waits for.
    waits_for: BTreeMap<ActionId, usize>,
    /// How many actions of each change are still to be done.
    left: BTreeMap<&'a Address, usize>,
    /// What each change holds.
    holds: BTreeMap<&'a Address, Vec<Address>>,
    needed_by: BTreeMap<ActionId, Vec<ActionId>>,
    ready: BTreeSet<ActionId>,
    journal: BTreeMap<ActionId, JournalId>,
    finished: BTreeSet<ActionId>,
    failures: BTreeMap<ActionId, String>,
    started: Vec<RunId>,
    accounting: effects::Accounting,
    running: Vec<BatchKind>,
    interrupted: bool,
}

impl<'a> Walk<'a> {
    fn new(plan: &'a Plan, apply: ApplyId, store: &'a mut Store, world: &'a World<'a>) -> Self {
        let mut needed_by: BTreeMap<ActionId, Vec<ActionId>> = BTreeMap::new();
        let mut waits_for = BTreeMap::new();
        let mut actions = BTreeMap::new();
        let mut left: BTreeMap<&Address, usize> = BTreeMap::new();
        for (change, action) in plan.actions() {
            *left.entry(&change.address).or_default() += 1;
            actions.insert(action.id, (&change.address, action));
            waits_for.insert(action.id, action.needs.len());
            for need in &action.needs {
                needed_by.entry(*need).or_default().push(action.id);
            }
        }
        let mut holds: BTreeMap<&Address, Vec<Address>> = BTreeMap::new();
        for (change, address) in holds::held(plan) {
            holds.entry(&change.address).or_default().push(address);
        }
        let ready = waits_for.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
        Self {
            apply,
            store,
            world,
            actions,
            waits_for,
            left,
            holds,
            needed_by,
            ready,
            journal: BTreeMap::new(),
            finished: BTreeSet::new(),
            failures: BTreeMap::new(),
            started: Vec::new(),
            accounting: effects::accounting(plan, world),
            running: Vec::new(),
            interrupted: false,
        }
    }

    fn run(
        &mut self,
        spawn: &dyn Fn(Batch),
        receiver: &Receiver<Message>,
        progress: &mut dyn Progress,
    ) -> Result<(), StateError> {
        loop {
            self.interrupted |= self.world.interrupts.load(Ordering::Relaxed) > 0;
            while !self.interrupted && self.running.len() < self.world.parallelism {
                let Some(batch) = self.next_batch() else { break };
                if batch.kind == BatchKind::Record {
                    self.intend(&effects::claims(&batch))?;
                    self.settle(
                        effects::records(&batch, &self.accounting),
                        (BatchKind::Record, Duration::ZERO),
                        progress,
                    )?;
                } else {
                    self.intend(&batch)?;
                    self.running.push(batch.kind);
                    spawn(batch);
                }
            }
            if self.running.is_empty() {
                return Ok(());
            }
            match receiver.recv() {
                Ok(Message::Results { kind, results, took }) => self.settle(results, (kind, took), progress)?,
                Ok(Message::Retry { kind, number, pause, why }) => progress.retry(kind, number, pause, &why),
                Ok(Message::Copied(copied)) => progress.copies(&copied),
                Ok(Message::End(kind)) => {
                    if let Some(at) = self.running.iter().position(|running| *running == kind) {
                        self.running.remove(at);
                    }
                }
                Err(_) => return Ok(()),
            }
        }
    }

    /// Everything ready that goes together with the first of its kind. Starts wait until nothing else could still make
    /// another start of the same shape ready, so that one shape is one array job; only stops, which may take long, are
    /// not waited for.
    fn next_batch(&mut self) -> Option<Batch> {
        let kinds: BTreeSet<BatchKind> =
            self.ready.iter().map(|id| effects::kind(&self.actions[id].1.effect)).collect();
        let busy = self.running.iter().any(|kind| !matches!(kind, BatchKind::Stop | BatchKind::TurnOff));
        let kind = kinds.into_iter().find(|kind| *kind != BatchKind::Start || !busy)?;
        let first = self.ready.iter().find(|id| effects::kind(&self.actions[*id].1.effect) == kind)?;
        let shape = effects::shape(&self.actions[first].1.effect);
        let together: Vec<ActionId> = self
            .ready
            .iter()
            .filter(|id| {
                let effect = &self.actions[*id].1.effect;
                effects::kind(effect) == kind && effects::shape(effect) == shape
            })
            .copied()
            .collect();
        for id in &together {
            self.ready.remove(id);
        }
        let actions = together.iter().map(|id| self.actions[id].1.clone()).collect();
        Some(Batch { kind, actions })
    }

    fn intend(&mut self, batch: &Batch) -> Result<(), StateError> {
        if batch.actions.is_empty() {
            return Ok(());
        }
        let intents: Vec<Intent> = batch
            .actions
            .iter()
            .map(|action| Intent { address: self.actions[&action.id].0.clone(), effect: action.effect.name() })
            .collect();
        let changes = effects::intended(batch);
        let now = self.world.clock.now();
        let lines = self.store.intend(self.world.lab, self.apply, &intents, &changes, now)?;
        self.journal.extend(batch.actions.iter().map(|action| action.id).zip(lines));
        Ok(())
    }

    /// Records outcomes, then lets go what waited for them, or holds it back for good.
    fn settle(
        &mut self,
        results: Vec<ActionResult>,
        (kind, took): (BatchKind, Duration),
        progress: &mut dyn Progress,
    ) -> Result<(), StateError> {
        let (mut outcomes, mut changes) = (Vec::new(), Vec::new());
        for (id, result) in &results {
            let outcome = match result {
                Ok(new) => {
                    changes.extend(new.iter().cloned());
                    Outcome::Done
                }
                Err(detail) => Outcome::Failed { detail: detail.clone() },
            };
            outcomes.extend(self.journal.get(id).map(|line| (*line, outcome)));
        }
        let (lab, now, over) = (self.world.lab, self.world.clock.now(), self.count_down(&results));
        self.store.settle_and_let_go(lab, self.apply, &outcomes, &changes, &over, now)?;
        let failed = results.iter().filter(|(_, result)| result.is_err()).count();
        progress.batch(kind, results.len() - failed, failed, took);
        for (id, result) in results {
            match result {
                Ok(_) => self.finish(id),
                Err(detail) => {
                    self.failures.insert(id, detail);
                }
            }
        }
        Ok(())
    }

    /// What is free for others with these results: things of which nothing is left to be done. One of which something failed
    /// is held to the end.
    fn count_down(&mut self, results: &[ActionResult]) -> Vec<Address> {
        let mut over = Vec::new();
        for (id, _) in results.iter().filter(|(_, result)| result.is_ok()) {
            let address = self.actions[id].0;
            let Some(left) = self.left.get_mut(address) else { continue };
            *left -= 1;
            if *left == 0 {
                over.extend(self.holds.remove(address).unwrap_or_default());
            }
        }
        over
    }

    fn finish(&mut self, id: ActionId) {
        self.finished.insert(id);
        self.started.extend(self.actions[&id].1.effect.begins().cloned());
        for next in self.needed_by.remove(&id).unwrap_or_default() {
            let count = self.waits_for.entry(next).or_insert(0);
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.ready.insert(next);
            }
        }
    }

    fn summary(self) -> Summary {
        let mut summary = Summary { started: self.started, interrupted: self.interrupted, ..Summary::default() };
        for (id, (address, action)) in &self.actions {
            if let Some(detail) = self.failures.get(id) {
                let effect = action.effect.name();
                summary.failed.push(Failure { address: (*address).clone(), effect, detail: detail.clone() });
            } else if !self.finished.contains(id) {
                summary.skipped.insert((*address).clone());
            } else {
                summary.done.insert((*address).clone());
            }
        }
        for failure in &summary.failed {
            summary.done.remove(&failure.address);
            summary.skipped.remove(&failure.address);
        }
        for address in &summary.skipped {
            summary.done.remove(address);
        }
        summary
    }
}
