//! Address ranges, their networks, and how full they are.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Listed, View, sorted};
use crate::control::ControlError;
use crate::model::lab;

const ALL_VMS: &str = "all_vms";

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct VmGroup {
    /// As its manifest calls it.
    pub name: String,
    /// As it is recorded. What is in it may be another with each version of the program.
    #[serde(serialize_with = "sorted")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub value: lab::VmGroup,
    /// It is there in every lab.
    pub predefined: bool,
    /// Where its range begins.
    pub first: Ipv4Addr,
    /// Where its range ends.
    pub last: Ipv4Addr,
    /// What guests reach the world through.
    pub gateway: Option<Ipv4Addr>,
    /// Who answers names there.
    pub dns: Vec<Ipv4Addr>,
    /// The host's bridge that guests are on.
    pub bridge: String,
    /// The tag that its frames bear.
    pub vlan: Option<u16>,
    /// Vms of this lab in it.
    pub vms: usize,
    /// Addresses that no vm of the site has.
    pub free: u64,
}

impl Listed for VmGroup {
    const KIND: &'static str = "vm-group";
    fn key(&self) -> &str {
        &self.name
    }
}

impl View<'_> {
    /// The predefined group first, until it is recorded because vms are in it.
    pub fn vm_groups(&self) -> Result<Vec<VmGroup>, ControlError> {
        let groups = self.applied()?.vm_groups;
        let predefined =
            (!groups.contains_key(ALL_VMS)).then(|| self.vm_group(ALL_VMS, self.context.site.all_vms.clone()));
        let own = groups.into_iter().map(|(name, group)| self.vm_group(name.as_str(), group));
        Ok(predefined.into_iter().chain(own).collect())
    }

    fn vm_group(&self, name: &str, value: lab::VmGroup) -> VmGroup {
        let taken = self.recorded.taken.keys().filter(|ip| value.range.contains(**ip)).count();
        VmGroup {
            name: name.to_owned(),
            predefined: name == ALL_VMS,
            first: value.range.first,
            last: value.range.last,
            gateway: value.gateway,
            dns: value.dns.clone(),
            bridge: value.bridge.clone(),
            vlan: value.vlan,
            vms: self.recorded.vms.values().filter(|vm| vm.vm.vm_group.as_str() == name).count(),
            free: value.range.count().saturating_sub(taken as u64),
            value,
        }
    }
}
