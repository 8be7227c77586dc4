//! Times that running guests were told, and a copy of the state does not know: somebody gave them after it was made. They stand
//! in each run's `control.json`, and a state that was put back takes them from there, so that nobody's time becomes shorter.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;

use super::{Context, ControlError, understood};
use crate::model::claim::{ClaimBody, TimeChange, TimeClaim};
use crate::model::id::{LabName, SessionName, UserName, VmName};
use crate::model::lab::{Desired, Session};
use crate::plan::times_of;
use crate::run::{Clock, Control, Part, RunSpec};
use crate::state::{Change, Store};

const WHY: &str = "its guest had been told so when the state was put back";

/// What the latest run of each vm was told; what cannot be read tells nothing.
fn told(runs: &Path) -> BTreeMap<(LabName, VmName), (u64, Clock)> {
    let mut told: BTreeMap<(LabName, VmName), (u64, Clock)> = BTreeMap::new();
    for entry in std::fs::read_dir(runs).into_iter().flatten().filter_map(Result::ok) {
        let folder = entry.path();
        let (Ok(Some(spec)), Ok(Some(control))) = (RunSpec::read(&folder), Control::read(&folder)) else { continue };
        let latest = told.entry((spec.lab, spec.vm)).or_default();
        if spec.generation >= latest.0 {
            *latest = (spec.generation, control.told_time());
        }
    }
    told
}

/// Claims the times that guests of open sessions were told beyond those that are recorded; answers whose they are.
pub(super) fn take_over(context: &Context, store: &mut Store, now: Timestamp) -> Result<Vec<UserName>, ControlError> {
    let told = told(&context.site.storage.runs);
    let mut people = Vec::new();
    for (lab, recorded) in store.recorded_of_all()? {
        let desired = understood(lab.clone(), &recorded)?;
        let of_lab = told.iter().filter(|((of, _), _)| *of == lab);
        let claims: Vec<TimeClaim> =
            of_lab.flat_map(|((_, vm), (_, clock))| beyond(&desired, vm, clock, now)).collect();
        let claim = |time: TimeClaim| Change::PutClaim {
            name: time.session.to_string(),
            body: ClaimBody::Time(time),
            by: context.caller.name.clone(),
        };
        people.extend(claims.iter().filter_map(|time| time.user.clone()));
        store.record(&lab, &claims.into_iter().map(claim).collect::<Vec<_>>(), now)?;
    }
    people.sort();
    people.dedup();
    Ok(people)
}

/// What a guest was told of its session's times that is more than what is recorded.
fn beyond(desired: &Desired, vm: &VmName, clock: &Clock, now: Timestamp) -> Vec<TimeClaim> {
    let Some(owner) = desired.vms.get(vm).map(|vm| &vm.owner) else { return Vec::new() };
    // One whose recorded end is over is on by what its guest was told.
    let over = || {
        let with_it = desired.sessions.iter().filter(|(_, session)| session.vms.contains(vm));
        let begun = with_it.filter(|(_, session)| session.start <= now);
        begun.max_by_key(|(_, session)| session.start)
    };
    let on = times_of(desired, vm, owner, now).filter(|times| times.is_on);
    let found = on.and_then(|times| desired.sessions.get_key_value(times.session)).or_else(over);
    let Some((name, session)) = found.filter(|_| clock.over_at().is_none_or(|end| now < end)) else {
        return Vec::new();
    };
    [later_end(name, session, owner, clock)].into_iter().flatten().chain(pauses(name, session, owner, clock)).collect()
}

fn later_end(name: &SessionName, session: &Session, owner: &UserName, clock: &Clock) -> Option<TimeClaim> {
    let end = *clock.end.as_ref().and_then(Part::known)?;
    let seconds = end.as_second() - session.end_without_pauses(owner).as_second();
    let change = TimeChange::Extend { seconds };
    (seconds > 0).then(|| TimeClaim::new(name.clone(), Some(owner.clone()), change, Some(WHY.to_owned())))
}

fn pauses(name: &SessionName, session: &Session, owner: &UserName, clock: &Clock) -> Vec<TimeClaim> {
    let known = session.pauses_of(owner);
    let told = clock.pauses.as_ref().and_then(Part::known).map_or(&[][..], Vec::as_slice);
    let is_new = |pause: &&crate::run::Pause| !known.iter().any(|known| known.from == pause.since);
    let claim = |pause: &crate::run::Pause| {
        let change = TimeChange::Pause { from: pause.since, until: pause.until };
        TimeClaim::new(name.clone(), Some(owner.clone()), change, Some(WHY.to_owned()))
    };
    told.iter().filter(is_new).map(claim).collect()
}
