//! The guest's time as tables: what the clock says when, and what comes of it. A guest is read its control file each second.

use serde_json::{Value, json};

use super::tests::{Guest, seconds, spec};
use super::*;
use crate::model::lab::Egress;
use crate::run::{Allowed, AtEnd, Clock, Part, Pause};

/// What is said, each with its second.
type Heard = Vec<(u64, &'static str)>;

/// Seconds of the storage server's clock, which is the test's.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn with(change: impl FnOnce(&mut Clock)) -> Control {
    let mut control = Control::new(3, Wanted::Running);
    let mut clock = Clock::default();
    change(&mut clock);
    control.clock = Some(Part::Known(clock));
    control
}

/// From 100 to 1000, with a grace of 60 s.
fn exam_with(change: impl FnOnce(&mut Clock)) -> Control {
    with(|clock| {
        clock.start = Some(Part::Known(at(100)));
        clock.end = Some(Part::Known(at(1000)));
        clock.grace_seconds = Some(Part::Known(60));
        change(clock);
    })
}

fn pauses(of: &[(i64, Option<i64>)]) -> Option<Part<Vec<Pause>>> {
    let pauses = of.iter().map(|(since, until)| Pause { since: at(*since), until: until.map(at) });
    Some(Part::Known(pauses.collect()))
}

/// What is not the guest's time is left out.
impl Guest {
    fn in_exam(control: &Control) -> Self {
        let machine = Machine::new(&spec(), control.clone(), seconds(0));
        Self { machine, written: None, unanswered: None }
    }

    /// Ready at 2, with this control.
    fn ready_in(control: &Control) -> (Self, Vec<String>) {
        let mut guest = Self::in_exam(control);
        let mut said = guest.reads(0, control.clone());
        said.extend(guest.at(1, [Input::Slot]));
        said.extend(guest.at(2, [Input::Moves, Input::Address]));
        said.retain(|words| {
            !["take slot", "give slot back", "report running", "report ready", "cont"].contains(&&**words)
        });
        (guest, said)
    }

    /// Everything said from one second to another, each with its second.
    fn through(&mut self, from: u64, to: u64, control: &Control) -> Vec<(u64, String)> {
        let mut said = Vec::new();
        for second in from..=to {
            let reach = self.machine.reach().clone();
            said.extend(self.reads(second, control.clone()).into_iter().map(|words| (second, words)));
            if *self.machine.reach() != reach {
                let stands = Input::Reaches(self.machine.reach().clone());
                said.extend(self.at(second, [stands]).into_iter().map(|words| (second, words)));
            }
        }
        said
    }

    fn is_open(&self, second: u64) -> bool {
        self.machine.lets_look(seconds(second))
    }
}

fn said(of: &[(u64, &str)]) -> Vec<(u64, String)> {
    of.iter().map(|(second, words)| (*second, (*words).to_owned())).collect()
}

#[test]
fn an_exam_from_its_start_to_its_end() {
    let control = exam_with(|clock| clock.warn_before_seconds = Some(Part::Known(vec![600, 120])));
    let (mut guest, early) = Guest::ready_in(&control);
    assert_eq!(early, ["report locked early"], "it boots ahead");
    assert_eq!(guest.machine.reach(), &Reach::Nobody);
    assert!(!guest.is_open(50));
    assert_eq!(guest.through(3, 101, &control), said(&[(100, "report opened")]));
    assert_eq!(guest.machine.reach(), &Reach::AsPlanned);
    assert!(guest.is_open(101));
    assert_eq!(guest.through(102, 999, &control), said(&[(400, "warn 600"), (880, "warn 120")]));
    assert!(guest.is_open(999));
    assert_eq!(guest.through(1000, 1059, &control), said(&[(1000, "report locked over")]), "it writes what was saved");
    assert_eq!((guest.is_open(1059), guest.machine.reach()), (false, &Reach::Nobody));
    assert_eq!(guest.through(1060, 1060, &control), said(&[(1060, "report stopping deadline"), (1060, "powerbutton")]));
}

