//! `labwright get vm-groups`: address ranges, their networks, and how full they are.

use serde::Serialize;
use serde_json::Value;

use crate::control::view::Listed;
use crate::model::lab::{Desired, VmGroup};
use crate::model::site::Site;
use crate::report::table::Row;
use crate::state::Recorded;

const ALL_VMS: &str = "all_vms";

#[derive(Debug, Serialize)]
pub(super) struct GroupRow {
    name: String,
    value: Value,
    /// It is there in every lab.
    predefined: bool,
    first: String,
    last: String,
    gateway: Option<String>,
    dns: Vec<String>,
    bridge: String,
    vlan: Option<u16>,
    /// Vms of this lab in it.
    vms: usize,
    /// Addresses that no vm of the site has.
    free: u64,
}

impl Row for GroupRow {
    const COLUMNS: &'static [&'static str] =
        &["name", "range", "gateway", "bridge", "vms", "free", "vlan", "dns", "predefined"];
    const WIDE: &'static [&'static str] = &["vlan", "dns", "predefined"];
    const YIELDING: &'static [&'static str] = &["bridge", "gateway"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            format!("{}-{}", self.first, self.last),
            self.gateway.clone().unwrap_or_default(),
            self.bridge.clone(),
            self.vms.to_string(),
            self.free.to_string(),
            self.vlan.map(|vlan| vlan.to_string()).unwrap_or_default(),
            self.dns.join(", "),
            super::yes_no(self.predefined),
        ]
    }
}

impl Listed for GroupRow {
    fn key(&self) -> &str {
        &self.name
    }
}

pub(super) fn group_rows(applied: &Desired, recorded: &Recorded, site: &Site) -> Vec<GroupRow> {
    let predefined = std::iter::once((ALL_VMS, &site.all_vms, true)).filter(|_| {
        // Recorded once vms are in it.
        !applied.vm_groups.contains_key(ALL_VMS)
    });
    let own = applied.vm_groups.iter().map(|(name, group)| (name.as_str(), group, name.as_str() == ALL_VMS));
    predefined.chain(own).map(|(name, group, is_predefined)| row(name, group, is_predefined, recorded)).collect()
}

fn row(name: &str, group: &VmGroup, predefined: bool, recorded: &Recorded) -> GroupRow {
    let taken = recorded.taken.keys().filter(|ip| group.range.contains(**ip)).count();
    GroupRow {
        name: name.to_owned(),
        value: serde_json::to_value(group).expect("a recorded value has only string keys"),
        predefined,
        first: group.range.first.to_string(),
        last: group.range.last.to_string(),
        gateway: group.gateway.as_ref().map(ToString::to_string),
        dns: group.dns.iter().map(ToString::to_string).collect(),
        bridge: group.bridge.clone(),
        vlan: group.vlan,
        vms: recorded.vms.values().filter(|vm| vm.vm.vm_group.as_str() == name).count(),
        free: group.range.count().saturating_sub(taken as u64),
    }
}
