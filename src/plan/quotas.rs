//! How many vms each user may run at once, judged where a vm is started: on demand, by a claim, or by a manifest. What runs is
//! never stopped for that.

use std::collections::BTreeMap;

use super::capacity::Start;
use super::{Ground, Planner};
use crate::model::address::Address;
use crate::model::id::{UserName, VmName};

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
