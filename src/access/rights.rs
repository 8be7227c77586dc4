//! Decisions, each with the line that made it.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::person::is_one_of;
use super::{Forced, Person, Roles};
use crate::model::claim::{Claim, ClaimBody, ClaimId, GivenAs, GrantClaim};
use crate::model::id::{UserName, VmName};
use crate::model::lab::{Desired, Object, Origin, Permission, Right, Subject, Vm, VmSource};

/// All that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// The lab as its manifest wants it, with the vms of claims in it.
    pub lab: &'a Desired,
    /// Those that stand; grants are among them.
    pub claims: &'a [Claim],
    pub roles: &'a Roles,
    /// Whether owners may let others use their vms: the paper says so in section III, and that admins alone may in V.A.
    pub owners_may_share: bool,
    /// The vms of sessions that are open.
    pub in_session: &'a BTreeSet<VmName>,
    pub exams: &'a Exams,
}

/// What exams mean for rights at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exams {
    /// Vms of exams, whatever the time: nobody but admins lets others use them.
    pub vms: BTreeSet<VmName>,
    /// Those of them that are closed: before their owner's start, and after their owner's end.
    pub closed: BTreeSet<VmName>,
    /// Who sits an exam now, with the vms of it that are theirs: they see nothing else.
    pub sitting: BTreeMap<UserName, BTreeSet<VmName>>,
}

/// Where a permission comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Given {
    /// By the manifest; its place where the manifest itself was read.
    Manifest(Option<Origin>),
    /// By command.
    Claim {
        /// The claim's number.
        id: ClaimId,
        /// Who gave it.
        by: String,
    },
}

/// Why somebody may do something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// They are root.
    Root,
    /// The site names them among its `admins`.
    SiteAdmin,
    /// The lab is theirs.
    LabOwner,
    /// The thing is theirs.
    Owner,
    /// Somebody lets them.
    Permission {
        /// Whom.
        to: Subject,
        /// The thing.
        on: Object,
        /// Where it is written.
        given: Given,
    },
}

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// There is no such thing, or none that they may know of: both read alike.
    NotKnown,
    NoRight,
    /// The manifest keeps the disks of a vm as they are.
    NotReimaged,
    /// Somebody else's screen, outside a session and without a grant of the owner's.
    NotInSession,
}

pub type Decision = Result<Because, Refused>;

/// What somebody may do with one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    pub rights: BTreeMap<Right, Because>,
    pub forced: Option<Forced>,
}

impl<'a> World<'a> {
    /// Whether `who` may do something with a thing.
    pub fn may(&self, who: &Person, right: Right, on: &Object) -> Decision {
        let own = self.all_rights(who);
        if !self.exists(on) {
            return Err(Refused::NotKnown);
        }
        if let Some(because) = own {
            return Ok(because);
        }
        let user = who.user().ok_or(Refused::NoRight)?;
        if self.is_shut_to(user, right, on) {
            return Err(Refused::NotKnown);
        }
        match self.right(user, right, on) {
            Some(because) => Ok(because),
            None if !self.is_visible_to_user(user, on) => Err(Refused::NotKnown),
            None if right == Right::View && self.grants(user, right, on).next().is_some() => Err(Refused::NotInSession),
            None => Err(Refused::NoRight),
        }
    }

    /// Whether `who` may give a vm other disks: who has the right to modify it, but its owner only as the manifest says where it is
    /// one of a family that is made for the members of a group.
    pub fn may_reimage(&self, who: &Person, vm: &VmName) -> Decision {
        let because = self.may(who, Right::Modify, &Object::Vm(vm.clone()))?;
        let is_handed_out = |vm: &Vm| vm.for_each.is_some() && !vm.may_reimage;
        match because {
            Because::Owner if self.lab.vms.get(vm).is_some_and(is_handed_out) => Err(Refused::NotReimaged),
            because => Ok(because),
        }
    }

