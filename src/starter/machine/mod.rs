//! What a starter decides of its guest. In: what the threads around it saw, and the time. Out: what is to be done. It is
//! pure: no clock, file, process or lock, so that each decision is tested as a table, and the simulation of a whole site runs
//! this very code.
//!
//! ```text
//! waiting ─(boot slot)─▶ booting ─(planned address seen)─▶ ready
//!    │                      │  ▲                             │
//!    │                      │  └── early death, restarted    │
//!    └──────────────────────┴───────────┬────────────────────┘
//!                                       ▼
//!            stopping: ACPI power-off, repeated ─(grace is over)─▶ quit ─▶ kill ─▶ (end of the run)
//!                                                                        └─▶ off ─(other disks)─▶ waiting
//! ```
//!
//! A guest that gets other disks is *off* in between: its qemu has ended as in a stop, and its run goes on without one.
//!
//! A guest whose qemu was told to keep it paused (`-S` among the site's arguments) is *held* instead: it takes no boot slot
//! and is not ready before somebody resumes it.
//!
//! Across all of them, a guest *stands* for up to five reasons at once:
//!
//! - *fenced*: no record could be written for `self_fence_seconds`, so that the controller may take this host for lost. It is
//!   over only when a record was written again *and* `control.json`, read after that, still names this generation: the
//!   controller believes a host to be lost until it sees a record, and writes a higher generation only where it sees none.
//! - *in a pause*: its clock stands still, and it with it. It goes on when the pause is over. -> clock
//! - *asked*: somebody suspended it.
//! - *halted*: qemu itself stopped it, as on a full disk. It is let go on every few seconds, in case there is room again.
//! - *silent*: qemu answers nothing. One that stays so is ended, but not while storage is silent, for which qemu may wait, nor
//!   while it writes a snapshot.

#[cfg(test)]
mod chance_tests;
mod clock;
mod ending;
mod looks;
mod requests;
mod standing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod time_tests;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use clock::Time;
use ending::Stopping;
use looks::Looks;
use requests::Job;
use standing::{Halted, Standing, silence};

pub use clock::Reach;

use crate::model::site::Timing;
use crate::run::{Control, Dropped, Event, Request, RunDisk, RunSpec, StopReason, Wanted};

/// A guest that has not shown its address by then boots no more, or has no DHCP client; others want the slot.
const BOOT_WAIT: Duration = Duration::from_secs(60);
/// A silence after which qemu is asked nothing that could wait.
const SHORT_SILENCE: Duration = Duration::from_secs(3);
/// What qemu gets to end itself after `quit`, or after it closed its monitor.
const QUIT_WAIT: Duration = Duration::from_secs(5);

/// The parts of `control.json` that are obeyed here. The first record of a run's report says so.
pub const OBEYS: [&str; 14] = [
    "generation",
    "wanted",
    "requests",
    "clock.start",
    "clock.end",
    "clock.pauses",
    "clock.grace_seconds",
    "clock.offline_grace_seconds",
    "clock.warn_before_seconds",
    "clock.at_end",
    "clock.egress",
    "egress",
    "console",
    "disks",
];

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub reason: StopReason,
    pub exit: Option<String>,
}

/// What a request came to: a picture, nothing but done, or what went wrong.
pub type Reply = Result<Option<Vec<u8>>, String>;

/// A command to qemu whose answer nobody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Stop,
    Cont,
    Reset,
    PowerButton,
    Quit,
}

/// Something that happened since the last step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The scheduler or a person wants the run to end.
    Stop,
    /// `control.json`, and when the look at it began.
    Control { control: Box<Control>, looked: Duration },
    /// `control.json` says what this starter cannot make sense of.
    Unreadable(String),
    /// When the controller last said that it is there, on the server's clock.
    Beat(Option<Timestamp>),
    /// The filter lets the guest reach this.
    Reaches(Reach),
    /// Who looks at its screen.
    Viewers(Vec<String>),
    /// The guest was told how many seconds its owner has left, or what was in the way.
    Warned(u64, Option<String>),
    /// Something that the report should say.
    Warning(String),
    /// The guest's filter stands, with these rules for what it is to reach.
    Filtered(Reach, Vec<String>),
    /// The guest's network is gone, and why.
    CutOff(String),
    /// It is back.
    Connected,
    /// Its filter has dropped so many frames by now.
    Dropped(Dropped),
    /// A boot slot is the guest's.
    Slot,
    /// The guest was seen using its planned address.
    Address,
    /// qemu took a command, or refused it.
    Answered(Command, Result<(), String>),
    /// The guest's processors stand still.
    Stands,
    /// They go on.
    Moves,
    /// qemu is about to halt the guest, and why.
    Trouble(String),
    /// qemu is about to end, and why, in its own words.
    Shutdown(String),
    /// qemu closed its monitor.
    Closed,
    /// The qemu process has ended.
    Ended { exit: String, last_words: String },
    /// The request that was carried out beside is done.
    Done(u64, Reply),
}

