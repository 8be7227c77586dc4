//! Raw Ethernet frames. Each leaves room at its end for a mark, which its lengths count in, so that nothing cuts it off.

pub(crate) const MARK_BYTES: usize = 8;
pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];

pub(crate) fn eth(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

pub(crate) fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    ipv4_with(from, to, protocol, fragment, &[], payload)
}

pub(crate) fn ipv4_with(
    from: [u8; 4],
    to: [u8; 4],
    protocol: u8,
    fragment: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(20 + options.len() + payload.len() + MARK_BYTES).unwrap().to_be_bytes();
    let version = 0x45 + u8::try_from(options.len() / 4).unwrap();
    let fragment = fragment.to_be_bytes();
    let mut header = [version, 0, length[0], length[1], 0, 7, fragment[0], fragment[1], 64, protocol, 0, 0].to_vec();
    header.extend([&from[..], &to, options].concat());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    header[10..12].copy_from_slice(&(!sum).to_be_bytes());
    [header, payload.to_vec()].concat()
}

pub(crate) fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len() + MARK_BYTES).unwrap();
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

/// A message of ICMP, such as a ping (8).
pub(crate) fn icmp(kind: u8) -> Vec<u8> {
    vec![kind, u8::from(kind == 5), 0, 0, 0, 0, 0, 1]
}

/// The first packet of a connection.
pub(crate) fn tcp(port: u16) -> Vec<u8> {
    let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0];
    [&40000_u16.to_be_bytes()[..], &port.to_be_bytes(), &rest].concat()
}

pub(crate) fn arp(operation: u8, mac: [u8; 6], ip: [u8; 4], to_mac: [u8; 6], to_ip: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, operation][..], &mac, &ip, &to_mac, &to_ip].concat()
}

pub(crate) fn dhcp(operation: u8, hardware: [u8; 6]) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..8].copy_from_slice(&[operation, 1, 6, 0, 1, 2, 3, 4]);
    message[28..34].copy_from_slice(&hardware);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, operation, 255]);
    message
}

/// IPv6 from a link-local address to all nodes.
pub(crate) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + MARK_BYTES).unwrap().to_be_bytes();
    let source = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    [[0x60, 0, 0, 0, length[0], length[1], next, 255].as_slice(), &source, &group, payload].concat()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
