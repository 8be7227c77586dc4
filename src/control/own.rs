//! Vms that people make for themselves: a claim beside the manifest, in its owner's name space. The plan then makes it so, as it
//! does for any vm.

use super::aside::refuse_frozen;
use super::journal::{Lab, Step};
use super::permissions::Rights;
use super::{Context, ControlError};
use crate::model::address::Address;
use crate::model::claim::{ClaimBody, VmClaim};
use crate::model::id::{TemplateName, UserName, VmName};
use crate::model::lab::{Desired, Hardware, Object, Right, VmSource};
use crate::resolve::with_claims;
use crate::state::Change;

/// A vm that somebody wants to have.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub template: TemplateName,
    pub owner: UserName,
    /// Without the owner's name.
    pub name: VmName,
    pub memory_mib: Option<u32>,
    pub cpus: Option<u32>,
    /// Isolated even where nothing forces it.
    pub isolated: bool,
    /// A full copy, not a copy-on-write disk.
    pub is_clone: bool,
}

/// Claims a vm for its owner, whoever asks for it; answers its name. What a permission forces on it then stays with it.
pub fn derive(context: &Context, desired: &Desired, wanted: &Wanted) -> Result<VmName, ControlError> {
    let name = VmName::owned(&wanted.owner, &wanted.name);
    let mut store = context.store()?;
    let lock = context.lock(format!("vm derive {name}"))?;
    let recorded = store.recorded(&desired.lab)?;
    refuse_frozen(&recorded)?;
    let lab = with_claims(desired, &recorded.claims);
    let rights = Rights::of(context, &lab, &recorded);
    let from = Object::Template(wanted.template.clone());
    rights.require(Right::Derive, &from)?;
    rights.refuse_for_others(&wanted.owner)?;
    let owner = lab.users.get(&wanted.owner);
    owner.ok_or_else(|| ControlError::NoUser { user: wanted.owner.clone(), lab: lab.lab.clone() })?;
    if lab.vms.contains_key(&name) || recorded.vms.contains_key(&name) {
        return Err(ControlError::NameTaken { name });
    }
    let template = &lab.templates[&wanted.template];
    let mut hardware = template.hardware.clone();
    hardware.memory_mib = wanted.memory_mib.unwrap_or(hardware.memory_mib);
    hardware.cpus = wanted.cpus.unwrap_or(hardware.cpus);
    refuse_unbuildable(&hardware)?;
    // A disc lies in the drive of the machine that was installed from it.
    hardware.cdrom = None;
    let source = if wanted.is_clone { VmSource::Clone } else { VmSource::Derive }(wanted.template.clone());
    let made = VmClaim {
        version: ClaimBody::VERSION,
        owner: wanted.owner.clone(),
        source,
        vm_group: template.vm_group.clone(),
        hardware,
        isolated: wanted.isolated || rights.world().forced_on_derived(&wanted.owner, &from),
    };
    let put = Change::PutClaim { name: name.to_string(), body: ClaimBody::Vm(made), by: context.caller.name.clone() };
    let step = Step::record(Address::vm(&name), "claim the vm", vec![put]);
    let of_lab = Lab { context, name: &desired.lab, after: recorded.latest, doing: "changed" };
    of_lab.record(&mut store, lock, &format!("vm derive {name}"), vec![step])?;
    Ok(name)
}

/// What a manifest could not write either.
fn refuse_unbuildable(hardware: &Hardware) -> Result<(), ControlError> {
    let Hardware { memory_mib, cpus, .. } = hardware;
    let what = match () {
        () if !Hardware::MEMORY_MIB.contains(&u64::from(*memory_mib)) => format!("{memory_mib} MiB of memory"),
        () if !Hardware::CPUS.contains(cpus) => format!("{cpus} processors"),
        () => return Ok(()),
    };
    Err(ControlError::Hardware { what })
}

/// Ends the claim by which a vm was made; the plan then sets it aside.
pub fn give_up(context: &Context, desired: &Desired, name: &VmName) -> Result<(), ControlError> {
    let mut store = context.known_store()?;
    let lock = context.lock(format!("vm delete {name}"))?;
    let recorded = store.recorded(&desired.lab)?;
    refuse_frozen(&recorded)?;
    let lab = with_claims(desired, &recorded.claims);
    let rights = Rights::of(context, &lab, &recorded);
    rights.require(Right::Modify, &Object::Vm(name.clone()))?;
    let is_this = |body: &ClaimBody| matches!(body, ClaimBody::Vm(_));
    let made = recorded.claims.iter().find(|claim| claim.name == name.as_str() && is_this(&claim.body));
    let made = made.ok_or_else(|| ControlError::OfManifest { vm: name.clone() })?;
    let why = format!("{} deleted the vm", context.caller.name);
    let step = Step::record(Address::vm(name), "end the claim", vec![Change::EndClaim { id: made.id, why }]);
    let of_lab = Lab { context, name: &desired.lab, after: recorded.latest, doing: "changed" };
    of_lab.record(&mut store, lock, &format!("vm delete {name}"), vec![step])?;
    Ok(())
}
