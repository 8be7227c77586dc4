//! One vm started or stopped by a person: their right, isolation that is forced on them, and their limit are asked at the act,
//! under the lock under which it is decided.

use super::ControlError;
use super::permissions::Rights;
use crate::model::address::Address;
use crate::model::id::VmName;
use crate::model::lab::{Desired, Object, PowerState, Right};
use crate::plan::{Ground, Plan, Wish};

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

/// Whether who asks has the right. `lab` is the lab with its claims.
pub fn judge(rights: &Rights<'_>, lab: &Desired, power: &Power) -> Result<(), ControlError> {
    if power.wish.is_about_disks() {
        return rights.require_reimage(&power.vm);
    }
    rights.require(Right::Run, &Object::Vm(power.vm.clone()))?;
    if power.wish != Wish::Stop {
        refuse_stopped(lab, &power.vm)?;
        refuse_unisolated(rights, lab, power)?;
    }
    Ok(())
}

/// What keeps a lab as its manifest wants it would stop such a vm again within the minute.
fn refuse_stopped(lab: &Desired, vm: &VmName) -> Result<(), ControlError> {
    match lab.vms.get(vm) {
        Some(known) if known.state == PowerState::Stopped => Err(ControlError::StandsStill { vm: vm.clone() }),
        _ => Ok(()),
    }
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

/// Who starts a vm keeps to what its owner may run at once. The plan names what runs, which is not everybody's to know.
pub fn refuse_too_many(plan: &Plan, vm: &VmName) -> Result<(), ControlError> {
    let address = Address::vm(vm);
    plan.refusals.iter().filter(|refusal| refusal.holds(&address)).try_for_each(|refusal| match &refusal.why {
        Ground::OverQuota { owner, limit, running, elsewhere, .. } => {
            let (user, running) = (owner.clone(), running.len() + elsewhere);
            Err(ControlError::RunningLimit { user, running, limit: *limit })
        }
        _ => Ok(()),
    })
}
