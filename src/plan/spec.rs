//! What a run is told: everything that its starter needs to know, from the lab's and the site's words.

use std::net::Ipv4Addr;

use crate::model::id::{Mac, RunId, VmName};
use crate::model::lab::{Desired, Station, Vm, VmGroup};
use crate::model::site::{DhcpSettings, Site};
use crate::run::{RunDisk, RunNetwork, RunSpec};
use crate::state::{Recorded, RecordedDisk};

/// What one run of a vm has to itself.
#[derive(Debug, Clone)]
pub struct Seat<'a> {
    pub run: RunId,
    pub generation: u64,
    pub ip: Ipv4Addr,
    pub mac: Mac,
    pub disks: &'a [RecordedDisk],
}

/// The spec of a run of a vm in its group.
pub fn run_spec(
    site: &Site,
    desired: &Desired,
    recorded: &Recorded,
    (name, vm, group): (&VmName, &Vm, &VmGroup),
    seat: &Seat<'_>,
) -> RunSpec {
    let network = RunNetwork {
        bridge: group.bridge.clone(),
        ip: seat.ip,
        mac: seat.mac,
        subnet: group.subnet,
        gateway: group.gateway,
        routers: group.routers.clone(),
        dns: group.dns.clone(),
        stations: stations(site, group),
        dhcp_servers: Some(site.network.dhcp_servers.iter().map(|server| server.address).collect()),
        dhcp_on_bridge: matches!(site.network.dhcp, DhcpSettings::Dnsmasq { .. }),
        isolated: vm.isolated,
        lab_ranges: site_groups(desired, recorded).map(|group| (group.range.first, group.range.last)).collect(),
        lab_mac_prefixes: mac_prefixes(desired, recorded),
        egress: Vec::new(),
        dhcp_control_port: site.network.dhcp.control_port(),
        filter: site.network.filter,
    };
    RunSpec {
        version: RunSpec::VERSION,
        run: seat.run.clone(),
        lab: desired.lab.clone(),
        vm: name.clone(),
        owner: vm.owner.clone(),
        generation: seat.generation,
        hardware: vm.hardware.clone(),
        installs: false,
        disks: seat.disks.iter().map(run_disk).collect(),
        seed: None,
        network,
        qemu: site.qemu.clone(),
        service_user: site.service_user.clone(),
        timing: site.timing,
    }
}

/// Whose Ethernet addresses on the group's wire the lab and the site name.
fn stations(site: &Site, group: &VmGroup) -> Vec<Station> {
    let servers = site.network.dhcp_servers.iter().filter(|server| group.subnet.contains(&server.address));
    let named = servers.filter_map(|server| Some(Station { address: server.address, mac: server.mac? }));
    let mut stations: Vec<Station> = group.stations.iter().copied().chain(named).collect();
    stations.sort();
    stations.dedup();
    stations
}

fn mac_prefixes(desired: &Desired, recorded: &Recorded) -> Vec<crate::model::id::MacPrefix> {
    let mut prefixes: Vec<_> = site_groups(desired, recorded).map(|group| group.mac_prefix.clone()).collect();
    prefixes.sort();
    prefixes.dedup();
    prefixes
}

/// The vm groups of this lab and of the site's others.
fn site_groups<'a>(desired: &'a Desired, recorded: &'a Recorded) -> impl Iterator<Item = &'a VmGroup> {
    desired.vm_groups.values().chain(recorded.other_groups.iter().map(|(.., group)| group))
}

/// A published image has nothing below it, so a chain has two links at the most.
pub(super) fn run_disk(disk: &RecordedDisk) -> RunDisk {
    RunDisk { path: disk.path.clone(), backing: disk.base.iter().cloned().collect() }
}
