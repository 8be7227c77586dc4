//! The guest's time: when it is its owner's, when it is locked, when it stands still, when it ends. All of it is kept by
//! the times in `control.json` and the storage server's clock, with no controller awake.
//!
//! ```text
//! early ─(start)─▶ open ─(end, and all pauses that are over)─▶ over ─(grace)─▶ stopping
//!                   ▲                                            │
//!                   └────────────(a later end, a pause)──────────┘
//! ```
//!
//! Early and over, console and egress are shut, and the guest runs: it boots ahead, and writes what was saved. What a guest
//! may reach for a time alone, it reaches from one moment to another one of the same clock. Nobody is
//! cut off by what may have been changed by now: an end counts only once `control.json` was read after it came, and one
//! that came while storage was away not before somebody had the time to move it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Act, Command, Machine, Seen};
use crate::model::lab::Egress;
use crate::run::{Allowed, AtEnd, Clock, Console, Control, Event, Lock, Part, StopReason};

/// Two looks at `control.json` are a second apart; where they are more than this, storage was away in between.
const OUTAGE: Duration = Duration::from_secs(10);
/// How long people have after an outage to move an end that fell into it.
const AFTER_OUTAGE: Duration = Duration::from_secs(120);
/// A controller that has been silent for longer than this could not move an end.
const BEAT_MAX: SignedDuration = SignedDuration::from_secs(60);
/// A clock that steps back by less undoes nothing.
const STEP: SignedDuration = SignedDuration::from_secs(5);
/// A screen waits no longer than this for a filter that is slow to open.
const FILTER_WAIT: Duration = Duration::from_secs(5);

/// Whom an isolated guest may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Nobody; no guest does that is locked, isolated or not.
    Nobody,
    /// What its spec says.
    AsPlanned,
    Named(Vec<Egress>),
}

impl Reach {
    /// What a run begins with: one that has a start may be early.
    pub fn first(control: &Control) -> Self {
        if control.clock().is_some_and(|clock| clock.start.is_some()) { Self::Nobody } else { Self::of(control) }
    }

    /// What is said once it stands by these rules.
    pub fn filtered(self, rules: Vec<String>) -> Event {
        let egress = if let Self::Named(egress) = self { Some(egress) } else { None };
        Event::Filtered { egress, rules }
    }

    fn of(control: &Control) -> Self {
        control.egress.as_ref().and_then(Part::known).map_or(Self::AsPlanned, |named| Self::Named(named.clone()))
    }
}

/// Where the guest is in its owner's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hour {
    /// Before this start.
    Early,
    /// After this start, if there is one.
    Open(Option<Timestamp>),
    /// After this end.
    Over(Timestamp),
}

/// The end of a guest's time, which has come.
#[derive(Debug, Clone, Copy)]
struct Ended {
    since: Duration,
    /// Nobody could have moved it.
    is_unattended: bool,
}

/// When storage was away.
#[derive(Debug, Clone, Copy)]
struct Outage {
    from: Duration,
    back: Duration,
}

/// What the report says of the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Nothing,
    Locked(Lock),
    Opened,
}

#[derive(Debug, Clone)]
pub(super) struct Time {
    hour: Hour,
    ended: Option<Ended>,
    is_paused: bool,
    /// When `control.json` was last looked at.
    looked: Duration,
    outage: Option<Outage>,
    beat: Option<Timestamp>,
    /// For which end the guest was warned last, and how long before it that was due.
    warned: Option<(Timestamp, u64)>,
    told: Told,
    reach: Reach,
    /// Since when `reach` is wanted, as long as it does not stand.
    reach_since: Option<Duration>,
}

