//! From a qemu that answers to its end. One loop; each round looks at what has come (signals, `control.json`, qemu's
//! events), then at what is due, and acts through the monitor.
//!
//! ```text
//! waiting ─(boot slot)─▶ booting ─(planned address seen)─▶ ready
//!    │                      │  ▲                             │
//!    │                      │  └── early death, restarted    │
//!    └──────────────────────┴───────────┬───────────────────-┘
//!                                       ▼
//!            stopping: ACPI power-off, repeated ─(grace is over)─▶ quit ─▶ kill
//! ```
//!
//! A guest whose qemu was told to keep it paused (`-S` among the site's arguments) is *held* instead: it takes no boot slot
//! and is not ready before somebody resumes it.
//!
//! *Paused* lies across all of them: no record could be written for `self_fence_seconds`, so that the controller may take
//! this host for lost. The guest goes on only if `control.json`, read after storage came back, still names this
//! generation. A qemu that does not answer is reported as paused too; one that stays silent is ended, but not while
//! storage is silent, which qemu may wait for, nor while it writes a snapshot.

use std::os::fd::AsFd as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use super::StartError;
use super::guest::{Guest, describe};
use super::launch::{self, Launched, Network, Prepared};
use super::requests::Requests;
use super::signals::{Signals, Told};
use super::storage::{Seen, Storage};
use crate::host::bounds::Group;
use crate::host::qmp::QmpError;
use crate::host::run_folder::{BootSlot, take_boot_slot};
use crate::run::{Control, Event, RunSpec, StopReason, Wanted};
use crate::site::Timing;

/// Longest time between two rounds; what comes by signal or event ends it sooner.
const ROUND: Duration = Duration::from_millis(250);
/// How often the filter is looked at. Between two looks the host's table cuts off a guest without a filter.
const FILTER_LOOK: Duration = Duration::from_secs(2);
/// Somebody may take the filter away again while it is put back. A guest that is cut off for longer than this ends, so that
/// its report says why.
const FAILED_MENDS_MAX: u32 = 10;
/// A guest that has not shown its address by then boots no more, or has no DHCP client; others want the slot.
const BOOT_SECONDS_MAX: u64 = 60;
/// A guest that boots does not hear its power button yet.
const POWER_BUTTON_EVERY: Duration = Duration::from_secs(3);
/// How often qemu is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(2);
/// A silence after which qemu is asked nothing that could wait.
const SHORT_SILENCE: Duration = Duration::from_secs(3);
/// qemu hears nothing while it writes the guest's memory.
const SNAPSHOT_SECONDS_MAX: u64 = 1800;
/// What qemu gets to end itself after `quit`.
const QUIT_WAIT: Duration = Duration::from_secs(5);

/// How a run ended.
#[derive(Debug)]
pub(super) struct End {
    pub reason: StopReason,
    pub exit: Option<String>,
}

/// Everything that changes while a guest lives. The first three fields go in this order, and with the last of them the
/// lock that keeps a sweep away.
struct Watch<'a> {
    guest: Guest,
    network: Network,
    prepared: Prepared,
    spec: &'a RunSpec,
    password: Option<&'a str>,
    run_root: &'a std::path::Path,
    storage: &'a Storage,
    vnc: String,
    control: Control,
    requests: Requests,
    boot: Boot,
    next_filter_look: Instant,
    failed_mends: u32,
    attempts: u32,
    /// Since when the guest stands still because storage is silent.
    paused: Option<Instant>,
    /// qemu has told that the guest powered itself off.
    powered_off: bool,
    stopping: Option<Stopping>,
    next_ping: Instant,
    /// The report says that qemu does not answer.
    told_silent: bool,
    /// When storage or a snapshot last gave qemu a reason not to answer.
    excused: Instant,
    /// When it was last looked whether qemu answers.
    last_look: Instant,
    /// Why this starter ended qemu itself.
    gave_up: Option<String>,
}

/// How far the guest has come.
enum Boot {
    Waiting,
    Booting {
        since: Instant,
        slot: Option<BootSlot>,
    },
    Ready,
    /// The site wants it paused; only somebody's request lets it go.
    Held,
}

struct Stopping {
    reason: StopReason,
    since: Instant,
    next_button: Instant,
    quit: Option<Instant>,
}

