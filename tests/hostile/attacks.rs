//! The list: what is sent, who may send it, and whether another guest may hear it. What is sent under the sender's own
//! addresses shows what the filter lets an honest guest do.

use labwright::model::site::Filter;

use crate::frames::{BROADCAST, arp, dhcp, eth, icmp, ipv4, ipv4_with, ipv6, tcp, udp};

pub(crate) const GATEWAY: [u8; 4] = [192, 168, 100, 1];
/// Addresses beyond the lab: what the lab's egress and DNS name.
pub(crate) const EGRESS: [u8; 4] = [10, 9, 9, 9];
pub(crate) const DNS: [u8; 4] = [10, 9, 9, 53];
/// The other host, which guests have no business with.
pub(crate) const HOST: [u8; 4] = [192, 168, 100, 250];
/// An address that no one has.
const NOBODY: [u8; 6] = [0x66; 6];

/// A guest, or the machine behind an address.
#[derive(Clone, Copy)]
pub(crate) struct Party {
    pub(crate) mac: [u8; 6],
    pub(crate) ip: [u8; 4],
}

/// Who may send a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Nobody,
    Plain,
    Anyone,
}

pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) frame: Vec<u8>,
    who: Who,
    /// Where ebtables cannot do what nftables does.
    with_ebtables: Option<Who>,
    /// A plain guest may hear it.
    pub(crate) heard: bool,
    /// The gateway sends it on to the victim.
    pub(crate) routed: bool,
}

impl Attack {
    fn new(who: Who, name: &'static str, frame: Vec<u8>) -> Self {
        Self { name, frame, who, with_ebtables: None, heard: false, routed: false }
    }

    fn heard(self) -> Self {
        Self { heard: true, ..self }
    }

    fn routed(self) -> Self {
        Self { routed: true, ..self }
    }

    fn but_with_ebtables(self, who: Who) -> Self {
        Self { with_ebtables: Some(who), ..self }
    }

    pub(crate) fn who(&self, filter: Filter) -> Who {
        match (filter, self.with_ebtables) {
            (Filter::Ebtables, Some(who)) => who,
            _ => self.who,
        }
    }

    /// Where the frame is sent to.
    pub(crate) fn to(&self) -> [u8; 6] {
        self.frame[..6].try_into().unwrap()
    }
}

/// All attacks of one sender on one victim. `hosts`: the gateway's, and the other one's.
pub(crate) fn attacks(me: Party, victim: Party, hosts: [[u8; 6]; 2]) -> Vec<Attack> {
    // DHCP first and last: what is tried here uses up what a guest may ask in a second.
    let mut list = dhcp_questions(me, victim, hosts);
    list.extend(strange_frames(me, victim));
    list.extend(arp_and_theft(me, victim, hosts[0]));
    list.extend(ip(me, victim, hosts));
    list.extend(hosts_services(me, hosts));
    list.extend(honest(me, hosts[0]));
    list
}

fn nobody(name: &'static str, frame: Vec<u8>) -> Attack {
    Attack::new(Who::Nobody, name, frame)
}

fn plain(name: &'static str, frame: Vec<u8>) -> Attack {
    Attack::new(Who::Plain, name, frame)
}

fn anyone(name: &'static str, frame: Vec<u8>) -> Attack {
    Attack::new(Who::Anyone, name, frame)
}

fn probe(me: Party, to: [u8; 4]) -> Vec<u8> {
    ipv4(me.ip, to, 17, 0, &udp(9999, 9999, b""))
}

