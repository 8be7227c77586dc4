//! What on the guests' wire is no guest: the gateway, its routers, name servers, and machines that an isolated guest may
//! reach without the gateway. Their Ethernet addresses are what an isolated guest's filter goes by.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Resolver;
use super::networks::VmGroups;
use crate::manifest::{At, EgressDecl, SessionDecl, Spanned, VmGroupDecl};
use crate::model::id::{Mac, MacPrefix, VmName};
use crate::model::lab::{Desired, Egress, Station, VmGroup};
use crate::model::rules::Rule;

/// An address whose Ethernet address is written.
struct Written {
    what: &'static str,
    station: Station,
    at: At,
}

impl Resolver<'_> {
    /// The written Ethernet addresses of gateway and name servers, and the gateway's routers.
    pub(super) fn stations(&mut self, decl: &VmGroupDecl, subnet: Ipv4Net) -> (Vec<Station>, Vec<Station>) {
        let written = |what, address: &Spanned<Ipv4Addr>, mac: &Spanned<Mac>| Written {
            what,
            station: Station { address: address.value, mac: mac.value },
            at: mac.at,
        };
        let gateway = decl.gateway.iter().filter_map(|gateway| Some(("gateway", gateway.address(), gateway.mac()?)));
        let servers = decl.dns.iter().filter_map(|server| Some(("name server", server.address(), server.mac()?)));
        let named: Vec<Written> = gateway.chain(servers).map(|(what, ip, mac)| written(what, ip, mac)).collect();
        let routers = decl.gateway.iter().flat_map(|gateway| gateway.routers());
        let routers: Vec<Written> =
            routers.map(|router| written("router", &router.value.address, &router.value.mac)).collect();
        let prefix = decl.mac_prefix.as_ref().map(|prefix| prefix.value.clone()).unwrap_or_default();
        let mut known: Vec<&Written> = Vec::new();
        for one in named.iter().chain(&routers) {
            self.on_the_wire(one, subnet, &prefix);
            if let Some(other) = known.iter().find(|other| other.station.address == one.station.address) {
                self.same_address(one, other);
            }
            known.push(one);
        }
        let stations = |list: &[Written]| {
            let list: BTreeSet<Station> = list.iter().map(|one| one.station).collect();
            list.into_iter().collect()
        };
        (stations(&named), stations(&routers))
    }

    /// Whether guests can meet a machine under this Ethernet address.
    fn on_the_wire(&mut self, Written { what, station, at }: &Written, subnet: Ipv4Net, prefix: &MacPrefix) {
        let Station { address, mac } = station;
        if !subnet.contains(address) {
            let message =
                format!("the {what} {address} is not in the network {subnet}, so no guest meets its Ethernet address");
            let hint = if *what == "router" {
                "write the address that it has on the guests' network"
            } else {
                "write the address alone"
            };
            self.note(Rule::Wire, *at, message, hint);
        }
        self.no_guests_address(*mac, *at, prefix);
    }

    fn no_guests_address(&mut self, mac: Mac, at: At, prefix: &MacPrefix) {
        if mac.0.starts_with(prefix.bytes()) {
            let message = format!(
                "`{mac}` begins like the Ethernet addresses of the vms, `{prefix}`: an isolated guest hears none of those"
            );
            self.note(Rule::Wire, at, message, "write the machine's own, or give the group another `mac_prefix`");
        }
    }

    fn same_address(&mut self, one: &Written, other: &Written) {
        let (Station { address, mac }, Written { what, .. }) = (one.station, other);
        if mac != other.station.mac {
            let message = format!("{address} is `{mac}` here, and as the {what} it is `{}`", other.station.mac);
            self.note_both(
                Rule::Wire,
                (one.at, &message),
                (other.at, "the other"),
                "write the same, or only one of the two",
            );
        }
    }

    /// What isolated guests of a session may reach without the gateway is one machine each.
    pub(super) fn egress(
        &mut self,
        decl: &SessionDecl,
        vms: &BTreeSet<VmName>,
        desired: &Desired,
        groups: &VmGroups,
    ) -> Vec<Egress> {
        let isolated = vms.iter().map(|vm| &desired.vms[vm]).filter(|vm| vm.isolated);
        let names: BTreeSet<_> = isolated.map(|vm| &vm.vm_group).collect();
        let groups: Vec<&VmGroup> = names.into_iter().filter_map(|name| groups.get(name)).collect();
        decl.egress.iter().map(|written| self.destination(written, &groups)).collect()
    }

    fn destination(&mut self, written: &EgressDecl, groups: &[&VmGroup]) -> Egress {
        let to = written.to();
        let net = to.value.net;
        let inside = groups.iter().find(|group| group.subnet.contains(&net));
        let is_single = net.prefix_len() == 32;
        match (inside, written.mac()) {
            (Some(group), _) if !is_single => {
                let message = format!(
                    "{net} is part of the guests' own network {}, where guests find machines one by one",
                    group.subnet
                );
                self.note(Rule::Wire, to.at, message, "write the address of each machine");
            }
            (Some(group), Some(mac)) => self.no_guests_address(mac.value, mac.at, &group.mac_prefix),
            (None, Some(mac)) if !groups.is_empty() => {
                let message = format!("{} is beyond the gateway, so no guest meets its Ethernet address", shown(net));
                self.note(Rule::Wire, mac.at, message, "write the destination alone");
            }
            _ => {}
        }
        Egress { mac: written.mac().map(|mac| mac.value), ..to.value.clone() }
    }
}

/// One address without its length.
fn shown(net: Ipv4Net) -> String {
    if net.prefix_len() == 32 { net.addr().to_string() } else { net.to_string() }
}
