//! All attacks of one sender on one victim.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::attacks::{Attack, Party, Who, attacks};
use crate::field::{Field, is_far, is_isolated, sender};
use crate::frames::hex;
use crate::sight::{Listener, Program, contains};
use crate::table::{Cell, Column};
use crate::world::tool;

/// The sender that is no guest: a machine on the wire that follows no rules, with an address of the lab.
pub(crate) const FOREIGN: usize = usize::MAX;
const FOREIGN_PARTY: Party = Party { mac: [0xde, 0xaf, 0xde, 0xaf, 0x64, 0x63], ip: [192, 168, 100, 99] };

/// How often each frame is sent: a busy machine loses some on their way, and one that arrives is enough to be seen.
const ROUNDS: &str = "4";
/// How long a frame that is to arrive may take, on a machine that boots guests beside.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long is waited for those that are not to arrive, after all others have.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Where a frame was seen.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Sight {
    victim: bool,
    bridge: bool,
    host: bool,
}

impl Sight {
    fn covers(self, other: Self) -> bool {
        (self.victim || !other.victim) && (self.bridge || !other.bridge) && (self.host || !other.host)
    }

    fn text(self) -> String {
        let letters = [(self.victim, 'V'), (self.bridge, 'B'), (self.host, 'G')];
        let seen: String = letters.into_iter().filter(|(seen, _)| *seen).map(|(_, letter)| letter).collect();
        if seen.is_empty() { "dropped".to_owned() } else { format!("passes {seen}") }
    }
}

/// Who sends to whom.
struct Pair<'a> {
    field: &'a Field,
    hosts: [[u8; 6]; 2],
    from: usize,
    to: usize,
}

/// Sends all, and looks for the marks in what was heard.
pub(crate) fn column(field: &Field, program: &Program, title: &str, from: usize, to: usize) -> Column {
    static NUMBER: AtomicU32 = AtomicU32::new(100);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let pair = Pair { field, hosts: field.hosts(), from, to };
    let me = if from == FOREIGN { FOREIGN_PARTY } else { field.party(from) };
    let attacks = attacks(me, field.party(to), pair.hosts);
    let marks: Vec<String> = (0..attacks.len()).map(|attack| format!("<{number:03}#{attack:02}>")).collect();
    let heard = Heard::start(&pair, program);
    let frames: Vec<String> =
        attacks.iter().zip(&marks).map(|(a, mark)| hex(&[a.frame.as_slice(), mark.as_bytes()].concat())).collect();
    send(field, from, &frames);

    let expected: Vec<Option<Sight>> = attacks.iter().map(|attack| pair.expected(attack)).collect();
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let found = heard.all(&marks);
        if found.iter().zip(&expected).all(|(found, expected)| found.covers(expected.unwrap_or_default())) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(AFTERMATH);
    let cells = heard.all(&marks).into_iter().zip(expected).zip(&attacks).map(|((found, expected), attack)| {
        match expected {
            // A machine without a filter is looked for at the victim alone: nothing else holds it back.
            Some(expected) if from == FOREIGN => {
                let found = Sight { victim: found.victim, ..Sight::default() };
                Cell::new(attack.name, found.text(), expected.text())
            }
            Some(expected) => Cell::new(attack.name, found.text(), expected.text()),
            None => Cell::new(attack.name, "-", "-"),
        }
    });
    Column { title: title.to_owned(), cells: cells.collect() }
}

/// Has `from` send frames.
pub(crate) fn send(field: &Field, from: usize, frames: &[String]) {
    if from == FOREIGN {
        let mut arguments = vec!["wire", ROUNDS, "3000"];
        arguments.extend(frames.iter().map(String::as_str));
        tool(&sender(field.near.folder.path()), &arguments);
        return;
    }
    let mut console = field.guests[from].console();
    for some in frames.chunks(12) {
        let (code, output) = console.run(&format!("send-frames eth0 {ROUNDS} 3000 {}", some.join(" ")));
        assert_eq!(code, 0, "{output}");
    }
}

impl Pair<'_> {
    /// Where the frame may be seen; `None`: the question makes no sense.
    fn expected(&self, attack: &Attack) -> Option<Sight> {
        let to_host = self.hosts.contains(&attack.to()) && !attack.routed;
        if self.from == FOREIGN {
            return (!to_host).then(Sight::default);
        }
        let allowed = match attack.who(self.field.filter) {
            Who::Nobody => false,
            Who::Plain => !is_isolated(self.from),
            Who::Anyone => true,
        };
        if !allowed {
            return Some(Sight::default());
        }
        let to_all = attack.to()[0] & 1 == 1;
        Some(Sight {
            victim: attack.heard && !is_isolated(self.to),
            bridge: to_all || attack.routed || !to_host || self.passes_the_victims_bridge(attack),
            host: to_all || self.hosts.contains(&attack.to()),
        })
    }

    /// A frame to a host passes the bridge of its sender and the host's own.
    fn passes_the_victims_bridge(&self, attack: &Attack) -> bool {
        let of_host = attack.to() == self.hosts[1];
        is_far(self.to) == is_far(self.from) || is_far(self.to) == of_host
    }
}

/// All places where an attack may show.
struct Heard<'a> {
    tap: Listener,
    bridges: [Listener; 2],
    hosts: [[u8; 6]; 2],
    victims_bridge: usize,
    program: &'a Program,
}

impl<'a> Heard<'a> {
    fn start(pair: &Pair<'_>, program: &'a Program) -> Self {
        let Field { near, far, guests, .. } = pair.field;
        let tap = guests[pair.to].spec.run.tap();
        let listen = |far_side: bool, interface: String| {
            let folder = near.folder.path().to_owned();
            if far_side {
                far.run(move |_| Listener::start(&folder, &interface, ""))
            } else {
                Listener::start(&folder, &interface, "")
            }
        };
        Self {
            tap: listen(is_far(pair.to), tap),
            bridges: [listen(false, "vbr0".to_owned()), listen(true, "vbr0".to_owned())],
            hosts: pair.hosts,
            victims_bridge: usize::from(is_far(pair.to)),
            program,
        }
    }

    fn all(&self, marks: &[String]) -> Vec<Sight> {
        let tap = self.tap.frames();
        let bridges = [self.bridges[0].frames(), self.bridges[1].frames()];
        let sight = |mark: &String| {
            let with_mark = |frame: &&Vec<u8>| contains(frame, mark.as_bytes());
            let to_host = |frames: &[Vec<u8>], host: [u8; 6]| {
                frames.iter().filter(with_mark).any(|frame| frame[..6] == host || frame[0] & 1 == 1)
            };
            Sight {
                victim: tap.iter().any(|frame| with_mark(&frame)),
                bridge: bridges[self.victims_bridge].iter().any(|frame| with_mark(&frame)),
                host: to_host(&bridges[0], self.hosts[0])
                    || to_host(&bridges[1], self.hosts[1])
                    || self.program.has_heard(mark.as_bytes()),
            }
        };
        marks.iter().map(sight).collect()
    }
}
