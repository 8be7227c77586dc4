//! The rules of a run, in the words of ebtables. Pure. The meaning is that of the nftables rules; where the two differ,
//! it is said here. Everything that no rule accepts is dropped at the end of each chain.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv4Subnets};

use super::super::peers::{
    Dhcp, DhcpServer, Service, arp_speakers, dhcp, gateway, gateway_senders, routers, services, stations,
};
use super::super::rules::{ARP_PER_SECOND_MAX, DHCP_PER_SECOND_MAX, masked};
use super::super::{FROM_GUEST, TO_GUEST};
use crate::host::run::qemu::{VNC_PORT_FIRST, VNC_PORT_LAST};
use crate::model::id::{Mac, MacPrefix, RunId};
use crate::model::lab::{Protocol, Station};
use crate::run::RunNetwork;

/// What names a chain as ours, before the run.
pub(super) const MARK: &str = "labwright-";

/// All chains of a run, and where they are jumped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::host::run::filter) struct Rules {
    pub(super) tap: String,
    /// Name and rules of each.
    pub(super) chains: Vec<(String, Vec<String>)>,
}

impl Rules {
    /// The chain for what the guest sends.
    pub(super) fn from(&self) -> &str {
        &self.chains[0].0
    }

    /// The chain for what goes to the guest.
    pub(super) fn to(&self) -> &str {
        &self.chains[1].0
    }
}

/// The rules of `run`, whose guest sits behind its tap.
pub(in crate::host::run::filter) fn run_rules(run: &RunId, network: &RunNetwork) -> Rules {
    let name = |what: &str| format!("{MARK}{run}-{what}");
    let chain = |what: &str, mut rules: Vec<String>| {
        rules.push("-j DROP".to_owned());
        (name(what), rules)
    };
    let to = if network.isolated { to_isolated_guest(network, &name) } else { to_guest(network, &name) };
    let mut chains = vec![
        chain("from", from_guest(network, &name)),
        chain("to", to),
        chain("arp", arp_from_guest(network)),
        chain("ip", ip_from_guest(network, &name)),
        chain("dhcp", dhcp_from_guest(network)),
        chain("ans", dhcp_to_guest(network)),
    ];
    if network.isolated {
        chains.push(chain("gout", to_gateway(network)));
        chains.push(chain("gin", from_gateway(network)));
        chains.push(chain("ain", arp_to_isolated_guest(network)));
    }
    Rules { tap: run.tap(), chains }
}

/// Accepts a frame from the guest so that the guard lets it pass.
fn pass_from(matching: &str) -> String {
    format!("{matching} -j mark --mark-or {FROM_GUEST:#x} --mark-target ACCEPT").trim_start().to_owned()
}

/// Accepts a frame towards the guest so that the guard lets it pass.
fn pass_to(matching: &str) -> String {
    format!("{matching} -j mark --mark-or {TO_GUEST:#x} --mark-target ACCEPT").trim_start().to_owned()
}

/// The rates are those of nftables, the other way round: what is below the limit goes on, the rest falls to the end.
fn from_guest(network: &RunNetwork, name: &dyn Fn(&str) -> String) -> Vec<String> {
    let limit = format!("--limit {ARP_PER_SECOND_MAX}/sec --limit-burst {ARP_PER_SECOND_MAX}");
    vec![
        format!("-s ! {} -j DROP", network.mac),
        "-d 01:80:c2:00:00:00/ff:ff:ff:ff:ff:f0 -j DROP".to_owned(),
        format!("-p ARP {limit} -j {}", name("arp")),
        format!("-p IPv4 -j {}", name("ip")),
    ]
}

/// ebtables cannot name the lengths of the addresses in ARP, but a rule on an address matches only where they are right.
fn arp_from_guest(network: &RunNetwork) -> Vec<String> {
    let RunNetwork { mac, ip, isolated, .. } = network;
    let sender =
        |ip: &Ipv4Addr| format!("-p ARP --arp-htype 1 --arp-ptype 0x800 --arp-mac-src {mac} --arp-ip-src {ip}");
    let own = sender(ip);
    let to_all = if *isolated { TO_ALL } else { "" };
    let probe = format!("{to_all}{} --arp-op Request --arp-ip-dst {ip}", sender(&Ipv4Addr::UNSPECIFIED));
    let mut rules = vec![pass_from(&probe)];
    if !isolated {
        rules.push(pass_from(&own));
        return rules;
    }
    for Station { address, mac } in stations(network) {
        rules.push(pass_from(&format!("{TO_ALL}{own} --arp-ip-dst {address}")));
        rules.push(pass_from(&format!("-d {mac} {own} --arp-ip-dst {address}")));
    }
    for Station { address, mac } in routers(network) {
        rules.push(pass_from(&format!("-d {mac} {own} --arp-ip-dst {address}")));
    }
    rules.push(pass_from(&format!("{TO_ALL}{own} --arp-ip-dst {ip}")));
    rules
}

const TO_ALL: &str = "-d Broadcast ";

