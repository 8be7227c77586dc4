//! How many vms each user may run at once, and each lab that has owners, judged where a vm is started: on demand, by a claim, or
//! by a manifest. What runs is never stopped for that.

use std::collections::BTreeMap;

use super::capacity::Start;
use super::{Ground, Planner};
use crate::model::address::Address;
use crate::model::id::{UserName, VmName};
use crate::state::RecordedVm;

impl Planner<'_> {
    pub(super) fn guard_quotas(&mut self) {
        let mut starts: BTreeMap<UserName, Vec<Start>> = BTreeMap::new();
        for start in self.starts() {
            starts.entry(start.owner.clone()).or_default().push(start);
        }
        if starts.is_empty() {
            return;
        }
        let mut running: BTreeMap<UserName, Vec<VmName>> = BTreeMap::new();
        for (name, known) in self.running_on().filter(|(_, known)| starts.contains_key(&known.vm.owner)) {
            running.entry(known.vm.owner.clone()).or_default().push(name.clone());
        }
        for (owner, starts) in starts {
            self.guard_quota(&owner, running.get(&owner).map_or(&[], Vec::as_slice), &starts);
        }
    }

    /// The lab's own share, which its owners cannot mean away.
    pub(super) fn guard_share(&mut self) {
        let Some(share) = self.inputs.site.labs.get(&self.inputs.desired.lab) else { return };
        let starts = self.starts();
        let running: Vec<u64> = self.running_on().map(|(_, known)| memory_mib(known)).collect();
        let mut memory: u64 = running.iter().sum();
        let wanted_mib = memory + starts.iter().map(|start| u64::from(start.hardware.memory_mib)).sum::<u64>();
        let mut started = running.len();
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
        let (running, starts) = (running.len(), starts.len());
        self.refuse_with(&first, Ground::OverShare { running, starts, vms_max, wanted_mib, memory_mib_max }, held);
    }

    fn guard_quota(&mut self, owner: &UserName, running: &[VmName], starts: &[Start]) {
        let Some(user) = self.inputs.desired.users.get(owner) else { return };
        let limit = user.limits.running_vms as usize;
        let room = limit.saturating_sub(running.len());
        let (meant, others): (Vec<&Start>, Vec<&Start>) = starts.iter().partition(|start| self.allowed(&start.address));
        let too_many: Vec<Address> =
            others.iter().skip(room.saturating_sub(meant.len())).map(|start| start.address.clone()).collect();
        let Some(first) = too_many.first().cloned() else { return };
        let (owner, running, starts) = (owner.clone(), running.to_vec(), starts.len());
        let why = Ground::OverQuota { owner, limit: user.limits.running_vms, running, starts };
        self.refuse_with(&first, why, too_many);
    }
}

/// What a vm's guest was started with.
fn memory_mib(known: &RecordedVm) -> u64 {
    known.run.as_ref().map_or(0, |run| u64::from(run.started.hardware.memory_mib))
}