    /// Whether `who` may know that a thing is there: what is theirs, and what they have any right to.
    pub fn is_visible(&self, who: &Person, on: &Object) -> bool {
        self.exists(on)
            && (self.all_rights(who).is_some() || who.user().is_some_and(|user| self.is_visible_to_user(user, on)))
    }

    /// Whether `who` may see everything of the lab.
    pub fn all_rights(&self, who: &Person) -> Option<Because> {
        self.roles.all_rights(who)
    }

    /// Whether what is given to somebody is given to this user.
    pub fn is_one_of(&self, user: &UserName, to: &Subject) -> bool {
        is_one_of(self.lab, user, to)
    }

    /// Whether `who` may let others have `rights` on a thing, and as what; forcing isolation is for admins.
    pub fn may_grant(&self, who: &Person, permission: &Permission) -> Result<GivenAs, Refused> {
        let on = &permission.on;
        if !self.exists(on) {
            return Err(Refused::NotKnown);
        }
        if self.all_rights(who).is_some() {
            return Ok(GivenAs::Admin);
        }
        let user = who.user().ok_or(Refused::NoRight)?;
        if !self.is_visible_to_user(user, on) {
            return Err(Refused::NotKnown);
        }
        let may = !self.is_of_exam(on)
            && !permission.force_isolated
            && self.owners_may_share
            && permission.allow.iter().all(|right| self.owners_right(user, *right, on));
        if may { Ok(GivenAs::Owner) } else { Err(Refused::NoRight) }
    }

    /// All that `who` may do, with each thing that they may know of.
    pub fn effective(&self, who: &Person) -> BTreeMap<Object, Effective> {
        let things = self.things().filter(|thing| self.is_visible(who, thing));
        things.map(|thing| (thing.clone(), self.effective_on(who, &thing))).collect()
    }

    fn effective_on(&self, who: &Person, thing: &Object) -> Effective {
        let rights =
            Right::ALL.into_iter().filter_map(|right| Some((right, self.may(who, right, thing).ok()?))).collect();
        let forced = match thing {
            Object::Vm(vm) => self.forced(who.user(), vm),
            Object::Template(_) | Object::VmGroup(_) => None,
        };
        Effective { rights, forced }
    }

