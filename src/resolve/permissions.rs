//! Permissions: who and what are bound, and forced isolation is put into the vms that `access` says it is about.

use std::collections::{BTreeMap, BTreeSet};

use super::networks::VmGroups;
use super::people::People;
use super::{Families, Resolver};
use crate::access::{Exams, Forced, Roles, World};
use crate::manifest::{At, ObjectDecl, PermissionDecl, Spanned, SubjectDecl};
use crate::model::claim::Claim;
use crate::model::id::{FamilyName, UserGroupName, VmGroupName, VmName};
use crate::model::lab::{Desired, Object, Permission, Right, Subject};
use crate::model::rules::Rule;

/// Most permissions of a lab; groups say more with less.
const PERMISSIONS_MAX: usize = 2000;

impl Resolver<'_> {
    pub(super) fn permissions(
        &mut self,
        people: &mut People,
        groups: &VmGroups,
        families: &Families,
        desired: &mut Desired,
    ) -> ForcedAt {
        let manifest = self.manifest;
        let mut seen: BTreeMap<(Subject, Object), At> = BTreeMap::new();
        let mut forced = ForcedAt::new();
        let decls = self.at_most(&manifest.permissions, PERMISSIONS_MAX, "permissions", |decl| decl.at);
        for decl in decls {
            let subject = self.subject(&decl.to, people);
            let object = self.object(&decl.on, groups, families, desired);
            let (Some(to), Some(on)) = (subject, object) else { continue };
            let allow: BTreeSet<Right> = decl.allow.iter().map(|right| right.value).collect();
            let force_isolated = decl.force_isolated.as_ref().is_some_and(|force| force.value);
            let permission = Permission { to, on, allow, force_isolated };
            self.useless(decl, &permission, people, desired);
            let key = (permission.to.clone(), permission.on.clone());
            if let Some(first) = seen.insert(key, decl.at) {
                let message = "a permission for the same people and the same thing stands above";
                let hint = "put both into one: `allow` is a list";
                self.note_both(Rule::DuplicatePermission, (decl.to.at, message), (first, "the first one"), hint);
            }
            if permission.force_isolated {
                let at = decl.force_isolated.as_ref().map_or(decl.at, |force| force.at);
                forced.entry((permission.to.clone(), permission.on.clone())).or_insert(at);
            }
            let key = (permission.to.clone(), permission.on.clone());
            desired.written_permissions.entry(key).or_insert_with(|| self.origin(decl.at));
            desired.permissions.push(permission);
        }
        desired.permissions.sort();
        forced
    }

    fn subject(&mut self, decl: &Spanned<SubjectDecl>, people: &mut People) -> Option<Subject> {
        match (&decl.user, &decl.group) {
            (Some(user), None) => {
                people.mention(self, user);
                Some(Subject::User(user.value.clone()))
            }
            (None, Some(group)) => {
                if people.members(&group.value).is_none() {
                    let known = people.group_names();
                    self.unknown(Rule::UnknownUserGroup, "user group", (group.as_str(), group.at), known);
                    return None;
                }
                Some(Subject::Group(group.value.clone()))
            }
            _ => {
                self.one_key(decl.written.len(), decl.at, "to", "`{ user: NAME }` or `{ group: NAME }`");
                None
            }
        }
    }

    fn one_key(&mut self, written: usize, at: At, key: &str, form: &str) {
        match written {
            0 => self.note(Rule::MissingKey, at, format!("`{key}` names nothing"), format!("write {form}")),
            // The one key was there and its value could not be read, which was said already.
            1 => {}
            _ => self.note(
                Rule::ConflictingKeys,
                at,
                format!("`{key}` names several things"),
                format!("write one permission for each: {form}"),
            ),
        }
    }

    fn object(
        &mut self,
        decl: &Spanned<ObjectDecl>,
        groups: &VmGroups,
        families: &Families,
        desired: &Desired,
    ) -> Option<Object> {
        match (&decl.vm, &decl.template, &decl.vm_group) {
            (Some(vm), None, None) => self.bind_vm(vm, families, desired).then(|| Object::Vm(vm.value.clone())),
            (None, Some(template), None) => {
                let declared = &self.manifest.templates.0;
                if !declared.iter().any(|entry| entry.key.value == template.value) {
                    let known: Vec<&str> = declared.iter().map(|entry| entry.key.as_str()).collect();
                    self.unknown(
                        Rule::UnknownTemplate,
                        "template",
                        (template.as_str(), template.at),
                        known.iter().copied(),
                    );
                    return None;
                }
                Some(Object::Template(template.value.clone()))
            }
            (None, None, Some(group)) => {
                if !groups.contains_key(&group.value) {
                    let known = groups.keys().map(VmGroupName::as_str);
                    self.unknown(Rule::UnknownVmGroup, "vm group", (group.as_str(), group.at), known);
                    return None;
                }
                Some(Object::VmGroup(group.value.clone()))
            }
            _ => {
                let form = "`{ vm: NAME }`, `{ template: NAME }` or `{ vm_group: NAME }`";
                self.one_key(decl.written.len(), decl.at, "on", form);
                None
            }
        }
    }

    fn bind_vm(&mut self, vm: &Spanned<VmName>, families: &Families, desired: &Desired) -> bool {
        if desired.vms.contains_key(&vm.value) {
            return true;
        }
        let family = FamilyName::new(vm.as_str()).ok().filter(|name| families.contains_key(name));
        if let Some(family) = family {
            let vms = &families[&family];
            // An empty family is broken or has an empty group; both were said.
            if let Some(first) = vms.first() {
                let message = format!("`{family}` is a family of {} vms, not a vm", vms.len());
                let hint = format!("name one vm, such as `{first}`, or their template or vm group");
                self.note(Rule::UnknownVm, vm.at, message, hint);
            }
            return false;
        }
        if !self.vms_missing {
            self.unknown(Rule::UnknownVm, "vm", (vm.as_str(), vm.at), desired.vms.keys().map(VmName::as_str));
        }
        false
    }

    /// Says so where a permission can never matter.
    fn useless(&mut self, decl: &Spanned<PermissionDecl>, permission: &Permission, people: &People, desired: &Desired) {
        let reason = if permission.allow.is_empty() && !permission.force_isolated {
            // What is written as `allow` may be what could not be read.
            let nothing = ("it allows nothing and forces nothing".to_owned(), "add `allow: [run]`, or remove it");
            decl.key("allow").is_none().then_some(nothing)
        } else {
            match (&permission.to, &permission.on) {
                (Subject::Group(group), _) if group.as_str() == UserGroupName::ADMIN => {
                    Some(("admins may do everything anyway".to_owned(), "remove it"))
                }
                (Subject::Group(group), _)
                    if !people.is_broken(group) && people.members(group).is_some_and(|members| members.is_empty()) =>
                {
                    Some((format!("the group `{group}` has no members"), "add members to the group, or remove it"))
                }
                (Subject::User(user), Object::Vm(vm)) if !permission.force_isolated => desired
                    .vms
                    .get(vm)
                    .filter(|vm| vm.owner == *user)
                    .map(|_| (format!("`{user}` owns `{vm}` and may do everything with it anyway"), "remove it")),
                _ => None,
            }
        };
        if let Some((reason, hint)) = reason {
            self.note(Rule::UselessPermission, decl.to.at, format!("this permission can never matter: {reason}"), hint);
        }
    }

    /// Isolates the vms that permissions with `force_isolated` are about.
    pub(super) fn isolate(&mut self, places: &ForcedAt, desired: &mut Desired) {
        if places.is_empty() {
            return;
        }
        let found = forced_vms(desired, &[]);
        let mut contradicted: BTreeMap<FamilyName, (VmName, At)> = BTreeMap::new();
        for (name, forced) in found {
            let vm = desired.vms.get_mut(&name).expect("it was just found");
            vm.isolated = true;
            let Forced::By { to, on, .. } = forced else { continue };
            let Some(at) = places.get(&(to, on)) else { continue };
            contradicted.entry(vm.family.clone()).or_insert((name, *at));
        }
        for (name, decl) in self.manifest.vms.iter() {
            let Some(isolated) = decl.isolated.as_ref().filter(|isolated| !isolated.value) else { continue };
            let Some((vm, force)) = contradicted.get(&name.value) else { continue };
            let message = format!("`{}` is not to be isolated here, but a permission forces `{vm}` to be", name.value);
            let hint = "write `isolated: true`, or change the permission";
            self.note_both(Rule::IsolationContradiction, (isolated.at, &message), (*force, "forced here"), hint);
        }
    }
}

/// Where it is written who and what are forced to be isolated.
pub(super) type ForcedAt = BTreeMap<(Subject, Object), At>;

/// The vms that a permission forces to run isolated, whoever starts them, with why.
pub(super) fn forced_vms(lab: &Desired, claims: &[Claim]) -> Vec<(VmName, Forced)> {
    let (roles, in_session, exams) = (Roles::default(), BTreeSet::new(), Exams::default());
    let world = World { lab, claims, roles: &roles, owners_may_share: false, in_session: &in_session, exams: &exams };
    let forcing = world.forcing();
    lab.vms.keys().filter_map(|name| Some((name.clone(), forcing.on_vm(None, name)?))).collect()
}
