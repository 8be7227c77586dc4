//! Vms, and where those are that run.

use super::{shown, yes_no};
use crate::control::view::{Mapping, Name, Vm};
use crate::report::table::{Row, word};
use crate::report::{one_line, times};

impl Row for Vm {
    const COLUMNS: &'static [&'static str] = &[
        "name",
        "owner",
        "from",
        "ip",
        "wanted",
        "state",
        "host",
        "why",
        "claim",
        "family",
        "vm_group",
        "mac",
        "memory",
        "cpus",
        "isolated",
        "version",
        "description",
    ];
    const WIDE: &'static [&'static str] =
        &["why", "claim", "family", "vm_group", "mac", "memory", "cpus", "isolated", "version", "description"];
    const YIELDING: &'static [&'static str] = &["from", "wanted", "owner"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            self.owner.to_string(),
            self.from.clone(),
            self.ip.to_string(),
            word(&self.wanted),
            word(&self.state),
            shown(self.host.as_ref()),
            self.why.as_deref().map(one_line).unwrap_or_default(),
            shown(self.claim.as_ref()),
            self.family.to_string(),
            self.vm_group.to_string(),
            self.mac.to_string(),
            format!("{} MiB", self.memory_mib),
            self.cpus.to_string(),
            yes_no(self.isolated),
            shown(self.version.as_ref()),
            shown(self.description.as_ref()),
        ]
    }
}

impl Row for Name {
    const COLUMNS: &'static [&'static str] = &["name"];
    fn cells(&self) -> Vec<String> {
        vec![self.name.to_string()]
    }
}

impl Row for Mapping {
    const COLUMNS: &'static [&'static str] =
        &["name", "owner", "ip", "mac", "host", "state", "vnc", "isolated", "gateway_mac", "since", "tap", "pid"];
    const WIDE: &'static [&'static str] = &["tap", "pid"];
    const YIELDING: &'static [&'static str] = &["gateway_mac", "since", "isolated", "mac", "owner"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            self.owner.to_string(),
            self.ip.to_string(),
            self.mac.to_string(),
            self.host.clone(),
            word(&self.state),
            self.vnc.clone(),
            yes_no(self.isolated),
            shown(self.gateway_mac.as_ref()),
            times::moment(&self.since),
            self.tap.clone(),
            self.pid.to_string(),
        ]
    }
}
