//! A run's table: what its guest may send and get. Pure. Everything that no rule accepts is dropped.
//!
//! ```text
//! prerouting  ─▶ from_guest ─┬─▶ arp_from_guest
//!                            └─▶ ip_from_guest ─▶ ip_from_isolated
//! postrouting ─▶ to_guest ─────▶ to_isolated
//! ```

use std::net::Ipv4Addr;

use super::table::{Chain, Table};
use super::{FROM_GUEST, READY, TO_GUEST};
use crate::host::qemu::{VNC_PORT_FIRST, VNC_PORT_LAST};
use crate::id::{Mac, MacPrefix, RunId};
use crate::resolve::{Egress, Protocol};
use crate::run::RunNetwork;

/// The table of `run`, whose guest sits behind `tap`.
pub fn run_table(run: &RunId, network: &RunNetwork) -> Table {
    let tap = run.tap();
    let chain = |name, rules| Chain { name, hook: None, rules };
    let mut chains = Vec::new();
    if network.isolated {
        chains.push(chain("ip_from_isolated", from_isolated_guest(network)));
        chains.push(chain("to_isolated", to_isolated_guest(network)));
    }
    chains.push(chain("arp_from_guest", arp_from_guest(network)));
    chains.push(chain("ip_from_guest", ip_from_guest(network)));
    chains.push(chain("from_guest", from_guest(network)));
    chains.push(chain("to_guest", to_guest(network)));
    chains.push(Chain {
        name: "from_tap",
        hook: Some("prerouting priority -300"),
        rules: vec![format!("iifname \"{tap}\" jump from_guest")],
    });
    chains.push(Chain {
        name: "to_tap",
        hook: Some("postrouting priority -300"),
        rules: vec![format!("oifname \"{tap}\" jump to_guest")],
    });
    Table { name: run.nft_table(), owned: true, counters: vec![READY], chains }
}

/// Accepts a frame from the guest so that the host's table lets it pass.
fn pass_from(matching: &str) -> String {
    format!("{matching} meta mark set meta mark | {FROM_GUEST:#010x} accept").trim_start().to_owned()
}

/// Accepts a frame towards the guest so that the host's table lets it pass.
fn pass_to(matching: &str) -> String {
    format!("{matching} meta mark set meta mark | {TO_GUEST:#010x} accept").trim_start().to_owned()
}

/// The groups 01:80:c2:00:00:0x are for bridges to talk in. Tagged frames show the type of their tag here, so that they fall to the end with IPv6 and everything else.
fn from_guest(network: &RunNetwork) -> Vec<String> {
    vec![
        format!("ether saddr != {} drop", network.mac),
        "ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 counter drop".to_owned(),
        "ether type arp jump arp_from_guest".to_owned(),
        "ether type ip jump ip_from_guest".to_owned(),
        "counter drop".to_owned(),
    ]
}

/// A guest speaks ARP for itself alone. The counter is what *ready* means: the guest uses its planned address. A sender
/// of 0.0.0.0 asks whether the address is free (RFC 5227), which is harmless only for its own.
fn arp_from_guest(network: &RunNetwork) -> Vec<String> {
    let RunNetwork { mac, ip, .. } = network;
    let mut rules = vec![
        format!("limit rate over {ARP_PER_SECOND_MAX}/second burst {ARP_PER_SECOND_MAX} packets drop"),
        "arp htype != 1 drop".to_owned(),
        "arp ptype != ip drop".to_owned(),
        "arp hlen != 6 drop".to_owned(),
        "arp plen != 4 drop".to_owned(),
        format!("arp saddr ether != {mac} drop"),
        pass_from(&format!("arp operation request arp saddr ip 0.0.0.0 arp daddr ip {ip}")),
        format!("arp saddr ip != {ip} drop"),
        format!("counter name \"{READY}\" continue"),
    ];
    if network.isolated {
        rules.extend(neighbours(network).iter().map(|net| pass_from(&format!("arp daddr ip {net}"))));
        rules.push(pass_from(&format!("arp daddr ip {ip}")));
        rules.push("counter drop".to_owned());
    } else {
        rules.push(pass_from(""));
    }
    rules
}