fn strange_frames(me: Party, victim: Party) -> Vec<Attack> {
    let mac = me.mac;
    let all6 = [0x33, 0x33, 0, 0, 0, 1];
    let spoofed = ipv4(victim.ip, GATEWAY, 17, 0, &udp(9999, 9999, b""));
    let group = |last| [1, 0x80, 0xc2, 0, 0, last];
    let tagged = |tag: &[u8]| [&victim.mac, &mac, tag, &[0x08, 0x00], &probe(me, victim.ip)].concat();
    vec![
        nobody("another ethertype", eth(victim.mac, mac, 0x88b5, &[0; 20])),
        nobody("802.1Q tag", tagged(&[0x81, 0, 0, 5])),
        nobody("two tags", tagged(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6])),
        nobody("802.3 with LLC", eth(victim.mac, mac, 0x0020, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0])),
        nobody("IPv6 unicast", eth(victim.mac, mac, 0x86dd, &ipv6(17, &udp(1, 1, b"")))),
        nobody("IPv6 router advertisement", eth(all6, mac, 0x86dd, &ipv6(58, &[134, 0, 0, 0, 64, 0, 7, 8]))),
        nobody("IPv6 neighbour solicitation", eth(all6, mac, 0x86dd, &ipv6(58, &[135, 0, 0, 0, 0, 0, 0, 0]))),
        nobody("IPv6 neighbour advertisement", eth(all6, mac, 0x86dd, &ipv6(58, &[136, 0, 0, 0, 0, 0, 0, 0]))),
        nobody("DHCPv6", eth(all6, mac, 0x86dd, &ipv6(17, &udp(546, 547, &[1, 0, 0, 1])))),
        nobody("STP", eth(group(0), mac, 0x0026, &[0x42, 0x42, 3, 0, 0, 0, 0, 0])),
        nobody("LLDP", eth(group(0x0e), mac, 0x88cc, &[2, 7, 4, 0, 0, 0, 0, 0, 1])),
        nobody("IPv4 to the gateway in a link-local group", eth(group(3), mac, 0x0800, &probe(me, GATEWAY))),
        nobody("the same in LLDP's group", eth(group(0x0e), mac, 0x0800, &probe(me, GATEWAY))),
        nobody("the same from a spoofed IP", eth(group(3), mac, 0x0800, &spoofed)),
    ]
}

fn arp_and_theft(me: Party, victim: Party, gateway: [u8; 6]) -> Vec<Attack> {
    let Party { mac, ip } = me;
    let ask = |from: [u8; 6], sender: [u8; 6], sender_ip: [u8; 4], about: [u8; 4]| {
        eth(BROADCAST, from, 0x0806, &arp(1, sender, sender_ip, [0; 6], about))
    };
    let forged = arp(2, mac, GATEWAY, victim.mac, victim.ip);
    let free = arp(1, mac, [0; 4], [0; 6], ip);
    let (to_all, to_gateway) = (ipv4(ip, [255; 4], 17, 0, &udp(9, 9, b"")), ipv4(ip, GATEWAY, 17, 0, &udp(9, 9, b"")));
    vec![
        plain("ARP who-has another guest", ask(mac, mac, ip, victim.ip)).heard(),
        nobody("ARP reply: the gateway is me", eth(victim.mac, mac, 0x0806, &forged)),
        nobody("ARP gratuitous: the victim is me", ask(mac, mac, victim.ip, victim.ip)),
        nobody("ARP gratuitous: the gateway is me", ask(mac, mac, GATEWAY, GATEWAY)),
        plain(
            "ARP for the gateway, told to a guest alone",
            eth(victim.mac, mac, 0x0806, &arp(1, mac, ip, [0; 6], GATEWAY)),
        ),
        plain("ARP asking whether its address is free, told the same", eth(victim.mac, mac, 0x0806, &free)),
        plain("ARP announcing its address, told the same", eth(victim.mac, mac, 0x0806, &arp(2, mac, ip, mac, ip))),
        plain("ARP for an address that nobody has", ask(mac, mac, ip, [192, 168, 100, 249])),
        nobody("ARP with a foreign sender address", ask(mac, NOBODY, ip, GATEWAY)),
        nobody("ARP from a foreign address", ask(NOBODY, NOBODY, ip, GATEWAY)),
        nobody("spoofed MAC to the gateway", eth(gateway, NOBODY, 0x0800, &to_gateway)),
        nobody("bridge-table theft by broadcast", eth(BROADCAST, victim.mac, 0x0800, &to_all)),
        nobody("bridge-table theft by unicast", eth(gateway, victim.mac, 0x0800, &to_gateway)),
        nobody("bridge-table theft of the gateway", eth(victim.mac, gateway, 0x0800, &probe(me, victim.ip))),
    ]
}

