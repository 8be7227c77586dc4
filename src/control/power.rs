//! One vm started or stopped by a person: their right, isolation that is forced on them, and their limit are asked at the act,
//! under the lock under which it is decided.

use std::collections::BTreeMap;

use super::permissions::Rights;
use super::{Context, ControlError, plan};
use crate::model::address::Address;
use crate::model::id::VmName;
use crate::model::lab::{Desired, Object, Right};
use crate::observe::life;
use crate::plan::{Ask, Plan, Wish};
use crate::resolve::with_claims;
use crate::state::{Recorded, RecordedVm};

/// What somebody wants of a vm.
#[derive(Debug, Clone)]
pub struct Power {
    pub vm: VmName,
    pub wish: Wish,
    /// They know that it runs isolated, and want it so.
    pub isolated: bool,
    /// The vm itself was named: see `plan::Ask`.
    pub by_name: bool,
}

/// The part of the lab's plan that does it.
pub fn plan(context: &Context, desired: &Desired, recorded: &Recorded, power: &Power) -> Result<Plan, ControlError> {
    let lab = with_claims(desired, &recorded.claims);
    let rights = Rights::of(context, &lab, recorded);
    rights.require(Right::Run, &Object::Vm(power.vm.clone()))?;
    if power.wish != Wish::Stop {
        refuse_unisolated(&rights, &lab, power)?;
        if !rights.are_all() {
            refuse_too_many(context, &lab, recorded, &power.vm)?;
        }
    }
    let asks = BTreeMap::from([(power.vm.clone(), Ask { wish: power.wish, by_name: power.by_name })]);
    plan::power(context, desired, recorded, &[], &asks)
}

/// Whom isolation is forced on says that they know it. It is a matter of the vm, so one that is not isolated cannot run so for one
/// start, and not at all for whom it is forced on.
fn refuse_unisolated(rights: &Rights<'_>, lab: &Desired, power: &Power) -> Result<(), ControlError> {
    let vm = &power.vm;
    if !power.isolated {
        let is_forced = !rights.are_all() && rights.forced(vm).is_some();
        return if is_forced { Err(ControlError::Unisolated { vm: vm.clone() }) } else { Ok(()) };
    }
    refuse_unless_isolated(lab, vm)
}

/// Who asks for isolation gets it, or is told that it cannot be had.
pub fn refuse_unless_isolated(lab: &Desired, vm: &VmName) -> Result<(), ControlError> {
    match lab.vms.get(vm) {
        Some(known) if !known.isolated => Err(ControlError::NotMadeIsolated { vm: vm.clone() }),
        _ => Ok(()),
    }
}

/// Who starts a vm keeps to what its owner may run at once. The plan's own guard names what runs, which is not everybody's to know,
/// and does not see what somebody works on at this moment: that may be about to run.
fn refuse_too_many(context: &Context, lab: &Desired, recorded: &Recorded, vm: &VmName) -> Result<(), ControlError> {
    let owner = &lab.vms[vm].owner;
    let runs = |known: &RecordedVm| known.run.as_ref().is_some_and(|run| !run.is_over());
    let Some(limit) = lab.users.get(owner).map(|user| user.limits.running_vms) else { return Ok(()) };
    if recorded.vms.get(vm).is_some_and(runs) {
        return Ok(());
    }
    let is_held = |name: &VmName| recorded.held.contains_key(&Address::vm(name));
    let others = recorded.vms.iter().filter(|(name, known)| *name != vm && known.vm.owner == *owner);
    let live = others.filter(|(name, known)| is_held(name) || runs(known));
    if live.clone().count() < limit as usize {
        return Ok(());
    }
    // Some of them may have ended since it was last written down.
    let observed = context.observe(lab, recorded)?;
    let running = live.filter(|(name, known)| is_held(name) || !life(known, &observed, &context.site).is_off()).count();
    if running < limit as usize {
        return Ok(());
    }
    Err(ControlError::RunningLimit { user: owner.clone(), running, limit })
}
