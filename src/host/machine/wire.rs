//! Who is on the guests' wire, for `host check`: whether the gateway answers, under which Ethernet addresses it sends, and who
//! else serves DHCP. Asked and watched through a port of ours; what a check finds changes nothing.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::check::{Line, failed, ok, warning};
use super::setup::Wanted;
use crate::error::chain;
use crate::host::run::frames::{Arp, discover, is_at, ping, read_arp, read_offer, read_pong, who_has};
use crate::host::run::gateway::{self, GatewayError};
use crate::host::run::probe::{Probe, ProbeError};
use crate::model::id::Mac;
use crate::model::lab::{Station, VmGroup};
use crate::model::site::{DhcpServer, DhcpSettings};
use crate::run::RunNetwork;

const DHCP: &str = "dhcp answers";
const GATEWAY: &str = "gateway";
/// How long a DHCP server may take to offer an address. Some try first whether it is free, for a second.
const OFFER_WAIT: Duration = Duration::from_secs(2);
/// How long the traffic of a gateway is watched.
const WATCH: Duration = Duration::from_secs(3);
/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// A line on each bridge's DHCP servers and on each group's gateway. A missing bridge has its line already.
pub(super) fn lines(wanted: &Wanted<'_>) -> Vec<Line> {
    let mut bridges: Vec<&str> = wanted.groups.iter().map(|group| group.bridge.as_str()).collect();
    bridges.sort_unstable();
    bridges.dedup();
    bridges.retain(|name| Path::new("/sys/class/net").join(name).join("bridge").exists());
    let mut lines = Vec::new();
    for bridge in bridges {
        lines.push(foreign_servers(bridge, wanted).unwrap_or_else(|error| not_tried(DHCP, bridge, &error)));
        for group in wanted.groups.iter().filter(|group| group.bridge == bridge) {
            let line = gateway_of(group, wanted).transpose();
            lines.extend(line.map(|line| line.unwrap_or_else(|error| not_tried(GATEWAY, bridge, &error))));
        }
    }
    let found = "of its gateway an isolated guest reaches ping, DHCP where the gateway serves it, and DNS where the vm group's \
                 `dns` names it; other ports where `egress` names them";
    lines.push(ok("isolation", found));
    lines
}

fn not_tried(what: &'static str, bridge: &str, error: &GatewayError) -> Line {
    warning(what, format!("not tried on {bridge}: {}", chain(error)), "see the lines `tap` and `bridge`")
}

/// Asks for an address as a stranger does: a server that knows only guests says nothing.
fn foreign_servers(bridge: &str, wanted: &Wanted<'_>) -> Result<Line, GatewayError> {
    let own = gateway::own_stations(bridge)?;
    let on_bridge = matches!(wanted.network.dhcp, DhcpSettings::Dnsmasq { .. });
    let is_known = |(address, mac): &(Ipv4Addr, Mac)| {
        let station = Station { address: *address, mac: *mac };
        let named = |server: &&DhcpServer| server.address == *address && server.mac.is_none_or(|known| known == *mac);
        (on_bridge && own.contains(&station)) || wanted.network.dhcp_servers.iter().any(|server| named(&server))
    };
    let found = offers(&Probe::join(bridge)?)?;
    let foreign: Vec<String> = found
        .into_iter()
        .filter(|offer| !is_known(offer))
        .map(|(address, mac)| format!("{{ address: {address}, mac: \"{mac}\" }}"))
        .collect();
    if foreign.is_empty() {
        return Ok(ok(DHCP, format!("no other server gives addresses on {bridge}")));
    }
    let foreign = foreign.join(", ");
    let found = format!(
        "on {bridge} addresses are given out by something that is not one of the site's DHCP servers: {foreign}"
    );
    Ok(warning(DHCP, found, "switch it off; or, where it is yours, add that to `network: { dhcp_servers: [...] }`"))
}

fn offers(probe: &Probe) -> Result<BTreeSet<(Ipv4Addr, Mac)>, ProbeError> {
    let mut found = BTreeSet::new();
    probe.send(&discover(probe.mac()))?;
    let began = Instant::now();
    while let Some(left) = OFFER_WAIT.checked_sub(began.elapsed()) {
        let Some(frame) = probe.receive(left)? else { break };
        found.extend(read_offer(&frame, probe.mac()));
    }
    Ok(found)
}