/// What is known at a step. Times are counted from the starter's begin.
#[derive(Debug, Clone)]
pub struct Seen {
    pub told: Vec<Input>,
    /// When the writing of the last record began that is on storage.
    pub written: Duration,
    /// Since when qemu owes an answer.
    pub unanswered: Option<Duration>,
    /// The time of the storage server, which stands for the controller's.
    pub server: Timestamp,
}

/// Something to do. Nothing of it may hold the caller up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Tell(Command),
    /// Ask qemu for a sign of life.
    Ping,
    Kill,
    TakeSlot,
    GiveSlotBack,
    Report(Event),
    /// Report the mapping of the guest, which has begun.
    ReportRunning,
    /// Tell the guest how many seconds its owner has left.
    Warn(u64),
    /// Carry this request out beside everything else, and tell when it is done.
    Carry(Request),
    Answer(u64, Reply),
    /// Start qemu again, with these disks.
    Restart {
        disks: Vec<RunDisk>,
    },
    End(End),
}

/// How far the guest has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Booting {
        since: Duration,
        has_slot: bool,
    },
    Ready,
    /// The site wants it paused; only somebody's request lets it go.
    Held,
    /// There is no qemu, until other disks are there.
    Off,
}

/// One guest, from a qemu that answers to its end.
#[derive(Debug, Clone)]
pub struct Machine {
    generation: u64,
    timing: Timing,
    is_kept_paused: bool,
    control: Control,
    /// What the guest has.
    disks: Vec<RunDisk>,
    time: Time,
    looks: Looks,
    stage: Stage,
    /// When the guest's first instruction was.
    begun: Option<Duration>,
    attempts: u32,
    fenced: Option<Duration>,
    asked: bool,
    halted: Option<Halted>,
    /// What qemu said before it halts the guest.
    trouble: Option<String>,
    /// By qemu's word the guest's processors move.
    moves: bool,
    /// What the report says last of this.
    told_standing: Option<Standing>,
    told_unreadable: bool,
    /// Of which parts of `control.json` the report says that they are not obeyed.
    told_unheeded: BTreeSet<String>,
    stopping: Option<Stopping>,
    shutdown: Option<String>,
    closed: Option<Duration>,
    /// Why this starter ended qemu itself.
    gave_up: Option<String>,
    next_ping: Duration,
    /// When storage or a snapshot last gave qemu a reason not to answer.
    excused: Duration,
    last_step: Duration,
    /// Highest request that was answered or begun.
    taken: u64,
    job: Option<Job>,
    acts: Vec<Act>,
}

/// Why a run ends before it begins.
pub fn over(spec: &RunSpec, control: &Control) -> Option<StopReason> {
    if control.generation > spec.generation {
        Some(StopReason::Superseded)
    } else {
        (control.wanted == Wanted::Stopped).then_some(StopReason::Asked)
    }
}

impl Machine {
    /// A guest whose qemu answers and has not begun.
    pub fn new(spec: &RunSpec, control: Control, now: Duration) -> Self {
        let mut machine = Self {
            generation: spec.generation,
            timing: spec.timing,
            is_kept_paused: spec.qemu.keeps_guests_paused(),
            time: Time::new(&control, now),
            looks: Looks::default(),
            control,
            disks: spec.disks.clone(),
            stage: Stage::Waiting,
            begun: None,
            attempts: 1,
            fenced: None,
            asked: false,
            halted: None,
            trouble: None,
            moves: false,
            told_standing: None,
            told_unreadable: false,
            told_unheeded: BTreeSet::new(),
            stopping: None,
            shutdown: None,
            closed: None,
            gave_up: None,
            next_ping: now,
            excused: now,
            last_step: now,
            taken: 0,
            job: None,
            acts: Vec::new(),
        };
        machine.tell_unheeded();
        machine
    }

    /// Decides what to do. `seen.told` is in the order in which it happened.
    pub fn step(&mut self, mut seen: Seen, now: Duration) -> Vec<Act> {
        for told in std::mem::take(&mut seen.told) {
            self.hear(told, &seen, now);
        }
        if !self.acts.iter().any(|act| matches!(act, Act::End(_))) {
            self.consider(&seen, now);
        }
        std::mem::take(&mut self.acts)
    }

    /// What is due, whether or not anything was told.
    fn consider(&mut self, seen: &Seen, now: Duration) {
        self.fence(seen, now);
        if self.stage != Stage::Off {
            self.look_for_life(seen, now);
        }
        self.keep_time(seen, now);
        self.obey_disks(now);
        if self.stage != Stage::Off {
            self.boot_on(now);
            self.settle(now);
            self.answer_requests(seen, now);
            self.go_on_stopping(now);
            self.tell_standing(seen, now);
        }
        self.tell_looks(now);
        self.last_step = now;
    }

    /// How soon the next step is due though nothing happens.
    pub fn patience(&self) -> Duration {
        Duration::from_millis(if self.stage == Stage::Waiting { 250 } else { 1000 })
    }

    /// Whether the guest's address is still to be looked for.
    pub fn boots(&self) -> bool {
        matches!(self.stage, Stage::Booting { .. })
    }

