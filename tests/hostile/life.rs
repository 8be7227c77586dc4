//! What is no single frame: the bridge's table, floods, and the talk of honest guests.

use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use labwright::model::id::Mac;
use labwright::model::site::Filter;
use labwright::run::{Control, Event, RequestKind};

use crate::attacks::{DNS, EGRESS, GATEWAY, Party};
use crate::column::{FOREIGN, send};
use crate::field::{
    BEHIND_ROUTER, FAR_ISOLATED, FAR_PLAIN, Field, ISOLATED, ISOLATED_VICTIM, PLAIN, PLAIN_VICTIM, SHARED, address,
    is_isolated,
};
use crate::frames::{BROADCAST, arp, dhcp, eth, hex, ipv4, udp};
use crate::sight::{Listener, contains};
use crate::table::{Cell, Column};
use crate::world::{Run, tool};

/// Who gets the frames of another is what the bridge has in its table. The attacker's port is made to learn, so that the
/// filter alone holds it: as a port of ours it would not learn at all.
pub(crate) fn thefts(field: &Field) -> Column {
    let tap = field.guests[ISOLATED].spec.run.tap();
    tool("bridge", &["link", "set", "dev", &tap, "learning", "on"]);
    let (near, far) = (field.party(ISOLATED_VICTIM), field.party(FAR_PLAIN));
    let of_near = field.guests[ISOLATED_VICTIM].spec.run.tap();
    let mut cells = Vec::new();
    for (whose, victim, port) in
        [("a guest's address", near, of_near.as_str()), ("a far guest's address", far, "uplink")]
    {
        for (how, to) in [("broadcast", BROADCAST), ("unicast to the gateway", field.hosts()[0])] {
            assert_eq!(port_of(field, victim), port, "before anything was tried");
            steal(field, ISOLATED, victim, to);
            let found = if port_of(field, victim) == port { "stays" } else { "moved" };
            cells.push(Cell::new(&format!("{whose} by {how}"), found, "stays"));
        }
    }
    tool("bridge", &["link", "set", "dev", &tap, "learning", "off"]);
    // Not even a machine without a filter moves the entry of a guest on this host.
    steal(field, FOREIGN, near, BROADCAST);
    let found = if port_of(field, near) == of_near { "stays" } else { "moved" };
    cells.push(Cell::new("a guest's address by a machine on the wire", found, "stays"));
    // Shows that a theft would be seen.
    steal(field, FOREIGN, far, BROADCAST);
    let found = if port_of(field, far) == "foreign" { "moved" } else { "stays" };
    cells.push(Cell::new("a far guest's address by that machine", found, "moved"));
    assert!(ping(&field.guests[FAR_PLAIN], GATEWAY), "who speaks has its entry back");
    assert_eq!(port_of(field, far), "uplink");
    Column { title: "isolated guest, on a port that learns".to_owned(), cells }
}

fn steal(field: &Field, from: usize, victim: Party, to: [u8; 6]) {
    let payload = ipv4(victim.ip, [255; 4], 17, 0, &udp(9, 9, b""));
    send(field, from, &[hex(&[eth(to, victim.mac, 0x0800, &payload), vec![0; 8]].concat())]);
    std::thread::sleep(Duration::from_millis(200));
}

/// The port behind which the near bridge looks for a guest. A far guest is heard of first.
fn port_of(field: &Field, guest: Party) -> String {
    let find = || {
        let listing = tool("bridge", &["fdb", "show", "br", "vbr0"]);
        let mine = listing.lines().find(|line| line.starts_with(&Mac(guest.mac).to_string())).map(str::to_owned);
        mine.and_then(|line| line.split(' ').nth(2).map(str::to_owned))
    };
    find().unwrap_or_else(|| {
        ping(&field.guests[FAR_PLAIN], GATEWAY);
        find().expect("who has just spoken is in the table")
    })
}

