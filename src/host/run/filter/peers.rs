//! With whom a guest may speak, and under which Ethernet addresses: what the rules of both filters are made of. Pure. Who is
//! not known here by its Ethernet address, where rules go by that, has no rule and is not spoken with.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::model::id::Mac;
use crate::model::lab::{Egress, Protocol, Station};
use crate::run::RunNetwork;

const DNS_PORT: u16 = 53;

/// A port that an isolated guest may speak with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) net: Ipv4Net,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

/// The services that an isolated guest's `dns` and `egress` name, by who carries what it sends to them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Services {
    /// The gateway's own.
    pub(super) of_gateway: Vec<Service>,
    /// Of single machines on the wire.
    pub(super) on_wire: Vec<(Mac, Service)>,
    /// Beyond the gateway.
    pub(super) beyond: Vec<Service>,
}

impl Services {
    /// The machines on the wire, each once.
    pub(super) fn nets_on_wire(&self) -> BTreeSet<(Mac, Ipv4Net)> {
        self.on_wire.iter().map(|(mac, service)| (*mac, service.net)).collect()
    }

    /// What is beyond the gateway, each once.
    pub(super) fn nets_beyond(&self) -> BTreeSet<Ipv4Net> {
        self.beyond.iter().map(|service| service.net).collect()
    }
}

/// A DHCP server or relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DhcpServer {
    pub(super) address: Ipv4Addr,
    /// Where questions to it go; any address where `None`.
    pub(super) to: Option<Mac>,
    /// Where its answers come from; any address where there is none.
    pub(super) from: Vec<Mac>,
}

/// Who answers DHCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dhcp {
    /// Nobody was named, in a spec of before servers were.
    Anyone,
    Servers(Vec<DhcpServer>),
}

/// The Ethernet address of a machine on the wire, where it is known. One of a lab's is a guest's, whatever it says.
pub(super) fn mac_of(network: &RunNetwork, address: Ipv4Addr) -> Option<Mac> {
    let known = network.stations.iter().chain(&network.routers).find(|station| station.address == address);
    known.map(|station| station.mac).filter(|mac| !is_guests(network, *mac))
}

fn is_guests(network: &RunNetwork, mac: Mac) -> bool {
    network.lab_mac_prefixes.iter().any(|prefix| mac.0.starts_with(prefix.bytes()))
}

/// Address and Ethernet address of the gateway, where both are known.
pub(super) fn gateway(network: &RunNetwork) -> Option<Station> {
    let address = network.gateway?;
    Some(Station { address, mac: mac_of(network, address)? })
}

/// The Ethernet addresses that frames from the gateway and from beyond it come under.
pub(super) fn gateway_senders(network: &RunNetwork) -> Vec<Mac> {
    let Some(gateway) = gateway(network) else { return Vec::new() };
    let mut macs = vec![gateway.mac];
    for Station { mac, .. } in &network.routers {
        if !macs.contains(mac) && !is_guests(network, *mac) {
            macs.push(*mac);
        }
    }
    macs
}

/// The gateway's routers, which ask for the guest from addresses of their own.
pub(super) fn routers(network: &RunNetwork) -> impl Iterator<Item = &Station> {
    network.routers.iter().filter(|router| !is_guests(network, router.mac))
}

/// What `dns` and `egress` name.
pub(super) fn services(network: &RunNetwork) -> Services {
    let dns = network.dns.iter().flat_map(|server| {
        [Protocol::Udp, Protocol::Tcp]
            .map(|protocol| (Service { net: Ipv4Net::from(*server), protocol, port: DNS_PORT }, None))
    });
    let egress = network.egress.iter().map(|entry| {
        let Egress { net, port, protocol, mac } = entry;
        (Service { net: *net, protocol: *protocol, port: *port }, *mac)
    });
    let mut services = Services::default();
    for (service, written) in dns.chain(egress) {
        let address = service.net.addr();
        let is_single = service.net.prefix_len() == 32;
        if !network.subnet.contains(&service.net) {
            services.beyond.push(service);
        } else if is_single && Some(address) == network.gateway {
            services.of_gateway.push(service);
        } else if let Some(mac) = mac_of(network, address).or(written.filter(|mac| !is_guests(network, *mac)))
            && is_single
        {
            services.on_wire.push((mac, service));
        }
    }
    services
}

/// Whom an isolated guest asks for by ARP: the machines that it may reach without the gateway, and the gateway.
pub(super) fn stations(network: &RunNetwork) -> Vec<Station> {
    let services = services(network).on_wire.into_iter().map(|(mac, service)| (service.net.addr(), Some(mac)));
    let servers = network.dhcp_servers.iter().flatten().filter(|server| network.subnet.contains(*server));
    let others = network.gateway.iter().chain(servers).map(|address| (*address, mac_of(network, *address)));
    let known = services.chain(others).filter_map(|(address, mac)| Some(Station { address, mac: mac? }));
    let mut known: Vec<Station> = known.collect();
    known.sort();
    known.dedup();
    known
}

/// Who answers the guest's DHCP questions.
pub(super) fn dhcp(network: &RunNetwork) -> Dhcp {
    match &network.dhcp_servers {
        None => Dhcp::Anyone,
        Some(servers) => Dhcp::Servers(servers.iter().filter_map(|address| dhcp_server(network, *address)).collect()),
    }
}

/// One beyond the gateway is known to a plain guest by its address alone: such a guest may have a second way out.
fn dhcp_server(network: &RunNetwork, address: Ipv4Addr) -> Option<DhcpServer> {
    let is_gateway = Some(address) == network.gateway;
    let is_inside = network.subnet.contains(&address);
    match mac_of(network, address) {
        Some(mac) if !is_gateway => Some(DhcpServer { address, to: Some(mac), from: vec![mac] }),
        None if !is_gateway && !is_inside && !network.isolated => {
            Some(DhcpServer { address, to: None, from: Vec::new() })
        }
        None if is_inside => None,
        _ => {
            let gateway = gateway(network)?;
            Some(DhcpServer { address, to: Some(gateway.mac), from: gateway_senders(network) })
        }
    }
}

/// The addresses on the guest's wire whose Ethernet addresses its rules go by.
pub fn wanted_stations(network: &RunNetwork) -> Vec<Ipv4Addr> {
    let inside = |address: &Ipv4Addr| network.subnet.contains(address);
    let mut wanted: Vec<Ipv4Addr> = network.dhcp_servers.iter().flatten().copied().filter(inside).collect();
    if network.isolated {
        let single = network.egress.iter().filter(|egress| egress.net.prefix_len() == 32 && egress.mac.is_none());
        wanted.extend(network.gateway);
        wanted.extend(network.dns.iter().copied().filter(inside));
        wanted.extend(single.map(|egress| egress.net.addr()).filter(inside));
    }
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

/// Whose word about themselves an isolated guest believes in ARP, as the frame's sender and the machine that it speaks of. The
/// gateway's word may come in a router's frame, and its routers ask from their own addresses.
pub(super) fn arp_speakers(network: &RunNetwork) -> Vec<(Mac, Station)> {
    let mut speakers = Vec::new();
    for station in stations(network) {
        let senders = gateway_senders(network);
        let senders = if Some(station.address) == network.gateway { senders } else { vec![station.mac] };
        speakers.extend(senders.into_iter().map(|sender| (sender, station)));
    }
    speakers.extend(routers(network).map(|router| (router.mac, *router)));
    speakers
}
