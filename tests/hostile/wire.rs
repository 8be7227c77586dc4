//! What a machine on the wire that follows no rules tells guests, in the gateway's and the servers' names.

use std::time::{Duration, Instant};

use crate::attacks::{DNS, EGRESS, GATEWAY, HOST, Party};
use crate::column::{FOREIGN, send};
use crate::field::{BEHIND_ROUTER, Field, ISOLATED_VICTIM, PLAIN_VICTIM, ROUTER, SHARED};
use crate::frames::{BROADCAST, arp, dhcp, eth, hex, icmp, ipv4, udp};
use crate::sight::{Listener, contains};
use crate::table::{Cell, Column};

/// The machine's own.
const LIAR: Party = Party { mac: [0x02, 0, 0, 0, 0, 0x66], ip: [192, 168, 100, 99] };
const LAB: [u8; 4] = [192, 168, 100, 150];
/// How long the frames that are to arrive may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A lie, and whether a plain and an isolated guest hear it.
type Lie = (&'static str, Vec<u8>, [bool; 2]);

pub(crate) fn lies(field: &Field) -> Vec<Column> {
    let gateway = Party { mac: field.hosts()[0], ip: GATEWAY };
    let who = [
        ("plain", PLAIN_VICTIM, gateway, 0),
        ("isolated", ISOLATED_VICTIM, gateway, 1),
        ("isolated behind routers", BEHIND_ROUTER, SHARED, 1),
    ];
    who.map(|(title, guest, gateway, kind)| {
        let mut list = in_anothers_frame(field.party(guest), gateway);
        list.extend(under_the_gateways_frame(field.party(guest), gateway));
        list.extend(of_routers(field.party(guest), gateway, guest == BEHIND_ROUTER));
        Column { title: title.to_owned(), cells: heard(field, guest, kind, &list) }
    })
    .into()
}

/// Sends all, and looks for each at the guest's tap.
fn heard(field: &Field, guest: usize, kind: usize, list: &[Lie]) -> Vec<Cell> {
    let listener = Listener::start(field.near.folder.path(), &field.guests[guest].spec.run.tap(), "");
    let marks: Vec<String> = (0..list.len()).map(|number| format!("<lie#{number:02}>")).collect();
    let frames: Vec<String> = list
        .iter()
        .zip(&marks)
        .map(|((_, frame, _), mark)| hex(&[frame.as_slice(), mark.as_bytes()].concat()))
        .collect();
    send(field, FOREIGN, &frames);
    let is_heard = || -> Vec<bool> {
        let frames = listener.frames();
        marks.iter().map(|mark| frames.iter().any(|frame| contains(frame, mark.as_bytes()))).collect()
    };
    let started = Instant::now();
    while started.elapsed() < PATIENCE && list.iter().zip(is_heard()).any(|((.., may), heard)| may[kind] && !heard) {
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_millis(500));
    let word = |heard: bool| if heard { "heard" } else { "dropped" };
    list.iter().zip(is_heard()).map(|((name, _, may), heard)| Cell::new(name, word(heard), word(may[kind]))).collect()
}

fn in_anothers_frame(victim: Party, gateway: Party) -> Vec<Lie> {
    let frame = |payload: &[u8]| eth(victim.mac, LIAR.mac, 0x0800, payload);
    let packet = |from: [u8; 4], source, to| frame(&ipv4(from, victim.ip, 17, 0, &udp(source, to, b"")));
    let told = |operation, mac: [u8; 6]| {
        eth(victim.mac, LIAR.mac, 0x0806, &arp(operation, mac, gateway.ip, victim.mac, victim.ip))
    };
    let offer = |from: [u8; 4], source| ipv4(from, [255; 4], 17, 0, &udp(source, 68, &dhcp(2, victim.mac)));
    let ack = ipv4(gateway.ip, victim.ip, 17, 0, &udp(67, 68, &dhcp(2, victim.mac)));
    vec![
        ("ARP answer: the gateway is me", told(2, LIAR.mac), [false, false]),
        ("ARP question: the gateway, who is me, asks", told(1, LIAR.mac), [false, false]),
        ("ARP answer: the gateway is where it is", told(2, gateway.mac), [true, false]),
        ("ping in the gateway's name", frame(&ipv4(gateway.ip, victim.ip, 1, 0, &icmp(8))), [true, false]),
        ("UDP in the gateway's name", packet(gateway.ip, 9, 9999), [true, false]),
        ("DNS answer in the name server's name", packet(DNS, 53, 40000), [true, false]),
        ("what an egress entry answers, in its name", frame(&ipv4(EGRESS, victim.ip, 6, 0, &syn_ack())), [true, false]),
        ("DHCP offer to all", eth(BROADCAST, LIAR.mac, 0x0800, &offer(LIAR.ip, 67)), [false, false]),
        ("DHCP offer in the server's name", eth(BROADCAST, LIAR.mac, 0x0800, &offer(GATEWAY, 67)), [false, false]),
        ("DHCP offer from another port", eth(BROADCAST, LIAR.mac, 0x0800, &offer(LIAR.ip, 1067)), [false, false]),
        ("DHCP acknowledgement to it alone", frame(&ack), [false, false]),
    ]
}

/// From port 443.
fn syn_ack() -> Vec<u8> {
    [&443_u16.to_be_bytes()[..], &40000_u16.to_be_bytes(), &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x12, 255, 255, 0, 0, 0, 0]]
        .concat()
}

