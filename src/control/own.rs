//! Vms that people make for themselves: a claim beside the manifest, in its owner's name space. The plan then makes it so, as it
//! does for any vm.

use std::borrow::Cow;

use super::aside::refuse_frozen;
use super::journal::{self, Decides, Step};
use super::permissions::Rights;
use super::plan::Scope;
use super::{Context, ControlError, understood};
use crate::model::address::{Address, AddressPattern};
use crate::model::claim::{Claim, ClaimBody, VmClaim};
use crate::model::id::{LabName, TemplateName, UserName, VmName};
use crate::model::lab::{Desired, Hardware, Object, Right, VmSource};
use crate::resolve::with_claims;
use crate::state::{Change, Recorded, Store};

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
    /// What the client calls this, so that it is known when it is asked for again.
    pub key: Option<String>,
}

/// What the lab is, besides what people asked for by command.
#[derive(Debug, Clone, Copy)]
pub enum Lab<'a> {
    /// As its manifest wants it.
    OfManifest(&'a Desired),
    /// As it was last applied, at the moment of the decision.
    AsApplied(&'a LabName),
}

impl<'a> Lab<'a> {
    pub fn name(&self) -> &'a LabName {
        match self {
            Self::OfManifest(desired) => &desired.lab,
            Self::AsApplied(name) => name,
        }
    }

    /// Asks on behalf of the lab where it was last applied: what is written down about it names its folder.
    pub(super) fn context<'c>(
        &self,
        context: &'c Context,
        store: &mut Store,
    ) -> Result<Cow<'c, Context>, ControlError> {
        let Self::AsApplied(name) = self else { return Ok(Cow::Borrowed(context)) };
        let folder = store.labs()?.into_iter().find_map(|(lab, folder)| (lab == **name).then_some(folder));
        let folder = folder.ok_or_else(|| ControlError::NoSuchLab { lab: (*name).clone() })?;
        Ok(Cow::Owned(context.with_lab(folder)))
    }

    pub fn desired(&self, recorded: &Recorded) -> Result<Cow<'a, Desired>, ControlError> {
        match self {
            Self::OfManifest(desired) => Ok(Cow::Borrowed(desired)),
            Self::AsApplied(name) => understood((*name).clone(), recorded).map(Cow::Owned),
        }
    }
}

/// Claims a vm for its owner, whoever asks for it; answers its name. What a permission forces on it then stays with it.
pub fn derive(context: &Context, of: Lab<'_>, wanted: &Wanted) -> Result<VmName, ControlError> {
    context.audited(Some(of.name()), claim(context, of, wanted))
}

fn claim(context: &Context, of: Lab<'_>, wanted: &Wanted) -> Result<VmName, ControlError> {
    let name = VmName::owned(&wanted.owner, &wanted.name);
    let mut store = context.store()?;
    let context = &*of.context(context, &mut store)?;
    let decides = Decides::begin(context, format!("vm derive {name}"))?;
    let recorded = store.recorded(of.name())?;
    refuse_frozen(&recorded)?;
    let desired = of.desired(&recorded)?;
    let lab = with_claims(&desired, &recorded.claims);
    let rights = Rights::of(context, &lab, &recorded);
    let from = Object::Template(wanted.template.clone());
    rights.require(Right::Derive, &from)?;
    rights.refuse_for_others(&wanted.owner)?;
    let owner = lab.users.get(&wanted.owner);
    owner.ok_or_else(|| ControlError::NoUser { user: wanted.owner.clone(), lab: lab.lab.clone() })?;
    if is_asked_again(&recorded, &name, context, wanted.key.as_ref()) {
        return Ok(name);
    }
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
        seed: template.seed.clone().map(Box::new),
        key: wanted.key.clone(),
        was: None,
    };
    let put = Change::PutClaim { name: name.to_string(), body: ClaimBody::Vm(made), by: context.caller.name.clone() };
    let step = Step::record(Address::vm(&name), "claim the vm", vec![put]);
    let of_lab = journal::Lab { name: of.name(), after: recorded.latest, doing: "changed" };
    of_lab.record(&mut store, decides, &format!("vm derive {name}"), vec![step])?;
    Ok(name)
}

