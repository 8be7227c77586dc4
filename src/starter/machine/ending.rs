//! How a run comes to its end, or its guest to other disks: what ends it, how a guest is asked to go, what a dead qemu means.

use std::time::Duration;

use super::{Act, Command, End, Machine, QUIT_WAIT, Stage};
use crate::run::{Event, Part, StopReason, Wanted};

/// A guest that boots does not hear its power button yet.
const POWER_BUTTON_EVERY: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
pub(super) struct Stopping {
    goal: Goal,
    since: Duration,
    next_button: Duration,
    quit: Option<Duration>,
}

/// What is to come of a guest that stops.
#[derive(Debug, Clone)]
enum Goal {
    /// The end of its run.
    End(StopReason),
    /// Its run goes on without it.
    Off,
}

impl Stopping {
    fn new(goal: Goal, now: Duration) -> Self {
        Self { goal, since: now, next_button: now, quit: None }
    }
}

impl Machine {
    /// Begins to stop; the first reason stays. A guest that is off has nothing left to stop.
    pub(super) fn stop(&mut self, reason: StopReason, now: Duration) {
        let goal = Goal::End(reason.clone());
        match &mut self.stopping {
            Some(Stopping { goal: Goal::End(_), .. }) => return,
            Some(stopping) => stopping.goal = goal,
            None => self.stopping = Some(Stopping::new(goal, now)),
        }
        self.acts.push(Act::Report(Event::Stopping { reason: reason.clone() }));
        if self.stage == Stage::Off {
            self.acts.push(Act::End(End { reason, exit: None }));
        }
    }

    /// The guest goes for other disks, and comes back with them. One that is fenced does not: its vm may run elsewhere.
    pub(super) fn obey_disks(&mut self, now: Duration) {
        let wanted = self.control.disks.as_ref().and_then(Part::known);
        let disks = wanted.unwrap_or(&self.disks);
        match self.stage {
            Stage::Off
                if self.control.wanted == Wanted::Running && self.fenced.is_none() && self.stopping.is_none() =>
            {
                self.disks = disks.clone();
                self.attempts = 1;
                self.start_again(now);
            }
            Stage::Off => {}
            _ if (self.control.wanted == Wanted::Off || *disks != self.disks) && self.stopping.is_none() => {
                self.stopping = Some(Stopping::new(Goal::Off, now));
            }
            _ => {}
        }
    }

    /// A guest that has not begun, or stands still, hears no power button.
    pub(super) fn go_on_stopping(&mut self, now: Duration) {
        let deaf = !self.is_to_move() || self.halted.is_some();
        let grace = Duration::from_secs(self.timing.grace_seconds);
        let Some(stopping) = &mut self.stopping else { return };
        match stopping.quit {
            Some(quit) if now > quit + QUIT_WAIT => self.acts.push(Act::Kill),
            Some(_) => {}
            None if deaf || now > stopping.since + grace => {
                stopping.quit = Some(now);
                self.acts.push(Act::Tell(Command::Quit));
            }
            None if now >= stopping.next_button => {
                stopping.next_button = now + POWER_BUTTON_EVERY;
                self.acts.push(Act::Tell(Command::PowerButton));
            }
            None => {}
        }
    }

    /// What a dead qemu means.
    pub(super) fn after_death(&mut self, exit: String, last_words: &str, now: Duration) {
        let died_early =
            self.begun.is_none_or(|begun| now < begun + Duration::from_secs(self.timing.early_exit_seconds));
        let reason = if let Some(stopping) = self.stopping.take() {
            match stopping.goal {
                Goal::End(reason) => reason,
                Goal::Off => return self.be_off(exit),
            }
        } else if self.shutdown.as_deref() == Some("guest-shutdown") {
            StopReason::Guest
        } else if died_early && self.attempts < self.timing.start_attempts_max {
            return self.restart(exit, now);
        } else {
            StopReason::Crashed
        };
        let mut exit = self.gave_up.take().unwrap_or(exit);
        if reason == StopReason::Crashed {
            let shutdown = self.shutdown.as_deref().and_then(unusual);
            for words in shutdown.into_iter().chain((!last_words.is_empty()).then_some(last_words)) {
                exit = format!("{exit}: {words}");
            }
        }
        self.drop_job();
        self.acts.push(Act::End(End { reason, exit: Some(exit) }));
    }

    /// Guests on an overloaded host may die while they boot, and come up the next time.
    fn restart(&mut self, exit: String, now: Duration) {
        self.attempts += 1;
        self.acts.push(Act::Report(Event::Restarting { attempt: self.attempts, exit }));
        self.forget_guest();
        self.start_again(now);
    }

    fn be_off(&mut self, exit: String) {
        let exit = self.gave_up.take().unwrap_or(exit);
        self.acts.push(Act::Report(Event::Off { exit }));
        self.forget_guest();
        self.stage = Stage::Off;
    }

    /// What was so of a qemu that has ended is not so of the next one.
    fn forget_guest(&mut self) {
        self.drop_job();
        (self.begun, self.asked, self.halted, self.trouble, self.moves) = (None, false, None, None, false);
        (self.told_standing, self.shutdown, self.closed, self.gave_up) = (None, None, None, None);
        self.acts.push(Act::GiveSlotBack);
    }

    fn start_again(&mut self, now: Duration) {
        self.stage = Stage::Waiting;
        (self.next_ping, self.excused) = (now, now);
        self.acts.push(Act::Restart { disks: self.disks.clone() });
    }
}

/// What qemu's word for an end means to a person, where it is not an end that we or the guest wanted.
fn unusual(shutdown: &str) -> Option<&'static str> {
    match shutdown {
        "guest-panic" => Some("the guest's system has panicked"),
        "host-signal" => Some("somebody has ended qemu by a signal"),
        "host-ui" => Some("somebody has ended qemu at its console"),
        "host-error" => Some("qemu met an error of this host"),
        _ => None,
    }
}