fn ping(from: &Run, to: [u8; 4]) -> bool {
    from.console().run(&format!("ping -c 3 -W 5 {} >/dev/null", address(to))).0 == 0
}

/// A guest that sends as fast as it can, while others live on.
pub(crate) fn floods(field: &Field) -> Vec<Column> {
    let [gateway, _] = field.hosts();
    let me = field.party(PLAIN);
    let to_gateway = eth(gateway, me.mac, 0x0800, &ipv4(me.ip, GATEWAY, 17, 0, &udp(9, 9, &[0; 1000])));
    let to_all = eth(BROADCAST, me.mac, 0x0800, &ipv4(me.ip, [255; 4], 17, 0, &udp(9, 9, &[0; 1000])));
    let mut cells = Vec::new();
    for (name, frame) in [("IPv4 to the gateway", to_gateway), ("IPv4 to all", to_all)] {
        let frame = hex(&[frame, vec![0; 8]].concat());
        field.guests[PLAIN].console().run(&format!("send-frames eth0 0 0 {frame} >/dev/null 2>&1 &"));
        let answers = |answers: bool| if answers { "answers" } else { "silent" };
        cells.push(Cell::new(
            &format!("{name}: another guest's ping"),
            answers(ping(&field.guests[ISOLATED], GATEWAY)),
            "answers",
        ));
        for (whose, guest) in [("another's", ISOLATED), ("the flooder's", PLAIN)] {
            cells.push(Cell::new(
                &format!("{name}: {whose} monitor"),
                answers(screen(&field.guests[guest])),
                "answers",
            ));
        }
        assert_eq!(field.guests[PLAIN].console().run("killall send-frames").0, 0, "it has sent all the while");
    }
    let arp = eth(BROADCAST, me.mac, 0x0806, &arp(1, me.mac, me.ip, [0; 6], GATEWAY));
    cells.push(Cell::new("ARP: what arrives", limited(field, 200, &[arp]), "limited"));
    let hardware = |last: u8| [0x66, 0x66, 0x66, 0x66, 0x66, last];
    let ask =
        |last| eth(BROADCAST, me.mac, 0x0800, &ipv4([0; 4], [255; 4], 17, 0, &udp(68, 67, &dhcp(1, hardware(last)))));
    let starve: Vec<Vec<u8>> = (0..6).map(ask).collect();
    let expected = if field.filter == Filter::Ebtables { "limited" } else { "dropped" };
    cells.push(Cell::new("DHCP under invented hardware addresses", limited(field, 20, &starve), expected));
    vec![Column { title: "plain guest".to_owned(), cells }]
}

/// Sends frames many times, and says whether more of them arrive than the rate allows.
fn limited(field: &Field, per_second: usize, frames: &[Vec<u8>]) -> &'static str {
    const MARK: &[u8] = b"<flood!>";
    let sent = 3000 / frames.len() * frames.len();
    let heard = Listener::start(field.near.folder.path(), "vbr0", "");
    let marked: Vec<String> = frames.iter().map(|frame| hex(&[frame, MARK].concat())).collect();
    let started = Instant::now();
    let mut console = field.guests[PLAIN].console();
    let (code, output) = console.run(&format!("send-frames eth0 {} 0 {}", 3000 / frames.len(), marked.join(" ")));
    assert_eq!((code, output), (0, format!("sent {sent}\n")));
    std::thread::sleep(Duration::from_millis(500));
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    match heard.frames().iter().filter(|frame| contains(frame, MARK)).count() {
        0 => "dropped",
        arrived if arrived <= per_second * (seconds + 1) && arrived < sent => "limited",
        _ => "passes",
    }
}

