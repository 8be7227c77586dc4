//! Guards: what a plan refuses to do unless the user names it. A guard belongs to what it guards, not to a line of the
//! manifest that an edit could remove.

use std::collections::BTreeSet;

use super::{Disturbance, Ground, Inputs, Planner, Remark, SessionLoss};
use crate::model::address::{Address, Kind};
use crate::model::id::{UserName, VmName};
use crate::model::job::{Task, TaskId};
use crate::model::lab::{Desired, Session, SessionState};
use crate::observe::{fenced_after, is_fenced};
use crate::state::{FreezeScope, Frozen, Recorded, Thing};

/// A roster that loses more of its members than this, in percent, stops the plan: half a file looks like a whole one.
const SHRINK_PERCENT_MAX: usize = 20;

/// A session that is open now, or whose submissions are not all in.
#[derive(Debug)]
pub(super) struct OpenSession {
    name: String,
    vms: BTreeSet<VmName>,
    until: jiff::Timestamp,
    /// Its time is over: what it holds is to be collected yet.
    is_collecting: bool,
}

impl OpenSession {
    pub(super) fn holds(&self, vm: &VmName) -> bool {
        self.vms.contains(vm)
    }
}

/// Sessions open at `now`, as recorded and as wanted: neither an edit nor a new record closes one.
pub(super) fn open_sessions(desired: &Desired, books: &Recorded, now: jiff::Timestamp) -> Vec<OpenSession> {
    let recorded = books.sessions().map(|(address, session)| (address.name.clone(), session.clone()));
    let wanted = desired.sessions.iter().map(|(name, session)| (name.to_string(), session.clone()));
    let open = |(name, session): (String, Session)| {
        let until = session.window().1;
        if session.is_open(now) {
            return Some(OpenSession { name, vms: session.vms, until, is_collecting: false });
        }
        if !session.is_held(now) || !session.is_collected_by_now(now) {
            return None;
        }
        let vms: BTreeSet<VmName> = books.unsubmitted(&name, &session).map(|(vm, ..)| vm.clone()).collect();
        (!vms.is_empty()).then_some(OpenSession { name, vms, until, is_collecting: true })
    };
    recorded.chain(wanted).filter_map(open).collect()
}

