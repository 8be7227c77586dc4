//! Templates, disks, vm groups and claims.

use std::path::Path;

use super::{shown, yes_no};
use crate::control::changes::{ChangedFile, FileChange};
use crate::control::view::{Aside, Claim, Disk, Template, Version, VmGroup};
use crate::model::disk::size;
use crate::report::table::{Column, Row, column, wide, yielding};
use crate::report::times;

impl Row for Template {
    const COLUMNS: &'static [Column<Self>] = &[
        column("name", |template| template.name.to_string()),
        yielding(1, "owner", |template| template.owner.to_string()),
        column("version", |template| template.version.map_or_else(|| "none yet".into(), |version| version.to_string())),
        column("vms", |template| template.vms.to_string()),
        column("memory", |template| format!("{} MiB", template.memory_mib)),
        column("cpus", |template| template.cpus.to_string()),
        column("description", |template| shown(template.description.as_ref())),
        wide("vm_group", |template| template.vm_group.to_string()),
        wide("disks", |template| template.disks.join(", ")),
    ];
}

impl Row for Version {
    const COLUMNS: &'static [Column<Self>] = &[
        column("template", |version| version.template.to_string()),
        column("version", |version| version.version.to_string()),
        yielding(3, "since", |version| times::moment(&version.since)),
        column("vms", |version| version.vms.len().to_string()),
        column("used", |version| used(version.used_bytes)),
        yielding(2, "by", |version| shown(version.by.as_ref())),
        yielding(1, "note", |version| shown(version.note.as_ref())),
        wide("made_of", |version| shown(version.made_of.as_ref())),
        wide("sha256", |version| version.sha256.join(", ")),
        wide("disks", |version| {
            version.disks.iter().map(|disk| disk.display().to_string()).collect::<Vec<_>>().join(", ")
        }),
    ];
}

impl Row for Disk {
    const COLUMNS: &'static [Column<Self>] = &[
        column("vm", |disk| disk.vm.to_string()),
        column("slot", |disk| disk.slot.to_string()),
        column("used", |disk| used(disk.used_bytes)),
        column("path", |disk| disk.path.display().to_string()),
        yielding(1, "base", |disk| base(disk.base.as_deref())),
    ];
}

impl Row for Aside {
    const COLUMNS: &'static [Column<Self>] = &[
        column("vm", |disk| disk.vm.clone()),
        column("set", |disk| disk.set.clone()),
        column("slot", |disk| disk.slot.to_string()),
        yielding(2, "age", |disk| format!("{} d", disk.age_days)),
        column("since", |disk| times::moment(&disk.since)),
        column("used", |disk| used(disk.used_bytes)),
        yielding(1, "by", |disk| shown(disk.by.as_ref())),
        yielding(3, "held", |disk| shown(disk.held.as_ref())),
        column("path", |disk| disk.path.display().to_string()),
        yielding(1, "base", |disk| base(disk.base.as_deref())),
        wide("owner", |disk| shown(disk.owner.as_ref())),
        wide("command", |disk| shown(disk.command.as_ref())),
        wide("session", |disk| shown(disk.session.as_ref())),
    ];
}

impl Row for ChangedFile {
    const COLUMNS: &'static [Column<Self>] = &[
        column("path", |file| file.path.clone()),
        column("change", |file| {
            let word = match file.change {
                FileChange::New => "new",
                FileChange::Changed => "changed",
                FileChange::Gone => "gone",
            };
            word.to_owned()
        }),
        column("size", |file| file.bytes.map(size).unwrap_or_default()),
        column("was", |file| file.was_bytes.map(size).unwrap_or_default()),
        yielding(2, "modified", |file| file.modified.as_ref().map(times::moment).unwrap_or_default()),
        yielding(1, "disk", |file| format!("{}, {}", file.slot, file.volume)),
    ];
}

fn used(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "?".into(), size)
}

fn base(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

impl Row for VmGroup {
    const COLUMNS: &'static [Column<Self>] = &[
        column("name", |group| group.name.clone()),
        column("range", |group| format!("{}-{}", group.first, group.last)),
        yielding(2, "gateway", |group| shown(group.gateway.as_ref())),
        yielding(1, "bridge", |group| group.bridge.clone()),
        column("vms", |group| group.vms.to_string()),
        column("free", |group| group.free.to_string()),
        wide("vlan", |group| shown(group.vlan.as_ref())),
        wide("dns", |group| group.dns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        wide("predefined", |group| yes_no(group.predefined)),
    ];
}

impl Row for Claim {
    const COLUMNS: &'static [Column<Self>] = &[
        column("id", |claim| claim.id.to_string()),
        column("kind", |claim| claim.kind.clone()),
        column("name", |claim| claim.name.clone()),
        column("wants", |claim| claim.wants.clone()),
        column("by", |claim| claim.by.clone()),
        column("since", |claim| times::moment(&claim.at)),
        yielding(1, "idle", |claim| shown(claim.idle.as_ref())),
    ];
}
