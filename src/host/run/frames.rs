//! The few frames that we send and read ourselves, to find out who answers on a bridge: ARP, a DHCP question, ping. Pure.

use std::net::Ipv4Addr;

use crate::model::id::Mac;

pub(in crate::host) const BROADCAST: Mac = Mac([0xff; 6]);
const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
const UDP: u8 = 17;
const ICMP: u8 = 1;
const DHCP_SERVER_PORT: u16 = 67;
const DHCP_CLIENT_PORT: u16 = 68;

/// A packet of ARP (RFC 826), and the frame that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host) struct Arp {
    /// Where the frame comes from.
    pub(in crate::host) frame_from: Mac,
    pub(in crate::host) is_question: bool,
    pub(in crate::host) mac: Mac,
    pub(in crate::host) ip: Ipv4Addr,
    /// Whom a question is about, and an answer for.
    pub(in crate::host) about: Ipv4Addr,
}

/// A question in its frame: who has `wanted`?
pub(in crate::host) fn who_has(mac: Mac, ip: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    arp((BROADCAST, mac), 1, (mac, ip), ([0; 6], wanted))
}

/// The answer to somebody's question: `ip` is at `mac`.
pub(in crate::host) fn is_at(mac: Mac, ip: Ipv4Addr, asker: &Arp) -> Vec<u8> {
    arp((asker.mac, mac), 2, (mac, ip), (asker.mac.0, asker.ip))
}

fn arp(
    (to, from): (Mac, Mac),
    operation: u8,
    (mac, ip): (Mac, Ipv4Addr),
    (whose, about): ([u8; 6], Ipv4Addr),
) -> Vec<u8> {
    let kind = [0, 1, 8, 0, 6, 4, 0, operation];
    [&to.0[..], &from.0, &ARP, &kind, &mac.0, &ip.octets(), &whose, &about.octets()].concat()
}

/// The packet of ARP in a frame, if it is one about IPv4 on Ethernet.
pub(in crate::host) fn read_arp(frame: &[u8]) -> Option<Arp> {
    let packet = payload(frame, ARP)?;
    let is_question = match packet.get(..8)? {
        [0, 1, 8, 0, 6, 4, 0, 1] => true,
        [0, 1, 8, 0, 6, 4, 0, 2] => false,
        _ => return None,
    };
    let (mac, ip, about) = (mac_at(packet, 8)?, ip_at(packet, 14)?, ip_at(packet, 24)?);
    Some(Arp { frame_from: mac_at(frame, 6)?, is_question, mac, ip, about })
}

/// A DHCP question from `mac`, for whoever serves addresses (RFC 2131); all hear the answer.
pub(in crate::host) fn discover(mac: Mac) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..8].copy_from_slice(&[1, 1, 6, 0, 0x1a, 0xb7, 0x11, 0x67]);
    message[10] = 0x80;
    message[28..34].copy_from_slice(&mac.0);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, 1, 255]);
    message.resize(300, 0);
    let length = u16::try_from(message.len() + 8).expect("it has 300 bytes");
    let mut datagram = [DHCP_CLIENT_PORT.to_be_bytes(), DHCP_SERVER_PORT.to_be_bytes(), length.to_be_bytes()].concat();
    // Without a checksum, as UDP allows.
    datagram.extend([0, 0]);
    datagram.extend(message);
    ipv4((BROADCAST, mac), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST), UDP, &datagram)
}

/// From which address and Ethernet address a DHCP answer for `mac` comes, if a frame is one.
pub(in crate::host) fn read_offer(frame: &[u8], mac: Mac) -> Option<(Ipv4Addr, Mac)> {
    let (from, datagram) = read_ipv4(frame, UDP)?;
    let ports = [DHCP_SERVER_PORT.to_be_bytes(), DHCP_CLIENT_PORT.to_be_bytes()].concat();
    let is_answer = datagram.starts_with(&ports) && datagram.get(8) == Some(&2) && mac_at(datagram, 36)? == mac;
    Some((from, mac_at(frame, 6)?)).filter(|_| is_answer)
}

