//! What the dnsmasq of `host setup` serves, as a machine on the bridge hears it.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc::channel;
use std::time::Duration;

use labwright::dhcp::{Dhcp as _, Dnsmasq};
use labwright::host::machine::setup;
use labwright::model::id::{LabName, MacPrefix, SiteTag, VmName};
use labwright::model::reservation::Reservation;
use labwright::model::site::DhcpSettings;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt::BindToDevice};

use crate::world::{World, tool, wait_until};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 1);

/// RFC 2132, section 9.6.
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;

/// A machine on the bridge that speaks under any hardware address.
struct Asker {
    socket: UdpSocket,
    next_number: u32,
}

/// What the server said to the message of this number.
struct Answer {
    number: u32,
    kind: u8,
    ip: Ipv4Addr,
}

impl Asker {
    /// In a network namespace of its own: to the server's, its messages must come over the bridge.
    fn on_bridge() -> Self {
        let (namespace, made) = channel();
        let (plugged, wire) = channel();
        let machine = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            namespace.send(nix::unistd::gettid().to_string()).unwrap();
            wire.recv().unwrap();
            tool("ip", &["link", "set", "wire", "up"]);
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68)).unwrap();
            setsockopt(&socket, BindToDevice, &"wire".into()).unwrap();
            tool("ip", &["route", "add", "default", "dev", "wire"]);
            socket
        });
        let namespace = made.recv().unwrap();
        tool("ip", &["link", "add", "port", "type", "veth", "peer", "name", "wire", "netns", &namespace]);
        tool("ip", &["link", "set", "port", "master", "vbr0", "up"]);
        plugged.send(()).unwrap();
        // The socket is of its namespace, and keeps it.
        let socket = machine.join().unwrap();
        socket.set_broadcast(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        Self { socket, next_number: 1 }
    }

    /// Answers are broadcast, and bear the message's number. RFC 2131, section 2.
    fn send(&mut self, who: &Reservation, kind: u8, more_options: &[u8]) -> u32 {
        let number = self.next_number;
        self.next_number += 1;
        let mut packet = vec![1, 1, 6, 0];
        packet.extend(number.to_be_bytes());
        packet.extend([0, 0, 0x80, 0]);
        packet.resize(28, 0);
        packet.extend(who.mac.0);
        packet.resize(236, 0);
        packet.extend([99, 130, 83, 99, 53, 1, kind]);
        packet.extend(more_options);
        packet.push(255);
        packet.resize(300, 0);
        self.socket.send_to(&packet, (Ipv4Addr::BROADCAST, 67)).unwrap();
        number
    }

    /// The next answer, if one comes.
    fn answer(&self) -> Option<Answer> {
        let mut packet = [0; 1500];
        let length = self.socket.recv(&mut packet).ok()?;
        assert!(length > 242 && packet[240..242] == [53, 1], "the kind comes first");
        let number = u32::from_be_bytes(packet[4..8].try_into().unwrap());
        let ip = <[u8; 4]>::try_from(&packet[16..20]).unwrap();
        Some(Answer { number, kind: packet[242], ip: ip.into() })
    }

    /// Each of them asks, the witness last. The server answers in order, so that when the witness has its answer, the
    /// others have had theirs; without it nothing is known.
    fn answers(&mut self, asked: &[(&Reservation, u8, &[u8])], witness: &Reservation) -> Option<Vec<(u8, Ipv4Addr)>> {
        let first = self.next_number;
        for (who, kind, more_options) in asked {
            self.send(who, *kind, more_options);
        }
        let last = self.send(witness, DISCOVER, &[]);
        let mut heard = Vec::new();
        loop {
            match self.answer()? {
                // Too late for an earlier question.
                Answer { number, .. } if number < first => {}
                Answer { number, kind, ip } if number == last => {
                    assert_eq!((kind, ip), (OFFER, witness.ip), "the witness is served all the while");
                    return Some(heard);
                }
                Answer { kind, ip, .. } => heard.push((kind, ip)),
            }
        }
    }
}

fn reservation(last: u8) -> Reservation {
    let ip = Ipv4Addr::new(192, 168, 100, last);
    let (site, lab) = (SiteTag::new("t3st").unwrap(), LabName::new("lab").unwrap());
    Reservation::new(&site, &lab, &VmName::new(format!("vm{last}")).unwrap(), MacPrefix::default().mac(ip), ip)
}

