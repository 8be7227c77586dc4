//! Vms that people made for themselves get other memory or processors, another CD or none, another name. The claim says so from then on,
//! and the plan makes it so, as it does for an edit of a manifest: what runs goes on with what it was started with.

use std::path::PathBuf;

use super::aside::refuse_frozen;
use super::journal::{self, Decides, Step};
use super::own::{Lab, claim_of, refuse_unbuildable};
use super::permissions::Rights;
use super::{Context, ControlError, cd};
use crate::model::address::Address;
use crate::model::claim::{Claim, ClaimBody, GrantClaim, VmClaim};
use crate::model::id::VmName;
use crate::model::lab::{Object, Right};
use crate::plan::permission_address;
use crate::resolve::with_claims;
use crate::state::{Change, Recorded};

/// What is to be otherwise; all else stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    pub memory_mib: Option<u32>,
    pub cpus: Option<u32>,
    /// What is to lie in its drive.
    pub cdrom: Option<PathBuf>,
    /// What lies in its drive is taken out.
    pub ejects: bool,
    /// Without the owner's name.
    pub name: Option<VmName>,
}

/// Writes down what is to be otherwise about a vm of somebody's own; answers its name from then on.
pub fn edit(context: &Context, of: Lab<'_>, vm: &VmName, edit: &Edit) -> Result<VmName, ControlError> {
    context.audited(Some(of.name()), amend(context, of, vm, edit))
}

fn amend(context: &Context, of: Lab<'_>, vm: &VmName, edit: &Edit) -> Result<VmName, ControlError> {
    let mut store = context.known_store()?;
    let context = &*of.context(context, &mut store)?;
    // It may be on a slow file server, so it is looked at before the lock; who may not change the vm hears nothing of it.
    let cdrom = edit.cdrom.as_deref().map(|file| cd::named(context, of.name(), file));
    let doing = format!("vm {} {vm}", if edit.name.is_some() { "rename" } else { "set" });
    let decides = Decides::begin(context, doing.clone())?;
    let recorded = store.recorded(of.name())?;
    refuse_frozen(&recorded)?;
    let desired = of.desired(&recorded)?;
    let lab = with_claims(&desired, &recorded.claims);
    Rights::of(context, &lab, &recorded).require(Right::Modify, &Object::Vm(vm.clone()))?;
    let edit = &Edit { cdrom: cdrom.transpose()?, ..edit.clone() };
    let claim = claim_of(&recorded, vm).ok_or_else(|| ControlError::SetInManifest { vm: vm.clone() })?;
    let ClaimBody::Vm(made) = &claim.body else { unreachable!("it is the claim on a vm") };
    if edit.name.as_ref().and_then(VmName::owner).is_some_and(|owner| owner != made.owner.as_str()) {
        return Err(ControlError::ForOthers);
    }
    let name = edit.name.as_ref().map_or_else(|| vm.clone(), |name| VmName::owned(&made.owner, name));
    let is_taken =
        lab.vms.contains_key(&name) || recorded.vms.contains_key(&name) || recorded.aside.contains_key(&name);
    if name != *vm && is_taken {
        return Err(ControlError::NameTaken { name });
    }
    let body = edited(made, edit, (vm, &name), &recorded);
    refuse_unbuildable(&body.hardware)?;
    if body == *made {
        return Ok(name);
    }
    let mut changes = vec![
        Change::EndClaim { id: claim.id, why: format!("{} asked for something else", context.caller.name) },
        Change::PutClaim { name: name.to_string(), body: ClaimBody::Vm(body), by: claim.by.clone() },
    ];
    if name != *vm {
        changes.extend(recorded.claims.iter().filter_map(|grant| renamed(grant, vm, &name)).flatten());
    }
    let step = Step::record(Address::vm(&name), "change the claim", changes);
    let of_lab = journal::Lab { name: of.name(), after: recorded.latest, doing: "changed" };
    of_lab.record(&mut store, decides, &doing, vec![step])?;
    Ok(name)
}

fn edited(made: &VmClaim, edit: &Edit, (vm, name): (&VmName, &VmName), recorded: &Recorded) -> VmClaim {
    let mut body = made.clone();
    body.hardware.memory_mib = edit.memory_mib.unwrap_or(body.hardware.memory_mib);
    body.hardware.cpus = edit.cpus.unwrap_or(body.hardware.cpus);
    if edit.ejects || edit.cdrom.is_some() {
        body.hardware.cdrom.clone_from(&edit.cdrom);
    }
    // Where it was renamed before and that is not done yet, it is recorded under the first name.
    if name != vm && recorded.vms.contains_key(vm) {
        body.was = Some(vm.clone());
    }
    body
}

/// What people were let do with it stays so under its new name.
fn renamed(claim: &Claim, from: &VmName, to: &VmName) -> Option<[Change; 2]> {
    let ClaimBody::Grant(grant) = &claim.body else { return None };
    if grant.permission.on != Object::Vm(from.clone()) {
        return None;
    }
    let mut grant: GrantClaim = grant.clone();
    grant.permission.on = Object::Vm(to.clone());
    let name = permission_address(&grant.permission).name;
    let why = format!("`{from}` is `{to}` now");
    let put = Change::PutClaim { name, body: ClaimBody::Grant(grant), by: claim.by.clone() };
    Some([Change::EndClaim { id: claim.id, why }, put])
}
