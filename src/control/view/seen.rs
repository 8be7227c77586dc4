//! What who looks may know of a lab: what is theirs, and what they have any right to. Everything else is as if it were not there.

use super::{Mapping, Template, View, Vm};
use crate::control::ControlError;
use crate::control::permissions::{EffectiveRights, Rights};
use crate::model::id::VmName;
use crate::model::lab::Object;

impl View<'_> {
    fn rights(&self) -> Rights<'_> {
        Rights::of(self.context, &self.desired, &self.recorded)
    }

    /// A lab of which somebody may know nothing is none to them.
    pub fn refuse_stranger(&self) -> Result<(), ControlError> {
        self.rights().require_any()
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

    /// One of them.
    pub fn seen_vm(&self, name: &VmName) -> Result<Vm, ControlError> {
        let rights = self.rights();
        rights.require_sight(&Object::Vm(name.clone()))?;
        let vm = self.vms()?.into_iter().find(|vm| vm.name == *name);
        vm.ok_or_else(|| Rights::not_known(&Object::Vm(name.clone())))
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
}