/// A reservation that was removed is served no more, whether its address was in use or not, and to no other machine either.
#[test]
fn a_removed_reservation_is_served_no_more() {
    let world = World::new();
    let DhcpSettings::Dnsmasq { folder } = &world.network.dhcp else { panic!("the world's own is dnsmasq") };
    let dnsmasq = Dnsmasq::new(folder);
    let all = [2, 3, 4].map(reservation);
    let [in_use, unused, stays] = &all;
    let stranger = reservation(5);
    dnsmasq.reserve(&all).unwrap();
    let mut asker = Asker::on_bridge();
    let discoveries = [in_use, unused, &stranger].map(|who| (who, DISCOVER, [].as_slice()));
    // dnsmasq sees files and signals when it comes to them.
    wait_until("offers to who has a reservation, and to nobody else", || {
        asker.answers(&discoveries, stays) == Some(vec![(OFFER, in_use.ip), (OFFER, unused.ip)])
    });
    let server = [&[54, 4], GATEWAY.octets().as_slice()].concat();
    let wanted = [&[50, 4], in_use.ip.octets().as_slice()].concat();
    let accepts = [wanted.as_slice(), &server].concat();
    wait_until("a lease", || asker.answers(&[(in_use, REQUEST, &accepts)], stays) == Some(vec![(ACK, in_use.ip)]));
    let leases = || std::fs::read_to_string(folder.join("leases")).unwrap();
    assert!(leases().contains(&in_use.mac.to_string()), "{}", leases());

    dnsmasq.release(&[in_use.clone(), unused.clone()]).unwrap();
    assert_eq!(leases(), "", "the lease goes with its reservation");
    wait_until("offers to the last alone", || asker.answers(&discoveries, stays) == Some(Vec::new()));
    // Neither who had accepted it, nor who comes back from a reboot and believes in it still.
    for question in [accepts.as_slice(), &wanted] {
        let mut answers = None;
        wait_until("an answer to the last", || {
            answers = asker.answers(&[(in_use, REQUEST, question)], stays);
            answers.is_some()
        });
        assert!(!answers.iter().flatten().any(|(kind, _)| *kind == ACK), "{answers:?}");
    }

    // The address goes to the next vm, as a reservation and a lease of its own.
    let next = Reservation { vm: VmName::new("next").unwrap(), mark: "lw-t3st-lab-next".to_owned(), ..in_use.clone() };
    dnsmasq.reserve(std::slice::from_ref(&next)).unwrap();
    wait_until("a lease for the next", || {
        asker.answers(&[(&next, REQUEST, &accepts)], stays) == Some(vec![(ACK, next.ip)])
    });
    assert!(leases().contains(" next "), "{}", leases());
    assert!(!leases().contains(" vm2 "), "{}", leases());
}

/// What a guest has had, another gets at once: released by the controller, or found by it where somebody else left it.
#[test]
fn an_address_is_free_for_another_machine_at_once() {
    let mut world = World::new();
    let DhcpSettings::Dnsmasq { folder } = world.network.dhcp.clone() else { panic!("the world's own is dnsmasq") };
    let dnsmasq = Dnsmasq::new(&folder);
    let (first, stays) = (reservation(2), reservation(3));
    let other = Reservation { mac: "02:11:22:33:64:02".parse().unwrap(), ..first.clone() };
    dnsmasq.reserve(&[first.clone(), stays.clone()]).unwrap();
    let mut asker = Asker::on_bridge();
    let wanted = [&[50, 4], first.ip.octets().as_slice(), &[54, 4], GATEWAY.octets().as_slice()].concat();
    // A client that names itself, as most do.
    let named = [wanted.as_slice(), &[61, 3, 255, 1, 2]].concat();
    let mut takes = |who: &Reservation| {
        wait_until("a lease", || {
            asker.answers(&[(who, REQUEST, &named)], &stays).is_some_and(|answers| answers.contains(&(ACK, who.ip)))
        });
    };
    takes(&first);
    // The same vm with another hardware address; then another again, after a release while no dnsmasq ran.
    dnsmasq.reserve(std::slice::from_ref(&other)).unwrap();
    takes(&other);
    world.group.domain = Some("lab.example".to_owned());
    kill(dnsmasq.process().unwrap(), Signal::SIGKILL).unwrap();
    wait_until("no dnsmasq", || dnsmasq.process().is_none());
    dnsmasq.release(&[other]).unwrap();
    assert!(!std::fs::read_to_string(folder.join("leases")).unwrap().contains("192.168.100.2 "));
    dnsmasq.reserve(std::slice::from_ref(&first)).unwrap();
    setup::setup(&world.wanted()).unwrap();
    takes(&first);
}

/// A vm may have any name, also one that dnsmasq has a meaning of its own for.
#[test]
fn every_name_gets_its_address_and_is_leased_under_it() {
    let world = World::new();
    let DhcpSettings::Dnsmasq { folder } = &world.network.dhcp else { panic!("the world's own is dnsmasq") };
    let dnsmasq = Dnsmasq::new(folder);
    let names = ["ignore", "infinite", "7d", "10h", "42", "1w", "a.", "tag", "10.0.0.1", "net", "x_y", "localhost"];
    let named = |(name, last): (&str, u8)| {
        let (site, lab) = (SiteTag::new("t3st").unwrap(), LabName::new("lab").unwrap());
        let ip = Ipv4Addr::new(192, 168, 100, last);
        Reservation::new(&site, &lab, &VmName::new(name).unwrap(), MacPrefix::default().mac(ip), ip)
    };
    let all: Vec<Reservation> = names.into_iter().zip(2..).map(named).collect();
    let witness = reservation(99);
    dnsmasq.reserve(&[all.as_slice(), std::slice::from_ref(&witness)].concat()).unwrap();
    let mut asker = Asker::on_bridge();
    for who in &all {
        let wanted = [&[50, 4], who.ip.octets().as_slice(), &[54, 4], GATEWAY.octets().as_slice()].concat();
        wait_until(&format!("a lease for {}", who.vm), || {
            asker.answers(&[(who, REQUEST, &wanted)], &witness).is_some_and(|answers| answers.contains(&(ACK, who.ip)))
        });
    }
    let leases = std::fs::read_to_string(folder.join("leases")).unwrap();
    let unnamed: Vec<&str> =
        names.into_iter().filter(|name| !leases.contains(&format!(" {} ", name.replace(['.', '_'], "-")))).collect();
    assert_eq!(unnamed, [] as [&str; 0], "{leases}");
}
