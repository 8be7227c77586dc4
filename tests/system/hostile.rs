//! What a hostile guest can do, as a table. Every attack is a raw frame with a mark of its own, sent by a real guest (or
//! by a machine on the same wire that has no filter at all), and looked for where it must not be: on the tap of another
//! guest, and at the bridge, where the host itself and its gateway address listen.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use labwright::id::Mac;
use labwright::resolve::{Egress, Protocol};
use nix::sys::signal::Signal;

use crate::world::{Run, World, text, tool};

const GATEWAY: [u8; 4] = [192, 168, 100, 1];
const GATEWAY_MAC: [u8; 6] = [0x02, 0x6c, 192, 168, 100, 1];
const BROADCAST: [u8; 6] = [0xff; 6];
const NOBODY: [u8; 6] = [0x66; 6];

/// Who sends, and at whom the attack is aimed.
#[derive(Clone, Copy)]
struct Parties {
    me: ([u8; 6], [u8; 4]),
    victim: ([u8; 6], [u8; 4]),
}

/// A name for the table, and the frame without its mark.
type Attack = (&'static str, Vec<u8>);

#[test]
fn the_table_of_attacks() {
    let mut world = World::new();
    tool("sysctl", &["-qw", "net.ipv4.ip_forward=1"]);
    tool("ip", &["link", "add", "uplink", "type", "veth", "peer", "name", "wire"]);
    tool("ip", &["link", "set", "uplink", "master", "vbr0", "up"]);
    tool("ip", &["link", "set", "wire", "up"]);
    let specs: Vec<_> = [(10, false), (11, false), (12, true), (13, true)]
        .into_iter()
        .map(|(last, isolated)| {
            let mut spec = world.spec(last);
            spec.network.isolated = isolated;
            spec.network.egress =
                vec![Egress { net: "10.9.9.9/32".parse().unwrap(), port: 443, protocol: Protocol::Tcp }];
            spec
        })
        .collect();
    let runs: Vec<Run> = specs.into_iter().map(|spec| world.start(spec)).collect();
    runs.iter().for_each(Run::wait_ready);
    let [plain, plain_victim, isolated, isolated_victim] = &runs[..] else { unreachable!("four guests") };

    let columns = [
        ("plain guest to plain", by_guest(&world, plain, plain_victim)),
        ("isolated to plain", by_guest(&world, isolated, plain_victim)),
        ("isolated to isolated", by_guest(&world, isolated, isolated_victim)),
        ("foreign host to isolated", by_foreign_host(&world, isolated_victim)),
    ];
    insta::assert_snapshot!(table(&columns));

    // Two plain guests talk; nobody reaches an isolated one.
    let mut console = plain.console();
    assert_eq!(console.run("ping -c 1 -W 2 192.168.100.11").0, 0);
    assert_ne!(console.run("ping -c 1 -W 2 192.168.100.12").0, 0);
    assert_eq!(isolated.console().run("udpc() { udhcpc -i eth0 -f -q -n -t 5 -s /bin/true; }; udpc").0, 0, "renewal");
    egress(isolated);
    for mut run in runs {
        run.signal(Signal::SIGKILL);
        run.end();
    }
}

/// An isolated guest reaches its egress entries, both ways, and nothing else there.
fn egress(isolated: &Run) {
    tool("ip", &["addr", "add", "10.9.9.9/32", "dev", "lo"]);
    for port in [443, 444] {
        let listener = TcpListener::bind(("10.9.9.9", port)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::io::Write::write_all(&mut stream.unwrap(), b"welcome\n").unwrap();
            }
        });
    }
    let mut console = isolated.console();
    assert_eq!(console.run("nc -w 3 10.9.9.9 443"), (0, "welcome\n".to_owned()));
    assert_ne!(console.run("nc -w 3 10.9.9.9 444").0, 0);
}

/// How often each frame is sent: a busy machine loses some on their way, and one that arrives is enough to be seen.
const ROUNDS: &str = "4";