/// (what the clock is, from when it is read, what is said until 1100)
#[test]
fn ends_that_are_moved() {
    let moved = |end: i64| exam_with(|clock| clock.end = Some(Part::Known(at(end))));
    let kept = exam_with(|clock| clock.at_end = Some(Part::Known(AtEnd::Keep)));
    let without_grace = exam_with(|clock| clock.grace_seconds = None);
    let stops = |second| [(second, "report stopping deadline"), (second, "powerbutton")];
    let table: [(&str, Control, u64, Heard); 6] = [
        ("to earlier than now", moved(500), 700, [vec![(700, "report locked over")], stops(760).into()].concat()),
        ("to later", moved(1050), 999, vec![(1050, "report locked over")]),
        (
            "to later within its grace",
            moved(1080),
            1030,
            vec![(1000, "report locked over"), (1030, "report opened"), (1080, "report locked over")],
        ),
        (
            "to another time that is over",
            moved(1010),
            1030,
            [vec![(1000, "report locked over")], stops(1060).into()].concat(),
        ),
        ("kept", kept, 900, vec![(1000, "report locked over")]),
        ("without grace", without_grace, 900, stops(1000).into()),
    ];
    for (case, later, from, expected) in table {
        let first = exam_with(|_| ());
        let (mut guest, _) = Guest::ready_in(&first);
        assert_eq!(guest.through(3, 150, &first), said(&[(100, "report opened")]), "{case}");
        let mut heard = guest.through(151, from - 1, &first);
        heard.extend(guest.through(from, 1100, &later));
        // The power button is pressed again and again.
        let is_first = |at: usize| heard[..at].iter().all(|(_, words)| words != "powerbutton");
        let heard: Vec<_> = (0..heard.len()).filter(|at| is_first(*at)).map(|at| heard[at].clone()).collect();
        assert_eq!(heard, said(&expected), "{case}");
    }
}

#[test]
fn a_start_in_the_past_opens_at_once_and_one_that_is_moved_shuts_again() {
    let past = exam_with(|clock| clock.start = Some(Part::Known(at(-50))));
    let mut guest = Guest::in_exam(&past);
    assert_eq!(guest.reads(0, past.clone()), ["take slot"], "its filter does not stand yet");
    assert!(!guest.is_open(0));
    assert_eq!(guest.at(0, [Input::Reaches(Reach::AsPlanned)]), ["report opened", "take slot"]);
    assert!(guest.is_open(0));
    let later = exam_with(|_| ());
    assert_eq!(guest.reads(1, later), ["report locked early", "take slot"]);
    assert!(!guest.is_open(1));
}

/// A filter that does not come must not take the exam away.
#[test]
fn a_screen_does_not_wait_for_a_filter_for_ever() {
    let control = exam_with(|_| ());
    let (mut guest, _) = Guest::ready_in(&control);
    for second in 3..105 {
        assert_eq!(guest.reads(second, control.clone()), [""; 0], "{second}");
    }
    assert_eq!(guest.reads(105, control), ["report opened"]);
}

#[test]
fn a_clock_that_steps_back_a_little_undoes_nothing() {
    let control = exam_with(|_| ());
    let (mut guest, _) = Guest::ready_in(&control);
    guest.through(3, 999, &control);
    let mut step = |second: u64, server: i64| {
        let seen = Seen {
            told: vec![Input::Control { control: Box::new(control.clone()), looked: seconds(second) }],
            written: seconds(second),
            unanswered: None,
            server: at(server),
        };
        let acts = guest.machine.step(seen, seconds(second));
        acts.iter().filter(|act| **act != Act::Ping).map(super::tests::words).collect::<Vec<_>>()
    };
    assert_eq!(step(1000, 1000), ["report locked over"]);
    assert_eq!(step(1001, 998), [""; 0]);
    // It was set to what it should have been all the while.
    assert_eq!(step(1002, 400), [""; 0], "the filter opens first");
    assert_eq!(step(1008, 406), ["report opened"]);
}