/// Where the group's gateway is, and whether it is there.
fn gateway_of(group: &VmGroup, wanted: &Wanted<'_>) -> Result<Option<Line>, GatewayError> {
    let (bridge, Some(address)) = (group.bridge.as_str(), group.gateway) else { return Ok(None) };
    if let Some(own) = gateway::own_stations(bridge)?.iter().find(|own| own.address == address) {
        return Ok(Some(ok(GATEWAY, format!("{address} is {bridge}'s own address ({})", own.mac))));
    }
    let written = group.stations.iter().find(|station| station.address == address).map(|station| station.mac);
    let found_before = gateway::read(wanted.run_root, bridge, address)?;
    let answers = gateway::ask(bridge, &[address], std::slice::from_ref(&group.mac_prefix))?.remove(0);
    let kept = gateway::file(wanted.run_root, bridge, address);
    let known = written
        .map(|mac| (mac, "as the vm group says".to_owned()))
        .or_else(|| Some((found_before?, format!("as found before (`rm {}` to ask anew)", kept.display()))));
    Ok(Some(judge(&Gateway { address, bridge }, known, &answers)))
}

struct Gateway<'a> {
    address: Ipv4Addr,
    bridge: &'a str,
}

/// What is known of a gateway beside who answers for it now.
fn judge(gateway: &Gateway<'_>, known: Option<(Mac, String)>, answers: &[Mac]) -> Line {
    let Gateway { address, bridge } = *gateway;
    let lines = |mac: Mac| format!("write into the vm group: `{}`", to_add(address, mac, &[]));
    match (known, answers) {
        (None, []) => failed(
            GATEWAY,
            format!("{address} gives no answer on {bridge}: no isolated guest would start"),
            "see that it is up and on this wire; or write its Ethernet address: `gateway: { address, mac }`",
        ),
        (None, [mac]) => ok(GATEWAY, format!("{address} answers on {bridge} as {mac}")),
        (None, [first, ..]) => failed(
            GATEWAY,
            format!("{} answer for {address} on {bridge}: no isolated guest would start", listed(answers)),
            format!("find out which is right, and {}", lines(*first)),
        ),
        (Some((mac, how)), []) => failed(
            GATEWAY,
            format!("{address} on {bridge} is {mac}, {how}, and does not answer any more"),
            "see that it is up; isolated guests speak with that Ethernet address alone",
        ),
        (Some((mac, how)), [only]) if *only == mac => {
            ok(GATEWAY, format!("{address} answers on {bridge} as {mac}, {how}"))
        }
        (Some((mac, how)), others) if others.contains(&mac) => warning(
            GATEWAY,
            format!("{} answer for {address} on {bridge}; isolated guests believe {mac}, {how}", listed(others)),
            format!("find out who the other is; {}", lines(mac)),
        ),
        (Some((mac, how)), others) => failed(
            GATEWAY,
            format!(
                "{address} on {bridge} is {mac}, {how}, and answers as {}: isolated guests do not believe that",
                listed(others)
            ),
            format!("where the gateway is a new one, {}", lines(others[0])),
        ),
    }
}

fn listed(macs: &[Mac]) -> String {
    macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// The lines of a manifest that say what was found.
fn to_add(address: Ipv4Addr, mac: Mac, routers: &[Station]) -> String {
    let router = |Station { address, mac }: &Station| format!("{{ address: {address}, mac: \"{mac}\" }}");
    let routers: Vec<String> = routers.iter().map(router).collect();
    let routers = if routers.is_empty() { String::new() } else { format!(", routers: [{}]", routers.join(", ")) };
    format!("gateway: {{ address: {address}, mac: \"{mac}\"{routers} }}")
}

/// What was seen of a gateway's traffic with a guest.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Ethernet addresses that the gateway is said to have.
    answers: Vec<Mac>,
    /// Ethernet addresses that its packets came from.
    senders: Vec<Mac>,
    /// Who asked for the guest by ARP.
    askers: Vec<Station>,
}

/// Speaks with a guest's gateway in place of the guest, and watches from where it answers and who asks for the guest. `None`
/// where the gateway is this host.
pub fn watch_gateway(network: &RunNetwork, run_root: &Path) -> Result<Option<Line>, GatewayError> {
    let Some(address) = network.gateway else { return Ok(None) };
    let bridge = network.bridge.as_str();
    if gateway::own_stations(bridge)?.iter().any(|own| own.address == address) {
        return Ok(None);
    }
    let written = network.stations.iter().find(|station| station.address == address).map(|station| station.mac);
    let mac = match written {
        Some(mac) => Some(mac),
        None => gateway::read(run_root, bridge, address)?,
    };
    let seen = seen(&Probe::join(bridge)?, (network.mac, network.ip), address)?;
    Ok(Some(judge_traffic(address, mac, &network.routers, &seen)))
}

