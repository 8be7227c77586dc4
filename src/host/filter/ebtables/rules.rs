//! The rules of a run, in the words of ebtables. Pure. The meaning is that of the nftables rules; where the two differ,
//! it is said here. Everything that no rule accepts is dropped at the end of each chain.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv4Subnets};

use super::super::rules::{ARP_PER_SECOND_MAX, DHCP_PER_SECOND_MAX, masked, neighbours};
use super::super::{FROM_GUEST, TO_GUEST};
use crate::host::qemu::{VNC_PORT_FIRST, VNC_PORT_LAST};
use crate::id::{MacPrefix, RunId};
use crate::resolve::{Egress, Protocol};
use crate::run::RunNetwork;

/// What names a chain as ours, before the run.
pub(super) const MARK: &str = "labwright-";

/// All chains of a run, and where they are jumped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::host::filter) struct Rules {
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
pub(in crate::host::filter) fn run_rules(run: &RunId, network: &RunNetwork) -> Rules {
    let name = |what: &str| format!("{MARK}{run}-{what}");
    let chain = |what: &str, mut rules: Vec<String>| {
        rules.push("-j DROP".to_owned());
        (name(what), rules)
    };
    let mut chains = vec![
        chain("from", from_guest(network, &name)),
        chain("to", if network.isolated { to_isolated_guest(network) } else { to_guest(network) }),
        chain("arp", arp_from_guest(network)),
        chain("ip", ip_from_guest(network, &name)),
    ];
    chains.push(chain("dhcp", dhcp_from_guest(network)));
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
    let RunNetwork { mac, ip, .. } = network;
    let sender =
        |ip: &Ipv4Addr| format!("-p ARP --arp-htype 1 --arp-ptype 0x800 --arp-mac-src {mac} --arp-ip-src {ip}");
    let own = sender(ip);
    let probe = format!("{} --arp-op Request --arp-ip-dst {ip}", sender(&Ipv4Addr::UNSPECIFIED));
    let mut rules = vec![pass_from(&probe)];
    if network.isolated {
        rules.extend(neighbours(network).iter().map(|net| pass_from(&format!("{own} --arp-ip-dst {net}"))));
        rules.push(pass_from(&format!("{own} --arp-ip-dst {ip}")));
    } else {
        rules.push(pass_from(&own));
    }
    rules
}

fn ip_from_guest(network: &RunNetwork, name: &dyn Fn(&str) -> String) -> Vec<String> {
    let RunNetwork { ip, dhcp_control_port, .. } = network;
    let limit = format!("--limit {DHCP_PER_SECOND_MAX}/sec --limit-burst {DHCP_PER_SECOND_MAX}");
    let gateway = network.gateway.map(|gateway| format!(" --ip-dst {gateway}")).unwrap_or_default();
    let mut rules = vec![
        format!("-p IPv4 --ip-proto udp --ip-dport 67 {limit} -j {}", name("dhcp")),
        "-p IPv4 --ip-proto udp --ip-dport 67 -j DROP".to_owned(),
        format!("-p IPv4 --ip-src ! {ip} -j DROP"),
        "-p IPv4 --ip-proto udp --ip-sport 67 -j DROP".to_owned(),
        format!("-p IPv4 --ip-proto tcp --ip-dport {dhcp_control_port} -j DROP"),
        format!("-p IPv4{gateway} --ip-proto tcp --ip-dport {VNC_PORT_FIRST}:{VNC_PORT_LAST} -j DROP"),
    ];
    if !network.isolated {
        rules.push(pass_from("-p IPv4"));
        return rules;
    }
    rules.push("-d Multicast -j DROP".to_owned());
    rules.extend(network.gateway.into_iter().flat_map(|gateway| whole(&format!("--ip-dst {gateway}"), &pass_from)));
    rules.extend(lab_nets(network).map(|net| format!("-p IPv4 --ip-dst {net} -j DROP")));
    for server in &network.dns {
        for protocol in ["udp", "tcp"] {
            rules.push(pass_from(&format!("-p IPv4 --ip-dst {server} --ip-proto {protocol} --ip-dport 53")));
        }
    }
    for Egress { net, port, protocol } in &network.egress {
        let protocol = protocol_name(*protocol);
        rules.push(pass_from(&format!("-p IPv4 --ip-dst {net} --ip-proto {protocol} --ip-dport {port}")));
    }
    rules
}