#[test]
fn a_pause_holds_guest_clock_and_screen() {
    let open = exam_with(|clock| clock.pauses = pauses(&[(500, None)]));
    let over = exam_with(|clock| clock.pauses = pauses(&[(500, Some(600))]));
    let (mut guest, _) = Guest::ready_in(&exam_with(|_| ()));
    guest.through(3, 499, &exam_with(|_| ()));
    assert_eq!(guest.through(500, 599, &open), said(&[(500, "stop"), (500, "report paused its session is paused")]));
    assert!(!guest.is_open(599));
    assert_eq!(guest.through(600, 600, &over), said(&[(600, "cont"), (600, "report resumed")]));
    assert!(guest.is_open(600));
    assert_eq!(guest.through(601, 1100, &over), said(&[(1100, "report locked over")]), "later by the pause");
}

/// (pauses, from when they are read, what is said until 1200)
#[test]
fn pauses_that_are_backdated_and_across_the_end() {
    let paused = "report paused its session is paused";
    type Pauses = &'static [(i64, Option<i64>)];
    let table: [(&str, Pauses, u64, Heard); 4] = [
        ("backdated", &[(400, None)], 500, vec![(500, "stop"), (500, paused)]),
        ("backdated and over", &[(400, Some(500))], 600, vec![(1100, "report locked over")]),
        ("across the end", &[(990, None)], 990, vec![(990, "stop"), (990, paused)]),
        (
            "backdated to before the end, in its grace",
            &[(990, None)],
            1030,
            vec![(1000, "report locked over"), (1030, "stop"), (1030, paused)],
        ),
    ];
    for (case, of, from, expected) in table {
        let (mut guest, _) = Guest::ready_in(&exam_with(|_| ()));
        guest.through(3, 150, &exam_with(|_| ()));
        let mut heard = guest.through(151, from - 1, &exam_with(|_| ()));
        heard.extend(guest.through(from, 1155, &exam_with(|clock| clock.pauses = pauses(of))));
        heard.retain(|(_, words)| words != "report opened");
        assert_eq!(heard, said(&expected), "{case}");
        assert!(!guest.is_open(1155), "{case}");
    }
}

#[test]
fn who_is_suspended_in_a_pause_stays_so_and_nobody_resumes_the_paused() {
    let asks = |kinds: &[&str], pauses_of: &[(i64, Option<i64>)]| {
        let mut control = exam_with(|clock| clock.pauses = pauses(pauses_of));
        for kind in kinds {
            control.ask(serde_json::from_value(json!(kind)).unwrap(), 0);
        }
        control
    };
    let (mut guest, _) = Guest::ready_in(&exam_with(|_| ()));
    guest.through(3, 499, &exam_with(|_| ()));
    guest.through(500, 500, &asks(&[], &[(500, None)]));
    let refused = "answer 1: Err(\"its session is paused; it goes on when the session does\")";
    assert_eq!(guest.reads(501, asks(&["resume"], &[(500, None)])), [refused]);
    assert_eq!(guest.reads(502, asks(&["resume", "suspend"], &[(500, None)])), ["stop"]);
    assert_eq!(guest.at(503, [Input::Answered(Command::Stop, Ok(()))]), ["answer 2: Ok(None)"]);
    let over = asks(&["resume", "suspend"], &[(500, Some(600))]);
    assert_eq!(guest.reads(600, over), ["report paused it was asked to"], "the session goes on, and it stays");
}

#[test]
fn no_guest_begins_in_a_pause() {
    let control = exam_with(|clock| clock.pauses = pauses(&[(0, None)]));
    let mut guest = Guest::in_exam(&control);
    assert_eq!(guest.reads(1, control.clone()), ["report locked early"]);
    assert_eq!(guest.at(2, [Input::Slot]), ["give slot back"]);
    let over = exam_with(|clock| clock.pauses = pauses(&[(0, Some(3))]));
    assert_eq!(guest.reads(3, over), ["take slot"]);
}