    fn hear(&mut self, told: Input, seen: &Seen, now: Duration) {
        match told {
            Input::Stop => self.stop(StopReason::Asked, now),
            Input::Control { control, looked } => self.take_control(*control, looked, seen, now),
            Input::Unreadable(why) => self.tell_unreadable(why),
            Input::Beat(beat) => self.time.hear_beat(beat),
            Input::Reaches(reach) => self.time.reaches(&reach),
            Input::Viewers(viewers) => self.looks.hear(viewers),
            Input::Warned(left_seconds, failed) => self.acts.push(Act::Report(Event::Warned { left_seconds, failed })),
            Input::Filtered(reach, rules) => self.acts.push(Act::Report(reach.filtered(rules))),
            Input::Warning(message) => self.acts.push(Act::Report(Event::Warning { message })),
            Input::CutOff(reason) => self.acts.push(Act::Report(Event::CutOff { reason })),
            Input::Connected => self.acts.push(Act::Report(Event::Connected)),
            Input::Dropped(dropped) => self.acts.push(Act::Report(Event::Dropped(dropped))),
            Input::Slot => self.begin(now),
            Input::Address => self.be_ready(),
            Input::Answered(command, result) => self.take_answer(command, result, now),
            Input::Stands => self.stand(now),
            Input::Moves => self.move_on(now),
            Input::Trouble(what) => self.trouble = Some(what),
            Input::Shutdown(reason) => self.shutdown = Some(reason),
            Input::Closed => self.closed = Some(now),
            Input::Ended { exit, last_words } => self.after_death(exit, &last_words, now),
            Input::Done(number, reply) => self.finish_job(number, reply, now),
        }
    }

    /// A generation above ours means that the vm runs elsewhere, or is about to: not one more write to its disks.
    fn take_control(&mut self, control: Control, looked: Duration, seen: &Seen, now: Duration) {
        self.told_unreadable = false;
        if control.generation > self.generation {
            self.stop(StopReason::Superseded, now);
            self.acts.push(Act::Kill);
            return;
        }
        if control.wanted == Wanted::Stopped {
            self.stop(StopReason::Asked, now);
        }
        self.control = control;
        self.time.note_look(looked);
        self.tell_unheeded();
        let is_fresh = |moment: Duration| now.saturating_sub(moment) < self.fence_after();
        if let Some(fenced) = self.fenced
            && fenced < seen.written
            && seen.written <= looked
            && is_fresh(seen.written)
            && is_fresh(looked)
        {
            self.fenced = None;
            self.excused = now;
            if self.is_to_move() {
                self.acts.push(Act::Tell(Command::Cont));
            }
        }
    }

    fn tell_unreadable(&mut self, why: String) {
        if !std::mem::replace(&mut self.told_unreadable, true) {
            self.acts.push(Act::Report(Event::Warning { message: why }));
        }
    }

    /// Nobody is to believe that something holds which does not.
    fn tell_unheeded(&mut self) {
        let unheeded = self.control.unheeded(&OBEYS);
        if unheeded == self.told_unheeded {
            return;
        }
        if !unheeded.is_empty() {
            let names = unheeded.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let version = env!("CARGO_PKG_VERSION");
            let message =
                format!("control.json has parts that this starter of labwright {version} does not obey: {names}");
            self.acts.push(Act::Report(Event::Warning { message }));
        }
        self.told_unheeded = unheeded;
    }

    /// The first instruction as soon as a slot is free; the slot back as soon as the guest is up.
    fn boot_on(&mut self, now: Duration) {
        match self.stage {
            Stage::Waiting if self.is_kept_paused => {
                self.stage = Stage::Held;
                self.asked = true;
                self.told_standing = Some(Standing::Asked);
                self.acts.push(Act::ReportRunning);
            }
            Stage::Waiting if self.may_begin() => self.acts.push(Act::TakeSlot),
            Stage::Booting { since, has_slot: true } if now > since + BOOT_WAIT => {
                self.stage = Stage::Booting { since, has_slot: false };
                self.acts.push(Act::GiveSlotBack);
            }
            _ => {}
        }
    }

    fn may_begin(&self) -> bool {
        self.stopping.is_none() && self.fenced.is_none() && !self.time.is_paused()
    }

    /// A slot that came too late is given back.
    fn begin(&mut self, now: Duration) {
        if self.stage != Stage::Waiting || !self.may_begin() {
            self.acts.push(Act::GiveSlotBack);
            return;
        }
        self.stage = Stage::Booting { since: now, has_slot: true };
        self.begun = Some(now);
        self.acts.extend([Act::Tell(Command::Cont), Act::ReportRunning]);
    }

    fn be_ready(&mut self) {
        if self.boots() {
            self.stage = Stage::Ready;
            self.acts.extend([Act::GiveSlotBack, Act::Report(Event::Ready)]);
        }
    }

    /// Whether the guest's processors should move now.
    fn is_to_move(&self) -> bool {
        self.has_begun() && self.fenced.is_none() && !self.asked && !self.time.is_paused()
    }

    /// Whether there is a guest that qemu knows of.
    fn has_begun(&self) -> bool {
        !matches!(self.stage, Stage::Waiting | Stage::Off)
    }
}