/// Where each attack was seen: at the victim's tap, at the bridge.
type Column = Vec<(&'static str, bool, bool)>;

fn by_guest(world: &World, from: &Run, to: &Run) -> Column {
    let attacks = attacks(Parties { me: identity(from), victim: identity(to) });
    let mut console = from.console();
    observe(world, to, &attacks, |frames| {
        for some in frames.chunks(12) {
            let (code, output) = console.run(&format!("send-frames eth0 {ROUNDS} 3000 {}", some.join(" ")));
            assert_eq!(code, 0, "{output}");
        }
    })
}

/// A machine that follows no rules, with an address of the lab.
fn by_foreign_host(world: &World, to: &Run) -> Column {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("labs/quickstart/guest/send-frames.c");
    let program = world.folder.path().join("send-frames");
    tool("cc", &["-o", &text(&program), &text(&source)]);
    let me = ([0xde, 0xaf, 0xde, 0xaf, 0x64, 0x63], [192, 168, 100, 99]);
    let attacks = attacks(Parties { me, victim: identity(to) });
    observe(world, to, &attacks, |frames| {
        let mut arguments = vec!["wire", ROUNDS, "3000"];
        arguments.extend(frames.iter().map(String::as_str));
        tool(&text(&program), &arguments);
    })
}

fn identity(run: &Run) -> ([u8; 6], [u8; 4]) {
    let Mac(mac) = run.spec.network.mac;
    (mac, run.spec.network.ip.octets())
}

/// Sends all, and looks for the marks in what was heard.
fn observe(world: &World, to: &Run, attacks: &[Attack], send: impl FnOnce(&[String])) -> Column {
    let mark = |number: usize| format!("<{}#{number:02}>", to.spec.run.number());
    let frames: Vec<String> = attacks
        .iter()
        .enumerate()
        .map(|(number, (_, frame))| hex(&[frame.as_slice(), mark(number).as_bytes()].concat()))
        .collect();
    let (tap, bridge) = (Listener::start(world, &to.spec.run.tap()), Listener::start(world, "vbr0"));
    send(&frames);
    std::thread::sleep(Duration::from_millis(500));
    let (tap, bridge) = (tap.heard(), bridge.heard());
    let seen = |heard: &[u8], number: usize| {
        let mark = mark(number);
        heard.windows(mark.len()).any(|bytes| bytes == mark.as_bytes())
    };
    attacks.iter().enumerate().map(|(n, (name, _))| (*name, seen(&tap, n), seen(&bridge, n))).collect()
}

fn table(columns: &[(&str, Column)]) -> String {
    let word = |seen: bool| if seen { "PASSES" } else { "." };
    let row = |name: &str, cells: &mut dyn Iterator<Item = String>| {
        let cells: String = cells.collect();
        format!("{name:<44}{cells}").trim_end().to_owned()
    };
    let mut rows = vec![
        row("", &mut columns.iter().map(|(name, _)| format!("{name:<26}"))),
        row("seen at", &mut columns.iter().map(|_| format!("{:<10}{:<16}", "victim", "gateway"))),
    ];
    for (number, (name, ..)) in columns[0].1.iter().enumerate() {
        let cell = |(_, column): &(&str, Column)| {
            let (_, tap, bridge) = column[number];
            format!("{:<10}{:<16}", word(tap), word(bridge))
        };
        rows.push(row(name, &mut columns.iter().map(cell)));
    }
    rows.join("\n")
}

/// Everything that is heard on an interface.
struct Listener {
    file: PathBuf,
    tcpdump: Child,
}

impl Listener {
    fn start(world: &World, interface: &str) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = world.folder.path().join(format!("heard-{number}.pcap"));
        let tcpdump = Command::new("tcpdump")
            .args(["-i", interface, "-U", "--immediate-mode", "-Z", "root", "-w", &text(&file)])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while !file.exists() {
            assert!(started.elapsed() < Duration::from_secs(10), "tcpdump does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { file, tcpdump }
    }

    fn heard(&self) -> Vec<u8> {
        std::fs::read(&self.file).unwrap()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.tcpdump.kill());
        drop(self.tcpdump.wait());
    }
}

/// The list. What is sent under the sender's own addresses shows what the filter lets an honest guest do.
fn attacks(Parties { me, victim }: Parties) -> Vec<Attack> {
    let (mac, ip) = me;
    let (victim_mac, victim_ip) = victim;
    let udp_to = |to: [u8; 4]| ipv4(ip, to, 17, 0, &udp(9999, 9999, b""));
    let to_victim = eth(victim_mac, mac, 0x0800, &udp_to(victim_ip));
    let ip6 = |next: u8, payload: &[u8]| {
        let length = u16::try_from(payload.len() + 8).unwrap().to_be_bytes();
        let source = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        [[0x60, 0, 0, 0, length[0], length[1], next, 255].as_slice(), &source, &group, payload].concat()
    };
    let all6 = [0x33, 0x33, 0, 0, 0, 1];
    let tagged = |tag: &[u8]| [&victim_mac, &mac, tag, &[0x08, 0x00], &udp_to(victim_ip)].concat();
    let options = ipv4_with(ip, victim_ip, 17, 0, &[0x94, 4, 0, 0], &udp(9999, 9999, b""));
    let tcp = |port: u16| {
        [&40000_u16.to_be_bytes()[..], &port.to_be_bytes(), &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]]
            .concat()
    };
    vec![
        ("unicast IPv4 to a guest", to_victim),
        ("another ethertype", eth(victim_mac, mac, 0x88b5, &[0; 20])),
        ("802.1Q tag", tagged(&[0x81, 0, 0, 5])),
        ("two tags", tagged(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6])),
        ("802.3 with LLC", eth(victim_mac, mac, 0x0020, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0])),
        ("IPv6 unicast", eth(victim_mac, mac, 0x86dd, &ip6(17, &udp(1, 1, b"")))),
        ("IPv6 router advertisement", eth(all6, mac, 0x86dd, &ip6(58, &[134, 0, 0, 0, 64, 0, 7, 8]))),
        ("IPv6 neighbour solicitation", eth(all6, mac, 0x86dd, &ip6(58, &[135, 0, 0, 0, 0, 0, 0, 0]))),
        ("IPv6 neighbour advertisement", eth(all6, mac, 0x86dd, &ip6(58, &[136, 0, 0, 0, 0, 0, 0, 0]))),
        ("DHCPv6", eth(all6, mac, 0x86dd, &ip6(17, &udp(546, 547, &[1, 0, 0, 1])))),
        ("ARP who-has another guest", eth(BROADCAST, mac, 0x0806, &arp(1, mac, ip, [0; 6], victim_ip))),
        ("ARP reply: the gateway is me", eth(victim_mac, mac, 0x0806, &arp(2, mac, GATEWAY, victim_mac, victim_ip))),
        ("ARP gratuitous: the victim is me", eth(BROADCAST, mac, 0x0806, &arp(1, mac, victim_ip, [0; 6], victim_ip))),
        ("ARP with a foreign sender address", eth(BROADCAST, mac, 0x0806, &arp(1, NOBODY, ip, [0; 6], GATEWAY))),
        ("ARP from a foreign address", eth(BROADCAST, NOBODY, 0x0806, &arp(1, NOBODY, ip, [0; 6], GATEWAY))),
        ("spoofed MAC to the gateway", eth(GATEWAY_MAC, NOBODY, 0x0800, &udp_to(GATEWAY))),
        ("bridge-table theft by broadcast", eth(BROADCAST, victim_mac, 0x0800, &udp_to([255; 4]))),
        ("bridge-table theft by unicast", eth(GATEWAY_MAC, victim_mac, 0x0800, &udp_to(GATEWAY))),
        ("spoofed IP to the gateway", eth(GATEWAY_MAC, mac, 0x0800, &ipv4(victim_ip, GATEWAY, 17, 0, &udp(9, 9, b"")))),
        ("source 0.0.0.0, not DHCP", eth(GATEWAY_MAC, mac, 0x0800, &ipv4([0; 4], GATEWAY, 17, 0, &udp(9, 9, b"")))),
        ("first fragment to a guest", eth(victim_mac, mac, 0x0800, &ipv4(ip, victim_ip, 17, 0x2000, &udp(9, 9, b"")))),
        ("later fragment to a guest", eth(victim_mac, mac, 0x0800, &ipv4(ip, victim_ip, 17, 0x0003, &[0; 16]))),
        ("later fragment to the gateway", eth(GATEWAY_MAC, mac, 0x0800, &ipv4(ip, GATEWAY, 17, 0x0003, &[0; 16]))),
        ("overlapping fragment to the gateway", eth(GATEWAY_MAC, mac, 0x0800, &ipv4(ip, GATEWAY, 6, 0x0001, &[0; 16]))),
        ("IP options to a guest", eth(victim_mac, mac, 0x0800, &options)),
        ("directed broadcast", eth(BROADCAST, mac, 0x0800, &udp_to([192, 168, 100, 255]))),
        ("limited broadcast", eth(BROADCAST, mac, 0x0800, &udp_to([255; 4]))),
        ("multicast", eth([1, 0, 0x5e, 0, 0, 0xfb], mac, 0x0800, &udp_to([224, 0, 0, 251]))),
        ("to the gateway's IP in a broadcast frame", eth(BROADCAST, mac, 0x0800, &udp_to(GATEWAY))),
        ("to the gateway's IP in a guest's frame", eth(victim_mac, mac, 0x0800, &udp_to(GATEWAY))),
        (
            "rogue DHCP offer",
            eth(BROADCAST, mac, 0x0800, &ipv4(ip, [255; 4], 17, 0, &udp(67, 68, &dhcp(2, victim_mac)))),
        ),
        ("DHCP with another's hardware address", discover(mac, victim_mac)),
        ("DHCP with an invented hardware address", discover(mac, NOBODY)),
        ("STP", eth([1, 0x80, 0xc2, 0, 0, 0], mac, 0x0026, &[0x42, 0x42, 3, 0, 0, 0, 0, 0])),
        ("LLDP", eth([1, 0x80, 0xc2, 0, 0, 0x0e], mac, 0x88cc, &[2, 7, 4, 0, 0, 0, 0, 0, 1])),
        ("detour through the gateway", eth(GATEWAY_MAC, mac, 0x0800, &udp_to(victim_ip))),
        ("the DHCP server's control port", eth(GATEWAY_MAC, mac, 0x0800, &ipv4(ip, GATEWAY, 6, 0, &tcp(7911)))),
        ("a vnc port of the host", eth(GATEWAY_MAC, mac, 0x0800, &ipv4(ip, GATEWAY, 6, 0, &tcp(5900)))),
        ("an address outside the lab", eth(GATEWAY_MAC, mac, 0x0800, &udp_to([10, 9, 9, 9]))),
        ("HONEST: DHCP for itself", discover(mac, mac)),
        ("HONEST: ARP for the gateway", eth(BROADCAST, mac, 0x0806, &arp(1, mac, ip, [0; 6], GATEWAY))),
        ("HONEST: IPv4 to the gateway", eth(GATEWAY_MAC, mac, 0x0800, &udp_to(GATEWAY))),
    ]
}

fn discover(mac: [u8; 6], hardware: [u8; 6]) -> Vec<u8> {
    eth(BROADCAST, mac, 0x0800, &ipv4([0; 4], [255; 4], 17, 0, &udp(68, 67, &dhcp(1, hardware))))
}

fn eth(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// The mark that follows is counted as payload, so that nothing cuts it off.
const MARK_BYTES: usize = 8;

fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    ipv4_with(from, to, protocol, fragment, &[], payload)
}

fn ipv4_with(from: [u8; 4], to: [u8; 4], protocol: u8, fragment: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
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

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len() + MARK_BYTES).unwrap();
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

fn arp(operation: u8, mac: [u8; 6], ip: [u8; 4], to_mac: [u8; 6], to_ip: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, operation][..], &mac, &ip, &to_mac, &to_ip].concat()
}

fn dhcp(operation: u8, hardware: [u8; 6]) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..8].copy_from_slice(&[operation, 1, 6, 0, 1, 2, 3, 4]);
    message[28..34].copy_from_slice(&hardware);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, operation, 255]);
    message
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
