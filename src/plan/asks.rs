//! What people ask of vms by name: a stop does nothing but stop, so that it works whatever else is wrong with a lab; and
//! each ask has an answer, so that nothing that was asked for is left undone without a word.

use std::collections::BTreeMap;

use super::vms::Steps;
use super::{Already, Answer, Disturbance, Effect, Inputs, NotDone, Note, Plan, Planner, Reason, Remark, Verb, Wish};
use crate::model::address::Address;
use crate::model::claim::ClaimedPower;
use crate::model::id::VmName;
use crate::model::job::TaskState;
use crate::model::lab::PowerState;
use crate::observe::{Life, life};
use crate::state::RecordedVm;

impl Planner<'_> {
    pub(super) fn wish(&self, name: &VmName) -> Option<Wish> {
        self.inputs.asks.get(name).map(|ask| ask.wish)
    }

    /// Stops a vm and leaves all else about it as it is: neither its manifest nor its disks matter. `known_as` is its name
    /// in the records, which a rename that is still to be done has not reached.
    pub(super) fn plan_stop(&mut self, name: &VmName, known_as: &VmName, known: &RecordedVm) {
        let address = Address::vm(name);
        let life = self.life(known_as, known);
        if let Some((what, until)) = Remark::of_unknown(&life, self.inputs.site, false) {
            self.drift(&address, what);
            return self.wait(&address, until);
        }
        if !life.is_live() {
            return self.give_up_claim(known_as, known, &life);
        }
        if !self.may_disturb_power(name, Disturbance::Stopped) {
            return;
        }
        let mut steps = Steps::default();
        // Should the stop be cut short, the next apply goes on with it.
        let wanted = self.inputs.desired.vms.get(name).map_or(known.vm.state, |vm| vm.state);
        let is_free = wanted == PowerState::OnDemand;
        if is_free {
            self.claim_power(&mut steps, known_as, ClaimedPower::Stopped, known.generation);
        }
        self.record_news(&mut steps, known_as, known, &life);
        self.stop(&mut steps, known_as, known, &life);
        if is_free {
            self.end_claim(&mut steps, known_as, "it is off");
        }
        let touches = self.touched(&known.vm, Some((known, &life)));
        let nothing = (BTreeMap::new(), BTreeMap::new());
        self.change(address, Verb::Stop, vec![Reason::Asked], nothing, Some(touches), steps);
    }

    /// Of a vm that is off, nobody wants any more that it runs.
    fn give_up_claim(&mut self, name: &VmName, known: &RecordedVm, life: &Life) {
        if self.power_claim(name).is_none() {
            return self.take_note(name, known, life);
        }
        let mut steps = Steps::default();
        self.record_news(&mut steps, name, known, life);
        let why = format!("{} asked for a stop", self.asker(name));
        self.end_claim(&mut steps, name, &why);
        let nothing = (BTreeMap::new(), BTreeMap::new());
        self.change(
            Address::vm(name),
            Verb::Record,
            vec![Reason::ClaimEnds { why: why.to_owned() }],
            nothing,
            None,
            steps,
        );
    }
}

/// What becomes of each ask in a plan from which refusals have taken what they hold back.
pub(super) fn answers(plan: &Plan, inputs: &Inputs<'_>) -> BTreeMap<VmName, Answer> {
    let answer = |(name, ask): (&VmName, &super::Ask)| (name.clone(), answer(plan, inputs, name, ask.wish));
    inputs.asks.iter().map(answer).collect()
}

fn answer(plan: &Plan, inputs: &Inputs<'_>, name: &VmName, wish: Wish) -> Answer {
    let address = Address::vm(name);
    if let Some(worker) = inputs.recorded.held.get(&address) {
        return Answer::NotDone(Box::new(NotDone::Worked(worker.clone())));
    }
    let actions = || plan.changes.iter().filter(|change| change.address == address).flat_map(|change| &change.actions);
    let starts = actions().any(|action| matches!(action.effect, Effect::Start { .. }));
    let stops = actions().any(|action| matches!(action.effect, Effect::Stop { .. }));
    let renewed = actions().any(|action| matches!(action.effect, Effect::MakeDisk { .. } | Effect::PutBack { .. }));
    let known = inputs.recorded.vms.get(name);
    let life = known.map_or(Life::Off { reason: None, news: false }, |known| life(known, inputs.observed, inputs.site));
    match wish {
        Wish::Start | Wish::Restart if starts => Answer::Planned,
        Wish::Stop if stops => Answer::Planned,
        Wish::Reimage | Wish::PutBack if renewed => Answer::Planned,
        Wish::Start if life.is_live() && is_queued(inputs, known) => Answer::Already(Already::Queued),
        Wish::Start if life.is_live() => Answer::Already(Already::Runs),
        Wish::Stop if life.is_off() => Answer::Already(Already::Off),
        Wish::Start | Wish::Stop | Wish::Restart | Wish::Reimage | Wish::PutBack => {
            Answer::NotDone(Box::new(why_not(plan, name)))
        }
    }
}

fn is_queued(inputs: &Inputs<'_>, known: Option<&RecordedVm>) -> bool {
    let Some(run) = known.and_then(|known| known.run.as_ref()) else { return false };
    let task = inputs.observed.tasks.get(&(run.batch.clone(), run.task));
    task.is_some_and(|task| matches!(task.state, TaskState::Pending { .. } | TaskState::Held))
}

/// The first thing that was said of a vm which nothing is done about.
fn why_not(plan: &Plan, vm: &VmName) -> NotDone {
    let address = Address::vm(vm);
    let of_it = |notes: &[Note]| notes.iter().find(|note| note.address == address).cloned();
    let refused = plan.refusals.iter().find(|refusal| refusal.holds(&address)).cloned();
    let refused = refused.map(|refusal| NotDone::Refused { vm: vm.clone(), refusal });
    let waits = || of_it(&plan.waits).map(NotDone::Waits);
    let noted = || of_it(&plan.notes).map(NotDone::Noted);
    refused.or_else(waits).or_else(noted).unwrap_or(NotDone::Unsaid)
}