impl Time {
    pub(super) fn new(control: &Control, now: Duration) -> Self {
        Self {
            hour: Hour::Open(None),
            ended: None,
            is_paused: false,
            looked: now,
            outage: None,
            beat: None,
            warned: None,
            told: Told::Nothing,
            reach: Reach::first(control),
            reach_since: None,
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }

    pub(super) fn hear_beat(&mut self, beat: Option<Timestamp>) {
        self.beat = beat;
    }

    /// Outages with too little time between them to move anything are one.
    pub(super) fn note_look(&mut self, looked: Duration) {
        if looked.saturating_sub(self.looked) > OUTAGE {
            let one = self.outage.filter(|before| self.looked <= before.back + AFTER_OUTAGE);
            self.outage = Some(Outage { from: one.map_or(self.looked, |before| before.from), back: looked });
        }
        self.looked = self.looked.max(looked);
    }

    /// What stands by now.
    pub(super) fn reaches(&mut self, reach: &Reach) {
        if self.reach == *reach {
            self.reach_since = None;
        }
    }

    /// Whether what came at this moment may be acted on: nobody has changed it since, and everybody could have.
    fn is_settled(&self, moment: Duration) -> bool {
        let fell_into = |outage: &Outage| outage.from <= moment && moment <= outage.back;
        let due = self.outage.filter(fell_into).map_or(moment, |outage| outage.back + AFTER_OUTAGE);
        self.looked >= due
    }
}

impl Machine {
    /// What guests may reach now, for whoever holds the filter.
    pub fn reach(&self) -> &Reach {
        &self.time.reach
    }

    /// Whether anybody may look at the guest's screen.
    pub fn lets_look(&self, now: Duration) -> bool {
        let is_slow = |since: Duration| now >= since + FILTER_WAIT;
        self.lock().is_none() && !self.time.is_paused && self.time.reach_since.is_none_or(is_slow)
    }

    /// Takes the guest from one hour of its owner's time to the next.
    pub(super) fn keep_time(&mut self, seen: &Seen, now: Duration) {
        let hour = self.hour(seen.server, now);
        if hour != self.time.hour {
            self.time.ended = match hour {
                Hour::Over(_) => self.time.ended.or_else(|| Some(self.ended(seen.server, now))),
                Hour::Early | Hour::Open(_) => None,
            };
            self.time.hour = hour;
        }
        self.pause_or_go_on(seen.server);
        self.let_reach(seen.server, now);
        self.tell_lock(now);
        self.warn(seen.server);
        self.stop_at_last(now);
    }

    fn hour(&self, server: Timestamp, now: Duration) -> Hour {
        let start = self.control.clock().and_then(|clock| clock.start.as_ref()?.known().copied());
        // One that has come stays, unless it is moved, or the clock was set.
        let has_come = |moment: Timestamp, came: bool| {
            server >= if came { moment.checked_sub(STEP).unwrap_or(moment) } else { moment }
        };
        let was_open = matches!(self.time.hour, Hour::Open(of) if of == start) || self.time.ended.is_some();
        if start.is_some_and(|start| !has_come(start, was_open)) {
            return Hour::Early;
        }
        match self.control.end() {
            Some(end) if self.time.hour == Hour::Over(end) && has_come(end, true) => Hour::Over(end),
            Some(end) if server >= end && self.time.is_settled(moment(end, server, now)) => Hour::Over(end),
            _ => Hour::Open(start),
        }
    }

    fn ended(&self, server: Timestamp, now: Duration) -> Ended {
        let is_silent = |beat: Timestamp| server.duration_since(beat) > BEAT_MAX;
        Ended { since: now, is_unattended: self.time.beat.is_some_and(is_silent) }
    }

    /// For how long a guest runs on whose time is over.
    fn grace(&self, ended: Ended) -> Duration {
        let seconds = |of: fn(&Clock) -> Option<&Part<u64>>| {
            Duration::from_secs(self.control.clock().and_then(of).and_then(Part::known).copied().unwrap_or(0))
        };
        let grace = seconds(|clock| clock.grace_seconds.as_ref());
        let offline = seconds(|clock| clock.offline_grace_seconds.as_ref());
        if ended.is_unattended { grace.max(offline) } else { grace }
    }

    fn is_kept(&self) -> bool {
        let at_end = self.control.clock().and_then(|clock| clock.at_end.as_ref()?.known());
        at_end == Some(&AtEnd::Keep)
    }

    /// Why the guest is locked. One without a grace is stopped at its end as it is.
    fn lock(&self) -> Option<Lock> {
        let runs_on = |ended: Ended| self.is_kept() || !self.grace(ended).is_zero();
        let is_shut = self.control.console.as_ref().and_then(Part::known) == Some(&Console::Shut);
        match self.time.hour {
            Hour::Early => Some(Lock::Early),
            Hour::Over(_) if self.time.ended.is_some_and(runs_on) => Some(Lock::Over),
            _ => is_shut.then_some(Lock::Asked),
        }
    }

