//! What others work on just now: it is left out of every plan, and named. Whoever means one of these things by its name is refused.

use std::collections::BTreeMap;

use super::objects::needs_of;
use super::{Ground, Held, Plan, Planner, Refusal, Remark};
use crate::model::address::{Address, AddressPattern, Kind};
use crate::model::id::VmName;
use crate::model::lab::Vm;
use crate::state::Worker;

impl Planner<'_> {
    /// Whether somebody works on a thing: then it waits.
    pub(super) fn is_held(&mut self, address: &Address) -> bool {
        let Some(worker) = self.inputs.recorded.held.get(address).cloned() else { return false };
        self.wait(address, Remark::Worked { worker });
        true
    }

    /// The same of a vm, by its name and by the one that it had before a rename that is still to be done.
    pub(super) fn is_vm_held(&mut self, name: &VmName) -> bool {
        let old = self.moves.vms.get(name).map(Address::vm);
        self.is_held(&Address::vm(name)) || old.is_some_and(|old| self.is_held(&old))
    }

    /// Whether somebody works on what a vm needs: its user and group always, its template where it is to get disks of it.
    pub(super) fn waits_for_others(&mut self, name: &VmName, vm: &Vm, gets_disks: bool) -> bool {
        let needs = needs_of(vm).into_iter().filter(|thing| gets_disks || thing.kind != Kind::Template);
        let held = needs.filter_map(|thing| Some((self.inputs.recorded.held.get(&thing)?, thing))).next();
        let Some((worker, thing)) = held else { return false };
        self.wait(&Address::vm(name), Remark::NeedWorked { thing, worker: worker.clone() });
        true
    }
}

/// Whoever means by its name what somebody else works on is told so, and nothing is done in its place.
pub fn refuse_held(mut plan: Plan, held: &BTreeMap<Address, Worker>, targets: &[AddressPattern]) -> Plan {
    let is_meant = |address: &Address| targets.iter().any(|target| target.matches(address));
    for (address, worker) in held.iter().filter(|(address, _)| is_meant(address)) {
        plan.waits.retain(|wait| wait.address != *address);
        plan.refusals.push(Refusal {
            address: address.clone(),
            why: Ground::Worked { worker: worker.clone() },
            holds: Held::Only([address.clone()].into()),
        });
    }
    plan
}
