//! From a qemu that answers to its end: the shell around the machine. Each round gathers what has come (signals, words of the
//! other threads, qemu's events), has the machine decide, and acts. Nothing here waits: not for nft, which the network's
//! thread asks, nor for storage, nor for an answer of qemu.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use super::guest::{Guest, describe};
use super::launch::{self, Launched, Prepared};
use super::machine::{Act, Command, End, Input, Machine, Reach, Seen};
use super::network::Network;
use super::signals;
use super::{Desk, StartError, requests};
use crate::host::run::bounds::Group;
use crate::host::run::qmp::{self, Heard, QmpError};
use crate::host::run::run_folder::{BootSlot, take_boot_slot};
use crate::host::run::screen::{self, Screen};
use crate::host::run::tap::Tap;
use crate::run::{Control, Event, Request, RunDisk, RunSpec};

/// What the loop gets besides what was launched.
pub(super) struct Given<'a> {
    pub spec: &'a RunSpec,
    pub password: Option<&'a str>,
    pub run_root: &'a Path,
    pub desk: &'a Desk<'a>,
}

/// Everything that changes while a guest lives. The first fields go in this order, and with `prepared` the
/// lock that keeps a sweep away.
struct Watch<'a> {
    guest: Guest,
    tap: Tap,
    network: Network,
    screen: Screen,
    /// What the filter was last told to let the guest reach.
    reach: Reach,
    prepared: Prepared,
    given: Given<'a>,
    /// The given one, with the disks that the guest has now.
    spec: RunSpec,
    machine: Machine,
    slot: Option<BootSlot>,
    /// qemu has closed its monitor.
    is_closed: bool,
    /// The end of this qemu was told.
    is_over: bool,
}

/// Sees the guest through to its end, and takes away what the run made.
pub(super) fn watch(
    given: Given<'_>,
    prepared: Prepared,
    launched: Launched,
    control: Control,
) -> Result<End, StartError> {
    let Launched { guest, screen, tap, filter, network } = launched;
    let (spec, post) = (given.spec.clone(), given.desk.inbox.post());
    let network = Network::watch(filter, network, spec, given.run_root, post).map_err(StartError::Thread)?;
    let machine = Machine::new(given.spec, control, given.desk.clock.now());
    let reach = machine.reach().clone();
    let (slot, is_closed, is_over) = (None, false, false);
    let spec = given.spec.clone();
    let mut watch =
        Watch { guest, tap, network, screen, reach, prepared, given, spec, machine, slot, is_closed, is_over };
    watch.run().map_err(|error| StartError::Watch(Box::new(error)))
}

