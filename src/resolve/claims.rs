//! The lab with what people asked for by command. In: a lab as its manifest wants it, and the claims on it. Out: the lab with
//! what stands of them. Pure; nothing here ends a claim, or takes a name.
//!
//! ```text
//! kind    what it is                                    merged
//! power   a vm shall run, or stand still                into `Desired::power`; a plan looks at it for `on_demand` vms alone
//! grant   a permission that somebody gives              into the permissions, where whom and what it names are there
//! vm      a vm of somebody's own                        not yet
//! time    a session's extension or pause                not yet
//! other   of a newer labwright                          never: kept, and shown as it is
//! ```

use std::borrow::Cow;

use crate::model::claim::{Claim, ClaimBody, PowerClaim, PowerWish};
use crate::model::id::VmName;
use crate::model::lab::{Desired, Object, Permission, PowerState, Subject};

/// The lab with the claims on it. Whether a vm is `on_demand`, is renamed, or leaves, is for the plan to see, which ends claims.
pub fn with_claims<'a>(desired: &'a Desired, claims: &[Claim]) -> Cow<'a, Desired> {
    let mut merged = Cow::Borrowed(desired);
    for claim in claims {
        match &claim.body {
            ClaimBody::Power(PowerClaim { wanted, generation, .. }) => {
                let Ok(vm) = VmName::new(&claim.name) else { continue };
                let (wanted, generation, by, at) = (*wanted, *generation, claim.by.clone(), claim.at);
                merged.to_mut().power.insert(vm, PowerWish { claim: claim.id, wanted, generation, by, at });
            }
            ClaimBody::Grant(grant) if names_what_is_there(desired, &grant.permission) => {
                merged.to_mut().permissions.push(grant.permission.clone());
            }
            ClaimBody::Grant(_) | ClaimBody::Vm(_) | ClaimBody::Time(_) | ClaimBody::Other { .. } => {}
        }
    }
    merged
}

/// Why a claim has no effect on the lab as it is wanted now; `None` of one that has. `is_recorded` tells of vms that the
/// manifest has no more.
pub fn why_idle(desired: &Desired, claim: &Claim, is_recorded: impl Fn(&str) -> bool) -> Option<String> {
    match &claim.body {
        ClaimBody::Power(_) => match desired.vms.get(claim.name.as_str()) {
            Some(vm) if vm.state == PowerState::OnDemand => None,
            Some(_) => Some("its vm has a `state:` in the manifest; the next apply ends it".into()),
            None if is_recorded(&claim.name) => Some("its vm left the manifest".into()),
            None => Some(format!("there is no vm `{}`", claim.name)),
        },
        ClaimBody::Grant(grant) if names_what_is_there(desired, &grant.permission) => None,
        ClaimBody::Grant(_) => Some("whom or what it names is not in the manifest".into()),
        ClaimBody::Vm(_) | ClaimBody::Time(_) => Some("this labwright does not act on such claims yet".into()),
        ClaimBody::Other { .. } => Some("it is a newer labwright's".into()),
    }
}

fn names_what_is_there(desired: &Desired, permission: &Permission) -> bool {
    let whom = match &permission.to {
        Subject::User(user) => desired.users.contains_key(user),
        Subject::Group(group) => desired.user_groups.contains_key(group),
    };
    whom && match &permission.on {
        Object::Vm(vm) => desired.vms.contains_key(vm),
        Object::Template(template) => desired.templates.contains_key(template),
        Object::VmGroup(group) => desired.vm_groups.contains_key(group),
    }
}
