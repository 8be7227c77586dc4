//! A run's table: what its guest may send and get. Pure. Everything that no rule accepts is dropped, and counted by why.
//!
//! ```text
//! prerouting  ─▶ from_guest ─┬─▶ arp_from_guest
//!                            └─▶ ip_from_guest ─┬─▶ dhcp_from_guest
//!                                               └─▶ ip_from_isolated ─▶ to_gateway
//! postrouting ─▶ to_guest ─┬─▶ dhcp_to_guest
//!                          └─▶ to_isolated ─┬─▶ arp_to_isolated
//!                                           ├─▶ dhcp_to_guest
//!                                           └─▶ from_gateway
//! ```

use super::peers::{
    Dhcp, DhcpServer, Service, arp_speakers, dhcp, gateway, gateway_senders, routers, services, stations,
};
use super::table::{Chain, Table};
use super::{FROM_GUEST, READY, TO_GUEST};
use crate::host::run::qemu::{VNC_PORT_FIRST, VNC_PORT_LAST};
use crate::model::id::{Mac, MacPrefix, RunId};
use crate::model::lab::{Protocol, Station};
use crate::run::{Dropped, RunNetwork};

/// The table of `run`, whose guest sits behind `tap`.
pub fn run_table(run: &RunId, network: &RunNetwork) -> Table {
    let tap = run.tap();
    let chain = |name, why, rules: Vec<String>| {
        let rules = rules.into_iter().map(|rule| counted(rule, why)).collect();
        Chain { name, hook: None, rules }
    };
    let mut chains = Vec::new();
    chains.push(chain("dhcp_from_guest", "dhcp", dhcp_from_guest(network)));
    chains.push(chain("dhcp_to_guest", "inbound", dhcp_to_guest(network)));
    if network.isolated {
        chains.push(chain("to_gateway", "isolated", to_gateway(network)));
        chains.push(chain("from_gateway", "inbound", from_gateway(network)));
        chains.push(chain("ip_from_isolated", "isolated", from_isolated_guest(network)));
        chains.push(chain("arp_to_isolated", "inbound", arp_to_isolated_guest(network)));
        chains.push(chain("to_isolated", "inbound", to_isolated_guest(network)));
    }
    chains.push(chain("arp_from_guest", "arp", arp_from_guest(network)));
    chains.push(chain("ip_from_guest", "other", ip_from_guest(network)));
    chains.push(chain("from_guest", "other", from_guest(network)));
    chains.push(chain("to_guest", "inbound", to_guest(network)));
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
    let counters = Dropped::default().by_reason().map(|(why, _)| counter(why));
    Table {
        name: run.nft_table(),
        owned: true,
        counters: counters.into_iter().chain([READY.to_owned()]).collect(),
        chains,
    }
}

/// Name of the counter of what is dropped for this reason, one of those of `Dropped`.
pub(super) fn counter(why: &str) -> String {
    format!("drop_{why}")
}

/// Drops for a reason of its own what others in its chain are not dropped for.
fn drop_as(why: &str) -> String {
    format!("counter name \"{}\" drop", counter(why))
}

/// A rule that just drops, with its chain's reason.
fn counted(rule: String, why: &str) -> String {
    match rule.strip_suffix("drop") {
        Some(matching) if !matching.contains("counter name") => {
            format!("{matching}{}", drop_as(why))
        }
        _ => rule,
    }
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
        format!("ether saddr != {} {}", network.mac, drop_as("spoofed_mac")),
        "ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 drop".to_owned(),
        "ether type arp jump arp_from_guest".to_owned(),
        "ether type ip jump ip_from_guest".to_owned(),
        "drop".to_owned(),
    ]
}