/// Storage is away from 950 to 1050: the end fell into that.
#[test]
fn an_end_in_an_outage_waits_for_who_would_move_it() {
    let control = exam_with(|_| ());
    let outage = || {
        let (mut guest, _) = Guest::ready_in(&control);
        guest.through(3, 950, &control);
        for second in 951..1050 {
            guest.written = Some(1000.max(second - 10));
            assert_eq!(guest.at(second, []), [""; 0], "{second}");
        }
        guest.written = None;
        guest
    };
    let mut guest = outage();
    assert_eq!(guest.through(1050, 1170, &control), said(&[(1170, "report locked over")]));
    // What was typed meanwhile holds.
    let later = exam_with(|clock| clock.end = Some(Part::Known(at(1500))));
    let mut guest = outage();
    assert_eq!(guest.through(1050, 1060, &control), said(&[]));
    assert_eq!(guest.through(1061, 1499, &later), said(&[]));
    assert_eq!(guest.through(1500, 1500, &later), said(&[(1500, "report locked over")]));
    // An end that somebody sets now did not fall into it.
    let now = exam_with(|clock| clock.end = Some(Part::Known(at(1060))));
    let mut guest = outage();
    assert_eq!(guest.through(1050, 1059, &control), said(&[]));
    assert_eq!(guest.through(1060, 1060, &now), said(&[(1060, "report locked over")]));
}

/// Nor is a guest stopped for good while nobody can be read.
#[test]
fn a_grace_that_ends_in_an_outage_does_not_stop() {
    let control = exam_with(|_| ());
    let (mut guest, _) = Guest::ready_in(&control);
    guest.through(3, 1040, &control);
    for second in 1041..1090 {
        assert_eq!(guest.at(second, []), [""; 0], "{second}");
    }
    let later = exam_with(|clock| clock.end = Some(Part::Known(at(1500))));
    assert_eq!(guest.through(1090, 1200, &later), said(&[(1090, "report opened")]));
}

/// (when the controller last said that it is there, what is said until 2900)
#[test]
fn an_end_that_nobody_could_move_locks_for_longer() {
    let control = exam_with(|clock| clock.offline_grace_seconds = Some(Part::Known(1800)));
    let table: [(Option<i64>, u64); 3] = [(Some(930), 2800), (Some(940), 1060), (None, 1060)];
    for (beat, stops) in table {
        let (mut guest, _) = Guest::ready_in(&control);
        guest.at(3, [Input::Beat(beat.map(at))]);
        guest.through(4, 999, &control);
        let mut heard = guest.through(1000, stops, &control);
        heard.truncate(2);
        assert_eq!(heard, said(&[(1000, "report locked over"), (stops, "report stopping deadline")]), "{beat:?}");
    }
}

#[test]
fn a_warning_is_given_once_for_each_end() {
    let ends = |end: i64| {
        exam_with(|clock| {
            clock.end = Some(Part::Known(at(end)));
            clock.warn_before_seconds = Some(Part::Known(vec![600, 120]));
        })
    };
    let (mut guest, _) = Guest::ready_in(&ends(1000));
    guest.through(3, 900, &ends(1000));
    // Moved to where both are due again, and to where only the first is.
    assert_eq!(guest.through(901, 1000, &ends(1010)), said(&[(901, "warn 109")]));
    assert_eq!(guest.through(1001, 1500, &ends(1500))[..2], said(&[(1001, "warn 499"), (1380, "warn 120")]));
    assert_eq!(guest.at(1500, [Input::Warned(600, None)]), ["report warned"]);
}

#[test]
fn a_console_is_shut_and_opened_by_its_own_word() {
    let console = |console: &str| -> Control {
        serde_json::from_value(json!({ "version": 2, "generation": 3, "wanted": "running", "console": console }))
            .unwrap()
    };
    let mut guest = Guest::ready();
    assert!(guest.is_open(2));
    assert_eq!(guest.reads(3, console("shut")), ["report locked asked"]);
    assert_eq!((guest.is_open(3), guest.machine.reach()), (false, &Reach::AsPlanned), "its egress is another matter");
    assert_eq!(guest.reads(4, console("open")), ["report opened"]);
    assert!(guest.is_open(4));
}

