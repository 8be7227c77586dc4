//! What people ask of the guest through `control.json`: one request after the other, each answered once.

use std::time::Duration;

use super::{Act, Command, Machine, Reply, SHORT_SILENCE, Seen, Stage, Standing, silence};
use crate::run::{Event, PAUSED_BY_SESSION, Request, RequestKind};

/// A request that qemu works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    number: u64,
    /// Over when this command was answered; without one, when its bearer says so.
    until: Option<Command>,
}

impl Machine {
    /// A guest that is fenced or has not begun, or whose qemu is silent, is asked nothing. One request after the other.
    pub(super) fn answer_requests(&mut self, seen: &Seen, now: Duration) {
        let deaf = self.fenced.is_some() || self.stage == Stage::Waiting || silence(seen, now) > SHORT_SILENCE;
        while !deaf && self.job.is_none() {
            let taken = self.taken;
            let Some(request) = self.control.requests.iter().find(|request| request.number > taken) else { return };
            let request = request.clone();
            self.taken = request.number;
            self.carry_out(request);
        }
    }

    fn carry_out(&mut self, request: Request) {
        let number = request.number;
        let until = match &request.kind {
            RequestKind::Resume if self.time.is_paused() => {
                let error = format!("{PAUSED_BY_SESSION}; it goes on when the session does");
                return self.acts.push(Act::Answer(number, Err(error)));
            }
            RequestKind::Suspend => Some(Command::Stop),
            RequestKind::Resume => Some(Command::Cont),
            RequestKind::Reset => Some(Command::Reset),
            RequestKind::Other(_) => {
                let version = env!("CARGO_PKG_VERSION");
                let error = format!("it is not known to this starter, which is of labwright {version}");
                return self.acts.push(Act::Answer(number, Err(error)));
            }
            _ => None,
        };
        self.job = Some(Job { number, until });
        self.acts.push(until.map_or(Act::Carry(request), Act::Tell));
    }

    pub(super) fn finish_job(&mut self, number: u64, reply: Reply, now: Duration) {
        if self.job.is_none_or(|job| job.number != number) {
            return;
        }
        let was_carried = self.job.take().is_some_and(|job| job.until.is_none());
        // What a load that failed half-way has left must not run on by itself.
        if was_carried && self.is_to_move() && !self.moves && self.halted.is_none() {
            self.asked = true;
            self.told_standing = Some(Standing::Asked);
            let reason = "a revert failed half-way; reset the vm or revert again".to_owned();
            self.acts.push(Act::Report(Event::Paused { reason }));
        }
        self.excused = now;
        self.acts.push(Act::Answer(number, reply));
    }

    pub(super) fn take_answer(&mut self, command: Command, result: Result<(), String>, now: Duration) {
        match self.job {
            Some(Job { number, until: Some(until) }) if until == command => {
                if result.is_ok() && command != Command::Reset {
                    self.asked = command == Command::Stop;
                    if self.stage == Stage::Held && !self.asked {
                        self.stage = Stage::Booting { since: now, has_slot: false };
                        self.begun = Some(now);
                    }
                }
                self.finish_job(number, result.map(|()| None), now);
            }
            _ => {
                if let (Command::Cont, Err(why)) = (command, result) {
                    self.halt(format!("qemu does not let it go on: {why}"), now);
                }
            }
        }
    }

    /// A qemu that died took its job with it.
    pub(super) fn drop_job(&mut self) {
        if let Some(job) = self.job.take() {
            self.acts.push(Act::Answer(job.number, Err("qemu ended while it worked on it".to_owned())));
        }
    }
}
