//! Templates, disks, vm groups and claims.

use std::path::Path;

use super::{shown, yes_no};
use crate::control::view::{Aside, Claim, Disk, Template, VmGroup};
use crate::model::disk::size;
use crate::report::table::Row;
use crate::report::times;

impl Row for Template {
    const COLUMNS: &'static [&'static str] =
        &["name", "owner", "version", "vms", "memory", "cpus", "description", "vm_group", "disks"];
    const WIDE: &'static [&'static str] = &["vm_group", "disks"];
    const YIELDING: &'static [&'static str] = &["owner"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            self.owner.to_string(),
            self.version.map_or_else(|| "none yet".into(), |version| version.to_string()),
            self.vms.to_string(),
            format!("{} MiB", self.memory_mib),
            self.cpus.to_string(),
            shown(self.description.as_ref()),
            self.vm_group.to_string(),
            self.disks.join(", "),
        ]
    }
}

impl Row for Disk {
    const COLUMNS: &'static [&'static str] = &["vm", "slot", "used", "path", "base"];
    const YIELDING: &'static [&'static str] = &["base"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.vm.to_string(),
            self.slot.to_string(),
            used(self.used_bytes),
            self.path.display().to_string(),
            base(self.base.as_deref()),
        ]
    }
}

impl Row for Aside {
    const COLUMNS: &'static [&'static str] = &["vm", "set", "slot", "age", "since", "used", "path", "base"];
    const YIELDING: &'static [&'static str] = &["base", "age"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.vm.clone(),
            self.set.clone(),
            self.slot.to_string(),
            format!("{} d", self.age_days),
            times::moment(&self.since),
            used(self.used_bytes),
            self.path.display().to_string(),
            base(self.base.as_deref()),
        ]
    }
}

fn used(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "?".into(), size)
}

fn base(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

impl Row for VmGroup {
    const COLUMNS: &'static [&'static str] =
        &["name", "range", "gateway", "bridge", "vms", "free", "vlan", "dns", "predefined"];
    const WIDE: &'static [&'static str] = &["vlan", "dns", "predefined"];
    const YIELDING: &'static [&'static str] = &["bridge", "gateway"];
    fn cells(&self) -> Vec<String> {
        let dns: Vec<String> = self.dns.iter().map(ToString::to_string).collect();
        vec![
            self.name.clone(),
            format!("{}-{}", self.first, self.last),
            shown(self.gateway.as_ref()),
            self.bridge.clone(),
            self.vms.to_string(),
            self.free.to_string(),
            shown(self.vlan.as_ref()),
            dns.join(", "),
            yes_no(self.predefined),
        ]
    }
}

impl Row for Claim {
    const COLUMNS: &'static [&'static str] = &["id", "kind", "name", "wants", "by", "since", "idle"];
    const YIELDING: &'static [&'static str] = &["idle"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.kind.clone(),
            self.name.clone(),
            self.wants.clone(),
            self.by.clone(),
            times::moment(&self.at),
            shown(self.idle.as_ref()),
        ]
    }
}