#[test]
fn egress_is_what_was_written_last() {
    let egress = |list: Value| -> Control {
        serde_json::from_value(json!({ "version": 2, "generation": 3, "wanted": "running", "egress": list })).unwrap()
    };
    let one = json!([{ "net": "10.0.0.5/32", "port": 443, "protocol": "tcp" }]);
    let mut guest = Guest::ready();
    guest.reads(3, egress(one.clone()));
    assert!(matches!(guest.machine.reach(), Reach::Named(named) if named.len() == 1));
    assert!(!guest.is_open(3), "whoever opens a screen finds what it may reach");
    guest.at(3, [Input::Reaches(guest.machine.reach().clone())]);
    assert!(guest.is_open(3));
    guest.reads(4, egress(json!([])));
    assert_eq!(guest.machine.reach(), &Reach::Named(Vec::new()));
    guest.reads(5, Control::new(3, Wanted::Running));
    assert_eq!(guest.machine.reach(), &Reach::AsPlanned);
}

/// For a time, by the clock alone; the end moves with pauses, and no more time than that is given.
#[test]
fn egress_for_a_time_opens_and_shuts_by_the_clock() {
    let named = |port: u16| {
        let list = json!([{ "net": "10.0.0.5/32", "port": port, "protocol": "tcp" }]);
        serde_json::from_value::<Vec<Egress>>(list).unwrap()
    };
    let allowed = |until: Option<i64>| Allowed { from: at(100), until: until.map(at), to: named(443) };
    type Paused<'a> = &'a [(i64, Option<i64>)];
    // (until, pauses, when it opens and shuts)
    let table: [(Option<i64>, Paused<'_>, &[i64]); 4] = [
        (Some(200), &[], &[100, 200]),
        (None, &[], &[100]),
        (Some(200), &[(120, Some(130))], &[100, 210]),
        (Some(200), &[(250, None)], &[100, 200]),
    ];
    for (until, paused, expected) in table {
        let control = with(|clock| {
            clock.pauses = pauses(paused);
            clock.egress = Some(Part::Known(allowed(until)));
        });
        let mut guest = Guest::ready_in(&control).0;
        let (mut changes, mut open) = (Vec::new(), false);
        for second in 3..300 {
            guest.reads(u64::try_from(second).unwrap(), control.clone());
            let is_open = guest.machine.reach() == &Reach::Named(named(443));
            assert!(is_open || guest.machine.reach() == &Reach::AsPlanned);
            if std::mem::replace(&mut open, is_open) != is_open {
                changes.push(second);
            }
        }
        assert_eq!(changes, expected, "{control:?}");
    }
    // What is locked reaches nobody, whatever is allowed.
    let control = exam_with(|clock| clock.egress = Some(Part::Known(Allowed { from: at(0), ..allowed(None) })));
    let mut guest = Guest::ready_in(&control).0;
    assert_eq!(guest.machine.reach(), &Reach::Nobody);
    guest.reads(100, control.clone());
    assert_eq!(guest.machine.reach(), &Reach::Named(named(443)));
    guest.through(101, 1001, &control);
    assert_eq!(guest.machine.reach(), &Reach::Nobody);
}

#[test]
fn who_looks_is_told_and_not_without_end() {
    let viewers = |list: &[&str]| Input::Viewers(list.iter().map(|peer| (*peer).to_owned()).collect());
    let mut guest = Guest::ready();
    assert_eq!(guest.at(20, [viewers(&["10.0.0.9:4"])]), ["report looked_at 1 10.0.0.9:4"]);
    assert_eq!(guest.at(21, [viewers(&[])]), [""; 0]);
    assert_eq!(guest.at(22, [viewers(&["10.0.0.8:5"])]), [""; 0]);
    assert_eq!(guest.at(23, [viewers(&[])]), [""; 0]);
    assert_eq!(guest.at(30, []), ["report looked_at 0 10.0.0.8:5"]);
    assert_eq!(guest.at(60, []), [""; 0]);
}