/// A guest speaks ARP for itself alone. The counter is what *ready* means: the guest uses its planned address. A sender
/// of 0.0.0.0 asks whether the address is free (RFC 5227), which is harmless only for its own.
fn arp_from_guest(network: &RunNetwork) -> Vec<String> {
    let RunNetwork { mac, ip, isolated, .. } = network;
    let to_all = if *isolated { TO_ALL } else { "" };
    let mut rules = vec![
        format!("limit rate over {ARP_PER_SECOND_MAX}/second burst {ARP_PER_SECOND_MAX} packets drop"),
        "arp htype != 1 drop".to_owned(),
        "arp ptype != ip drop".to_owned(),
        "arp hlen != 6 drop".to_owned(),
        "arp plen != 4 drop".to_owned(),
        format!("arp saddr ether != {mac} drop"),
        pass_from(&format!("{to_all}arp operation request arp saddr ip 0.0.0.0 arp daddr ip {ip}")),
        format!("arp saddr ip != {ip} drop"),
        format!("counter name \"{READY}\" continue"),
    ];
    if *isolated {
        rules.extend(arp_from_isolated_guest(network));
        rules.push(drop_as("isolated"));
    } else {
        rules.push(pass_from(""));
    }
    rules
}

/// It asks all for those that it may reach, or them themselves; it answers the gateway's routers; and it tells its address.
fn arp_from_isolated_guest(network: &RunNetwork) -> Vec<String> {
    let mut rules = Vec::new();
    for Station { address, mac } in stations(network) {
        rules.push(pass_from(&format!("{TO_ALL}arp daddr ip {address}")));
        rules.push(pass_from(&format!("ether daddr {mac} arp daddr ip {address}")));
    }
    for Station { address, mac } in routers(network) {
        rules.push(pass_from(&format!("ether daddr {mac} arp daddr ip {address}")));
    }
    rules.push(pass_from(&format!("{TO_ALL}arp daddr ip {}", network.ip)));
    rules
}

const TO_ALL: &str = "ether daddr ff:ff:ff:ff:ff:ff ";

/// A fragment at offset 1 (8 bytes) is never honest: it is there to overwrite the header of the one before it (RFC 1858).
fn ip_from_guest(network: &RunNetwork) -> Vec<String> {
    let RunNetwork { ip, dhcp_control_port, .. } = network;
    let mut rules = vec![
        "udp dport 67 jump dhcp_from_guest".to_owned(),
        format!("ip saddr != {ip} {}", drop_as("spoofed_ip")),
        "ip frag-off & 0x1fff == 0x1 drop".to_owned(),
        format!("udp sport 67 {}", drop_as("dhcp_server")),
        // To whatever address: dhcpd listens on every one of its machine.
        format!("tcp dport {dhcp_control_port} {}", drop_as("service")),
    ];
    let gateway = network.gateway.map(|gateway| format!("ip daddr {gateway} ")).unwrap_or_default();
    rules.push(format!("{gateway}tcp dport {VNC_PORT_FIRST}-{VNC_PORT_LAST} {}", drop_as("service")));
    rules.push(if network.isolated { "jump ip_from_isolated".to_owned() } else { pass_from("") });
    rules
}

/// Questions to all, or to a server. The hardware address in one stands 28 bytes into it, 36 from the start of UDP. A guest
/// that asks with another's would get the other's address, or use up the pool; one that names itself as a relay (24 bytes
/// in), or another guest as who asks (12 bytes in), would have the server speak to whomever it likes. Whoever cuts a question
/// into pieces has something to hide in them: the honest are short.
fn dhcp_from_guest(network: &RunNetwork) -> Vec<String> {
    let (ip, hardware) = (network.ip, hardware(network.mac));
    let own = u32::from(ip);
    let mut rules = vec![
        format!("limit rate over {DHCP_PER_SECOND_MAX}/second burst {DHCP_PER_SECOND_MAX} packets drop"),
        "ip frag-off & 0x3fff != 0x0 drop".to_owned(),
        "udp sport != 68 drop".to_owned(),
        "@th,256,32 != 0x0 drop".to_owned(),
        format!("@th,160,32 != {{ 0x0, {own:#x} }} drop"),
    ];
    for from in ["0.0.0.0".to_owned(), ip.to_string()] {
        rules.push(pass_from(&format!("{TO_ALL}ip saddr {from} ip daddr 255.255.255.255 @th,288,48 {hardware:#x}")));
    }
    let to = |to: &str| pass_from(&format!("ip saddr {ip} {to}@th,288,48 {hardware:#x}"));
    match dhcp(network) {
        // Of before servers were named: the gateway alone is known to be somebody that the guest may speak with.
        Dhcp::Anyone => rules.extend(gateway(network).map(|gateway| {
            let Station { address, mac } = gateway;
            to(&format!("ether daddr {mac} ip daddr {address} "))
        })),
        Dhcp::Servers(servers) => rules.extend(servers.iter().map(|server| {
            let mac = server.to.map(|mac| format!("ether daddr {mac} ")).unwrap_or_default();
            to(&format!("{mac}ip daddr {} ", server.address))
        })),
    }
    rules.push("drop".to_owned());
    rules
}

