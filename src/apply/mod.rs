//! Walks a plan: journals each effect, acts, records the outcome. It chooses nothing; the plan has decided everything.
//! Independent branches go on after a failure; a failed action takes with it only what needs it.

mod batch;
mod clear;
mod effects;
mod executor;
mod holds;
pub mod passwords;
mod ready;
mod retry;
mod seeds;
mod stops;
mod submits;

pub use clear::{ClearError, Cleared, Clearing};
pub use executor::{Failure, Summary, apply};
pub use holds::decision;
pub use ready::{Awaited, Goal, Readiness, Wait, WaitEnd};

use std::path::Path;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use crate::dhcp::Dhcp;
use crate::disks::{Copied, Disks};
use crate::model::id::LabName;
use crate::model::site::Site;
use crate::run::Runs;
use crate::scheduler::Scheduler;

/// What effects act on.
pub struct World<'a> {
    pub site: &'a Site,
    pub lab: &'a LabName,
    pub scheduler: &'a dyn Scheduler,
    pub dhcp: &'a dyn Dhcp,
    /// The program that jobs run: this one.
    pub program: &'a Path,
    pub runs: &'a dyn Runs,
    pub disks: &'a dyn Disks,
    pub clock: &'a dyn Clock,
    /// How often the user asked to stop: once finishes what is under way, twice stops at once.
    pub interrupts: &'a AtomicU8,
    /// How many effects run side by side.
    pub parallelism: usize,
}

/// The controller's time. The simulation has one that it moves itself.
pub trait Clock: Send + Sync {
    fn now(&self) -> jiff::Timestamp;
    fn sleep(&self, duration: Duration);
}

/// The time of this machine.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// Told of every batch, for the user's eyes.
pub trait Progress {
    /// `done` more effects of this kind succeeded and `failed` failed. They took this long, our bookkeeping not counted.
    fn batch(&mut self, kind: BatchKind, done: usize, failed: usize, took: Duration);

    /// `number` effects failed in a way that may pass, and are tried again after `pause`.
    fn retry(&mut self, kind: BatchKind, number: usize, pause: Duration, why: &str);

    /// How far a copy is that takes its time. What is told later says all of it.
    fn copies(&mut self, _copied: &Copied) {}
}

/// Effects that are carried out together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BatchKind {
    Record,
    Fence,
    Publish,
    Stop,
    TurnOff,
    Release,
    SetAside,
    PutBack,
    Renew,
    CheckDisks,
    MakeDisks,
    Reserve,
    TurnOn,
    Start,
    Tell,
}

impl BatchKind {
    /// For progress lines: what is counted, one and many, and what was done to it.
    pub fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Record => ("record", "records", "written"),
            Self::Fence => ("lost run", "lost runs", "fenced off"),
            Self::Publish => ("template", "templates", "published"),
            Self::Stop => ("vm", "vms", "stopped"),
            Self::TurnOff => ("guest", "guests", "turned off"),
            Self::TurnOn => ("guest", "guests", "turned on"),
            Self::Release => ("reservation", "reservations", "released"),
            Self::SetAside => ("vm's disks", "vms' disks", "set aside"),
            Self::PutBack => ("vm's disks", "vms' disks", "put back"),
            Self::Renew => ("vm's disks", "vms' disks", "copied, away from a lost host"),
            Self::CheckDisks => ("vm's disks", "vms' disks", "checked"),
            Self::MakeDisks => ("disk", "disks", "made"),
            Self::Reserve => ("reservation", "reservations", "made"),
            Self::Start => ("vm", "vms", "submitted"),
            Self::Tell => ("guest", "guests", "told the time"),
        }
    }
}
