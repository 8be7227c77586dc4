//! The lab with what people asked for by command. In: a lab as its manifest wants it, and the claims on it. Out: the lab with
//! what stands of them. Pure; nothing here ends a claim, or takes a name.
//!
//! ```text
//! kind    what it is                                    merged
//! power   a vm shall run, or stand still                into `Desired::power`; a plan looks at it for `on_demand` vms alone
//! vm      a vm of somebody's own                        among the vms, in its owner's name space, while its owner and its vm
//!                                                       group are there
//! grant   a permission that somebody gives              isolation that it forces, into the vms; who may do what, says `access`
//! time    a session's extension or pause                into each one's end, and counts from there whatever is edited
//! accommodation  what people need of a session's time   likewise; a file that says other things of somebody goes before it
//! hold    disks that a purge leaves alone               never: a purge looks at it
//! other   of a newer labwright                          never: kept, and shown as it is
//! ```

use std::borrow::Cow;

use super::permissions::forced_vms;
use crate::model::accommodation::AccommodationFile;
use crate::model::address::Address;
use crate::model::claim::{
    AccommodationClaim, Claim, ClaimBody, ClaimId, GivenAs, GrantClaim, PowerClaim, PowerWish, TimeClaim, VmClaim,
};
use crate::model::id::{FamilyName, UserGroupName, UserName, VmName};
use crate::model::lab::{AddedTime, Desired, Moved, Object, Origin, Permission, PowerState, Subject, Vm};

/// The lab with the claims on it. Whether a vm is `on_demand`, is renamed, or leaves, is for the plan to see, which ends claims.
pub fn with_claims<'a>(desired: &'a Desired, claims: &[Claim]) -> Cow<'a, Desired> {
    let mut merged = Cow::Borrowed(desired);
    // A lab that was merged before, and kept, is merged anew.
    for (name, session) in &desired.sessions {
        let file = match desired.accommodations.get(name) {
            Some(AccommodationFile::Read(people)) => Some(people),
            Some(AccommodationFile::Unread { .. }) | None => None,
        };
        let added = AddedTime::with_file(name.as_str(), claims, file);
        if added != session.added {
            merged.to_mut().sessions.get_mut(name).expect("it was just found").added = added;
        }
    }
    for claim in claims {
        match &claim.body {
            ClaimBody::Power(PowerClaim { wanted, generation, .. }) => {
                let Ok(vm) = VmName::new(&claim.name) else { continue };
                let (wanted, generation, by, at) = (*wanted, *generation, claim.by.clone(), claim.at);
                merged.to_mut().power.insert(vm, PowerWish { claim: claim.id, wanted, generation, by, at });
            }
            ClaimBody::Vm(made) if why_not_made(desired, &claim.name, made).is_none() => {
                let (Ok(name), Ok(family)) = (VmName::new(&claim.name), FamilyName::new(&claim.name)) else { continue };
                if let Some(was) = &made.was {
                    let (from, to) = (Address::vm(was), Address::vm(&name));
                    merged.to_mut().moved.push(Moved { from, to });
                }
                merged.to_mut().vms.insert(name, vm(claim.id, family, made));
            }
            ClaimBody::Vm(_) | ClaimBody::Grant(_) | ClaimBody::Time(_) | ClaimBody::Hold(_) => {}
            ClaimBody::Accommodation(_) => {}
            ClaimBody::Other { .. } => {}
        }
    }
    isolate(&mut merged, claims);
    merged
}

/// A vm that a person made. Its power is for people alone.
fn vm(claim: ClaimId, family: FamilyName, made: &VmClaim) -> Vm {
    let VmClaim { version: _, owner, source, vm_group, hardware, isolated, seed, key: _, was: _ } = made.clone();
    let origin = Origin { file: format!("claim {claim}"), line: 0 };
    Vm { isolated, seed: seed.map(|seed| *seed), origin, ..Vm::new(owner, vm_group, family, source, hardware) }
}