impl Planner<'_> {
    /// A frozen lab is looked at, never touched.
    pub(super) fn guard_freeze(&mut self) {
        if let Some(frozen) = &self.inputs.recorded.frozen {
            let address = match frozen.scope {
                FreezeScope::Lab => Address::new(Kind::Lab, &self.inputs.desired.lab),
                FreezeScope::Site => Address::new(Kind::Site, &self.inputs.recorded.site),
            };
            let Frozen { who, since, why, scope } = frozen.clone();
            self.refuse(&address, Ground::Frozen { who, since, why, scope });
        }
    }

    /// A roster that shrinks too much holds back its group: who leaves, who comes, and the vms of those who leave.
    pub(super) fn guard_rosters(&mut self) {
        for (name, group) in &self.inputs.desired.user_groups {
            let address = Address::new(Kind::UserGroup, name);
            let before = self.inputs.recorded.objects.get(&address).map(|recorded| &recorded.thing);
            let Some(Thing::UserGroup(before)) = before else { continue };
            let lost: BTreeSet<&UserName> = before.members.difference(&group.members).collect();
            let too_many = lost.len() * 100 > before.members.len() * SHRINK_PERCENT_MAX;
            if too_many && !self.allowed(&address) {
                let why = Ground::RosterShrinks {
                    lost: lost.len(),
                    members: before.members.len(),
                    percent_max: SHRINK_PERCENT_MAX,
                    first: lost.iter().take(5).map(|user| (*user).clone()).collect(),
                };
                let users = before.members.symmetric_difference(&group.members);
                let users = users.map(|user| Address::new(Kind::User, user));
                let held: Vec<Address> = users.chain(self.leaving_with(&lost)).collect();
                self.refuse_with(&address, why, held);
            }
        }
    }

    /// The vms that leave with these users, and the sessions that they are in.
    fn leaving_with(&self, lost: &BTreeSet<&UserName>) -> Vec<Address> {
        let Inputs { desired, recorded, .. } = *self.inputs;
        let leaves = |name: &VmName| !desired.vms.contains_key(name) && !self.moves.leaves_by_name_only(name);
        let vms = recorded.vms.iter().filter(|(name, known)| leaves(name) && lost.contains(&known.vm.owner));
        let vms: BTreeSet<&VmName> = vms.map(|(name, _)| name).collect();
        let sessions = recorded.sessions().filter(|(_, session)| session.vms.iter().any(|vm| vms.contains(vm)));
        vms.iter().map(Address::vm).chain(sessions.map(|(address, _)| address.clone())).collect()
    }

    /// An open session is neither dropped nor cut short by an edit.
    pub(super) fn guard_sessions(&mut self) {
        let mut found = Vec::new();
        for open in &self.open_sessions {
            let address = Address::new(Kind::Session, &open.name);
            if self.allowed(&address) {
                continue;
            }
            let wanted = self.inputs.desired.sessions.get(open.name.as_str());
            if open.is_collecting {
                let is_kept = wanted.is_some_and(|wanted| wanted.vms.is_superset(&open.vms));
                let waiting = open.vms.len();
                found.extend((!is_kept).then_some((address, Ground::SubmissionsPending { waiting })));
                continue;
            }
            let loss = match wanted {
                None => SessionLoss::Leaves,
                Some(wanted) if wanted.window().1 < open.until => SessionLoss::EndsEarlier,
                // Until it opens again, nothing would guard its vms.
                Some(wanted) if wanted.state(self.inputs.now) == SessionState::Scheduled => SessionLoss::StartsLater,
                Some(wanted) if !wanted.vms.is_superset(&open.vms) => SessionLoss::LosesVms,
                Some(_) => continue,
            };
            found.push((address, Ground::SessionEdited { until: open.until, loss }));
        }
        for (address, why) in found {
            self.refuse(&address, why);
        }
    }

    /// An exam that has been held is not held again with its disks; late registrations pass.
    pub(super) fn guard_held_exams(&mut self) {
        let Inputs { desired, recorded, now, .. } = *self.inputs;
        for (address, held) in recorded.sessions().filter(|(_, session)| session.is_exam() && session.is_held(now)) {
            let Some(wanted) = desired.sessions.get(address.name.as_str()) else { continue };
            let others = Session { vms: held.vms.clone(), added: held.added.clone(), ..wanted.clone() };
            if others != *held || !wanted.vms.is_superset(&held.vms) {
                let vms: Vec<Address> = held.vms.union(&wanted.vms).map(Address::vm).collect();
                self.refuse_with(address, Ground::SessionHeld { ended: held.window().1 }, vms);
            }
        }
    }

    /// What to know of sessions that are new: who sits an exam again, and those that lie in the past.
    pub(super) fn note_new_sessions(&mut self) {
        let Inputs { desired, recorded, now, .. } = *self.inputs;
        let exams = recorded.sessions().map(|(_, session)| session).filter(|session| session.is_exam());
        let before: BTreeSet<&UserName> =
            exams.flat_map(|exam| &exam.vms).filter_map(|vm| Some(&recorded.vms.get(vm)?.vm.owner)).collect();
        for (name, session) in &desired.sessions {
            let address = Address::new(Kind::Session, name);
            if recorded.objects.contains_key(&address) {
                continue;
            }
            if session.is_held(now) {
                self.note(&address, Remark::SessionPast { ended: session.window().1 });
            }
            let owners = session.vms.iter().filter_map(|vm| desired.vms.get(vm)).map(|vm| &vm.owner);
            let again: BTreeSet<UserName> = owners.filter(|owner| before.contains(owner)).cloned().collect();
            if session.is_exam() && !again.is_empty() {
                self.note(&address, Remark::SitsAgain { users: again.into_iter().collect() });
            }
        }
    }

    /// Refuses to stop, rebuild or re-address a vm of an open session; answers whether it may be done.
    pub(super) fn may_disturb(&mut self, name: &VmName, disturbance: Disturbance) -> bool {
        let address = Address::vm(name);
        let guard = self.open_sessions.iter().find(|open| open.holds(name));
        let Some(open) = guard.filter(|_| !self.allowed(&address)) else { return true };
        let (session, until) = (open.name.clone(), open.until);
        let why = match open.is_collecting {
            true => Ground::NotCollected { session, disturbance },
            false => Ground::DuringSession { session, until, disturbance },
        };
        self.refuse(&address, why);
        false
    }

    /// The same where nothing but a stop or a restart is meant: who asks that of the vm by its name means it.
    pub(super) fn may_disturb_power(&mut self, name: &VmName, disturbance: Disturbance) -> bool {
        self.inputs.asks.get(name).is_some_and(|ask| ask.by_name) || self.may_disturb(name, disturbance)
    }

    /// Refuses to take a student's disks out of use; answers whether it may be done.
    pub(super) fn may_replace(&mut self, name: &VmName, owner: &UserName) -> bool {
        let address = Address::vm(name);
        if self.allowed(&address) {
            return true;
        }
        self.refuse(&address, Ground::DisksReplaced { owner: owner.clone() });
        false
    }

    /// Refuses to give up a run whose guest may still write to its disks; answers whether it may be done.
    pub(super) fn may_give_up(&mut self, name: &VmName, host: &str, silent_seconds: Option<u64>) -> bool {
        let Inputs { site, lost_host, .. } = *self.inputs;
        if lost_host.is_some_and(|lost| lost.powered_off) {
            return true;
        }
        if silent_seconds.is_some_and(|silent| is_fenced(silent, site)) {
            return true;
        }
        let host = host.to_owned();
        let why = Ground::MayStillWrite { host, silent_seconds, fenced_seconds: fenced_after(site) };
        self.refuse(&Address::vm(name), why);
        false
    }

    /// Jobs that carry our mark and are not ours, or belong to no run we know, are shown and left alone.
    pub(super) fn report_strange_jobs(&mut self) {
        for task in &self.inputs.observed.foreign_tasks {
            let what = Remark::JobForeign { name: task.name.clone(), owner: task.owner.clone() };
            self.drift(&Address::new(Kind::Job, task.id), what);
        }
        for task in unknown_jobs(self.inputs) {
            let what = Remark::JobUnknown { name: task.name.clone(), task: task.id };
            self.drift(&Address::new(Kind::Job, task.id), what);
        }
    }

    /// Whether a vm that is off by our records must be left alone, since it may run as a job that no record knows. To name
    /// the vm does not help: that is said for many reasons, and none of them tells whose the job is.
    pub(super) fn may_run_unknown(&mut self, name: &VmName) -> bool {
        let Some(first) = self.strays.first().copied() else { return false };
        self.wait(&Address::vm(name), Remark::MayRunUnknown { vm: name.clone(), task: first });
        true
    }
}

/// Jobs of ours that belong to no run we know: the state may be a copy that is older than they are.
fn unknown_jobs<'a>(inputs: &Inputs<'a>) -> impl Iterator<Item = &'a Task> + use<'a> {
    let observed = inputs.observed;
    observed.unknown_tasks.iter().filter_map(|task| observed.tasks.get(task))
}

/// Those of them that nobody named as no vm's.
pub(super) fn strays(inputs: &Inputs<'_>) -> Vec<TaskId> {
    let is_named = |id: &TaskId| inputs.allow.iter().any(|pattern| pattern.matches(&Address::new(Kind::Job, id)));
    unknown_jobs(inputs).map(|task| task.id).filter(|id| !is_named(id)).collect()
}