    /// The clock of a guest whose time is over does not stand still any more.
    fn pause_or_go_on(&mut self, server: Timestamp) {
        if self.stopping.is_some() {
            return;
        }
        let is_over = matches!(self.time.hour, Hour::Over(_));
        let is_paused = !is_over && self.control.clock().is_some_and(|clock| clock.is_paused(server));
        if std::mem::replace(&mut self.time.is_paused, is_paused) == is_paused || !self.has_begun() {
            return;
        }
        if is_paused {
            self.acts.push(Act::Tell(Command::Stop));
        } else if self.is_to_move() {
            self.acts.push(Act::Tell(Command::Cont));
        }
    }

    fn let_reach(&mut self, server: Timestamp, now: Duration) {
        let reach = match (self.lock(), self.allowed(server, now)) {
            (Some(Lock::Early | Lock::Over), _) => Reach::Nobody,
            (_, Some(allowed)) => Reach::Named(allowed.to.clone()),
            (_, None) => Reach::of(&self.control),
        };
        if reach != self.time.reach {
            (self.time.reach, self.time.reach_since) = (reach, Some(now));
        }
    }

    /// What the guest may reach for a time, if that is now. Its end comes as that of the guest's own time does.
    fn allowed(&self, server: Timestamp, now: Duration) -> Option<&Allowed> {
        let clock = self.control.clock()?;
        let allowed = clock.egress.as_ref()?.known()?;
        let is_over = allowed.until.and_then(|until| clock.after_pauses(until)).is_some_and(|until| {
            let was_over = self.time.reach == Reach::of(&self.control);
            server >= until && (was_over || self.time.is_settled(moment(until, server, now)))
        });
        (server >= allowed.from && !is_over).then_some(allowed)
    }

    fn tell_lock(&mut self, now: Duration) {
        let has_start = self.control.clock().is_some_and(|clock| clock.start.is_some());
        let told = match (self.lock(), &self.time.told) {
            (Some(lock), _) => Told::Locked(lock),
            (None, Told::Nothing) if !has_start => return,
            // Whoever reads it may look.
            (None, _) if !self.lets_look(now) => return,
            (None, _) => Told::Opened,
        };
        if told == self.time.told || self.stopping.is_some() {
            return;
        }
        self.acts.push(Act::Report(match &told {
            Told::Locked(reason) => Event::Locked { reason: reason.clone() },
            Told::Opened | Told::Nothing => Event::Opened,
        }));
        self.time.told = told;
    }

    /// One warning where several are due.
    fn warn(&mut self, server: Timestamp) {
        let before = self.control.clock().and_then(|clock| clock.warn_before_seconds.as_ref()?.known());
        let (Some(before), Some(end), Hour::Open(_)) = (before, self.control.end(), self.time.hour) else { return };
        let left = end.duration_since(server).as_secs();
        let due = before.iter().copied().filter(|before| left <= i64::try_from(*before).unwrap_or(i64::MAX)).min();
        let is_told = |due: u64| self.time.warned.is_some_and(|(of, least)| of == end && least <= due);
        if let (Some(due), Ok(left @ 1..)) = (due, u64::try_from(left))
            && !is_told(due)
            && !self.time.is_paused
            && !matches!(self.time.told, Told::Locked(Lock::Early | Lock::Over))
            && self.has_begun()
            && self.stopping.is_none()
        {
            self.time.warned = Some((end, due));
            self.acts.push(Act::Warn(left));
        }
    }

    /// A guest that has not begun has nothing to write.
    fn stop_at_last(&mut self, now: Duration) {
        let Some(ended) = self.time.ended.filter(|_| !self.is_kept()) else { return };
        let grace = self.grace(ended);
        let last = ended.since + grace;
        let is_due = grace.is_zero() || (now >= last && self.time.is_settled(last));
        if is_due || !self.has_begun() {
            self.stop(StopReason::Deadline, now);
        }
    }
}

/// When a time on the server's clock was, as the starter counts.
fn moment(at: Timestamp, server: Timestamp, now: Duration) -> Duration {
    let since = server.duration_since(at);
    now.saturating_sub(if since.is_negative() { Duration::ZERO } else { since.unsigned_abs() })
}
