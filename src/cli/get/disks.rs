//! `labwright get templates`, `disks` and `aside`: what guests are made of.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::size;
use crate::control::Context;
use crate::control::view::Listed;
use crate::model::id::{LabName, TemplateName, VmName};
use crate::model::lab::{Desired, DiskSource, Template, VmSource};
use crate::report::Failure;
use crate::report::table::Row;
use crate::report::times;
use crate::state::{AsideDisk, Recorded, RecordedDisk, RecordedVm};

#[derive(Debug, Serialize)]
pub(super) struct TemplateRow {
    name: String,
    value: Value,
    owner: String,
    vm_group: String,
    /// The latest that is published; none can be derived from before the first.
    version: Option<u32>,
    /// Vms that come from it.
    vms: usize,
    memory_mib: u32,
    cpus: u32,
    disks: Vec<String>,
    description: Option<String>,
}

impl Row for TemplateRow {
    const COLUMNS: &'static [&'static str] =
        &["name", "owner", "version", "vms", "memory", "cpus", "description", "vm_group", "disks"];
    const WIDE: &'static [&'static str] = &["vm_group", "disks"];
    const YIELDING: &'static [&'static str] = &["owner"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.owner.clone(),
            self.version.map_or_else(|| "none yet".into(), |version| version.to_string()),
            self.vms.to_string(),
            format!("{} MiB", self.memory_mib),
            self.cpus.to_string(),
            self.description.clone().unwrap_or_default(),
            self.vm_group.clone(),
            self.disks.join(", "),
        ]
    }
}

impl Listed for TemplateRow {
    fn key(&self) -> &str {
        &self.name
    }
    fn owner(&self) -> Option<&str> {
        Some(&self.owner)
    }
}

pub(super) fn template_rows(applied: &Desired, recorded: &Recorded) -> Vec<TemplateRow> {
    applied.templates.iter().map(|(name, template)| template_row(name, template, recorded)).collect()
}

fn template_row(name: &TemplateName, template: &Template, recorded: &Recorded) -> TemplateRow {
    let is_from_it = |vm: &&RecordedVm| match &vm.vm.source {
        VmSource::Derive(template) | VmSource::Clone(template) => template == name,
        VmSource::Disks(_) => false,
    };
    let disks = template.disks.iter().map(|disk| match disk {
        DiskSource::Image { path, .. } => path.display().to_string(),
        DiskSource::Empty { size_bytes } => format!("empty, {}", size(*size_bytes)),
    });
    TemplateRow {
        name: name.to_string(),
        value: serde_json::to_value(template).expect("a recorded value has only string keys"),
        owner: template.owner.to_string(),
        vm_group: template.vm_group.to_string(),
        version: recorded.next_version(name).checked_sub(1).filter(|version| *version > 0),
        vms: recorded.vms.values().filter(is_from_it).count(),
        memory_mib: template.hardware.memory_mib,
        cpus: template.hardware.cpus,
        disks: disks.collect(),
        description: template.description.clone(),
    }
}

#[derive(Debug, Serialize)]
pub(super) struct DiskRow {
    vm: String,
    slot: u32,
    path: String,
    base: Option<String>,
    owner: String,
    /// What it takes of its storage; `None` where that cannot be seen.
    used_bytes: Option<u64>,
}

impl Row for DiskRow {
    const COLUMNS: &'static [&'static str] = &["vm", "slot", "used", "path", "base"];
    const YIELDING: &'static [&'static str] = &["base"];
    fn cells(&self) -> Vec<String> {
        let base = self.base.clone().unwrap_or_default();
        vec![self.vm.clone(), self.slot.to_string(), used(self.used_bytes), self.path.clone(), base]
    }
}

fn used(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "?".into(), size)
}

fn used_bytes(path: &Path) -> Option<u64> {
    const BLOCK: u64 = 512;
    Some(path.symlink_metadata().ok()?.blocks() * BLOCK)
}

impl Listed for DiskRow {
    fn key(&self) -> &str {
        &self.vm
    }
    fn owner(&self) -> Option<&str> {
        Some(&self.owner)
    }
}

pub(super) fn disk_rows(recorded: &Recorded) -> Vec<DiskRow> {
    let of_vms = recorded.vms.iter().map(|(name, vm)| (name, vm.vm.owner.as_str(), &vm.disks));
    let waiting = recorded.waiting.iter().map(|(name, waiting)| (name, waiting.owner.as_str(), &waiting.disks));
    let disks =
        of_vms.chain(waiting).flat_map(|(name, owner, disks)| disks.iter().map(move |disk| (name, owner, disk)));
    disks.map(|(name, owner, disk)| disk_row(name, owner, disk)).collect()
}

fn disk_row(name: &VmName, owner: &str, disk: &RecordedDisk) -> DiskRow {
    DiskRow {
        vm: name.to_string(),
        slot: disk.slot,
        path: disk.path.display().to_string(),
        base: disk.base.as_ref().map(|base| base.display().to_string()),
        owner: owner.to_owned(),
        used_bytes: used_bytes(&disk.path),
    }
}

/// A disk that was set aside, and for how long it has been.
#[derive(Debug, Serialize)]
pub(super) struct AsideRow {
    vm: String,
    /// What `restore --set` calls it.
    set: String,
    slot: u32,
    #[serde(serialize_with = "times::serialize_text")]
    since: String,
    age_days: i64,
    path: String,
    /// Where it was.
    was: String,
    base: Option<String>,
    used_bytes: Option<u64>,
}

impl Row for AsideRow {
    const COLUMNS: &'static [&'static str] = &["vm", "set", "slot", "age", "since", "used", "path", "base"];
    const YIELDING: &'static [&'static str] = &["base", "age"];
    fn cells(&self) -> Vec<String> {
        let age = format!("{} d", self.age_days);
        let base = self.base.clone().unwrap_or_default();
        let since = times::local_text(&self.since);
        let used = used(self.used_bytes);
        vec![self.vm.clone(), self.set.clone(), self.slot.to_string(), age, since, used, self.path.clone(), base]
    }
}

impl Listed for AsideRow {
    fn key(&self) -> &str {
        &self.vm
    }
}

pub(super) fn aside_rows(context: &Context, lab: &LabName) -> Result<Vec<AsideRow>, Failure> {
    const DAY_SECONDS: i64 = 24 * 60 * 60;
    let Some(store) = context.store_if_any()? else { return Ok(Vec::new()) };
    let now = Timestamp::now().as_second();
    let row = |disk: AsideDisk| {
        // A time that nobody of us wrote is shown as it stands, and counts as now.
        let since = disk.since.parse::<Timestamp>().map_or(now, Timestamp::as_second);
        AsideRow {
            set: disk.set(),
            vm: disk.vm,
            slot: disk.slot,
            age_days: (now - since) / DAY_SECONDS,
            since: disk.since,
            used_bytes: used_bytes(&disk.path),
            path: disk.path.display().to_string(),
            was: disk.was.display().to_string(),
            base: disk.base.map(|base| base.display().to_string()),
        }
    };
    Ok(store.aside(lab)?.into_iter().map(row).collect())
}