/// Answers of the site's servers, about this guest. What goes to a DHCP client's port is one, whatever port it comes from.
fn dhcp_to_guest(network: &RunNetwork) -> Vec<String> {
    let hardware = hardware(network.mac);
    let mut rules = vec!["ip frag-off & 0x3fff != 0x0 drop".to_owned()];
    let answer = |from: &str| {
        let to = format!("ip daddr {{ {}, 255.255.255.255 }}", network.ip);
        pass_to(&format!("{from}{to} udp sport 67 @th,288,48 {hardware:#x}"))
    };
    match dhcp(network) {
        Dhcp::Anyone => {
            if network.isolated {
                rules.extend(network.gateway.map(|gateway| answer(&format!("ip saddr {gateway} "))));
                rules.extend(lab_ranges(network, "saddr"));
            }
            rules.push(answer(""));
        }
        Dhcp::Servers(servers) => {
            for DhcpServer { address, from, .. } in servers {
                let from = from.iter().map(|mac| format!("ether saddr {mac} "));
                let from: Vec<String> = if from.len() == 0 { vec![String::new()] } else { from.collect() };
                rules.extend(from.iter().map(|mac| answer(&format!("{mac}ip saddr {address} "))));
            }
        }
    }
    rules.push("drop".to_owned());
    rules
}

fn hardware(mac: Mac) -> u64 {
    mac.0.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
}

/// What a host answers itself, in software that a flood would keep busy. An honest guest asks a few times a minute.
pub(super) const ARP_PER_SECOND_MAX: u32 = 200;
pub(super) const DHCP_PER_SECOND_MAX: u32 = 20;

/// An option of IP can name the way that a packet goes, and so lead it past the gateway that it is addressed to.
const NO_OPTIONS: &str = "ip hdrlength != 5 drop";

/// A machine on the wire is reached at its own Ethernet address, everything else by the gateway's.
fn from_isolated_guest(network: &RunNetwork) -> Vec<String> {
    let mut rules = vec!["ip frag-off & 0x1fff != 0x0 drop".to_owned(), NO_OPTIONS.to_owned()];
    rules.extend(
        services(network).on_wire.iter().map(|(mac, service)| pass_from(&format!("ether daddr {mac} {}", to(service)))),
    );
    rules.extend(gateway(network).map(|gateway| format!("ether daddr {} jump to_gateway", gateway.mac)));
    rules.push("drop".to_owned());
    rules
}

/// Of the gateway itself ping, and what is named. Then the labs' ranges are dropped, on this host or another: the rule looks
/// at the address, not at the way. Nothing on the guest's own wire is reached by this detour.
fn to_gateway(network: &RunNetwork) -> Vec<String> {
    let services = services(network);
    let mut rules = Vec::new();
    if let Some(gateway) = network.gateway {
        rules.push(pass_from(&format!("ip daddr {gateway} icmp type echo-request")));
        rules.push(pass_from(&format!("ip daddr {gateway} icmp type echo-reply")));
        rules.extend(services.of_gateway.iter().map(|service| pass_from(&to(service))));
    }
    rules.extend(lab_ranges(network, "daddr"));
    rules.push(format!("ip daddr {} drop", network.subnet));
    rules.extend(services.beyond.iter().map(|service| pass_from(&to(service))));
    rules.push("drop".to_owned());
    rules
}

