//! Guards: what a plan refuses to do unless the user names it. A guard belongs to what it guards, not to a line of the
//! manifest that an edit could remove.

use std::collections::BTreeSet;

use super::life::{fenced_after, is_fenced};
use super::{Inputs, Planner, Remark};
use crate::model::address::{Address, Kind};
use crate::model::id::{UserName, VmName};
use crate::model::job::{Task, TaskId};
use crate::model::lab::{Desired, Session};
use crate::state::{FreezeScope, Recorded, Thing};

/// A roster that loses more of its members than this, in percent, stops the plan: half a file looks like a whole one.
const SHRINK_PERCENT_MAX: usize = 20;

/// A session that is open now.
#[derive(Debug)]
pub(super) struct OpenSession {
    name: String,
    vms: BTreeSet<VmName>,
    until: jiff::Timestamp,
}

impl OpenSession {
    pub(super) fn holds(&self, vm: &VmName) -> bool {
        self.vms.contains(vm)
    }
}

/// Sessions open at `now`, as recorded and as wanted: neither an edit nor a new record closes one.
pub(super) fn open_sessions(desired: &Desired, recorded: &Recorded, now: jiff::Timestamp) -> Vec<OpenSession> {
    let recorded = recorded.objects.iter().filter_map(|(address, recorded)| match &recorded.thing {
        Thing::Session(session) => Some((address.name.clone(), session.clone())),
        _ => None,
    });
    let wanted = desired.sessions.iter().map(|(name, session)| (name.to_string(), session.clone()));
    recorded.chain(wanted).filter_map(|(name, session)| open_session(name, session, now)).collect()
}

fn open_session(name: String, session: Session, now: jiff::Timestamp) -> Option<OpenSession> {
    let (opens, until) = session.window();
    (opens <= now && now <= until).then_some(OpenSession { name, vms: session.vms, until })
}

impl Planner<'_> {
    /// A frozen lab is looked at, never touched.
    pub(super) fn guard_freeze(&mut self) {
        if let Some(frozen) = &self.inputs.recorded.frozen {
            let (address, thaw) = match frozen.scope {
                FreezeScope::Lab => (Address::new(Kind::Lab, &self.inputs.desired.lab), "labwright thaw"),
                FreezeScope::Site => (Address::new(Kind::Site, &self.inputs.recorded.site), "labwright thaw --all"),
            };
            let text = format!("it is frozen by {} since {:.0}: {}", frozen.who, frozen.since, frozen.why);
            self.refuse(&address, text, format!("`{thaw}` lets plans be applied again"));
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
                let names: Vec<&str> = lost.iter().take(5).map(|user| user.as_str()).collect();
                let more = if lost.len() > names.len() { ", …" } else { "" };
                let text = format!(
                    "{} of {} members would leave ({}{more}): more than {SHRINK_PERCENT_MAX} % looks like a roster that is not whole",
                    lost.len(),
                    before.members.len(),
                    names.join(", ")
                );
                let hint = format!("if they really leave: `--allow {address}`");
                let users = before.members.symmetric_difference(&group.members);
                let users = users.map(|user| Address::new(Kind::User, user));
                let held: Vec<Address> = users.chain(self.leaving_with(&lost)).collect();
                self.refuse_with(&address, text, hint, held);
            }
        }
    }

    /// The vms that leave with these users, and the sessions that they are in.
    fn leaving_with(&self, lost: &BTreeSet<&UserName>) -> Vec<Address> {
        let Inputs { desired, recorded, .. } = *self.inputs;
        let leaves = |name: &VmName| !desired.vms.contains_key(name) && !self.moves.leaves_by_name_only(name);
        let vms = recorded.vms.iter().filter(|(name, known)| leaves(name) && lost.contains(&known.vm.owner));
        let vms: BTreeSet<&VmName> = vms.map(|(name, _)| name).collect();
        let sessions = recorded.objects.iter().filter(|(_, recorded)| match &recorded.thing {
            Thing::Session(session) => session.vms.iter().any(|vm| vms.contains(vm)),
            _ => false,
        });
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
            let what = match wanted {
                None => "would leave the manifest",
                Some(wanted) if wanted.window().1 < open.until => "would end earlier",
                // Until it opens again, nothing would guard its vms.
                Some(wanted) if wanted.window().0 > self.inputs.now => "would start only later",
                Some(wanted) if !wanted.vms.is_superset(&open.vms) => "would lose vms",
                Some(_) => continue,
            };
            found.push((address.clone(), format!("it is open until {:.0} and {what}", open.until)));
        }
        for (address, text) in found {
            let hint = format!("wait until it is over, or mean it: `--allow {address}`");
            self.refuse(&address, text, hint);
        }
    }

    /// Refuses to stop, rebuild or re-address a vm of an open session; answers whether it may be done.
    pub(super) fn may_disturb(&mut self, name: &VmName, what: &str) -> bool {
        let address = Address::vm(name);
        let guard = self.open_sessions.iter().find(|open| open.holds(name));
        let Some(open) = guard.filter(|_| !self.allowed(&address)) else { return true };
        let text = format!("{what}, while session `{}` is open until {:.0}", open.name, open.until);
        self.refuse(&address, text, format!("wait until the session is over, or mean it: `--allow {address}`"));
        false
    }

    /// The same where nothing but a stop or a restart is meant: who asks that of the vm by its name means it.
    pub(super) fn may_disturb_power(&mut self, name: &VmName, what: &str) -> bool {
        self.inputs.asks.get(name).is_some_and(|ask| ask.by_name) || self.may_disturb(name, what)
    }

    /// Refuses to take a student's disks out of use; answers whether it may be done.
    pub(super) fn may_replace(&mut self, name: &VmName, owner: &UserName) -> bool {
        let address = Address::vm(name);
        if self.allowed(&address) {
            return true;
        }
        let text = format!("its disks would be set aside and made anew: {owner} would not find the work on them");
        self.refuse(
            &address,
            text,
            format!("if that is meant: `--allow {address}`; the old disks are kept and can be restored"),
        );
        false
    }

    /// Refuses to give up a run whose guest may still write to its disks; answers whether it may be done.
    pub(super) fn may_give_up(&mut self, name: &VmName, host: &str, silent_seconds: Option<u64>) -> bool {
        let Inputs { site, lost_host, .. } = *self.inputs;
        if lost_host.is_some_and(|lost| lost.powered_off) {
            return true;
        }
        let text = match silent_seconds {
            Some(silent) if is_fenced(silent, site) => return true,
            Some(silent) => format!(
                "its starter on {host} is known to be silent for {silent} s, and its guest stands still for certain only after {} s: wait {} s more",
                fenced_after(site),
                fenced_after(site) - silent
            ),
            None => format!("its starter on {host} never wrote anything, so nobody knows since when it is silent"),
        };
        let hint = format!(
            "if {host} is switched off for certain: `labwright host forget {host} --powered-off`; a starter that goes on writing lives, and only the batch system does not hear its host"
        );
        self.refuse(&Address::vm(name), text, hint);
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