fn seen(probe: &Probe, (mac, ip): (Mac, Ipv4Addr), gateway: Ipv4Addr) -> Result<Seen, ProbeError> {
    let mut seen = Seen::default();
    let began = Instant::now();
    let mut asked: Option<Instant> = None;
    while let Some(left) = WATCH.checked_sub(began.elapsed()) {
        if asked.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
            asked = Some(Instant::now());
            probe.send(&who_has(mac, ip, gateway))?;
        }
        let Some(frame) = probe.receive(left.min(ASK_EVERY))? else { continue };
        match read_arp(&frame) {
            Some(arp) if arp.is_question && arp.about == ip => {
                probe.send(&is_at(mac, ip, &arp))?;
                if arp.ip != gateway {
                    note(&mut seen.askers, Station { address: arp.ip, mac: arp.mac });
                }
            }
            Some(Arp { is_question: false, ip: said, mac: found, .. }) if said == gateway => {
                note(&mut seen.answers, found);
                probe.send(&ping((found, mac), (ip, gateway)))?;
            }
            _ => {}
        }
        if let Some((from, sender)) = read_pong(&frame)
            && from == gateway
        {
            note(&mut seen.senders, sender);
        }
    }
    Ok(seen)
}

fn note<T: PartialEq>(list: &mut Vec<T>, new: T) {
    if !list.contains(&new) {
        list.push(new);
    }
}

/// Whether an isolated guest's filter would let all of it pass.
fn judge_traffic(address: Ipv4Addr, known: Option<Mac>, routers: &[Station], seen: &Seen) -> Line {
    const WHAT: &str = "gateway's traffic";
    let Some(mac) = known.or_else(|| seen.answers.first().copied()) else {
        return failed(WHAT, format!("{address} gives no answer"), "see the line `gateway`");
    };
    let others: Vec<Mac> = seen.answers.iter().copied().filter(|answer| *answer != mac).collect();
    let is_known = |sender: &Mac| *sender == mac || routers.iter().any(|router| router.mac == *sender);
    let strangers: Vec<Station> = seen.askers.iter().copied().filter(|asker| !is_known(&asker.mac)).collect();
    let unnamed: Vec<Mac> = seen.senders.iter().copied().filter(|sender| !is_known(sender)).collect();
    let add = |found: &[Station]| {
        let all: Vec<Station> = routers.iter().chain(found).copied().collect();
        format!("write into the vm group: `{}`", to_add(address, mac, &all))
    };
    if !others.is_empty() {
        let found = format!("{} answer for {address}; isolated guests believe {mac}", listed(&seen.answers));
        return warning(WHAT, found, format!("find out who the other is; {}", add(&[])));
    }
    if unnamed.is_empty() {
        let senders = if seen.senders.is_empty() { "nothing, at a ping".to_owned() } else { listed(&seen.senders) };
        return ok(WHAT, format!("{address} answers as {mac}, and sends as {senders}"));
    }
    let found =
        format!("{address} answers as {mac} and sends from {}, which isolated guests do not hear", listed(&unnamed));
    let of_senders: Vec<Station> = strangers.into_iter().filter(|asker| unnamed.contains(&asker.mac)).collect();
    if of_senders.is_empty() {
        return warning(WHAT, found, format!("{}, with its `routers: [{{ address, mac }}]`", add(&[])));
    }
    warning(WHAT, found, add(&of_senders))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 1);

    fn mac(last: u8) -> Mac {
        Mac([0, 0, 0x5e, 0, 0x53, last])
    }

    fn said(line: &Line) -> String {
        format!("{}: {}\n  {}", line.verdict.as_str(), line.found, line.mend.as_deref().unwrap_or_default())
    }

    #[test]
    fn a_gateway_is_what_it_was() {
        let gateway = Gateway { address: GATEWAY_IP, bridge: "vbr0" };
        let known = || Some((mac(1), "as the vm group says".to_owned()));
        let cases = [
            (None, vec![]),
            (None, vec![mac(1)]),
            (None, vec![mac(1), mac(2)]),
            (known(), vec![]),
            (known(), vec![mac(1)]),
            (known(), vec![mac(1), mac(2)]),
            (known(), vec![mac(2)]),
        ];
        insta::assert_snapshot!(cases.map(|(known, answers)| said(&judge(&gateway, known, &answers))).join("\n"));
    }

    #[test]
    fn traffic_tells_of_routers() {
        let router = Station { address: Ipv4Addr::new(192, 168, 100, 251), mac: mac(9) };
        let seen = |answers: &[Mac], senders: &[Mac], askers: &[Station]| Seen {
            answers: answers.to_vec(),
            senders: senders.to_vec(),
            askers: askers.to_vec(),
        };
        let judge = |known, routers: &[Station], seen| said(&judge_traffic(GATEWAY_IP, known, routers, &seen));
        let all = [
            judge(None, &[], seen(&[], &[], &[])),
            judge(None, &[], seen(&[mac(1)], &[mac(1)], &[])),
            judge(Some(mac(1)), &[], seen(&[mac(1), mac(2)], &[mac(1)], &[])),
            judge(Some(mac(1)), &[], seen(&[mac(1)], &[mac(9)], &[router])),
            judge(Some(mac(1)), &[router], seen(&[mac(1)], &[mac(9)], &[router])),
            judge(Some(mac(1)), &[], seen(&[mac(1)], &[mac(9)], &[])),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }
}
