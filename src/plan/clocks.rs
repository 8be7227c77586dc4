//! The times that runs keep by themselves: each is told when it starts, and told anew whenever its session's times or its
//! owner's are others. What an extension by command could not reach, the next plan tells.
//!
//! ```text
//! a session is on for the vm's owner    its end, its pauses, and what may be reached from its start to that end
//! else one lies ahead                   the same of the next one
//! else                                  no end; one that came already stays: the guest is on its way down
//! ```

use jiff::Timestamp;

use super::power::Decision;
use super::vms::{Steps, Work};
use super::{Effect, Inputs, Planner, Reason};
use crate::model::id::{RunId, SessionName, UserName, VmName};
use crate::model::lab::{AtEnd, Desired, PowerState, Session, Vm};
use crate::run::{self, Allowed, Clock, Part, Pause};
use crate::state::Entry;

/// What decides about a vm's times at some moment.
#[derive(Debug, Clone, Copy)]
pub struct Times<'a> {
    pub session: &'a SessionName,
    of: &'a Session,
    /// It is on for the vm's owner: not merely the next one.
    pub is_on: bool,
}

impl Times<'_> {
    /// As the owner's runs keep them.
    pub fn clock(&self, owner: &UserName) -> Clock {
        clock_in(self.of, owner)
    }
}

/// The times of somebody's runs in a session.
pub fn clock_in(session: &Session, owner: &UserName) -> Clock {
    let pauses = session.pauses_of(owner).into_iter();
    let pauses = pauses.map(|pause| Pause { since: pause.from, until: pause.until }).collect();
    let keeps = session.at_end == AtEnd::Keep;
    let end = session.end_without_pauses(owner);
    let egress = (!session.egress.is_empty()).then(|| {
        let to = session.egress.iter().cloned().collect();
        Part::Known(Allowed { from: session.start_of(owner), until: Some(end), to })
    });
    let mut clock = match session.is_exam() {
        // Kept or not, an exam's guest is nobody's to use after its owner's end.
        true => Clock::new(Some(session.start_of(owner)), Some(end), pauses),
        false => Clock::new(None, (!keeps).then_some(end), pauses),
    };
    clock.egress = egress;
    if !session.is_exam() {
        return clock;
    }
    clock.grace_seconds = Some(Part::Known(session.grace_seconds));
    clock.offline_grace_seconds = Some(Part::Known(session.offline_grace_seconds));
    clock.warn_before_seconds = Some(Part::Known(session.warn_before_seconds.clone()));
    clock.at_end = keeps.then_some(Part::Known(run::AtEnd::Keep));
    clock
}

/// Whether a run that knows no pauses was told an end that has them in it.
fn is_said_by_its_end(told: &Clock, clock: &Clock) -> bool {
    let plain = Clock::new(None, clock.over_at(), Vec::new());
    clock.over_at().is_some() && plain == *told
}

/// The session that decides about a vm at `now`, with all that people gave it; `None`: none does.
pub fn times_of<'d>(desired: &'d Desired, vm: &VmName, owner: &UserName, now: Timestamp) -> Option<Times<'d>> {
    let with_it = || desired.sessions.iter().filter(|(_, session)| session.vms.contains(vm));
    let end = |session: &Session| session.end_of(owner).unwrap_or(Timestamp::MAX);
    let on = with_it().filter(|(_, session)| session.is_on(owner, now));
    if let Some((session, of)) = on.min_by_key(|(_, session)| end(session)) {
        return Some(Times { session, of, is_on: true });
    }
    let ahead = with_it().filter(|(_, session)| now < session.opens());
    let (session, of) = ahead.min_by_key(|(_, session)| session.opens())?;
    Some(Times { session, of, is_on: false })
}