/// Questions to a DHCP server: by broadcast without an address, then from the guest's own.
fn dhcp_from_guest(network: &RunNetwork) -> Vec<String> {
    let broadcast = "-p IPv4 --ip-src 0.0.0.0 --ip-dst 255.255.255.255 --ip-proto udp --ip-sport 68 --ip-dport 67";
    let own = format!("-p IPv4 --ip-src {} --ip-proto udp --ip-sport 68 --ip-dport 67", network.ip);
    let mut rules = vec![pass_from(broadcast)];
    if network.isolated {
        rules.push("-d Multicast -j DROP".to_owned());
        rules.extend(network.gateway.map(|gateway| pass_from(&format!("{own} --ip-dst {gateway}"))));
        rules.extend(lab_nets(network).map(|net| format!("-p IPv4 --ip-dst {net} -j DROP")));
    }
    rules.push(pass_from(&own));
    rules
}

fn to_guest(network: &RunNetwork) -> Vec<String> {
    let RunNetwork { mac, ip, .. } = network;
    let mut rules = vec![
        format!("-s {mac} -j DROP"),
        pass_to(&format!("-p ARP --arp-ip-dst {ip}")),
        "-p IPv4 --ip-proto udp --ip-dport 67 -j DROP".to_owned(),
    ];
    let groups = ["224.0.0.0/4".to_owned(), Ipv4Addr::BROADCAST.to_string(), network.subnet.broadcast().to_string()];
    rules.extend([ip.to_string()].iter().chain(&groups).map(|to| pass_to(&format!("-p IPv4 --ip-dst {to}"))));
    rules.push(pass_to("-p IPv4 --ip-proto udp --ip-sport 67 --ip-dport 68"));
    rules
}

fn to_isolated_guest(network: &RunNetwork) -> Vec<String> {
    let RunNetwork { mac, ip, .. } = network;
    let dhcp = "--ip-proto udp --ip-sport 67 --ip-dport 68";
    let mut rules = vec![format!("-s {mac} -j DROP")];
    rules.extend(network.lab_mac_prefixes.iter().map(drop_lab_sender));
    rules
        .extend(neighbours(network).iter().map(|net| pass_to(&format!("-p ARP --arp-ip-src {net} --arp-ip-dst {ip}"))));
    if let Some(gateway) = network.gateway {
        rules.push(pass_to(&format!("-p IPv4 --ip-src {gateway} {dhcp}")));
        rules.extend(whole(&format!("--ip-src {gateway} --ip-dst {ip}"), &pass_to));
    }
    rules.extend(lab_nets(network).map(|net| format!("-p IPv4 --ip-src {net} -j DROP")));
    rules.push(pass_to(&format!("-p IPv4 {dhcp}")));
    rules.push(format!("-p IPv4 --ip-dst ! {ip} -j DROP"));
    for server in &network.dns {
        for protocol in ["udp", "tcp"] {
            rules.push(pass_to(&format!("-p IPv4 --ip-src {server} --ip-proto {protocol} --ip-sport 53")));
        }
    }
    for Egress { net, port, protocol } in &network.egress {
        let protocol = protocol_name(*protocol);
        rules.push(pass_to(&format!("-p IPv4 --ip-src {net} --ip-proto {protocol} --ip-sport {port}")));
        for answer in ["destination-unreachable", "time-exceeded"] {
            rules.push(pass_to(&format!("-p IPv4 --ip-src {net} --ip-proto icmp --ip-icmp-type {answer}")));
        }
    }
    rules
}

/// Whole packets of TCP, UDP and ICMP. ebtables cannot ask whether a packet is a later fragment, but in one it finds no
/// port, not even one of all.
fn whole(addresses: &str, pass: &dyn Fn(&str) -> String) -> [String; 3] {
    let packet = |what: &str| pass(&format!("-p IPv4 {addresses} --ip-proto {what}"));
    [packet("tcp --ip-dport 0:65535"), packet("udp --ip-dport 0:65535"), packet("icmp --ip-icmp-type 0:255/0:255")]
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
    use crate::id::SiteTag;

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