/// `daddr` of what the guest sends, `saddr` of what it gets.
fn lab_ranges(network: &RunNetwork, of: &str) -> Vec<String> {
    network.lab_ranges.iter().map(|(first, last)| format!("ip {of} {first}-{last} drop")).collect()
}

fn to(Service { net, protocol, port }: &Service) -> String {
    format!("ip daddr {net} {} dport {port}", name(*protocol))
}

fn from(Service { net, protocol, port }: &Service) -> String {
    format!("ip saddr {net} {} sport {port}", name(*protocol))
}

/// What is not for this guest, it does not hear: an isolated guest could otherwise speak to it in frames that look like
/// questions to the gateway.
fn to_guest(network: &RunNetwork) -> Vec<String> {
    let ip = network.ip;
    let mut rules = vec![format!("ether saddr {} drop", network.mac)];
    if network.isolated {
        rules.push("jump to_isolated".to_owned());
        return rules;
    }
    rules.extend(gateway(network).map(|Station { address, mac }| {
        format!("ether type arp arp saddr ip {address} arp saddr ether != {mac} drop")
    }));
    rules.push(pass_to(&format!("ether type arp arp daddr ip {ip}")));
    rules.push("ether type != ip drop".to_owned());
    rules.push("ip frag-off & 0x1fff == 0x1 drop".to_owned());
    rules.push("udp dport 67 drop".to_owned());
    rules.push("udp dport 68 jump dhcp_to_guest".to_owned());
    let broadcast = network.subnet.broadcast();
    rules.push(pass_to(&format!("ip daddr {{ {ip}, 224.0.0.0/4, 255.255.255.255, {broadcast} }}")));
    rules.push("drop".to_owned());
    rules
}

/// What other hosts' guests send is held back by their own filters; this holds also against a sender without one. The
/// answers are matched without connection tracking, which the bridge family does not have on every kernel.
fn to_isolated_guest(network: &RunNetwork) -> Vec<String> {
    let mut rules: Vec<String> = network.lab_mac_prefixes.iter().map(drop_lab_sender).collect();
    rules.push("ether type arp jump arp_to_isolated".to_owned());
    rules.push("ether type != ip drop".to_owned());
    rules.push("ip frag-off & 0x1fff != 0x0 drop".to_owned());
    rules.push(NO_OPTIONS.to_owned());
    rules.push("udp dport 68 jump dhcp_to_guest".to_owned());
    rules.push(format!("ip daddr != {} drop", network.ip));
    let services = services(network);
    for (mac, service) in &services.on_wire {
        rules.push(pass_to(&format!("ether saddr {mac} {}", from(service))));
    }
    for (mac, net) in services.nets_on_wire() {
        rules.push(pass_to(&format!("ether saddr {mac} ip saddr {net} {ICMP_ERRORS}")));
    }
    rules.extend(gateway_senders(network).iter().map(|mac| format!("ether saddr {mac} jump from_gateway")));
    rules.push("drop".to_owned());
    rules
}

/// Why a packet did not arrive. Redirects are none of these: they would lead the guest to another gateway.
const ICMP_ERRORS: &str = "icmp type { destination-unreachable, time-exceeded }";

/// Whatever comes under the gateway's Ethernet address or a router's.
fn from_gateway(network: &RunNetwork) -> Vec<String> {
    let services = services(network);
    let mut rules = Vec::new();
    if let Some(gateway) = network.gateway {
        let types = "{ echo-request, echo-reply, destination-unreachable, time-exceeded }";
        rules.push(pass_to(&format!("ip saddr {gateway} icmp type {types}")));
        rules.extend(routers(network).map(|router| pass_to(&format!("ip saddr {} {ICMP_ERRORS}", router.address))));
        rules.extend(services.of_gateway.iter().map(|service| pass_to(&from(service))));
    }
    rules.extend(lab_ranges(network, "saddr"));
    rules.push(format!("ip saddr {} drop", network.subnet));
    rules.extend(services.beyond.iter().map(|service| pass_to(&from(service))));
    rules.extend(services.nets_beyond().iter().map(|net| pass_to(&format!("ip saddr {net} {ICMP_ERRORS}"))));
    rules.push("drop".to_owned());
    rules
}