/// Whether the vm is there because of this very ask, whose answer was lost.
fn is_asked_again(recorded: &Recorded, name: &VmName, context: &Context, key: Option<&String>) -> bool {
    let made = claim_of(recorded, name).filter(|claim| claim.by == context.caller.name);
    let known = made.and_then(|claim| if let ClaimBody::Vm(made) = &claim.body { made.key.as_ref() } else { None });
    key.is_some() && known == key
}

/// What a manifest could not write either.
pub(super) fn refuse_unbuildable(hardware: &Hardware) -> Result<(), ControlError> {
    let Hardware { memory_mib, cpus, .. } = hardware;
    let what = match () {
        () if !Hardware::MEMORY_MIB.contains(&u64::from(*memory_mib)) => format!("{memory_mib} MiB of memory"),
        () if !Hardware::CPUS.contains(cpus) => format!("{cpus} processors"),
        () => return Ok(()),
    };
    Err(ControlError::Hardware { what })
}

/// The part of the lab's plan that is about one vm.
pub fn part(name: &VmName, allow: Vec<AddressPattern>) -> Scope {
    Scope { targets: vec![Address::vm(name).into()], allow, refresh_only: false }
}

/// Ends the claim by which a vm was made; answers whether the plan has something to set aside then. Where somebody began to give it
/// up and got no further, this goes on with it.
pub fn give_up(context: &Context, of: Lab<'_>, name: &VmName) -> Result<bool, ControlError> {
    context.audited(Some(of.name()), end_claim(context, of, name))
}

fn end_claim(context: &Context, of: Lab<'_>, name: &VmName) -> Result<bool, ControlError> {
    let mut store = context.known_store()?;
    let context = &*of.context(context, &mut store)?;
    let decides = Decides::begin(context, format!("vm delete {name}"))?;
    let recorded = store.recorded(of.name())?;
    refuse_frozen(&recorded)?;
    let desired = of.desired(&recorded)?;
    let lab = with_claims(&desired, &recorded.claims);
    let rights = Rights::of(context, &lab, &recorded);
    let is_recorded = recorded.vms.contains_key(name);
    let Some(made) = claim_of(&recorded, name) else {
        if is_recorded && !lab.vms.contains_key(name) && rights.is_in_own_name_space(name) {
            return Ok(true);
        }
        rights.require(Right::Modify, &Object::Vm(name.clone()))?;
        return Err(ControlError::OfManifest { vm: name.clone() });
    };
    rights.require(Right::Modify, &Object::Vm(name.clone()))?;
    let why = format!("{} deleted the vm", context.caller.name);
    let step = Step::record(Address::vm(name), "end the claim", vec![Change::EndClaim { id: made.id, why }]);
    let of_lab = journal::Lab { name: of.name(), after: recorded.latest, doing: "changed" };
    of_lab.record(&mut store, decides, &format!("vm delete {name}"), vec![step])?;
    Ok(is_recorded)
}

/// Ends the claim on a vm of which nothing came, so that its name is free and no later plan is held up by it.
pub fn withdraw(context: &Context, of: Lab<'_>, name: &VmName) -> Result<(), ControlError> {
    let mut store = context.known_store()?;
    let context = &*of.context(context, &mut store)?;
    let lab = of.name();
    let decides = Decides::begin(context, format!("vm derive {name}"))?;
    let recorded = store.recorded(lab)?;
    let Some(made) = claim_of(&recorded, name).filter(|_| !recorded.vms.contains_key(name)) else { return Ok(()) };
    let end = Change::EndClaim { id: made.id, why: "it could not be made".to_owned() };
    let step = Step::record(Address::vm(name), "end the claim", vec![end]);
    let of_lab = journal::Lab { name: lab, after: recorded.latest, doing: "changed" };
    of_lab.record(&mut store, decides, &format!("vm derive {name}"), vec![step])
}

pub(super) fn claim_of<'a>(recorded: &'a Recorded, name: &VmName) -> Option<&'a Claim> {
    let is_this = |claim: &&Claim| claim.name == name.as_str() && matches!(claim.body, ClaimBody::Vm(_));
    recorded.claims.iter().find(is_this)
}