/// Isolates the vms that people made and that a permission is about; and all that a permission by command is about.
fn isolate(merged: &mut Cow<'_, Desired>, claims: &[Claim]) {
    let forces =
        claims.iter().any(|claim| matches!(&claim.body, ClaimBody::Grant(grant) if grant.permission.force_isolated));
    if !forces && !merged.vms.keys().any(|name| name.owner().is_some()) {
        return;
    }
    let mut forced = forced_vms(merged, claims);
    // Of the vms that a manifest has, and with what it permits, `resolve` has seen to it.
    forced.retain(|(name, _)| !merged.vms[name].isolated && (forces || name.owner().is_some()));
    for (name, _) in forced {
        merged.to_mut().vms.get_mut(&name).expect("it was just found").isolated = true;
    }
}

/// Why a vm that a person made is not in the lab.
fn why_not_made(desired: &Desired, name: &str, made: &VmClaim) -> Option<String> {
    let VmClaim { owner, vm_group, .. } = made;
    if VmName::new(name).ok().and_then(|name| Some(name.owner()? == owner.as_str())) != Some(true) {
        return Some(format!("`{name}` is not a name for a vm of {owner}'s own"));
    }
    if !desired.users.contains_key(owner) {
        return Some(format!("its owner `{owner}` is not in the lab"));
    }
    (!desired.vm_groups.contains_key(vm_group)).then(|| format!("its vm group `{vm_group}` is not in the lab"))
}

/// Why a claim has no effect on the lab as it is wanted now, claims and all; `None` of one that has. `is_recorded` tells of vms
/// that the manifest has no more.
pub fn why_idle(desired: &Desired, claim: &Claim, is_recorded: impl Fn(&str) -> bool) -> Option<String> {
    match &claim.body {
        ClaimBody::Power(_) => match desired.vms.get(claim.name.as_str()) {
            Some(vm) if vm.state == PowerState::OnDemand => None,
            Some(_) => Some("its vm has a `state:` in the manifest; the next apply ends it".into()),
            None if is_recorded(&claim.name) => Some("its vm left the manifest".into()),
            None => Some(format!("there is no vm `{}`", claim.name)),
        },
        ClaimBody::Grant(grant) => why_no_matter(desired, grant, &claim.by).map(str::to_owned),
        ClaimBody::Vm(made) => why_not_made(desired, &claim.name, made),
        ClaimBody::Time(TimeClaim { session, .. }) | ClaimBody::Accommodation(AccommodationClaim { session, .. }) => {
            (!desired.sessions.contains_key(session)).then(|| format!("there is no session `{session}`"))
        }
        ClaimBody::Hold(_) => None,
        ClaimBody::Other { .. } => Some("it is a newer labwright's".into()),
    }
}

/// Why a grant changes nothing of what anybody may do.
fn why_no_matter(desired: &Desired, grant: &GrantClaim, by: &str) -> Option<&'static str> {
    let GrantClaim { version: _, permission, given_as } = grant;
    let is_admins = matches!(&permission.to, Subject::Group(group) if group.as_str() == UserGroupName::ADMIN);
    if is_admins && !permission.force_isolated {
        return Some("admins may do everything anyway");
    }
    if !names_what_is_there(desired, permission) {
        return Some("whom or what it names is not in the manifest");
    }
    let is_anothers =
        *given_as == GivenAs::Owner && owner(desired, &permission.on).is_none_or(|owner| owner.as_str() != by);
    is_anothers.then_some("who gave it does not own it any more")
}

fn owner<'d>(desired: &'d Desired, on: &Object) -> Option<&'d UserName> {
    match on {
        Object::Vm(vm) => desired.vms.get(vm).map(|vm| &vm.owner),
        Object::Template(template) => desired.templates.get(template).map(|template| &template.owner),
        Object::VmGroup(_) => None,
    }
}

fn names_what_is_there(desired: &Desired, permission: &Permission) -> bool {
    let whom = match &permission.to {
        Subject::User(user) => desired.users.contains_key(user),
        Subject::Group(group) if UserGroupName::PREDEFINED.contains(&group.as_str()) => true,
        Subject::Group(group) => desired.user_groups.contains_key(group),
    };
    whom && match &permission.on {
        Object::Vm(vm) => desired.vms.contains_key(vm),
        Object::Template(template) => desired.templates.contains_key(template),
        Object::VmGroup(group) => desired.vm_groups.contains_key(group),
    }
}