/// A picture of the screen goes through qemu's monitor.
fn screen(run: &Run) -> bool {
    let before = answers(run);
    Control::change(&run.folder, |control| control.ask(RequestKind::Screen, before)).unwrap().unwrap();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(60) {
        if answers(run) > before {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

fn answers(run: &Run) -> u64 {
    let number = |event| match event {
        Event::Answer { number, .. } => Some(number),
        _ => None,
    };
    run.events().into_iter().filter_map(number).max().unwrap_or(0)
}

/// Programs of guests, as they are used every day.
pub(crate) fn talks(field: &Field) -> Vec<Column> {
    serve_beyond();
    let [near, far] = [PLAIN_VICTIM, FAR_PLAIN].map(|guest| address(field.party(guest).ip));
    let [isolated, far_isolated] = [ISOLATED_VICTIM, FAR_ISOLATED].map(|guest| address(field.party(guest).ip));
    let ping = |to: &str| format!("ping -c 2 -W 3 {to} >/dev/null");
    let (egress, dns) = (address(EGRESS), address(DNS));
    // What, how, and whether an isolated guest may; a plain one may all but the last two.
    let rows = [
        ("renew its address", "r() { udhcpc -i eth0 -f -q -n -t 5 -s /bin/true; }; r".to_owned(), [true, true]),
        ("ping the gateway", ping("$gateway"), [true, true]),
        ("a port of the gateway", "[ \"$(nc -w 3 $gateway 443)\" = welcome ]".to_owned(), [true, false]),
        ("get an answer of DNS", format!("nslookup example.org {dns} | grep -q 1.2.3.4"), [true, true]),
        ("an egress entry", format!("[ \"$(nc -w 5 {egress} 443)\" = welcome ]"), [true, true]),
        ("another port of that machine", format!("[ \"$(nc -w 3 {egress} 444)\" = welcome ]"), [true, false]),
        ("ping a plain guest", ping(&near), [true, false]),
        ("ping a far plain guest", ping(&far), [true, false]),
        ("ping an isolated guest", ping(&isolated), [false, false]),
        ("ping a far isolated guest", ping(&far_isolated), [false, false]),
    ];
    let who = [
        ("plain", PLAIN, GATEWAY),
        ("isolated", ISOLATED, GATEWAY),
        ("far plain", FAR_PLAIN, GATEWAY),
        ("far isolated", FAR_ISOLATED, GATEWAY),
        ("isolated behind routers", BEHIND_ROUTER, SHARED.ip),
    ];
    let word = |passes: bool| if passes { "passes" } else { "dropped" };
    let column = |(title, guest, gateway): (&str, usize, [u8; 4])| {
        let kind = usize::from(is_isolated(guest));
        let mut console = field.guests[guest].console();
        let gateway = address(gateway);
        let (code, output) = console.run(&format!("ip route replace default via {gateway}"));
        assert_eq!(code, 0, "{output}");
        let cells = rows
            .iter()
            // A guest reaches itself without a wire.
            .map(|(name, command, may)| match guest {
                FAR_PLAIN if command.contains(&far) => Cell::new(name, "-", "-"),
                FAR_ISOLATED if command.contains(&far_isolated) => Cell::new(name, "-", "-"),
                _ => {
                    let command = command.replace("$gateway", &gateway);
                    Cell::new(name, word(console.run(&command).0 == 0), word(may[kind]))
                }
            })
            .collect();
        Column { title: title.to_owned(), cells }
    };
    who.map(column).into()
}

/// A machine beyond the gateway with two ports, and a name server.
pub(crate) fn serve_beyond() {
    for port in [443, 444] {
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                stream.unwrap().write_all(b"welcome\n").unwrap();
            }
        });
    }
    let socket = UdpSocket::bind((address(DNS), 53)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&answer(&buffer[..length]), from).unwrap();
        }
    });
}

/// The address 1.2.3.4 for every name.
fn answer(question: &[u8]) -> Vec<u8> {
    let is_address = question.ends_with(&[0, 1, 0, 1]);
    let head = [question[0], question[1], 0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0];
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4];
    let record: &[u8] = if is_address { &record } else { &[] };
    [&head, &question[12..], record].concat()
}
