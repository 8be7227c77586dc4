//! Guests that run are told their times at once: each by its run's `control.json`, which its starter reads every second.

use jiff::Timestamp;

use super::{Held, Untold};
use crate::control::{Context, ControlError, understood};
use crate::error::chain;
use crate::model::claim::{Claim, ClaimBody, ClaimId};
use crate::model::id::{LabName, RunId, UserName, VmName};
use crate::model::lab::{Desired, Session};
use crate::plan::{clock_in, times_of};
use crate::run::{Clock, Control, RunFileError};
use crate::state::{Recorded, Store};

/// Guests that are told side by side: each waits for the storage to write what it is told.
const AT_ONCE: usize = 16;

/// After an apply: what people did to times since it was decided reaches the guests that it started and told, whichever of
/// the two was first.
pub(in crate::control) fn tell_what_came(
    context: &Context,
    lab: &LabName,
    decided: &Recorded,
    store: &mut Store,
) -> Result<(), ControlError> {
    let recorded = store.recorded(lab)?;
    if times_in(decided).eq(times_in(&recorded)) {
        return Ok(());
    }
    let (before, after) = (understood(lab.clone(), decided)?, understood(lab.clone(), &recorded)?);
    let now = Timestamp::now();
    for (name, session) in &after.sessions {
        let was = before.sessions.get(name).unwrap_or(session);
        let held = Held { name, session: was, lab: &after, recorded: &recorded, past: Vec::new(), now };
        let people: Vec<UserName> = held.people().into_iter().collect();
        for untold in held.tell(context, session, &people).1 {
            tracing::warn!(vm = %untold.vm, why = untold.why, "a guest could not be told its times");
        }
    }
    Ok(())
}

fn times_in(recorded: &Recorded) -> impl Iterator<Item = ClaimId> + '_ {
    let is_time = |claim: &&Claim| matches!(claim.body, ClaimBody::Time(_) | ClaimBody::Accommodation(_));
    recorded.claims.iter().filter(is_time).map(|claim| claim.id)
}

impl Held<'_> {
    /// Tells the guests of these people that run; answers how many were told, and which could not be.
    pub(super) fn tell(&self, context: &Context, after: &Session, people: &[UserName]) -> (usize, Vec<Untold>) {
        let mut lab = self.lab.clone();
        lab.sessions.insert(self.name.clone(), after.clone());
        let runs = self.session.vms.iter().filter_map(|vm| self.running(vm, people));
        let told: Vec<_> = runs.filter_map(|(vm, owner, run)| Some((vm, run, self.clock(&lab, vm, owner)?))).collect();
        let root = &context.site.storage.runs;
        let tell = |(vm, run, clock): &(&VmName, &RunId, Clock)| {
            let told = Control::change(&root.join(run.to_string()), |control| control.keep_time(clock));
            untold(vm, told)
        };
        let share = told.len().div_ceil(AT_ONCE).max(1);
        let untold: Vec<Untold> = std::thread::scope(|scope| {
            let shares =
                told.chunks(share).map(|share| scope.spawn(|| share.iter().filter_map(tell).collect::<Vec<_>>()));
            let shares: Vec<_> = shares.collect();
            let done = |share: std::thread::ScopedJoinHandle<'_, Vec<Untold>>| {
                share.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            shares.into_iter().flat_map(done).collect()
        });
        (told.len() - untold.len(), untold)
    }

    /// The run of a vm of theirs that is not over, by our records.
    fn running<'v>(&'v self, vm: &'v VmName, people: &[UserName]) -> Option<(&'v VmName, &'v UserName, &'v RunId)> {
        let known = self.recorded.vms.get(vm)?;
        let run = known.run.as_ref().filter(|run| !run.is_over())?;
        people.contains(&known.vm.owner).then_some((vm, &known.vm.owner, &run.run))
    }

    /// What a run is to be told now, if this session has a say.
    fn clock(&self, lab: &Desired, vm: &VmName, owner: &UserName) -> Option<Clock> {
        let after = &lab.sessions[self.name];
        if self.session.is_on(owner, self.now) && !after.is_on(owner, self.now) {
            // It ends with this very act, whatever comes next.
            return Some(clock_in(after, owner));
        }
        let times = times_of(lab, vm, owner, self.now)?;
        (times.session == self.name).then(|| times.clock(owner))
    }
}

fn untold(vm: &VmName, told: Result<Option<()>, RunFileError>) -> Option<Untold> {
    let why = match told {
        Ok(Some(())) => return None,
        Ok(None) => "the folder of its run is gone".to_owned(),
        Err(error) => chain(&error),
    };
    Some(Untold { vm: vm.clone(), why })
}
