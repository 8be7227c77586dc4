//! What who looks may know of a lab: what is theirs, and what they have any right to. Everything else is as if it were not there.

use std::collections::BTreeSet;

use super::{Aside, Claim, Mapping, Permission, Session, Template, User, UserGroup, Version, View, Vm, VmGroup};
use crate::control::ControlError;
use crate::control::permissions::{EffectiveRights, Rights};
use crate::control::upload::require_owner;
use crate::model::id::{TemplateName, UserName, VmGroupName, VmName};
use crate::model::lab::Object;

impl View<'_> {
    pub(super) fn rights(&self) -> Rights<'_> {
        Rights::of(self.context, &self.desired, &self.recorded)
    }

    /// A lab of which somebody may know nothing is none to them.
    pub fn refuse_stranger(&self) -> Result<(), ControlError> {
        self.rights().require_any()
    }

    /// What is there for those alone who may plan and apply the lab.
    pub fn require_all(&self) -> Result<(), ControlError> {
        require_owner(self.context, &self.desired.lab)
    }

    /// Sessions, for those who may move their times.
    pub fn seen_sessions(&self) -> Result<Vec<Session>, ControlError> {
        self.require_all()?;
        self.sessions()
    }

    /// All that who looks may do.
    pub fn own_rights(&self) -> Vec<EffectiveRights> {
        self.rights().of_person(&self.context.caller.person)
    }

    pub fn seen_vms(&self) -> Result<Vec<Vm>, ControlError> {
        let rights = self.rights();
        let mut vms = self.vms()?;
        vms.retain(|vm| rights.sees(&Object::Vm(vm.name.clone())));
        Ok(vms)
    }

    /// Refuses unless one of them has this name.
    pub fn require_vm(&self, name: &VmName) -> Result<(), ControlError> {
        let on = Object::Vm(name.clone());
        self.rights().require_sight(&on)?;
        if self.recorded.vms.contains_key(name) { Ok(()) } else { Err(Rights::not_known(&on)) }
    }

    pub fn seen_mappings(&self) -> Result<Vec<Mapping>, ControlError> {
        let rights = self.rights();
        let mut mappings = self.mappings()?;
        mappings.retain(|mapping| rights.sees(&Object::Vm(mapping.name.clone())));
        Ok(mappings)
    }

    pub fn seen_templates(&self) -> Result<Vec<Template>, ControlError> {
        let rights = self.rights();
        let mut templates = self.templates()?;
        templates.retain(|template| rights.sees(&Object::Template(template.name.clone())));
        let is_theirs = |template: &Template| rights.are_all() || rights.is_own(&template.owner);
        Ok(templates.into_iter().map(|t| if is_theirs(&t) { t } else { t.without_places() }).collect())
    }

    /// Of one that they may know of, with those of its vms that they see; where its images are is its owner's to know.
    pub fn seen_versions(&self, template: &TemplateName) -> Result<Vec<Version>, ControlError> {
        let rights = self.rights();
        rights.require_sight(&Object::Template(template.clone()))?;
        let owner = self.desired.templates.get(template).map(|template| &template.owner);
        let is_theirs = rights.are_all() || owner.is_some_and(|owner| rights.is_own(owner));
        let mut versions = self.versions()?;
        versions.retain(|version| version.template == *template);
        for version in &mut versions {
            version.vms.retain(|vm| rights.sees(&Object::Vm(vm.clone())));
            if !is_theirs {
                (version.made_of, version.by) = (None, None);
                (version.disks, version.sha256) = (Vec::new(), Vec::new());
            }
        }
        Ok(versions)
    }

    /// What was theirs. Who set it aside may be somebody of whom they know nothing.
    pub fn seen_aside(&self) -> Result<Vec<Aside>, ControlError> {
        let rights = self.rights();
        let mut disks = self.aside()?;
        if !rights.are_all() {
            let owns = |owner: &String| UserName::new(owner).is_ok_and(|owner| rights.is_own(&owner));
            disks.retain(|disk| disk.owner.as_ref().is_some_and(owns));
            disks.iter_mut().for_each(|disk| (disk.by, disk.command) = (None, None));
        }
        Ok(disks)
    }

    /// Who looks, and of others nobody.
    pub fn seen_users(&self) -> Result<Vec<User>, ControlError> {
        let rights = self.rights();
        let mut users = self.users()?;
        users.retain(|user| rights.are_all() || rights.is_own(&user.name));
        Ok(users)
    }

    /// The predefined groups and their own, without who else is in them.
    pub fn seen_user_groups(&self) -> Result<Vec<UserGroup>, ControlError> {
        let rights = self.rights();
        let mut groups = self.user_groups()?;
        if rights.are_all() {
            return Ok(groups);
        }
        for group in &mut groups {
            group.members.retain(|member| rights.is_own(member));
            group.value.members.retain(|member| rights.is_own(member));
            group.is_partial = true;
        }
        groups.retain(|group| group.predefined || !group.members.is_empty());
        Ok(groups)
    }

    /// Those of what they see.
    pub fn seen_vm_groups(&self) -> Result<Vec<VmGroup>, ControlError> {
        let rights = self.rights();
        let of_vms = self.desired.vms.iter().map(|(name, vm)| (Object::Vm(name.clone()), &vm.vm_group));
        let templates = self.desired.templates.iter();
        let of_templates = templates.map(|(name, template)| (Object::Template(name.clone()), &template.vm_group));
        let with_seen = of_vms.chain(of_templates).filter(|(thing, _)| rights.sees(thing)).map(|(_, group)| group);
        let with_seen: BTreeSet<&VmGroupName> = with_seen.collect();
        let is_seen = |name: &VmGroupName| with_seen.contains(name) || rights.sees(&Object::VmGroup(name.clone()));
        let mut groups = self.vm_groups()?;
        groups.retain(|group| group.predefined || VmGroupName::new(&group.name).is_ok_and(|name| is_seen(&name)));
        Ok(groups)
    }

    /// Their own and those of groups that they are in.
    pub fn seen_permissions(&self) -> Result<Vec<Permission>, ControlError> {
        let rights = self.rights();
        let mut permissions = self.permissions()?;
        permissions.retain(|permission| rights.are_all() || rights.concerns_caller(&permission.value.to));
        Ok(permissions)
    }

    /// What they asked for, and what others did about vms of theirs.
    pub fn seen_claims(&self) -> Result<Vec<Claim>, ControlError> {
        let rights = self.rights();
        let is_of_own_vm = |name: &str| self.desired.vms.get(name).is_some_and(|vm| rights.is_own(&vm.owner));
        let mut claims = self.claims();
        let is_own = |claim: &Claim| UserName::new(&claim.by).is_ok_and(|by| rights.is_own(&by));
        claims.retain(|claim| rights.are_all() || is_own(claim) || is_of_own_vm(&claim.name));
        Ok(claims)
    }
}
