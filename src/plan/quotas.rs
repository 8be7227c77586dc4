//! How many vms each user may run at once, in all labs of the site together, and each lab that has owners. It is judged where a vm
//! is started: on demand, by a claim, or by a manifest. What runs is never stopped for that. A vm that somebody else starts
//! counts; one that is only worked on, as when its disks are copied, does not.

use std::collections::{BTreeMap, BTreeSet};

use super::capacity::Start;
use super::{Ground, Plan, Planner};
use crate::model::address::Address;
use crate::model::id::{RunId, UserName, VmName};
use crate::state::{Quota, RecordedVm};

/// What somebody runs.
struct Running {
    here: BTreeSet<VmName>,
    elsewhere: usize,
    /// Runs of theirs that count no more.
    over: BTreeSet<RunId>,
}

impl Plan {
    /// Whose vms it starts.
    pub fn starters(&self) -> BTreeSet<UserName> {
        let starts = self.actions().filter_map(|(_, action)| action.effect.starts());
        starts.map(|spec| spec.owner.clone()).collect()
    }
}

impl Planner<'_> {
    pub(super) fn guard_quotas(&mut self) {
        let mut starts: BTreeMap<UserName, Vec<Start>> = BTreeMap::new();
        for start in self.starts() {
            starts.entry(start.owner.clone()).or_default().push(start);
        }
        if starts.is_empty() {
            return;
        }
        let mut running: BTreeMap<UserName, Running> = self.running(&starts);
        for (owner, starts) in starts {
            if let Some(running) = running.remove(&owner) {
                self.guard_quota(owner, running, &starts);
            }
        }
    }

    /// The lab's own share, which its owners cannot mean away.
    pub(super) fn guard_share(&mut self) {
        let Some(share) = self.inputs.site.labs.get(&self.inputs.desired.lab) else { return };
        let starts = self.starts();
        let running: Vec<u64> = self.running_on().map(|(_, known)| memory_mib(known)).collect();
        let mut memory: u64 = running.iter().sum();
        let wanted_mib = memory + starts.iter().map(|start| u64::from(start.hardware.memory_mib)).sum::<u64>();
        // Those that somebody starts just now are not seen to run yet.
        let on: BTreeSet<&VmName> = self.running_on().map(|(name, _)| name).collect();
        let here = self.inputs.recorded.starting.iter().filter(|starting| starting.lab == self.plan.lab);
        let starting = here.filter(|starting| !on.contains(&starting.vm)).count();
        let mut started = running.len() + starting;
        let mut held = Vec::new();
        for start in &starts {
            let with = memory + u64::from(start.hardware.memory_mib);
            let is_too_many = share.running_vms.is_some_and(|limit| started >= limit as usize);
            if is_too_many || share.memory_mib.is_some_and(|limit| with > limit) {
                held.push(start.address.clone());
            } else {
                (started, memory) = (started + 1, with);
            }
        }
        let Some(first) = held.first().cloned() else { return };
        let (vms_max, memory_mib_max) = (share.running_vms, share.memory_mib);
        let (running, starts) = (running.len() + starting, starts.len());
        self.refuse_with(&first, Ground::OverShare { running, starts, vms_max, wanted_mib, memory_mib_max }, held);
    }

    fn running(&self, starts: &BTreeMap<UserName, Vec<Start>>) -> BTreeMap<UserName, Running> {
        let (recorded, observed) = (self.inputs.recorded, self.inputs.observed);
        let mut all: BTreeMap<UserName, Running> = BTreeMap::new();
        for owner in starts.keys() {
            let seen = observed.elsewhere.get(owner).cloned().unwrap_or_default();
            let mut elsewhere = seen.running;
            let mut here = BTreeSet::new();
            for starting in recorded.starting.iter().filter(|starting| starting.owner == *owner) {
                if starting.lab == self.plan.lab {
                    here.insert(starting.vm.clone());
                } else {
                    elsewhere.insert((starting.lab.clone(), starting.vm.clone()));
                }
            }
            all.insert(owner.clone(), Running { here, elsewhere: elsewhere.len(), over: seen.over });
        }
        let on: BTreeSet<&VmName> = self.running_on().map(|(name, _)| name).collect();
        for (name, known) in &recorded.vms {
            let Some(of) = all.get_mut(&known.vm.owner) else { continue };
            match known.run.as_ref().filter(|run| !run.is_over()) {
                Some(_) if on.contains(name) => drop(of.here.insert(name.clone())),
                // One that is being started has no job yet.
                Some(run) if !of.here.contains(name) => drop(of.over.insert(run.run.clone())),
                _ => {}
            }
        }
        all
    }

    fn guard_quota(&mut self, owner: UserName, running: Running, starts: &[Start]) {
        let Some(user) = self.inputs.desired.users.get(&owner) else { return };
        let limit = user.limits.running_vms;
        let room = (limit as usize).saturating_sub(running.here.len() + running.elsewhere);
        let (meant, others): (Vec<&Start>, Vec<&Start>) = starts.iter().partition(|start| self.allowed(&start.address));
        let fitting = room.saturating_sub(meant.len()).min(others.len());
        if fitting > 0 {
            self.plan.quotas.push(Quota { owner: owner.clone(), limit, over: running.over });
        }
        let too_many: Vec<Address> = others[fitting..].iter().map(|start| start.address.clone()).collect();
        let Some(first) = too_many.first().cloned() else { return };
        let (here, elsewhere, starts) = (running.here.into_iter().collect(), running.elsewhere, starts.len());
        self.refuse_with(&first, Ground::OverQuota { owner, limit, running: here, elsewhere, starts }, too_many);
    }
}

/// What a vm's guest was started with.
fn memory_mib(known: &RecordedVm) -> u64 {
    known.run.as_ref().map_or(0, |run| u64::from(run.started.hardware.memory_mib))
}