    pub(super) fn things(&self) -> impl Iterator<Item = Object> + use<'a> {
        let lab = self.lab;
        let templates = lab.templates.keys().cloned().map(Object::Template);
        let groups = lab.vm_groups.keys().cloned().map(Object::VmGroup);
        lab.vms.keys().cloned().map(Object::Vm).chain(templates).chain(groups)
    }

    pub(super) fn exists(&self, on: &Object) -> bool {
        match on {
            Object::Vm(vm) => self.lab.vms.contains_key(vm),
            Object::Template(template) => self.lab.templates.contains_key(template),
            Object::VmGroup(group) => self.lab.vm_groups.contains_key(group),
        }
    }

    fn is_of_exam(&self, on: &Object) -> bool {
        matches!(on, Object::Vm(vm) if self.exams.vms.contains(vm))
    }

    /// Whether exams keep somebody from something, whoever lets them otherwise: from a vm that is closed, but for those who may
    /// look at others' screens; and from all that is not theirs to sit the exam with.
    fn is_shut_to(&self, user: &UserName, right: Right, on: &Object) -> bool {
        let Exams { vms: _, closed, sitting } = self.exams;
        let looks_at_others = right == Right::View && self.owner(on) != Some(user);
        match (on, sitting.get(user)) {
            (Object::Vm(vm), None) => closed.contains(vm) && !looks_at_others,
            (Object::Vm(vm), Some(own)) => !own.contains(vm),
            (Object::Template(_) | Object::VmGroup(_), own) => own.is_some(),
        }
    }

    fn is_visible_to_user(&self, user: &UserName, on: &Object) -> bool {
        if self.is_shut_to(user, Right::View, on) {
            return false;
        }
        if self.owner(on) == Some(user) {
            return true;
        }
        let objects = self.objects_with_this_right(on);
        self.permissions().any(|(permission, _)| {
            !permission.allow.is_empty()
                && objects.contains(&permission.on)
                && is_one_of(self.lab, user, &permission.to)
        })
    }

    pub(super) fn right(&self, user: &UserName, right: Right, on: &Object) -> Option<Because> {
        if self.owners_right(user, right, on) {
            return Some(Because::Owner);
        }
        let is_watched = matches!(on, Object::Vm(vm) if self.in_session.contains(vm));
        let owner = self.owner(on);
        let consents = |given: &Given| match given {
            Given::Claim { by, .. } => owner.is_some_and(|owner| owner.as_str() == by),
            Given::Manifest(_) => false,
        };
        let (permission, given) =
            self.grants(user, right, on).find(|(_, given)| right != Right::View || is_watched || consents(given))?;
        Some(Because::Permission { to: permission.to.clone(), on: permission.on.clone(), given })
    }

    /// The permissions that give `user` a right to a thing.
    fn grants(&self, user: &UserName, right: Right, on: &Object) -> impl Iterator<Item = (&'a Permission, Given)> {
        let objects = self.objects_with_this_right(on);
        let (lab, user) = (self.lab, user.clone());
        self.permissions().filter(move |(permission, _)| {
            permission.allow.contains(&right)
                && objects.contains(&permission.on)
                && is_one_of(lab, &user, &permission.to)
        })
    }

    /// What the paper gives the owner of a thing: no derived vm is derived from again.
    fn owners_right(&self, user: &UserName, right: Right, on: &Object) -> bool {
        let is_derived = matches!(on, Object::Vm(vm) if matches!(self.lab.vms.get(vm).map(|vm| &vm.source), Some(VmSource::Derive(_))));
        self.owner(on) == Some(user) && !(right == Right::Derive && is_derived)
    }

    pub(super) fn owner(&self, on: &Object) -> Option<&'a UserName> {
        match on {
            Object::Vm(vm) => self.lab.vms.get(vm).map(|vm| &vm.owner),
            Object::Template(template) => self.lab.templates.get(template).map(|template| &template.owner),
            Object::VmGroup(_) => None,
        }
    }

    /// A thing, and its vm group, whose rights reach it.
    pub(super) fn objects_with_this_right(&self, on: &Object) -> Vec<Object> {
        let group = match on {
            Object::Vm(vm) => self.lab.vms.get(vm).map(|vm| &vm.vm_group),
            Object::Template(template) => self.lab.templates.get(template).map(|template| &template.vm_group),
            Object::VmGroup(_) => None,
        };
        std::iter::once(on.clone()).chain(group.cloned().map(Object::VmGroup)).collect()
    }

    /// Every permission that counts now, the manifest's first.
    pub(super) fn permissions(&self) -> impl Iterator<Item = (&'a Permission, Given)> + use<'a> {
        let world = *self;
        let written = self.lab.permissions.iter().map(move |permission| {
            let key = (permission.to.clone(), permission.on.clone());
            (permission, Given::Manifest(world.lab.written_permissions.get(&key).cloned()))
        });
        let claimed = self.claims.iter().filter_map(move |claim| match &claim.body {
            ClaimBody::Grant(grant) if world.counts(grant, &claim.by) => {
                Some((&grant.permission, Given::Claim { id: claim.id, by: claim.by.clone() }))
            }
            _ => None,
        });
        written.chain(claimed)
    }

    /// An owner's grant counts as far as the owner's own rights go.
    fn counts(&self, grant: &GrantClaim, by: &str) -> bool {
        match grant.given_as {
            GivenAs::Admin => true,
            GivenAs::Owner => {
                let Permission { on, allow, force_isolated, .. } = &grant.permission;
                let owner = self.owner(on).filter(|owner| owner.as_str() == by);
                self.owners_may_share
                    && !self.is_of_exam(on)
                    && !force_isolated
                    && owner.is_some_and(|owner| allow.iter().all(|right| self.owners_right(owner, *right, on)))
            }
        }
    }
}