/// A ping from one address to another.
pub(in crate::host) fn ping((to, from): (Mac, Mac), addresses: (Ipv4Addr, Ipv4Addr)) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0x1a, 0xb7, 0, 1];
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    ipv4((to, from), addresses, ICMP, &message)
}

/// From which address and Ethernet address an answer to a ping comes, if a frame is one.
pub(in crate::host) fn read_pong(frame: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    let (from, message) = read_ipv4(frame, ICMP)?;
    message.starts_with(&[0, 0]).then_some((from, mac_at(frame, 6)?))
}

fn ipv4((to, from): (Mac, Mac), (source, goal): (Ipv4Addr, Ipv4Addr), protocol: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(20 + content.len()).expect("what we send is short").to_be_bytes();
    let mut header = [0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0].to_vec();
    header.extend(source.octets());
    header.extend(goal.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [&to.0[..], &from.0, &IPV4, &header, content].concat()
}

/// Sender and content of a whole packet of a protocol.
fn read_ipv4(frame: &[u8], protocol: u8) -> Option<(Ipv4Addr, &[u8])> {
    let packet = payload(frame, IPV4)?;
    let header_bytes = usize::from(packet.first()? & 0x0f) * 4;
    (packet.get(9) == Some(&protocol)).then_some((ip_at(packet, 12)?, packet.get(header_bytes..)?))
}

fn payload(frame: &[u8], kind: [u8; 2]) -> Option<&[u8]> {
    (frame.get(12..14)? == kind).then(|| &frame[14..])
}

fn mac_at(bytes: &[u8], at: usize) -> Option<Mac> {
    bytes.get(at..at + 6)?.try_into().ok().map(Mac)
}

fn ip_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

/// The sum of the Internet's headers (RFC 1071), of an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX);
    (!folded).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(frame: &[u8]) -> String {
        frame.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    const MAC: Mac = Mac([0xde, 0xaf, 0xde, 0xaf, 0x64, 0x02]);
    const OTHER: Mac = Mac([0, 0, 0x5e, 0, 1, 1]);

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 100, last)
    }

    #[test]
    fn a_question_byte_by_byte() {
        assert_eq!(
            hex(&who_has(MAC, ip(2), ip(3))),
            "ffffffffffffdeafdeaf64020806\
             0001080006040001deafdeaf6402c0a86402000000000000c0a86403"
        );
    }

    #[test]
    fn what_is_sent_is_read_again() {
        let question = read_arp(&who_has(OTHER, ip(1), ip(2))).unwrap();
        assert_eq!(question, Arp { frame_from: OTHER, is_question: true, mac: OTHER, ip: ip(1), about: ip(2) });
        let answer = read_arp(&is_at(MAC, ip(2), &question)).unwrap();
        assert_eq!(answer, Arp { frame_from: MAC, is_question: false, mac: MAC, ip: ip(2), about: ip(1) });
        assert_eq!(read_arp(&ping((OTHER, MAC), (ip(2), ip(1)))), None);
    }

    /// As `tcpdump -vv` says of it, with the sums right.
    #[test]
    fn a_ping_byte_by_byte() {
        let sent = ping((OTHER, MAC), (ip(2), ip(1)));
        assert_eq!(hex(&sent[14..34]), "4500001c000000004001318dc0a86402c0a86401");
        assert_eq!(read_pong(&sent), None, "a question is no answer");
        let mut pong = sent;
        pong[34] = 0;
        assert_eq!(read_pong(&pong), Some((ip(2), MAC)));
    }

    #[test]
    fn only_an_answer_for_us_is_an_offer() {
        let mut frame = discover(MAC);
        assert_eq!(read_offer(&frame, MAC), None, "it is the question");
        frame[34..38].copy_from_slice(&[0, 67, 0, 68]);
        frame[42] = 2;
        assert_eq!(read_offer(&frame, MAC), Some((Ipv4Addr::UNSPECIFIED, MAC)));
        assert_eq!(read_offer(&frame, OTHER), None);
        assert_eq!(read_offer(&frame[..60], MAC), None);
    }
}