/// Each machine about itself. The gateway's word may come in a router's frame, and its routers ask from their own addresses.
fn arp_to_isolated_guest(network: &RunNetwork) -> Vec<String> {
    let ip = network.ip;
    let about = |sender: &Mac, Station { address, mac }: &Station| {
        pass_to(&format!("ether saddr {sender} arp saddr ether {mac} arp saddr ip {address} arp daddr ip {ip}"))
    };
    let mut rules: Vec<String> = arp_speakers(network).iter().map(|(sender, station)| about(sender, station)).collect();
    rules.push("drop".to_owned());
    rules
}

fn drop_lab_sender(prefix: &MacPrefix) -> String {
    let (value, mask) = masked(prefix);
    format!("ether saddr & {mask} == {value} drop")
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
    use std::net::Ipv4Addr;

    use super::*;
    use crate::model::id::SiteTag;
    use crate::model::lab::Egress;

    pub(in crate::host::run::filter) fn station(last: u8, mac: &str) -> Station {
        Station { address: Ipv4Addr::new(192, 168, 100, last), mac: mac.parse().unwrap() }
    }

    pub(in crate::host::run::filter) fn network(isolated: bool) -> RunNetwork {
        let ip = Ipv4Addr::new(192, 168, 100, 2);
        RunNetwork {
            bridge: "vbr0".to_owned(),
            ip,
            mac: MacPrefix::default().mac(ip),
            subnet: "192.168.100.0/24".parse().unwrap(),
            gateway: Some([192, 168, 100, 1].into()),
            routers: vec![station(251, "00:00:5e:00:53:fb")],
            dns: vec![[141, 85, 224, 15].into()],
            stations: vec![station(1, "00:00:5e:00:01:01"), station(5, "00:00:5e:00:53:05")],
            dhcp_servers: Some(vec![[192, 168, 100, 5].into(), [10, 0, 0, 7].into()]),
            dhcp_on_bridge: false,
            isolated,
            lab_ranges: vec![([192, 168, 100, 2].into(), [192, 168, 100, 254].into())],
            lab_mac_prefixes: vec![MacPrefix::default()],
            egress: vec![Egress { net: "10.0.0.5/32".parse().unwrap(), port: 443, protocol: Protocol::Tcp, mac: None }],
            dhcp_control_port: 7911,
            filter: crate::model::site::Filter::Nftables,
        }
    }

    fn written(isolated: bool) -> String {
        text(&network(isolated))
    }

    fn text(network: &RunNetwork) -> String {
        let run = RunId::new(SiteTag::new("k3f9").unwrap(), 104);
        let table = run_table(&run, network);
        let chain = |chain: &Chain| {
            let hook = chain.hook.map(|hook| format!(" ({hook})")).unwrap_or_default();
            format!("{}{hook}\n  {}\n", chain.name, chain.rules.join("\n  "))
        };
        table.chains.iter().map(chain).collect()
    }

    /// A spec of before gateways had Ethernet addresses and DHCP servers names; the gateway's was found on its host.
    #[test]
    fn rules_of_an_isolated_guest_of_an_older_spec() {
        let mut old = serde_json::to_value(network(true)).unwrap();
        for key in ["routers", "stations", "dhcp_servers", "dhcp_on_bridge"] {
            old.as_object_mut().unwrap().remove(key).unwrap();
        }
        let mut network: RunNetwork = serde_json::from_value(old).unwrap();
        assert_eq!((network.dhcp_servers.as_ref(), network.dhcp_on_bridge), (None, false));
        assert_eq!(crate::host::run::filter::wanted_stations(&network), [Ipv4Addr::new(192, 168, 100, 1)]);
        network.stations = vec![station(1, "00:00:5e:00:01:01")];
        insta::assert_snapshot!(text(&network));
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
