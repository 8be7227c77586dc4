//! What a plan means for people's rights: a line of a roster or a permission may change what hundreds may do, and nobody should have
//! to work that out.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Inputs, Plan};
use crate::access::{Exams, Roles, World, changes};
use crate::model::address::Kind;
use crate::model::claim::ClaimBody;
use crate::model::id::{UserName, VmName};
use crate::model::lab::{Desired, Object};
use crate::state::{Recorded, Thing};

impl Plan {
    /// Says how rights change by what is left of the plan. Where something that they depend on was held back or left out of it,
    /// nobody says anything about them.
    pub(super) fn tell_rights(&mut self, inputs: &Inputs<'_>, whole: usize) {
        let decides = self.deciding_rights();
        if decides == 0 || decides < whole || inputs.desired.is_nothing() {
            return;
        }
        let (was, in_session, exams) = (was(inputs), BTreeSet::new(), Exams::default());
        let share = inputs.site.labs.get(&inputs.desired.lab);
        let lab_owners = share.map(|share| share.owners.clone()).unwrap_or_default();
        let roles = Roles { admins: inputs.site.admins.clone(), lab_owners };
        let world = |lab| World {
            lab,
            claims: &inputs.recorded.claims,
            roles: &roles,
            owners_may_share: inputs.site.owners_may_share,
            in_session: &in_session,
            exams: &exams,
        };
        self.rights = changes(&world(&was), &world(inputs.desired));
    }

    /// How many of its changes may change rights.
    pub(super) fn deciding_rights(&self) -> usize {
        self.changes.iter().filter(|change| decides_rights(change)).count()
    }

    /// A part of a plan says something about rights only where all that decides them is in it.
    pub(super) fn forget_rights_unless_whole(&mut self, whole: usize) {
        if self.deciding_rights() < whole {
            self.rights.clear();
        }
    }
}

fn decides_rights(change: &Change) -> bool {
    let owner = |fields: &BTreeMap<String, String>| fields.get("owner").cloned();
    match change.address.kind {
        Kind::User | Kind::UserGroup | Kind::Permission => true,
        Kind::Vm | Kind::Template => owner(&change.before).zip(owner(&change.after)).is_some_and(|(was, is)| was != is),
        _ => false,
    }
}

/// The lab as it is recorded, as far as rights depend on it.
fn was(inputs: &Inputs<'_>) -> Desired {
    let Recorded { objects, vms, claims, .. } = inputs.recorded;
    let mut was = Desired::nothing(inputs.desired.lab.clone());
    for (address, recorded) in objects {
        let name = &address.name;
        match &recorded.thing {
            Thing::User(user) => drop(name.parse().map(|name| was.users.insert(name, user.clone()))),
            Thing::UserGroup(group) => drop(name.parse().map(|name| was.user_groups.insert(name, group.clone()))),
            Thing::VmGroup(group) => drop(name.parse().map(|name| was.vm_groups.insert(name, group.clone()))),
            Thing::Template(template) => drop(name.parse().map(|name| was.templates.insert(name, template.clone()))),
            Thing::Permission(permission) => was.permissions.push(permission.clone()),
            Thing::Session(_) => {}
        }
    }
    let granted = claims.iter().filter_map(|claim| match &claim.body {
        ClaimBody::Grant(grant) => Some(&grant.permission),
        _ => None,
    });
    let named = was.permissions.iter().chain(granted).filter_map(|permission| match &permission.on {
        Object::Vm(vm) => Some(vm),
        Object::Template(_) | Object::VmGroup(_) => None,
    });
    let named: BTreeSet<_> = named.collect();
    let is_needed = |name: &VmName, owner: &UserName| {
        named.contains(name) || inputs.desired.vms.get(name).is_some_and(|vm| vm.owner != *owner)
    };
    let needed = vms.iter().filter(|(name, known)| is_needed(name, &known.vm.owner));
    was.vms = needed.map(|(name, known)| (name.clone(), known.vm.clone())).collect();
    was
}
