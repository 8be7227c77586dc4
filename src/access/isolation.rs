//! What forces vms to run isolated, whatever their owners want. Everybody reads it here: `resolve` for all vms of a lab, and whoever
//! starts one for that one.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::person::subjects;
use super::{Given, World};
use crate::model::claim::ClaimBody;
use crate::model::id::{UserName, VmName};
use crate::model::lab::{Object, Subject, VmSource};

/// Why a vm runs isolated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Forced {
    /// It was so when the vm was made.
    FromTheStart,
    /// Somebody wants it so.
    By {
        /// Whom it is about.
        to: Subject,
        /// The thing.
        on: Object,
        /// Where it is written.
        given: Given,
    },
}

/// The permissions that force isolation, in their order. Each vm looks up the few subjects and objects that it is, so that thousands
/// of permissions over thousands of vms cost their sum and not their product.
#[derive(Debug)]
pub struct Forcing<'a> {
    world: World<'a>,
    by: BTreeMap<(Subject, Object), (usize, Given)>,
    /// Vms that were isolated when their owners made them.
    from_the_start: BTreeSet<&'a str>,
}

impl<'a> World<'a> {
    pub fn forcing(&self) -> Forcing<'a> {
        let mut by = BTreeMap::new();
        let forcing = self.permissions().filter(|(permission, _)| permission.force_isolated);
        for (number, (permission, given)) in forcing.enumerate() {
            by.entry((permission.to.clone(), permission.on.clone())).or_insert((number, given));
        }
        let made = self.claims.iter().filter(|claim| matches!(&claim.body, ClaimBody::Vm(made) if made.isolated));
        Forcing { world: *self, by, from_the_start: made.map(|claim| claim.name.as_str()).collect() }
    }

    /// Why a vm runs isolated when `user` starts it.
    pub fn forced(&self, user: Option<&UserName>, vm: &VmName) -> Option<Forced> {
        self.forcing().on_vm(user, vm)
    }

    /// Whether what `owner` derives from `on` runs isolated for good.
    pub fn forced_on_derived(&self, owner: &UserName, on: &Object) -> bool {
        let source_is_forced = matches!(on, Object::Vm(vm) if self.forced(Some(owner), vm).is_some());
        let objects = match on {
            Object::VmGroup(_) => vec![on.clone()],
            Object::Vm(_) | Object::Template(_) => self.objects_with_this_right(on),
        };
        source_is_forced || self.forcing().first(subjects(self.lab, owner), &objects).is_some()
    }
}

impl Forcing<'_> {
    /// Why a vm runs isolated when `user` starts it.
    pub fn on_vm(&self, user: Option<&UserName>, vm: &VmName) -> Option<Forced> {
        let known = self.world.lab.vms.get(vm)?;
        if self.by.is_empty() {
            return self.since_it_was_made(vm);
        }
        let template = match &known.source {
            VmSource::Derive(template) | VmSource::Clone(template) => Some(Object::Template(template.clone())),
            VmSource::Disks(_) => None,
        };
        let own = [Object::Vm(vm.clone()), Object::VmGroup(known.vm_group.clone())];
        let objects: Vec<Object> = own.into_iter().chain(template).collect();
        let concerned = std::iter::once(&known.owner).chain(user).flat_map(|user| subjects(self.world.lab, user));
        self.first(concerned, &objects).or_else(|| self.since_it_was_made(vm))
    }

    fn first(&self, subjects: impl IntoIterator<Item = Subject>, objects: &[Object]) -> Option<Forced> {
        let pairs = subjects.into_iter().flat_map(|to| objects.iter().map(move |on| (to.clone(), on.clone())));
        let found = pairs.filter_map(|pair| self.by.get_key_value(&pair)).min_by_key(|(_, (number, _))| *number);
        found.map(|((to, on), (_, given))| Forced::By { to: to.clone(), on: on.clone(), given: given.clone() })
    }

    fn since_it_was_made(&self, vm: &VmName) -> Option<Forced> {
        self.from_the_start.contains(vm.as_str()).then_some(Forced::FromTheStart)
    }
}