/// What the gateway would not say, or not to an isolated guest, under its own Ethernet address.
fn under_the_gateways_frame(victim: Party, gateway: Party) -> Vec<Lie> {
    let frame = |payload: &[u8]| eth(victim.mac, gateway.mac, 0x0800, payload);
    let udp_from = |from: [u8; 4], source| frame(&ipv4(from, victim.ip, 17, 0, &udp(source, 9999, b"")));
    let to = |to: [u8; 4]| eth(BROADCAST, gateway.mac, 0x0800, &ipv4(gateway.ip, to, 17, 0, &udp(9, 9999, b"")));
    vec![
        ("by the gateway: UDP of its own", udp_from(gateway.ip, 9), [true, false]),
        ("by the gateway: DNS, which it does not serve", udp_from(gateway.ip, 53), [true, false]),
        ("by the gateway: ICMP redirect", frame(&ipv4(gateway.ip, victim.ip, 1, 0, &icmp(5))), [true, false]),
        ("by the gateway: from an address of the lab", udp_from(LAB, 9), [true, false]),
        ("by the gateway: from another one of the wire", udp_from(HOST, 9), [true, false]),
        ("by the gateway: from somewhere", udp_from([10, 1, 2, 3], 9), [true, false]),
        ("by the gateway: another port of the name server", udp_from(DNS, 9), [true, false]),
        ("by the gateway: to all", to([255; 4]), [true, false]),
        ("by the gateway: multicast", to([224, 0, 0, 251]), [true, false]),
        ("by the gateway: a later fragment", frame(&ipv4(gateway.ip, victim.ip, 17, 3, &[0; 16])), [true, false]),
        ("by the gateway: ping", frame(&ipv4(gateway.ip, victim.ip, 1, 0, &icmp(8))), [true, true]),
    ]
}

/// A gateway's router speaks under its own address, to those that it is a router of.
fn of_routers(victim: Party, gateway: Party, is_one: bool) -> Vec<Lie> {
    let arp_of = |mac: [u8; 6], ip: [u8; 4]| eth(victim.mac, ROUTER.mac, 0x0806, &arp(1, mac, ip, [0; 6], victim.ip));
    let packet = |from: [u8; 4], source| {
        eth(victim.mac, ROUTER.mac, 0x0800, &ipv4(from, victim.ip, 17, 0, &udp(source, 40000, b"")))
    };
    vec![
        ("by a router: it asks for the guest", arp_of(ROUTER.mac, ROUTER.ip), [true, is_one]),
        ("by a router: the gateway, where it is", arp_of(gateway.mac, gateway.ip), [true, is_one]),
        ("by a router: the gateway is me", arp_of(ROUTER.mac, gateway.ip), [false, false]),
        ("by a router: a DNS answer", packet(DNS, 53), [true, is_one]),
        ("by a router: UDP of its own", packet(ROUTER.ip, 9), [true, false]),
    ]
}
