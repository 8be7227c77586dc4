//! Whether the guest stands, and what the report says of it: a qemu that is silent, a storage that is gone, a session's pause,
//! somebody's wish, or qemu's own trouble.

use std::time::Duration;

use super::{Act, Command, Machine, QUIT_WAIT, SHORT_SILENCE, Seen, Stage};
use crate::model::site::Timing;
use crate::run::{Event, PAUSED_BY_SESSION, PAUSED_ON_REQUEST};

/// How often a guest that qemu halted is let go on.
const HALTED_RETRY: Duration = Duration::from_secs(10);
/// A guest that went on and was not halted again for this long does go on.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// qemu hears nothing while it writes the guest's memory.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(1800);
/// How often qemu is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(2);

/// Qemu itself stopped the guest.
#[derive(Debug, Clone)]
pub(super) struct Halted {
    pub(super) why: String,
    pub(super) next_try: Duration,
    /// Since when it has gone on.
    pub(super) moves: Option<Duration>,
}

/// Why the guest stands, as its report says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Fenced,
    Silent,
    Session,
    Halted,
    Asked,
}

impl Machine {
    pub(super) fn fence_after(&self) -> Duration {
        Duration::from_secs(self.timing.self_fence_seconds)
    }

    /// Suspends the guest when the controller may take this host for lost, also one that stands already: nothing that was
    /// asked for before may let it go on.
    pub(super) fn fence(&mut self, seen: &Seen, now: Duration) {
        if self.fenced.is_none() && now.saturating_sub(seen.written) >= self.fence_after() {
            self.fenced = Some(now);
            if self.has_begun() {
                self.acts.push(Act::Tell(Command::Stop));
            }
        }
    }

    /// Notices a qemu that lives but answers nothing, and after a bound takes it for dead.
    pub(super) fn look_for_life(&mut self, seen: &Seen, now: Duration) {
        if now >= self.next_ping {
            self.next_ping = now + PING_EVERY;
            self.acts.push(Act::Ping);
        }
        let late = Duration::from_secs(self.timing.heartbeat_seconds) * 2 + SHORT_SILENCE;
        // A batch system that suspends jobs stops this process and qemu alike.
        let stood_still = now - self.last_step > Duration::from_secs(self.timing.hung_seconds) / 2;
        if stood_still || self.fenced.is_some() || now.saturating_sub(seen.written) > late {
            self.excused = now;
        }
        let silence = silence(seen, now);
        let bound = match self.job {
            Some(_) => SNAPSHOT_WAIT,
            None => Duration::from_secs(self.timing.hung_seconds),
        };
        if silence.min(now - self.excused) >= bound && self.gave_up.is_none() {
            self.gave_up = Some(format!("qemu did not answer for {} s and was killed", silence.as_secs()));
            self.acts.push(Act::Kill);
        }
        if self.closed.is_some_and(|closed| now >= closed + QUIT_WAIT) {
            self.acts.push(Act::Kill);
        }
    }

    pub(super) fn stand(&mut self, now: Duration) {
        self.moves = false;
        // A snapshot stops the guest for a while, and so does qemu on its way to its end.
        if self.is_to_move() && self.job.is_none() && self.shutdown.is_none() {
            let why = self.trouble.take();
            self.halt(why.unwrap_or_else(|| "qemu has halted it and gave no reason".to_owned()), now);
        }
    }

    pub(super) fn halt(&mut self, why: String, now: Duration) {
        self.halted = Some(Halted { why, next_try: now + HALTED_RETRY, moves: None });
    }

    pub(super) fn move_on(&mut self, now: Duration) {
        self.moves = true;
        self.trouble = None;
        if let Some(halted) = &mut self.halted {
            halted.moves = Some(now);
        }
    }

    /// Lets a halted guest go on, and believes that it does when it was not halted again.
    pub(super) fn settle(&mut self, now: Duration) {
        let is_free = self.is_to_move() && self.stopping.is_none() && self.job.is_none();
        let Some(halted) = &mut self.halted else { return };
        if halted.moves.is_some_and(|moves| now >= moves + SETTLED_AFTER) {
            self.halted = None;
        } else if is_free && halted.moves.is_none() && now >= halted.next_try {
            halted.next_try = now + HALTED_RETRY;
            self.acts.push(Act::Tell(Command::Cont));
        }
    }

    /// Says in the report that the guest stands, or goes on, when that has changed.
    pub(super) fn tell_standing(&mut self, seen: &Seen, now: Duration) {
        let standing = self.standing(seen, now);
        if self.stage == Stage::Waiting || self.stopping.is_some() || standing == self.told_standing {
            return;
        }
        self.told_standing = standing;
        let reason = match standing {
            None => return self.acts.push(Act::Report(Event::Resumed)),
            Some(Standing::Fenced) => {
                format!("no record could be written for {} s", now.saturating_sub(seen.written).as_secs())
            }
            Some(Standing::Silent) => format!("qemu has not answered for {} s", silence(seen, now).as_secs()),
            Some(Standing::Session) => PAUSED_BY_SESSION.to_owned(),
            Some(Standing::Halted) => self.halted.as_ref().map(|halted| halted.why.clone()).unwrap_or_default(),
            Some(Standing::Asked) => PAUSED_ON_REQUEST.to_owned(),
        };
        self.acts.push(Act::Report(Event::Paused { reason }));
    }

    /// The weightiest reason for which the guest stands.
    pub(super) fn standing(&self, seen: &Seen, now: Duration) -> Option<Standing> {
        // Once told, a silence lasts until qemu says anything.
        let is_told = self.told_standing == Some(Standing::Silent);
        let silence = silence(seen, now);
        if self.fenced.is_some() && self.stage != Stage::Held {
            Some(Standing::Fenced)
        } else if silence >= Duration::from_secs(Timing::SILENT_SECONDS) || (is_told && !silence.is_zero()) {
            Some(Standing::Silent)
        } else if self.time.is_paused() {
            Some(Standing::Session)
        } else if self.asked {
            Some(Standing::Asked)
        } else {
            self.halted.as_ref().map(|_| Standing::Halted)
        }
    }
}

/// For how long qemu has owed an answer.
pub(super) fn silence(seen: &Seen, now: Duration) -> Duration {
    seen.unanswered.map_or(Duration::ZERO, |since| now.saturating_sub(since))
}