fn ip_from_guest(network: &RunNetwork, name: &dyn Fn(&str) -> String) -> Vec<String> {
    let RunNetwork { ip, dhcp_control_port, .. } = network;
    let limit = format!("--limit {DHCP_PER_SECOND_MAX}/sec --limit-burst {DHCP_PER_SECOND_MAX}");
    let vnc = network.gateway.map(|gateway| format!(" --ip-dst {gateway}")).unwrap_or_default();
    let mut rules = vec![
        format!("-p IPv4 --ip-proto udp --ip-dport 67 {limit} -j {}", name("dhcp")),
        "-p IPv4 --ip-proto udp --ip-dport 67 -j DROP".to_owned(),
        format!("-p IPv4 --ip-src ! {ip} -j DROP"),
        "-p IPv4 --ip-proto udp --ip-sport 67 -j DROP".to_owned(),
        format!("-p IPv4 --ip-proto tcp --ip-dport {dhcp_control_port} -j DROP"),
        format!("-p IPv4{vnc} --ip-proto tcp --ip-dport {VNC_PORT_FIRST}:{VNC_PORT_LAST} -j DROP"),
    ];
    if !network.isolated {
        rules.push(pass_from("-p IPv4"));
        return rules;
    }
    for (mac, service) in services(network).on_wire {
        rules.push(pass_from(&format!("-d {mac} {}", to(&service))));
    }
    rules.extend(gateway(network).map(|gateway| format!("-p IPv4 -d {} -j {}", gateway.mac, name("gout"))));
    rules
}

/// Every rule names a protocol's port or type, which ebtables does not find in a later fragment: it cannot ask for one.
fn to_gateway(network: &RunNetwork) -> Vec<String> {
    let services = services(network);
    let mut rules = Vec::new();
    if let Some(gateway) = network.gateway {
        for ping in ["echo-request", "echo-reply"] {
            rules.push(pass_from(&format!("-p IPv4 --ip-dst {gateway} --ip-proto icmp --ip-icmp-type {ping}")));
        }
        rules.extend(services.of_gateway.iter().map(|service| pass_from(&to(service))));
    }
    rules.extend(lab_nets(network).map(|net| format!("-p IPv4 --ip-dst {net} -j DROP")));
    rules.push(format!("-p IPv4 --ip-dst {} -j DROP", network.subnet));
    rules.extend(services.beyond.iter().map(|service| pass_from(&to(service))));
    rules
}

fn to(Service { net, protocol, port }: &Service) -> String {
    format!("-p IPv4 --ip-dst {net} --ip-proto {} --ip-dport {port}", protocol_name(*protocol))
}

fn from(Service { net, protocol, port }: &Service) -> String {
    format!("-p IPv4 --ip-src {net} --ip-proto {} --ip-sport {port}", protocol_name(*protocol))
}

/// Questions to all, with and without an address, and to the site's servers.
fn dhcp_from_guest(network: &RunNetwork) -> Vec<String> {
    let ports = "--ip-proto udp --ip-sport 68 --ip-dport 67";
    let own = format!("-p IPv4 --ip-src {} {ports}", network.ip);
    let mut rules = vec![
        pass_from(&format!("{TO_ALL}-p IPv4 --ip-src 0.0.0.0 --ip-dst 255.255.255.255 {ports}")),
        pass_from(&format!("{TO_ALL}{own} --ip-dst 255.255.255.255")),
    ];
    match dhcp(network) {
        Dhcp::Anyone => rules.extend(gateway(network).map(|gateway| {
            let Station { address, mac } = gateway;
            pass_from(&format!("-d {mac} {own} --ip-dst {address}"))
        })),
        Dhcp::Servers(servers) => rules.extend(servers.iter().map(|server| {
            let mac = server.to.map(|mac| format!("-d {mac} ")).unwrap_or_default();
            pass_from(&format!("{mac}{own} --ip-dst {}", server.address))
        })),
    }
    rules
}

/// Answers of the site's servers.
fn dhcp_to_guest(network: &RunNetwork) -> Vec<String> {
    let answer = |from: &str| {
        let ports = "--ip-proto udp --ip-sport 67 --ip-dport 68";
        [network.ip, Ipv4Addr::BROADCAST].map(|to| pass_to(&format!("{from}--ip-dst {to} {ports}")))
    };
    let mut rules = Vec::new();
    match dhcp(network) {
        Dhcp::Anyone => {
            if network.isolated {
                rules.extend(network.gateway.iter().flat_map(|ip| answer(&format!("-p IPv4 --ip-src {ip} "))));
                rules.extend(lab_nets(network).map(|net| format!("-p IPv4 --ip-src {net} -j DROP")));
            }
            rules.extend(answer("-p IPv4 "));
        }
        Dhcp::Servers(servers) => {
            for DhcpServer { address, from, .. } in servers {
                if from.is_empty() {
                    rules.extend(answer(&format!("-p IPv4 --ip-src {address} ")));
                }
                rules.extend(from.iter().flat_map(|mac| answer(&format!("-s {mac} -p IPv4 --ip-src {address} "))));
            }
        }
    }
    rules
}