impl Planner<'_> {
    /// The state that a vm is to have at this moment, and the session that makes it run. Those that boot their vms want them to
    /// run from then to their owner's own end, and an exam's are started at no other time.
    pub(super) fn state_now(&self, name: &VmName, vm: &Vm) -> (PowerState, Option<Reason>) {
        let Inputs { desired, now, .. } = *self.inputs;
        let boots = || desired.sessions.iter().filter(|(_, session)| session.boots() && session.vms.contains(name));
        let mut on = boots().filter(|(_, session)| session.is_on(&vm.owner, now));
        if let Some((session, _)) = on.next().filter(|_| vm.state != PowerState::Stopped) {
            return (PowerState::Running, Some(Reason::ForSession { session: session.clone() }));
        }
        let is_of_exam = boots().any(|(_, session)| session.is_exam());
        let state = if is_of_exam && vm.state == PowerState::Running { PowerState::OnDemand } else { vm.state };
        (state, None)
    }

    /// What a run that starts now is told.
    pub(super) fn first_clock(&self, name: &VmName, vm: &Vm) -> Clock {
        let times = times_of(self.inputs.desired, name, &vm.owner, self.inputs.now);
        times.map(|times| times.clock(&vm.owner)).unwrap_or_default()
    }

    /// Tells a run that stays other times than it knows, and answers why.
    pub(super) fn tell(&mut self, steps: &mut Steps, work: &Work<'_>, decision: &Decision) -> Option<Reason> {
        let run = work.known.run.as_ref().filter(|_| work.life.is_live() && !decision.stop && !work.must_be_off())?;
        let told = self.inputs.observed.clocks.get(&run.run)?;
        let (owner, now) = (&work.vm.owner, self.inputs.now);
        let times = times_of(self.inputs.desired, work.name, owner, now);
        let is_on = times.is_some_and(|times| times.is_on);
        if !is_on && told.over_at().is_some_and(|end| end <= now) {
            return None;
        }
        let begins = times.filter(|_| is_on).and_then(|times| self.begins(work, &times, &run.run));
        if let (Some(times), Some((at, session))) = (times, begins) {
            let (vm, user, of) = (work.name.clone(), owner.clone(), times.session.clone());
            self.step(steps, Entry::BeginTime { vm, user, session: of.clone(), at });
            let clock = clock_in(&session, owner);
            let why = Reason::OtherTimes { session: Some(of), end: clock.over_at() };
            if clock != *told {
                self.tell_run(steps, work.name, &run.run, clock, told);
            }
            return Some(why);
        }
        let over = || self.over_early(work.name, owner, told, &run.run);
        let clock = match times {
            Some(times) if is_on || times.clock(owner) == *told => times.clock(owner),
            times => over().unwrap_or_else(|| times.map(|times| times.clock(owner)).unwrap_or_default()),
        };
        if clock == *told || is_said_by_its_end(told, &clock) {
            return None;
        }
        let why = Reason::OtherTimes { session: times.map(|times| times.session.clone()), end: clock.over_at() };
        self.tell_run(steps, work.name, &run.run, clock, told);
        Some(why)
    }

    fn tell_run(&mut self, steps: &mut Steps, vm: &VmName, run: &RunId, clock: Clock, told: &Clock) {
        let told = Some(Box::new(told.clone()));
        self.step(steps, Effect::Tell { vm: vm.clone(), run: run.clone(), clock, told });
    }

    /// When the owner's guest was first seen to run, in a session that gives everybody the whole time from then on; and the
    /// session with that.
    fn begins(&self, work: &Work<'_>, times: &Times<'_>, run: &RunId) -> Option<(Timestamp, Session)> {
        let owner = &work.vm.owner;
        let start = times.of.start_of(owner);
        if self.inputs.now < start || !times.of.waits_for(owner) {
            return None;
        }
        let since = self.inputs.observed.runs.get(run)?.mapping.as_ref()?.since;
        let (begun, mut session) = (start.max(since), times.of.clone());
        session.added.begun.insert(owner.clone(), begun);
        Some((begun, session))
    }

    /// The times of a session that ended during a run, which still waits for an end that lies ahead: nobody could tell it.
    fn over_early(&self, vm: &VmName, owner: &UserName, told: &Clock, run: &RunId) -> Option<Clock> {
        let Inputs { desired, observed, now, .. } = self.inputs;
        told.end.as_ref()?;
        let since = observed.runs.get(run)?.mapping.as_ref()?.since;
        let with_it = desired.sessions.values().filter(|session| session.vms.contains(vm));
        let over = with_it.filter(|session| {
            session.end_of(owner).is_some_and(|end| since < end && end <= *now)
                && (session.is_exam() || session.at_end != AtEnd::Keep)
        });
        over.max_by_key(|session| session.end_of(owner)).map(|session| clock_in(session, owner))
    }
}