/// Sees the guest through to its end, and takes away what the run made.
pub(super) fn watch(prepared: Prepared, launched: Launched, given: Given<'_>) -> Result<End, StartError> {
    let Given { spec, password, control, storage, signals, run_root } = given;
    let Launched { guest, vnc, network } = launched;
    let mut watch = Watch {
        guest,
        network,
        prepared,
        spec,
        password,
        run_root,
        storage,
        vnc,
        control,
        requests: Requests::default(),
        boot: Boot::Waiting,
        next_filter_look: Instant::now() + FILTER_LOOK,
        failed_mends: 0,
        attempts: 1,
        paused: None,
        powered_off: false,
        stopping: None,
        next_ping: Instant::now(),
        told_silent: false,
        excused: Instant::now(),
        last_look: Instant::now(),
        gave_up: None,
    };
    watch.run(signals)
}

/// What the loop gets besides what was launched.
pub(super) struct Given<'a> {
    pub spec: &'a RunSpec,
    pub password: Option<&'a str>,
    pub control: Control,
    pub storage: &'a Storage,
    pub signals: &'a Signals,
    pub run_root: &'a std::path::Path,
}

impl Watch<'_> {
    fn run(&mut self, signals: &Signals) -> Result<End, StartError> {
        loop {
            while let Some(told) = signals.next().map_err(StartError::Signals)? {
                if told == Told::Stop {
                    self.stop(StopReason::Asked);
                }
            }
            self.take_events()?;
            if let Some(status) = self.guest.ended() {
                match self.after_death(status)? {
                    Some(end) => return Ok(end),
                    None => continue,
                }
            }
            if let Some(seen) = self.storage.seen() {
                self.take_control(seen)?;
            }
            self.fence()?;
            self.look_for_life()?;
            self.obey_clock();
            self.boot_on()?;
            self.look_at_filter()?;
            self.answer_requests();
            self.go_on_stopping();
            self.sleep(signals);
        }
    }

    fn sleep(&self, signals: &Signals) {
        let mut wake = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.guest.monitor.as_fd(), PollFlags::POLLIN),
        ];
        // Interrupted or not: the loop looks at everything again.
        let _ = poll(&mut wake, PollTimeout::try_from(ROUND).unwrap_or(PollTimeout::MAX));
    }

    fn take_events(&mut self) -> Result<(), StartError> {
        loop {
            match self.guest.monitor.event() {
                Ok(Some(event)) if event.name == "SHUTDOWN" => {
                    self.powered_off |= event.data["reason"] == "guest-shutdown";
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                // qemu is about to end; waiting for it here keeps the loop from spinning on the closed monitor.
                Err(QmpError::Closed) => {
                    self.reap();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives a qemu that closed its monitor a moment to end by itself.
    fn reap(&mut self) {
        let deadline = Instant::now() + QUIT_WAIT;
        while self.guest.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.guest.ended().is_none() {
            self.guest.end();
        }
    }

    /// What a dead qemu means. `None`: it was started again.
    fn after_death(&mut self, status: ExitStatus) -> Result<Option<End>, StartError> {
        let exit = describe(Some(status));
        let exit = match self.prepared.group.as_mut().and_then(Group::out_of_memory) {
            Some(why) => format!("{exit}: {why}"),
            None => exit,
        };
        let reason = if let Some(stopping) = self.stopping.take() {
            stopping.reason
        } else if self.powered_off {
            StopReason::Guest
        } else if self.died_early() && self.attempts < self.spec.timing.start_attempts_max {
            self.restart(exit)?;
            return Ok(None);
        } else {
            StopReason::Crashed
        };
        let exit = self.gave_up.take().unwrap_or(exit);
        let words = if reason == StopReason::Crashed { self.guest.last_words() } else { String::new() };
        let exit = if words.is_empty() { exit } else { format!("{exit}: {words}") };
        Ok(Some(End { reason, exit: Some(exit) }))
    }

    fn died_early(&self) -> bool {
        self.guest.started.elapsed() < Duration::from_secs(self.spec.timing.early_exit_seconds)
    }

    /// Guests on an overloaded host may die while they boot, and come up the next time.
    fn restart(&mut self, exit: String) -> Result<(), StartError> {
        self.attempts += 1;
        self.storage.record(Event::Restarting { attempt: self.attempts, exit });
        self.guest = launch::spawn(&self.prepared, self.spec, &self.network.tap, self.password)?;
        self.vnc = launch::meet(&self.prepared, &mut self.guest, self.password)?;
        self.boot = Boot::Waiting;
        self.paused = None;
        self.told_silent = false;
        self.requests.qemu_died(self.storage);
        Ok(())
    }

    /// A generation above ours means that the vm runs elsewhere, or is about to: not one more write to its disks.
    fn take_control(&mut self, seen: Seen) -> Result<(), StartError> {
        let Some(control) = seen.control else { return Ok(()) };
        if control.generation > self.spec.generation {
            self.stop(StopReason::Superseded);
            self.guest.end();
            return Ok(());
        }
        if control.wanted == Wanted::Stopped {
            self.stop(StopReason::Asked);
        }
        self.control = control;
        let fresh = self.storage.silence() < self.fence_after();
        if self.paused.is_some_and(|since| since < seen.at) && fresh {
            self.paused = None;
            self.ask_guest("cont")?;
            self.storage.record(Event::Resumed);
        }
        Ok(())
    }

    fn fence_after(&self) -> Duration {
        Duration::from_secs(self.spec.timing.self_fence_seconds)
    }

    /// Suspends the guest when the controller may take this host for lost. What stands already stays as it is.
    fn fence(&mut self) -> Result<(), StartError> {
        let silence = self.storage.silence();
        let stands = self.paused.is_some() || self.requests.suspended || matches!(self.boot, Boot::Waiting);
        if stands || silence < self.fence_after() {
            return Ok(());
        }
        self.paused = Some(Instant::now());
        self.ask_guest("stop")?;
        let reason = format!("no record could be written for {} s", silence.as_secs());
        self.storage.record(Event::Paused { reason });
        Ok(())
    }

    /// Notices a qemu that lives but answers nothing, tells of it, and after a bound takes it for dead.
    fn look_for_life(&mut self) -> Result<(), StartError> {
        let now = Instant::now();
        if now >= self.next_ping {
            self.next_ping = now + PING_EVERY;
            match self.guest.monitor.ping() {
                Ok(()) | Err(QmpError::Closed) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let silence = self.guest.monitor.silence();
        let late = Duration::from_secs(self.spec.timing.heartbeat_seconds) * 2 + SHORT_SILENCE;
        // A batch system that suspends jobs stops this process and qemu alike.
        let stood_still = now.duration_since(self.last_look) > Duration::from_secs(self.spec.timing.hung_seconds) / 2;
        self.last_look = now;
        if stood_still || self.paused.is_some() || self.storage.silence() > late {
            self.excused = now;
        }
        if silence >= Duration::from_secs(Timing::SILENT_SECONDS) && !self.told_silent {
            self.told_silent = true;
            let reason = format!("qemu has not answered for {} s", silence.as_secs());
            self.storage.record(Event::Paused { reason });
        } else if silence.is_zero() && std::mem::take(&mut self.told_silent) && !self.stands_still() {
            self.storage.record(Event::Resumed);
        }
        let timing = &self.spec.timing;
        let bound = if self.requests.is_busy() { SNAPSHOT_SECONDS_MAX } else { timing.hung_seconds };
        if silence.min(self.excused.elapsed()) >= Duration::from_secs(bound) {
            self.gave_up = Some(format!("qemu did not answer for {} s and was killed", silence.as_secs()));
            self.guest.end();
        }
        Ok(())
    }

    /// Somebody has suspended the guest, or storage has.
    fn stands_still(&self) -> bool {
        self.paused.is_some() || self.requests.suspended
    }

    /// A command to a qemu that may end at any moment, which is no error: the next round finds it dead. Nor is silence:
    /// when storage hangs, `stop` has stopped the guest, but answers only when its last writes are through.
    fn ask_guest(&mut self, command: &str) -> Result<(), StartError> {
        match self.guest.ask(command, Value::Null) {
            Ok(_) | Err(QmpError::Closed) => Ok(()),
            Err(error @ QmpError::Silent { .. }) => {
                tracing::warn!(%error, "going on without the answer");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The deadline is on the controller's clock, which the storage server's stands for.
    fn obey_clock(&mut self) {
        let Some(deadline) = self.control.deadline else { return };
        let here = jiff::Timestamp::now().as_millisecond();
        if here - self.storage.clock_offset_ms() >= deadline.as_millisecond() {
            self.stop(StopReason::Deadline);
        }
    }

    /// The first instruction as soon as a slot is free; the slot back as soon as the guest is up.
    fn boot_on(&mut self) -> Result<(), StartError> {
        match &mut self.boot {
            Boot::Waiting if self.spec.qemu.keeps_guests_paused() => {
                self.requests.suspended = true;
                self.boot = Boot::Held;
                self.storage.record(self.running());
            }
            Boot::Waiting if self.stopping.is_none() => {
                let slots = std::thread::available_parallelism().map_or(1, usize::from);
                let Some(slot) = take_boot_slot(self.run_root, slots)? else { return Ok(()) };
                self.ask_guest("cont")?;
                self.boot = Boot::Booting { since: Instant::now(), slot: Some(slot) };
                self.storage.record(self.running());
            }
            Boot::Booting { since, slot } => {
                if since.elapsed() > Duration::from_secs(BOOT_SECONDS_MAX) {
                    *slot = None;
                }
                if self.network.filter.look().unwrap_or(0) > 0 {
                    self.boot = Boot::Ready;
                    self.storage.record(Event::Ready);
                }
            }
            Boot::Held if !self.requests.suspended => {
                self.boot = Boot::Booting { since: Instant::now(), slot: None };
            }
            Boot::Waiting | Boot::Ready | Boot::Held => {}
        }
        Ok(())
    }

    fn running(&self) -> Event {
        let network = &self.spec.network;
        Event::Running {
            host: self.prepared.host_name.clone(),
            pid: self.guest.pid(),
            tap: self.network.tap.name().to_owned(),
            vnc: self.vnc.clone(),
            ip: network.ip,
            mac: network.mac,
            isolated: network.isolated,
            accel: self.prepared.host.accel.as_str().to_owned(),
            clock_offset_ms: self.storage.clock_offset_ms(),
            unbounded: self.guest.unbounded.clone().or_else(|| self.prepared.unbounded.clone()),
        }
    }

    /// Puts back what others have taken away; meanwhile the guest was cut off.
    fn look_at_filter(&mut self) -> Result<(), StartError> {
        if Instant::now() < self.next_filter_look {
            return Ok(());
        }
        self.next_filter_look = Instant::now() + FILTER_LOOK;
        let Err(error) = self.network.filter.look() else {
            self.failed_mends = 0;
            return Ok(());
        };
        tracing::warn!(%error, "the filter is not whole any more; putting it back");
        match self.network.filter.mend() {
            Ok(_missed_turn) => self.failed_mends = 0,
            Err(error) if self.failed_mends < FAILED_MENDS_MAX => {
                tracing::warn!(%error, "the filter is not whole; trying again");
                self.failed_mends += 1;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// A guest that stands still because of storage, has not begun, or whose qemu is silent, is asked nothing.
    fn answer_requests(&mut self) {
        let silent = self.guest.monitor.silence() > SHORT_SILENCE;
        if silent || self.paused.is_some() || matches!(self.boot, Boot::Waiting) {
            return;
        }
        let disks = self.spec.disks.len();
        self.requests.go_on(&self.control.requests, disks, &mut self.guest, &self.prepared.folder, self.storage);
    }

    /// Begins to stop; the first reason stays.
    fn stop(&mut self, reason: StopReason) {
        if self.stopping.is_none() {
            self.storage.record(Event::Stopping { reason: reason.clone() });
            let now = Instant::now();
            self.stopping = Some(Stopping { reason, since: now, next_button: now, quit: None });
        }
    }

    /// A guest that has not begun, or stands still, hears no power button.
    fn go_on_stopping(&mut self) {
        let deaf = matches!(self.boot, Boot::Waiting) || self.stands_still();
        let grace = Duration::from_secs(self.spec.timing.grace_seconds);
        let Some(stopping) = &mut self.stopping else { return };
        let now = Instant::now();
        let command = match stopping.quit {
            Some(quit) if now > quit + QUIT_WAIT => {
                self.guest.end();
                return;
            }
            Some(_) => return,
            None if deaf || now > stopping.since + grace => {
                stopping.quit = Some(now);
                "quit"
            }
            None if now >= stopping.next_button => {
                stopping.next_button = now + POWER_BUTTON_EVERY;
                "system_powerdown"
            }
            None => return,
        };
        // Whatever qemu answers: the grace period goes on, and what follows it needs no answer.
        if let Err(error) = self.guest.ask(command, Value::Null) {
            tracing::warn!(%error, command, "qemu does not take the command");
        }
    }
}