impl Watch<'_> {
    fn run(&mut self) -> Result<End, StartError> {
        let mut told = Vec::new();
        loop {
            self.gather(&mut told)?;
            let seen = self.seen(std::mem::take(&mut told));
            for act in self.machine.step(seen, self.given.desk.clock.now()) {
                if let Act::End(end) = act {
                    return Ok(end);
                }
                self.carry_out(act, &mut told)?;
            }
            self.serve_screen(&mut told)?;
            if *self.machine.reach() != self.reach {
                self.reach = self.machine.reach().clone();
                self.network.reach(self.reach.clone());
            }
            if told.is_empty() {
                self.sleep();
            }
        }
    }

    /// All that has come, in the order in which it happened as far as that can be known.
    fn gather(&mut self, told: &mut Vec<Input>) -> Result<(), StartError> {
        let Desk { signals, inbox, .. } = self.given.desk;
        while let Some(signal) = signals.next().map_err(StartError::Signals)? {
            if signal == signals::Meaning::Stop {
                told.push(Input::Stop);
            }
        }
        // Whoever ended it, its last words are read before it is taken for ended.
        let status = if self.is_over { None } else { self.guest.ended() };
        self.listen(told)?;
        told.extend(inbox.take());
        if let Some(status) = status {
            self.is_over = true;
            told.push(self.ended(status));
        }
        Ok(())
    }

    /// Lets viewers in, or cuts them off.
    fn serve_screen(&mut self, told: &mut Vec<Input>) -> Result<(), StartError> {
        let is_open = !self.is_closed && self.machine.lets_look(self.given.desk.clock.now());
        if !is_open {
            self.cut_screen(told);
        }
        alive(self.screen.let_in(is_open, &self.guest.monitor))
    }

    fn cut_screen(&mut self, told: &mut Vec<Input>) {
        if self.screen.cut() {
            told.push(Input::Viewers(Vec::new()));
        }
    }

    fn listen(&mut self, told: &mut Vec<Input>) -> Result<(), StartError> {
        while !self.is_closed {
            match self.guest.monitor.hear() {
                Ok(Some(Heard::Event(event))) => {
                    if self.screen.hear(&event, self.guest.pid()) {
                        told.push(Input::Viewers(self.screen.looking()));
                    }
                    told.extend(meaning(&event));
                }
                Ok(Some(Heard::Answer { command: screen::HAND_OVER, result })) => self.screen.answered(result.is_ok()),
                Ok(Some(Heard::Answer { command, result })) => {
                    if let Err(why) = &result {
                        tracing::warn!(command, why, "qemu does not take the command");
                    }
                    told.extend(command_of(command).map(|command| Input::Answered(command, result)));
                }
                Ok(None) => return Ok(()),
                Err(QmpError::Closed) => {
                    self.is_closed = true;
                    told.push(Input::Closed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn ended(&mut self, status: ExitStatus) -> Input {
        let exit = describe(Some(status));
        let exit = match self.prepared.group.as_mut().and_then(Group::out_of_memory) {
            Some(why) => format!("{exit}: {why}"),
            None => exit,
        };
        Input::Ended { exit, last_words: self.guest.last_words() }
    }

    fn seen(&self, told: Vec<Input>) -> Seen {
        let Desk { storage, clock, .. } = self.given.desk;
        Seen {
            told,
            written: clock.at(storage.written()),
            unanswered: self.guest.monitor.unanswered().map(|since| clock.at(since)),
            server: storage.server(),
        }
    }

    fn sleep(&self) {
        let Desk { signals, inbox, .. } = self.given.desk;
        let wake = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut wakers = vec![wake(signals.as_fd()), wake(inbox.as_fd()), wake(self.screen.as_fd())];
        // A closed monitor would end every sleep at once.
        wakers.extend((!self.is_closed).then(|| wake(self.guest.monitor.as_fd())));
        let patience = PollTimeout::try_from(self.machine.patience()).unwrap_or(PollTimeout::MAX);
        // Interrupted or not: the loop looks at everything again.
        let _ = poll(&mut wakers, patience);
    }

    fn carry_out(&mut self, act: Act, told: &mut Vec<Input>) -> Result<(), StartError> {
        let storage = self.given.desk.storage;
        match act {
            Act::Tell(command) => alive(self.guest.monitor.tell(name_of(command)))?,
            Act::Ping => alive(self.guest.monitor.ping())?,
            Act::Kill => self.guest.kill(),
            Act::TakeSlot => {
                let slots = std::thread::available_parallelism().map_or(1, usize::from);
                self.slot = take_boot_slot(self.given.run_root, slots)?;
                told.extend(self.slot.is_some().then_some(Input::Slot));
            }
            Act::GiveSlotBack => self.slot = None,
            Act::Report(event) => storage.record(event),
            Act::ReportRunning => {
                storage.record(self.running());
                self.network.look_for_address();
            }
            Act::Warn(left_seconds) => self.warn_beside(left_seconds)?,
            Act::Carry(request) => self.carry_beside(request)?,
            Act::Answer(number, reply) => storage.answer(number, reply),
            Act::Restart { disks } => {
                // Of a qemu that died and one that begins in the same round, nobody else would cut the first one's viewers off.
                self.cut_screen(told);
                self.restart(disks)?;
            }
            Act::End(_) => {}
        }
        Ok(())
    }

    /// The thread ends with its qemu at the latest.
    fn carry_beside(&self, request: Request) -> Result<(), StartError> {
        let (qemu, folder) = (self.guest.monitor.asker(), Arc::clone(&self.prepared.folder));
        let (disks, post) = (self.spec.disks.len(), self.given.desk.inbox.post());
        let carry_out = move || {
            let reply = requests::carry_out(&request, disks, &qemu, &folder);
            post.tell(Input::Done(request.number, reply));
        };
        beside("request", carry_out)
    }

    fn warn_beside(&self, left_seconds: u64) -> Result<(), StartError> {
        let (qemu, folder) = (self.guest.monitor.asker(), Arc::clone(&self.prepared.folder));
        let post = self.given.desk.inbox.post();
        let warn = move || post.tell(Input::Warned(left_seconds, requests::warn(left_seconds, &qemu, &folder).err()));
        beside("warning", warn)
    }

    fn restart(&mut self, disks: Vec<RunDisk>) -> Result<(), StartError> {
        let password = self.given.password;
        self.spec.disks = disks;
        self.guest = launch::spawn(&self.prepared, &self.spec, &self.tap, password)?;
        launch::meet(&self.prepared, &mut self.guest, password)?;
        (self.is_closed, self.is_over) = (false, false);
        Ok(())
    }

    fn running(&self) -> Event {
        let network = &self.given.spec.network;
        Event::Running {
            host: self.prepared.host_name.clone(),
            pid: self.guest.pid(),
            tap: self.tap.name().to_owned(),
            vnc: self.screen.place(),
            ip: network.ip,
            mac: network.mac,
            isolated: network.isolated,
            accel: self.prepared.host.accel.as_str().to_owned(),
            clock_offset_ms: self.given.desk.storage.clock_offset_ms(),
            unbounded: self.guest.unbounded.clone().or_else(|| self.prepared.unbounded.clone()),
        }
    }
}

/// In a thread that comes and goes.
fn beside(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).map_err(StartError::Thread)
}

/// A qemu may end at any moment, which is no error: the next round finds it dead.
fn alive(told: Result<(), QmpError>) -> Result<(), StartError> {
    match told {
        Ok(()) | Err(QmpError::Closed) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn name_of(command: Command) -> &'static str {
    match command {
        Command::Stop => "stop",
        Command::Cont => "cont",
        Command::Reset => "system_reset",
        Command::PowerButton => "system_powerdown",
        Command::Quit => "quit",
    }
}

fn command_of(name: &str) -> Option<Command> {
    [Command::Stop, Command::Cont, Command::Reset, Command::PowerButton, Command::Quit]
        .into_iter()
        .find(|known| name_of(*known) == name)
}

/// What an event of qemu means to a guest's life.
fn meaning(event: &qmp::Event) -> Option<Input> {
    let word = |key: &str| event.data[key].as_str().unwrap_or_default().to_owned();
    match event.name.as_str() {
        "STOP" => Some(Input::Stands),
        "RESUME" => Some(Input::Moves),
        "SHUTDOWN" => Some(Input::Shutdown(word("reason"))),
        "BLOCK_IO_ERROR" if event.data["action"] == "stop" && event.data["nospace"] == Value::Bool(true) => {
            Some(Input::Trouble("its disk is full on storage".to_owned()))
        }
        "BLOCK_IO_ERROR" if event.data["action"] == "stop" => {
            Some(Input::Trouble(format!("its disk cannot be used: {}", word("reason"))))
        }
        "GUEST_PANICKED" => Some(Input::Trouble("the guest's system has panicked".to_owned())),
        "RESET" => {
            tracing::info!(reason = word("reason"), "the guest was reset");
            None
        }
        _ => None,
    }
}
