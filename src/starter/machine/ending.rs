//! How a run comes to its end: what ends it, how its guest is asked to go, and what a dead qemu means.

use std::time::Duration;

use super::{Act, Command, End, Machine, QUIT_WAIT, Seen, Stage};
use crate::run::{Event, StopReason};

/// A guest that boots does not hear its power button yet.
const POWER_BUTTON_EVERY: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
pub(super) struct Stopping {
    reason: StopReason,
    since: Duration,
    next_button: Duration,
    quit: Option<Duration>,
}

impl Machine {
    /// The end is on the controller's clock.
    pub(super) fn obey_clock(&mut self, seen: &Seen, now: Duration) {
        if self.control.end().is_some_and(|end| seen.server >= end) {
            self.stop(StopReason::Deadline, now);
        }
    }

    /// Begins to stop; the first reason stays.
    pub(super) fn stop(&mut self, reason: StopReason, now: Duration) {
        if self.stopping.is_none() {
            self.acts.push(Act::Report(Event::Stopping { reason: reason.clone() }));
            self.stopping = Some(Stopping { reason, since: now, next_button: now, quit: None });
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
            stopping.reason
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
        self.drop_job();
        self.stage = Stage::Waiting;
        (self.begun, self.asked, self.halted, self.moves) = (None, false, None, false);
        (self.told_standing, self.shutdown, self.closed, self.gave_up) = (None, None, None, None);
        (self.next_ping, self.excused) = (now, now);
        self.acts.extend([Act::GiveSlotBack, Act::Restart]);
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
