//! Exams by chance: clocks that are edited, backdated and paused, storage that goes away, servers whose clocks jump. Whatever
//! happens, nobody's time ends before it is over, and nobody works after it.

use super::tests::{Guest, seconds, spec};
use super::*;
use crate::run::{Clock, Part, Pause};

const GRACE: i64 = 60;
/// A clock jumps by as much, and changes are read a second later.
const BLUR: i64 = 3;

/// SplitMix64, seeded so that it can be replayed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        i64::try_from((z ^ (z >> 31)) % bound).unwrap()
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// For how many seconds each has been so beyond doubt, while storage could be read.
#[derive(Debug, Default)]
struct Sure {
    early: i64,
    open: i64,
    paused: i64,
    over: i64,
}

/// A session, as its keeper has it, and the host of one of its guests.
struct Exam {
    dice: Dice,
    start: i64,
    end: i64,
    pauses: Vec<(i64, Option<i64>)>,
    guest: Guest,
    moves: bool,
    /// Storage cannot be reached before this second.
    away_until: i64,
    /// When it could be reached again last.
    back: i64,
    /// The last record that was written.
    written: i64,
    sure: Sure,
    over_since: Option<i64>,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl Exam {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let start = dice.below(300);
        let end = start + 100 + dice.below(600);
        let guest = Guest {
            machine: Machine::new(&spec(), Control::new(3, Wanted::Running), seconds(0)),
            written: None,
            unanswered: None,
        };
        let (pauses, sure, over_since) = (Vec::new(), Sure::default(), None);
        let mut exam = Self {
            dice,
            start,
            end,
            pauses,
            guest,
            moves: false,
            away_until: 0,
            back: 0,
            written: 0,
            sure,
            over_since,
        };
        exam.guest.machine = Machine::new(&spec(), exam.control(), seconds(0));
        exam
    }

    fn control(&self) -> Control {
        let mut clock = Clock::default();
        clock.start = Some(Part::Known(at(self.start)));
        clock.end = Some(Part::Known(at(self.end)));
        clock.grace_seconds = Some(Part::Known(GRACE.unsigned_abs()));
        let pauses = self.pauses.iter().map(|(since, until)| Pause { since: at(*since), until: until.map(at) });
        clock.pauses = Some(Part::Known(pauses.collect()));
        let mut control = Control::new(3, Wanted::Running);
        control.clock = Some(Part::Known(clock));
        control
    }

    /// What people do, and what happens to them.
    fn happen(&mut self, now: i64) {
        if self.dice.one_in(150) {
            self.end += self.dice.below(200) - 60;
        }
        if self.dice.one_in(400) {
            self.start += self.dice.below(60) - 30;
        }
        if self.dice.one_in(150) {
            match self.pauses.last_mut() {
                Some((since, until @ None)) => *until = Some((now - self.dice.below(20)).max(*since)),
                _ => self.pauses.push((now - self.dice.below(60), None)),
            }
        }
        if self.dice.one_in(300) {
            self.away_until = now + self.dice.below(150);
        }
    }

    fn observe(&mut self, server: i64, is_read: bool) {
        let control = self.control();
        let clock = control.clock().unwrap();
        let over = control.end().is_some_and(|end| at(server - BLUR) >= end);
        let is_paused = |second: i64| clock.is_paused(at(second));
        let was_paused = (server - BLUR..=server + BLUR).all(is_paused);
        let nowhere_paused = !(server - BLUR..=server + BLUR).any(is_paused);
        let early = server + BLUR < self.start;
        let begun = self.start + BLUR <= server;
        let goes_on = control.end().is_none_or(|end| end > at(server + BLUR));
        let count = |counted: &mut i64, is_so: bool| *counted = if is_so && is_read { *counted + 1 } else { 0 };
        count(&mut self.sure.early, early);
        count(&mut self.sure.open, begun && goes_on && nowhere_paused);
        count(&mut self.sure.paused, was_paused && goes_on);
        count(&mut self.sure.over, over && begun);
        let may_be_over = control.end().is_some_and(|end| at(server + BLUR) >= end);
        self.over_since = if may_be_over { self.over_since.or(Some(server)) } else { None };
    }