fn to_guest(network: &RunNetwork, name: &dyn Fn(&str) -> String) -> Vec<String> {
    let RunNetwork { mac, ip, .. } = network;
    let mut rules = vec![format!("-s {mac} -j DROP")];
    rules.extend(
        gateway(network)
            .map(|Station { address, mac }| format!("-p ARP --arp-ip-src {address} --arp-mac-src ! {mac} -j DROP")),
    );
    rules.push(pass_to(&format!("-p ARP --arp-ip-dst {ip}")));
    rules.push("-p IPv4 --ip-proto udp --ip-dport 67 -j DROP".to_owned());
    rules.push(format!("-p IPv4 --ip-proto udp --ip-dport 68 -j {}", name("ans")));
    let groups = ["224.0.0.0/4".to_owned(), Ipv4Addr::BROADCAST.to_string(), network.subnet.broadcast().to_string()];
    rules.extend([ip.to_string()].iter().chain(&groups).map(|to| pass_to(&format!("-p IPv4 --ip-dst {to}"))));
    rules
}

fn to_isolated_guest(network: &RunNetwork, name: &dyn Fn(&str) -> String) -> Vec<String> {
    let RunNetwork { mac, ip, .. } = network;
    let mut rules = vec![format!("-s {mac} -j DROP")];
    rules.extend(network.lab_mac_prefixes.iter().map(drop_lab_sender));
    rules.push(format!("-p ARP -j {}", name("ain")));
    rules.push(format!("-p IPv4 --ip-proto udp --ip-dport 68 -j {}", name("ans")));
    rules.push(format!("-p IPv4 --ip-dst ! {ip} -j DROP"));
    let services = services(network);
    rules.extend(services.on_wire.iter().map(|(mac, service)| pass_to(&format!("-s {mac} {}", from(service)))));
    for (mac, net) in services.nets_on_wire() {
        rules.extend(errors(&format!("-s {mac} -p IPv4 --ip-src {net}")));
    }
    rules.extend(gateway_senders(network).iter().map(|mac| format!("-p IPv4 -s {mac} -j {}", name("gin"))));
    rules
}

fn errors(from: &str) -> [String; 2] {
    ["destination-unreachable", "time-exceeded"]
        .map(|kind| pass_to(&format!("{from} --ip-proto icmp --ip-icmp-type {kind}")))
}

fn from_gateway(network: &RunNetwork) -> Vec<String> {
    let services = services(network);
    let mut rules = Vec::new();
    if let Some(gateway) = network.gateway {
        for ping in ["echo-request", "echo-reply"] {
            rules.push(pass_to(&format!("-p IPv4 --ip-src {gateway} --ip-proto icmp --ip-icmp-type {ping}")));
        }
        rules.extend(errors(&format!("-p IPv4 --ip-src {gateway}")));
        rules.extend(routers(network).flat_map(|router| errors(&format!("-p IPv4 --ip-src {}", router.address))));
        rules.extend(services.of_gateway.iter().map(|service| pass_to(&from(service))));
    }
    rules.extend(lab_nets(network).map(|net| format!("-p IPv4 --ip-src {net} -j DROP")));
    rules.push(format!("-p IPv4 --ip-src {} -j DROP", network.subnet));
    rules.extend(services.beyond.iter().map(|service| pass_to(&from(service))));
    rules.extend(services.nets_beyond().iter().flat_map(|net| errors(&format!("-p IPv4 --ip-src {net}"))));
    rules
}

fn arp_to_isolated_guest(network: &RunNetwork) -> Vec<String> {
    let about = |sender: &Mac, Station { address, mac }: &Station| {
        let to = network.ip;
        pass_to(&format!("-s {sender} -p ARP --arp-mac-src {mac} --arp-ip-src {address} --arp-ip-dst {to}"))
    };
    arp_speakers(network).iter().map(|(sender, station)| about(sender, station)).collect()
}

/// The labs' ranges as networks, since ebtables knows no ranges of addresses.
fn lab_nets(network: &RunNetwork) -> impl Iterator<Item = Ipv4Net> {
    network.lab_ranges.iter().flat_map(|(first, last)| Ipv4Subnets::new(*first, *last, 0))
}

fn drop_lab_sender(prefix: &MacPrefix) -> String {
    let (value, mask) = masked(prefix);
    format!("-s {value}/{mask} -j DROP")
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::rules::tests::network;
    use super::*;
    use crate::model::id::SiteTag;

    fn written(isolated: bool) -> String {
        let run = RunId::new(SiteTag::new("k3f9").unwrap(), 104);
        let rules = run_rules(&run, &network(isolated));
        rules.chains.iter().map(|(name, rules)| format!("{name}\n  {}\n", rules.join("\n  "))).collect()
    }

    #[test]
    fn rules_of_a_plain_guest() {
        insta::assert_snapshot!(written(false));
    }

    #[test]
    fn rules_of_an_isolated_guest() {
        insta::assert_snapshot!(written(true));
    }
}
