//! Vms, and where those are that run.

use super::{shown, yes_no};
use crate::control::view::{Mapping, Name, Vm};
use crate::report::table::{Column, Row, column, wide, word, yielding};
use crate::report::{one_line, times};

impl Row for Vm {
    const COLUMNS: &'static [Column<Self>] = &[
        column("name", |vm| vm.name.to_string()),
        yielding(3, "owner", |vm| vm.owner.to_string()),
        yielding(1, "from", |vm| vm.from.clone()),
        column("ip", |vm| vm.ip.to_string()),
        yielding(2, "wanted", |vm| word(&vm.wanted)),
        column("state", |vm| word(&vm.state)),
        column("host", |vm| shown(vm.host.as_ref())),
        wide("why", |vm| vm.why.as_deref().map(one_line).unwrap_or_default()),
        wide("claim", |vm| shown(vm.claim.as_ref())),
        wide("family", |vm| vm.family.to_string()),
        wide("vm_group", |vm| vm.vm_group.to_string()),
        wide("mac", |vm| vm.mac.to_string()),
        wide("memory", |vm| format!("{} MiB", vm.memory_mib)),
        wide("cpus", |vm| vm.cpus.to_string()),
        wide("isolated", |vm| yes_no(vm.isolated)),
        wide("version", |vm| shown(vm.version.as_ref())),
        wide("description", |vm| shown(vm.description.as_ref())),
    ];
}

impl Row for Name {
    const COLUMNS: &'static [Column<Self>] = &[column("name", |vm| vm.name.to_string())];
}

impl Row for Mapping {
    const COLUMNS: &'static [Column<Self>] = &[
        column("name", |vm| vm.name.to_string()),
        yielding(5, "owner", |vm| vm.owner.to_string()),
        column("ip", |vm| vm.ip.to_string()),
        yielding(4, "mac", |vm| vm.mac.to_string()),
        column("host", |vm| vm.host.clone()),
        column("state", |vm| word(&vm.state)),
        column("vnc", |vm| vm.vnc.clone()),
        yielding(3, "isolated", |vm| yes_no(vm.isolated)),
        yielding(1, "gateway_mac", |vm| shown(vm.gateway_mac.as_ref())),
        yielding(2, "since", |vm| times::moment(&vm.since)),
        wide("tap", |vm| vm.tap.clone()),
        wide("pid", |vm| vm.pid.to_string()),
    ];
}