fn ip(me: Party, victim: Party, [gateway, host]: [[u8; 6]; 2]) -> Vec<Attack> {
    let Party { mac, ip } = me;
    let to_victim = |payload: &[u8]| eth(victim.mac, mac, 0x0800, payload);
    let to_gateway = |payload: &[u8]| eth(gateway, mac, 0x0800, payload);
    let to_host = |payload: &[u8]| eth(host, mac, 0x0800, payload);
    let to_all = |to: [u8; 4]| eth(BROADCAST, mac, 0x0800, &probe(me, to));
    let options = ipv4_with(ip, victim.ip, 17, 0, &[0x94, 4, 0, 0], &udp(9999, 9999, b""));
    let [a, b, c, d] = victim.ip;
    let routed = ipv4_with(ip, GATEWAY, 1, 0, &[131, 7, 4, a, b, c, d, 0], &icmp(8));
    let (part, late) = (udp(9, 9, b""), [0; 16]);
    vec![
        plain("unicast IPv4 to a guest", to_victim(&probe(me, victim.ip))).heard(),
        nobody("spoofed IP to the gateway", to_gateway(&ipv4(victim.ip, GATEWAY, 17, 0, &part))),
        nobody("source 0.0.0.0, not DHCP", to_gateway(&ipv4([0; 4], GATEWAY, 17, 0, &part))),
        plain("first fragment to a guest", to_victim(&ipv4(ip, victim.ip, 17, 0x2000, &part))).heard(),
        plain("later fragment to a guest", to_victim(&ipv4(ip, victim.ip, 17, 0x0003, &late))).heard(),
        plain("later fragment to the gateway", to_gateway(&ipv4(ip, GATEWAY, 17, 0x0003, &late))),
        nobody("overlapping fragment to the gateway", to_gateway(&ipv4(ip, GATEWAY, 6, 0x0001, &late)))
            .but_with_ebtables(Who::Plain),
        plain("IP options to a guest", to_victim(&options)).heard(),
        plain("ping with a source route by the gateway", to_gateway(&routed)).but_with_ebtables(Who::Anyone),
        plain("directed broadcast", to_all([192, 168, 100, 255])).heard(),
        plain("limited broadcast", to_all([255; 4])).heard(),
        plain("multicast", eth([1, 0, 0x5e, 0, 0, 0xfb], mac, 0x0800, &probe(me, [224, 0, 0, 251]))).heard(),
        plain("to the gateway's IP in a broadcast frame", to_all(GATEWAY)),
        plain("to a guest's IP in a broadcast frame", to_all(victim.ip)).heard(),
        plain("to the gateway's IP in a guest's frame", to_victim(&probe(me, GATEWAY))),
        plain("ping to the gateway's IP in the other host's frame", to_host(&ipv4(ip, GATEWAY, 1, 0, &icmp(8)))),
        plain("a question to DNS in the other host's frame", to_host(&ipv4(ip, DNS, 17, 0, &udp(40000, 53, b"")))),
        plain("an egress entry in the other host's frame", to_host(&ipv4(ip, EGRESS, 6, 0, &tcp(443)))),
        plain("another address of the wire by the gateway", to_gateway(&probe(me, [192, 168, 100, 249]))),
        plain("ping by broadcast", eth(BROADCAST, mac, 0x0800, &ipv4(ip, GATEWAY, 1, 0, &icmp(8)))),
        plain("ICMP redirect to a guest", to_victim(&ipv4(ip, victim.ip, 1, 0, &icmp(5)))).heard(),
        plain("detour through the gateway", to_gateway(&probe(me, victim.ip))).heard().routed(),
    ]
}