    /// One second. Says what the guest's starter does.
    fn pass(&mut self, now: i64, server: i64) -> Vec<Act> {
        let is_read = now >= self.away_until;
        if is_read && self.back < self.away_until {
            self.back = now;
        }
        self.written = if is_read { now } else { self.written };
        self.observe(server, is_read);
        let time = seconds(now.unsigned_abs());
        let mut told = Vec::new();
        if is_read {
            told.push(Input::Control { control: Box::new(self.control()), looked: time });
        }
        told.extend((now == 1).then_some(Input::Slot));
        let mut acts = Vec::new();
        loop {
            let seen =
                Seen { told, written: seconds(self.written.unsigned_abs()), unanswered: None, server: at(server) };
            let reach = self.guest.machine.reach().clone();
            let next = self.guest.machine.step(seen, time);
            told = next.iter().filter_map(|act| self.carry_out(act)).collect();
            if *self.guest.machine.reach() != reach && !self.dice.one_in(20) {
                told.push(Input::Reaches(self.guest.machine.reach().clone()));
            }
            acts.extend(next);
            if told.is_empty() {
                return acts;
            }
        }
    }

    fn carry_out(&mut self, act: &Act) -> Option<Input> {
        match act {
            Act::Tell(Command::Cont) => {
                self.moves = true;
                Some(Input::Moves)
            }
            Act::Tell(Command::Stop) => {
                self.moves = false;
                Some(Input::Stands)
            }
            Act::TakeSlot => Some(Input::Slot),
            Act::ReportRunning => Some(Input::Address),
            _ => None,
        }
    }

    fn judge(&self, now: i64, server: i64, acts: &[Act]) -> Result<(), String> {
        let lets_look = self.guest.machine.lets_look(seconds(now.unsigned_abs()));
        let may_still_move_ends = self.back > 0 && now <= self.back + 120 + BLUR;
        let told = |wanted: &Event| acts.contains(&Act::Report(wanted.clone()));
        let fails = [
            (self.sure.early > BLUR && lets_look, "somebody looks before the start"),
            (self.sure.paused > BLUR && (lets_look || self.moves), "somebody works in a pause"),
            (self.sure.over > BLUR && lets_look && !may_still_move_ends, "somebody works after the end"),
            (self.sure.open > 10 && !lets_look, "somebody is locked out"),
            (self.sure.open > 10 && !self.moves, "a guest stands still"),
            (
                told(&Event::Locked { reason: crate::run::Lock::Over }) && self.over_since.is_none(),
                "locked before the end",
            ),
            (
                told(&Event::Locked { reason: crate::run::Lock::Over }) && now > self.written + BLUR,
                "locked while nobody could move the end",
            ),
            (
                told(&Event::Stopping { reason: StopReason::Deadline })
                    && self.over_since.is_none_or(|since| server < since + GRACE - 2 * BLUR),
                "stopped before its grace was over",
            ),
            (
                self.sure.over > GRACE + 2 * BLUR
                    && !may_still_move_ends
                    && now > self.back + 120 + GRACE + 2 * BLUR
                    && !told(&Event::Stopping { reason: StopReason::Deadline }),
                "it never stops",
            ),
        ];
        fails.into_iter().find(|(fails, _)| *fails).map_or(Ok(()), |(_, why)| Err(why.to_owned()))
    }
}

#[test]
fn nobody_ends_before_their_time_and_nobody_works_after_it() {
    let (mut ended, mut opened) = (0, 0);
    for seed in 0..60 {
        let mut exam = Exam::new(seed);
        for now in 0..2500 {
            exam.happen(now);
            let server = now + exam.dice.below(3) - 1;
            let acts = exam.pass(now, server);
            if let Err(why) = exam.judge(now, server, &acts) {
                let clock = exam.control().clock;
                panic!("seed {seed}, second {now}, server {server}: {why}; {clock:?}; {sure:?}", sure = exam.sure);
            }
            opened += acts.iter().filter(|act| **act == Act::Report(Event::Opened)).count();
            if acts.contains(&Act::Report(Event::Stopping { reason: StopReason::Deadline })) {
                ended += 1;
                break;
            }
        }
    }
    assert!(ended > 30 && opened > 40, "{ended} ended, {opened} times opened: these exams are none");
}