/// The hardware address in a DHCP question stands 28 bytes into it, 36 from the start of UDP. A guest that asks with
/// another's would get the other's address, or use up the pool. A fragment at offset 1 (8 bytes) is never honest: it is
/// there to overwrite the header of the one before it (RFC 1858).
fn ip_from_guest(network: &RunNetwork) -> Vec<String> {
    let RunNetwork { mac, ip, dhcp_control_port, .. } = network;
    let hardware = mac.0.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let mut rules = vec![
        format!("udp dport 67 limit rate over {DHCP_PER_SECOND_MAX}/second burst {DHCP_PER_SECOND_MAX} packets drop"),
        format!("udp dport 67 @th,288,48 != {hardware:#x} drop"),
        pass_from("ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67"),
        format!("ip saddr != {ip} drop"),
        "ip frag-off & 0x1fff == 0x1 counter drop".to_owned(),
        "udp sport 67 counter drop".to_owned(),
        // To whatever address: dhcpd listens on every one of its machine.
        format!("tcp dport {dhcp_control_port} counter drop"),
    ];
    let gateway = network.gateway.map(|gateway| format!("ip daddr {gateway} ")).unwrap_or_default();
    rules.push(format!("{gateway}tcp dport {VNC_PORT_FIRST}-{VNC_PORT_LAST} counter drop"));
    rules.push(if network.isolated { "jump ip_from_isolated".to_owned() } else { pass_from("") });
    rules
}

/// What a host answers itself, in software that a flood would keep busy. An honest guest asks a few times a minute.
pub(super) const ARP_PER_SECOND_MAX: u32 = 200;
pub(super) const DHCP_PER_SECOND_MAX: u32 = 20;

/// The gateway stands first, since it may lie inside a lab's range. Only then are lab ranges dropped, on this host or
/// another, directly or through the gateway: the rule looks at the address, not at the way.
fn from_isolated_guest(network: &RunNetwork) -> Vec<String> {
    let mut rules = vec![
        "ip frag-off & 0x1fff != 0x0 counter drop".to_owned(),
        "ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 counter drop".to_owned(),
    ];
    rules.extend(network.gateway.map(|gateway| pass_from(&format!("ip daddr {gateway}"))));
    for (first, last) in &network.lab_ranges {
        rules.push(format!("ip daddr {first}-{last} counter drop"));
    }
    rules.push(pass_from("udp sport 68 udp dport 67"));
    for server in &network.dns {
        rules.push(pass_from(&format!("ip daddr {server} udp dport 53")));
        rules.push(pass_from(&format!("ip daddr {server} tcp dport 53")));
    }
    for Egress { net, port, protocol } in &network.egress {
        rules.push(pass_from(&format!("ip daddr {net} {} dport {port}", name(*protocol))));
    }
    rules.push("counter drop".to_owned());
    rules
}

/// What is not for this guest, it does not hear: an isolated guest could otherwise speak to it in frames that look like
/// questions to the gateway.
fn to_guest(network: &RunNetwork) -> Vec<String> {
    let ip = network.ip;
    let mut rules = vec![format!("ether saddr {} counter drop", network.mac)];
    if network.isolated {
        rules.push("jump to_isolated".to_owned());
    } else {
        rules.push(pass_to(&format!("ether type arp arp daddr ip {ip}")));
        rules.push("udp dport 67 counter drop".to_owned());
        rules.push(pass_to(&format!(
            "ether type ip ip daddr {{ {ip}, 224.0.0.0/4, 255.255.255.255, {} }}",
            network.subnet.broadcast()
        )));
        rules.push(pass_to("udp sport 67 udp dport 68"));
        rules.push("counter drop".to_owned());
    }
    rules
}