fn dhcp_questions(me: Party, victim: Party, [gateway, host]: [[u8; 6]; 2]) -> Vec<Attack> {
    let Party { mac, ip } = me;
    let offer = ipv4(ip, [255; 4], 17, 0, &udp(67, 68, &dhcp(2, victim.mac)));
    let ask = |to: [u8; 6], from: [u8; 4], address: [u8; 4]| {
        eth(to, mac, 0x0800, &ipv4(from, address, 17, 0, &udp(68, 67, &dhcp(1, mac))))
    };
    let question = |message: &[u8]| eth(BROADCAST, mac, 0x0800, &ipv4([0; 4], [255; 4], 17, 0, &udp(68, 67, message)));
    let with = |at: usize, address: [u8; 4]| {
        let mut message = dhcp(1, mac);
        message[at..at + 4].copy_from_slice(&address);
        message
    };
    let (relayed, for_another) = (with(24, EGRESS), with(12, victim.ip));
    let pieces = eth(BROADCAST, mac, 0x0800, &ipv4([0; 4], [255; 4], 17, 0x2000, &udp(68, 67, &dhcp(1, mac))));
    let from_elsewhere = ipv4(ip, GATEWAY, 17, 0, &udp(1068, 67, &dhcp(1, mac)));
    vec![
        nobody("rogue DHCP offer", eth(BROADCAST, mac, 0x0800, &offer)),
        nobody("DHCP with another's hardware address", discover(mac, victim.mac)).but_with_ebtables(Who::Anyone),
        nobody("DHCP with an invented hardware address", discover(mac, NOBODY)).but_with_ebtables(Who::Anyone),
        nobody("DHCP as a relay", question(&relayed)).but_with_ebtables(Who::Anyone),
        nobody("DHCP for another's address", question(&for_another)).but_with_ebtables(Who::Anyone),
        nobody("DHCP cut into pieces", pieces).but_with_ebtables(Who::Anyone),
        nobody("DHCP to all, in a guest's frame", ask(victim.mac, [0; 4], [255; 4])),
        nobody("DHCP to a guest", ask(victim.mac, ip, victim.ip)),
        nobody("DHCP to the other host", ask(host, ip, HOST)),
        nobody("DHCP to an address beyond the gateway", ask(gateway, ip, EGRESS)),
        nobody("DHCP to the gateway's IP from another port", eth(gateway, mac, 0x0800, &from_elsewhere)),
    ]
}

fn hosts_services(me: Party, [gateway, host]: [[u8; 6]; 2]) -> Vec<Attack> {
    let Party { mac, ip } = me;
    let connect = |to: [u8; 6], address: [u8; 4], port: u16| eth(to, mac, 0x0800, &ipv4(ip, address, 6, 0, &tcp(port)));
    let ask_dns = ipv4(ip, GATEWAY, 17, 0, &udp(40000, 53, b""));
    vec![
        nobody("the DHCP server's control port", connect(gateway, GATEWAY, 7911)),
        nobody("the same port of another host", connect(host, HOST, 7911)),
        nobody("a vnc port of the gateway", connect(gateway, GATEWAY, 5900)),
        plain("a vnc port of another host", connect(host, HOST, 5900)),
        plain("a service of another host", connect(host, HOST, 22)),
        plain("a service of the gateway", connect(gateway, GATEWAY, 22)),
        plain("a UDP port of the gateway", eth(gateway, mac, 0x0800, &probe(me, GATEWAY))),
        plain("DNS of a gateway that is no name server", eth(gateway, mac, 0x0800, &ask_dns)),
        plain("an address outside the lab", eth(gateway, mac, 0x0800, &probe(me, EGRESS))),
    ]
}

fn honest(me: Party, gateway: [u8; 6]) -> Vec<Attack> {
    let Party { mac, ip } = me;
    let to_gateway = |payload: &[u8]| eth(gateway, mac, 0x0800, payload);
    let again = eth(BROADCAST, mac, 0x0800, &ipv4(ip, [255; 4], 17, 0, &udp(68, 67, &dhcp(1, mac))));
    vec![
        anyone("HONEST: DHCP for itself", discover(mac, mac)),
        anyone("HONEST: DHCP renewal", to_gateway(&ipv4(ip, GATEWAY, 17, 0, &udp(68, 67, &dhcp(1, mac))))),
        anyone("HONEST: ARP for the gateway", eth(BROADCAST, mac, 0x0806, &arp(1, mac, ip, [0; 6], GATEWAY))),
        anyone("HONEST: DHCP once more, of all", again),
        anyone(
            "HONEST: ARP for the gateway, of it alone",
            eth(gateway, mac, 0x0806, &arp(1, mac, ip, [0; 6], GATEWAY)),
        ),
        anyone("HONEST: ping to the gateway", to_gateway(&ipv4(ip, GATEWAY, 1, 0, &icmp(8)))),
        anyone("HONEST: a question to DNS", to_gateway(&ipv4(ip, DNS, 17, 0, &udp(40000, 53, b"")))),
        anyone("HONEST: an egress entry", to_gateway(&ipv4(ip, EGRESS, 6, 0, &tcp(443)))),
    ]
}

fn discover(mac: [u8; 6], hardware: [u8; 6]) -> Vec<u8> {
    eth(BROADCAST, mac, 0x0800, &ipv4([0; 4], [255; 4], 17, 0, &udp(68, 67, &dhcp(1, hardware))))
}