/// What other hosts' guests send is held back by their own filters; this holds also against a sender without one. The
/// answers are matched without connection tracking, which the bridge family does not have on every kernel.
fn to_isolated_guest(network: &RunNetwork) -> Vec<String> {
    let ip = network.ip;
    let mut rules: Vec<String> = network.lab_mac_prefixes.iter().map(drop_lab_sender).collect();
    for net in neighbours(network) {
        rules.push(pass_to(&format!("ether type arp arp saddr ip {net} arp daddr ip {ip}")));
    }
    rules.push("ether type != ip counter drop".to_owned());
    rules.push("ip frag-off & 0x1fff != 0x0 counter drop".to_owned());
    for (first, last) in &network.lab_ranges {
        let not_gateway = network.gateway.map(|gateway| format!("ip saddr != {gateway} ")).unwrap_or_default();
        rules.push(format!("{not_gateway}ip saddr {first}-{last} counter drop"));
    }
    rules.push(pass_to("udp sport 67 udp dport 68"));
    rules.push(format!("ip daddr != {ip} counter drop"));
    rules.extend(network.gateway.map(|gateway| pass_to(&format!("ip saddr {gateway}"))));
    for server in &network.dns {
        rules.push(pass_to(&format!("ip saddr {server} udp sport 53")));
        rules.push(pass_to(&format!("ip saddr {server} tcp sport 53")));
    }
    for Egress { net, port, protocol } in &network.egress {
        rules.push(pass_to(&format!("ip saddr {net} {} sport {port}", name(*protocol))));
        rules.push(pass_to(&format!("ip saddr {net} icmp type {{ destination-unreachable, time-exceeded }}")));
    }
    rules.push("counter drop".to_owned());
    rules
}

/// Whom an isolated guest may ask for by ARP: what it may reach without the gateway.
pub(super) fn neighbours(network: &RunNetwork) -> Vec<String> {
    let inside = |ip: &Ipv4Addr| network.subnet.contains(ip);
    let mut nets: Vec<String> = network.gateway.iter().map(ToString::to_string).collect();
    nets.extend(network.dns.iter().filter(|ip| inside(ip)).map(ToString::to_string));
    nets.extend(network.egress.iter().filter(|e| network.subnet.contains(&e.net)).map(|e| e.net.to_string()));
    nets.sort();
    nets.dedup();
    nets
}

fn drop_lab_sender(prefix: &MacPrefix) -> String {
    let (value, mask) = masked(prefix);
    format!("ether saddr & {mask} == {value} counter drop")
}

/// `de:af:de:af` as a value and a mask: the prefix's bytes compared, the rest masked.
pub(super) fn masked(prefix: &MacPrefix) -> (Mac, Mac) {
    let (mut value, mut mask) = ([0; 6], [0; 6]);
    for (i, byte) in prefix.bytes().iter().enumerate() {
        (value[i], mask[i]) = (*byte, 0xff);
    }
    (Mac(value), Mac(mask))
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::id::SiteTag;

    pub(in crate::host::filter) fn network(isolated: bool) -> RunNetwork {
        let ip = Ipv4Addr::new(192, 168, 100, 2);
        RunNetwork {
            bridge: "vbr0".to_owned(),
            ip,
            mac: MacPrefix::default().mac(ip),
            subnet: "192.168.100.0/24".parse().unwrap(),
            gateway: Some([192, 168, 100, 1].into()),
            dns: vec![[141, 85, 224, 15].into()],
            isolated,
            lab_ranges: vec![([192, 168, 100, 2].into(), [192, 168, 100, 254].into())],
            lab_mac_prefixes: vec![MacPrefix::default()],
            egress: vec![Egress { net: "10.0.0.5/32".parse().unwrap(), port: 443, protocol: Protocol::Tcp }],
            dhcp_control_port: 7911,
            filter: crate::site::Filter::Nftables,
        }
    }

    fn written(isolated: bool) -> String {
        let run = RunId::new(SiteTag::new("k3f9").unwrap(), 104);
        let table = run_table(&run, &network(isolated));
        let chain = |chain: &Chain| {
            let hook = chain.hook.map(|hook| format!(" ({hook})")).unwrap_or_default();
            format!("{}{hook}\n  {}\n", chain.name, chain.rules.join("\n  "))
        };
        table.chains.iter().map(chain).collect()
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
