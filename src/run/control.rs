//! `control.json`: what the controller wants of a run now, and all that may change while the run lives; `spec.json` never
//! does. Replaced as a whole; the starter reads it anew every second.
//!
//! Each part is optional, and one that is not there leaves things as the spec has them. A starter says in its first record
//! which parts it obeys, and warns of every other one that it finds. Whoever rewrites the file keeps what only a newer
//! labwright understands. Version 1 has `generation`, `wanted`, `requests`, and `deadline` for what is now `clock.end`.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use jiff::Timestamp;
use nix::fcntl::Flock;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{CONTROL, Clock, RunDisk, RunFileError, open_folder, read_json, report};
use crate::files::{Flush, Folder};
use crate::model::lab::Egress;

/// Held by a writer of `control.json` from its look at the old one to the new one. Readers need none: they see either.
const LOCK: &str = "control.lock";

/// A run's `control.json`: what is wanted of it now. A part that is not there leaves things as `spec.json` has them.
/// Parts are only added: ignore those that you do not know, and keep them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Control {
    /// Of the format. Files of before there were versions have none, which means 1. A run keeps to what its starter reads.
    #[serde(default = "first_version")]
    version: u32,
    /// The generation of the vm that may run. A starter whose spec has a lower one ends.
    pub generation: u64,
    /// Whether the guest is to run.
    pub wanted: Wanted,
    /// What `clock.end` is called in version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    deadline: Option<Timestamp>,
    /// The times that the guest keeps by itself, whether or not a controller is awake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Clock>")]
    pub clock: Option<Part<Clock>>,
    /// The disks that the guest is to have, in the order of its bus. Where it has others, its qemu ends and another one begins
    /// with these, in the same run. A starter that obeys this obeys `off`, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<RunDisk>>")]
    pub disks: Option<Part<Vec<RunDisk>>>,
    /// All that an isolated guest may reach now besides DHCP and its gateway; an empty list is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Egress>>")]
    pub egress: Option<Part<Vec<Egress>>>,
    /// Whether anybody may look at the guest's screen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Console>")]
    pub console: Option<Part<Console>>,
    /// Asked in this order; answered once each, by number. Bounded by `REQUESTS_MAX`: old ones fall out.
    #[serde(default)]
    pub requests: Vec<Request>,
    /// Parts of a newer labwright.
    #[serde(flatten)]
    #[schemars(skip)]
    rest: Map<String, Value>,
}

/// A part as this labwright knows it, or as a newer one has written it, which is kept to the last word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Part<T> {
    Known(T),
    Newer(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Console {
    Open,
    /// No viewer is let in, and those who look are cut off.
    Shut,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    Running,
    /// Power off through ACPI, and quit after the grace period.
    Stopped,
    /// The guest as with `stopped`, while the run goes on: it keeps its job, its address and its place on the host, and waits
    /// for `running`, to begin with the `disks` of then.
    Off,
    /// What a newer labwright wants; to us it changes nothing.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Value),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// Higher than that of each request before it.
    pub number: u64,
    /// What is asked for.
    pub kind: RequestKind,
    /// What a newer labwright says of it.
    #[serde(flatten)]
    #[schemars(skip)]
    rest: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RequestKind {
    /// A picture of the guest's screen, PNG.
    Screen,
    /// The guest stands still, in memory.
    Suspend,
    /// It goes on.
    Resume,
    /// It begins to boot at once, as with the reset button; its disks stay.
    Reset,
    /// Memory and disks as they are now, under a name, in the vm's own first disk.
    Snapshot {
        /// Name of the snapshot.
        name: String,
    },
    /// Back to a snapshot.
    Revert {
        /// Name of the snapshot.
        name: String,
    },
    /// The snapshot's name and its share of the disks are free again.
    DeleteSnapshot {
        /// Name of the snapshot.
        name: String,
    },
    /// A request of a newer labwright, as it is written.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Value),
}

impl<'de, T: DeserializeOwned + Serialize> Deserialize<'de> for Part<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Value::deserialize(deserializer)?;
        let known = T::deserialize(&written).ok();
        let known = known.filter(|known| serde_json::to_value(known).is_ok_and(|known| says_all(&known, &written)));
        Ok(known.map_or(Self::Newer(written), Self::Known))
    }
}

/// Whether nothing that is written is lost in what was understood of it.
fn says_all(known: &Value, written: &Value) -> bool {
    match (known, written) {
        (Value::Object(known), Value::Object(written)) => written
            .iter()
            .all(|(name, value)| value.is_null() || known.get(name).is_some_and(|known| says_all(known, value))),
        (Value::Array(known), Value::Array(written)) => {
            known.len() == written.len() && known.iter().zip(written).all(|(known, value)| says_all(known, value))
        }
        _ => true,
    }
}

impl<T> Part<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(part) => Some(part),
            Self::Newer(_) => None,
        }
    }
}

fn first_version() -> u32 {
    1
}

impl Control {
    /// How many requests are kept in the file.
    pub const REQUESTS_MAX: usize = 16;

    /// Of the format.
    const VERSION: u32 = 2;

    /// For a run that begins, in the newest version.
    pub fn new(generation: u64, wanted: Wanted) -> Self {
        Self {
            version: Self::VERSION,
            generation,
            wanted,
            deadline: None,
            clock: None,
            disks: None,
            egress: None,
            console: None,
            requests: Vec::new(),
            rest: Map::new(),
        }
    }

    /// The owner's own end, as it is written, on the controller's clock.
    fn own_end(&self) -> Option<Timestamp> {
        self.clock().and_then(|clock| clock.end.as_ref()?.known().copied()).or(self.deadline)
    }

    /// When the guest's time is over, with all pauses that are over. None where it has no end, or stands still.
    pub fn end(&self) -> Option<Timestamp> {
        let end = self.own_end()?;
        self.clock().map_or(Some(end), |clock| clock.after_pauses(end))
    }

    pub fn clock(&self) -> Option<&Clock> {
        self.clock.as_ref().and_then(Part::known)
    }

    /// The owner's own end. Each version has its own name for it.
    pub fn end_at(&mut self, end: Timestamp) {
        self.deadline = None;
        if self.version > 1 {
            if let Part::Known(clock) = self.clock.get_or_insert_with(|| Part::Known(Clock::default())) {
                clock.end = Some(Part::Known(end));
                return;
            }
        } else if let Some(Part::Known(clock)) = &mut self.clock {
            clock.end = None;
            self.clock = self.clock.take().filter(|clock| *clock != Part::Known(Clock::default()));
        }
        self.deadline = Some(end);
    }

    /// Puts these times in place of those that stand here, and leaves alone what of them only a newer labwright knows. The
    /// first version knows no pauses: its end comes with them, and not at all while one is open.
    pub fn keep_time(&mut self, clock: &Clock) {
        let rest = match self.clock.take() {
            Some(Part::Known(standing)) => standing.rest,
            _ => Map::new(),
        };
        let is_first = self.version == 1;
        self.deadline = clock.over_at().filter(|_| is_first);
        let clock = if is_first { Clock::default() } else { clock.clone() };
        let clock = Clock { rest, ..clock };
        self.clock = (clock != Clock::default()).then_some(Part::Known(clock));
    }

    /// The same, unless somebody has told other times since these were `told`: they know better.
    pub fn keep_time_after(&mut self, told: Option<&Clock>, clock: &Clock) {
        if told.is_none_or(|told| *told == self.told_time()) {
            self.keep_time(clock);
        }
    }

    /// The times that stand here, as this labwright knows them.
    pub fn told_time(&self) -> Clock {
        let known = self.clock().cloned().unwrap_or_default();
        Clock { end: self.own_end().map(Part::Known), rest: Map::new(), ..known }
    }

    /// Says the same in another version.
    fn speak(&mut self, version: u32) {
        if std::mem::replace(&mut self.version, version) != version
            && let Some(end) = self.own_end()
        {
            self.end_at(end);
        }
    }

    /// Names of the parts that a starter passes over which obeys these.
    pub fn unheeded(&self, obeyed: &[&str]) -> BTreeSet<String> {
        let is_wanted_known = match self.wanted {
            Wanted::Running | Wanted::Stopped => true,
            Wanted::Off => obeyed.contains(&"disks"),
            Wanted::Other(_) => false,
        };
        let mut parts = vec![
            ("wanted".to_owned(), is_wanted_known),
            ("deadline".to_owned(), self.deadline.is_none() || self.deadline == self.own_end()),
        ];
        let mut add = |name: &str, is_known: Option<bool>| {
            let is_obeyed = obeyed.contains(&name);
            parts.extend(is_known.map(|is_known| (name.to_owned(), is_known && is_obeyed)));
        };
        add("disks", is_known(self.disks.as_ref()));
        add("egress", is_known(self.egress.as_ref()));
        add("console", is_known(self.console.as_ref()));
        if let Some(Part::Known(clock)) = &self.clock {
            add("clock.start", is_known(clock.start.as_ref()));
            add("clock.end", is_known(clock.end.as_ref()));
            add("clock.pauses", is_known(clock.pauses.as_ref()));
            add("clock.grace_seconds", is_known(clock.grace_seconds.as_ref()));
            add("clock.offline_grace_seconds", is_known(clock.offline_grace_seconds.as_ref()));
            add("clock.warn_before_seconds", is_known(clock.warn_before_seconds.as_ref()));
            add("clock.at_end", is_known(clock.at_end.as_ref()));
            add("clock.egress", is_known(clock.egress.as_ref()));
            add("clock.egress", is_known(clock.egress.as_ref()));
            parts.extend(clock.rest.keys().map(|key| (format!("clock.{key}"), false)));
        } else {
            add("clock", is_known(self.clock.as_ref()));
        }
        parts.extend(self.rest.keys().map(|key| (key.clone(), false)));
        let of_requests = self.requests.iter().flat_map(|request| request.rest.keys());
        parts.extend(of_requests.map(|key| (format!("requests.{key}"), false)));
        parts.into_iter().filter(|(_, is_heeded)| !is_heeded).map(|(name, _)| name).collect()
    }

    /// Without the lock: for who is alone with the folder.
    pub fn write(&self, folder: &Path) -> Result<(), RunFileError> {
        self.write_into(&open_folder(folder)?, Flush::Now)
    }

    fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a run's control has only string keys")
    }

    fn write_into(&self, folder: &Folder, flush: Flush) -> Result<(), RunFileError> {
        Ok(folder.write(CONTROL, &self.text(), 0o640, flush)?)
    }

    /// Changes the file as one step, and returns what `change` came to; `None` where there is no such file. A request that a
    /// person adds, a stop that an apply writes and a fence must not undo each other, so a generation never falls.
    pub fn change<T>(folder: &Path, change: impl FnOnce(&mut Self) -> T) -> Result<Option<T>, RunFileError> {
        let Some(opened) = Folder::open(folder)? else { return Ok(None) };
        let _lock = lock(&opened)?;
        let Some(before) = Self::read(folder)? else { return Ok(None) };
        let mut control = before.clone();
        let result = change(&mut control);
        control.generation = control.generation.max(before.generation);
        if control != before {
            control.speak(spoken(&opened, Some(before.version)));
            control.write_into(&opened, Flush::Now)?;
        }
        Ok(Some(result))
    }

    /// Puts this in place of whatever stands there, see `after`.
    pub(super) fn replace(&self, folder: &Path) -> Result<(), RunFileError> {
        let opened = open_folder(folder)?;
        let _lock = lock(&opened)?;
        let standing = Self::read(folder)?;
        let version = spoken(&opened, standing.as_ref().map(|standing| standing.version));
        let mut control = match standing {
            Some(standing) => standing.after(self),
            None => self.clone(),
        };
        control.speak(version);
        control.write_into(&opened, Flush::Now)
    }

    /// What stands after an order: what it does not speak of stays, and one of an older generation changes nothing.
    #[must_use]
    pub fn after(mut self, order: &Self) -> Self {
        if self.generation > order.generation {
            return self;
        }
        (self.generation, self.wanted) = (order.generation, order.wanted.clone());
        self.requests.clone_from(&order.requests);
        self.disks = order.disks.clone().or(self.disks);
        if let Some(end) = order.own_end() {
            self.end_at(end);
        }
        self
    }

    /// Writes the control file that a run begins with, flushed by whoever flushes its folder; `false`, and nothing is
    /// written, where the run was fenced off.
    pub(super) fn begin(&self, folder: &Folder) -> Result<bool, RunFileError> {
        if folder.write_first(CONTROL, &self.text(), 0o640, Flush::Later)? {
            return Ok(true);
        }
        let _lock = lock(folder)?;
        // One that cannot be read may be a fence: nothing begins over it.
        if let Some(text) = folder.read(CONTROL, super::JSON_BYTES_MAX)? {
            let standing: Self = super::parse_json(&text, Path::new(CONTROL))?;
            if standing.generation > self.generation {
                return Ok(false);
            }
        }
        self.write_into(folder, Flush::Later).map(|()| true)
    }

    /// `None` where the folder has no control file.
    pub fn read(folder: &Path) -> Result<Option<Self>, RunFileError> {
        read_json(folder, CONTROL)
    }

    /// Adds a request under the next free number, which it returns. `answered` is the highest number the report has.
    pub fn ask(&mut self, kind: RequestKind, answered: u64) -> u64 {
        let number = self.requests.iter().map(|r| r.number).max().unwrap_or(0).max(answered) + 1;
        self.requests.push(Request { number, kind, rest: Map::new() });
        let surplus = self.requests.len().saturating_sub(Self::REQUESTS_MAX);
        self.requests.drain(..surplus);
        number
    }
}

fn is_known<T>(part: Option<&Part<T>>) -> Option<bool> {
    part.map(|part| part.known().is_some())
}

/// The version that a run's starter reads: by its own word, where it has spoken, or else by the file that the run began with.
fn spoken(folder: &Folder, standing: Option<u32>) -> u32 {
    match report::first_record(folder) {
        Some(first) if first.obeys.is_none() => 1,
        Some(_) => standing.map_or(Control::VERSION, |standing| standing.max(Control::VERSION)),
        None => standing.unwrap_or(Control::VERSION),
    }
}

fn lock(folder: &Folder) -> Result<Flock<File>, RunFileError> {
    Ok(folder.lock(LOCK, 0o660)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_writers_do_not_undo_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::new(1, Wanted::Running);
        assert_eq!(Control::change(folder.path(), |_| ()).unwrap(), None);
        control.write(folder.path()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..4 {
                        Control::change(folder.path(), |control| control.ask(RequestKind::Screen, 0)).unwrap().unwrap();
                    }
                });
            }
        });
        let numbers: Vec<u64> =
            Control::read(folder.path()).unwrap().unwrap().requests.iter().map(|r| r.number).collect();
        assert_eq!(numbers, (1..=16).collect::<Vec<_>>());
    }

    /// Whoever read the file before the fence does not write the old generation back after it.
    #[test]
    fn nothing_undoes_a_fence() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::new;
        let old = control(1, Wanted::Running);
        assert!(old.begin(&Folder::open(folder.path()).unwrap().unwrap()).unwrap());
        let fence = control(2, Wanted::Stopped);
        std::thread::scope(|scope| {
            let (begun, fencing) = std::sync::mpsc::channel();
            let path = folder.path();
            let asks = move || {
                Control::change(path, |control| {
                    begun.send(()).unwrap();
                    // As long as the fence may need to come in between, if nothing kept it out.
                    std::thread::sleep(std::time::Duration::from_millis(100));
                    control.ask(RequestKind::Screen, 0)
                })
            };
            let asking = scope.spawn(asks);
            fencing.recv().unwrap();
            fence.replace(folder.path()).unwrap();
            asking.join().unwrap().unwrap();
        });
        assert_eq!(Control::read(folder.path()).unwrap(), Some(fence.clone()));
        // A stop that was decided before, a change that names an older generation, a second preparation.
        control(1, Wanted::Stopped).replace(folder.path()).unwrap();
        Control::change(folder.path(), |control| control.generation = 1).unwrap();
        assert!(!old.begin(&Folder::open(folder.path()).unwrap().unwrap()).unwrap());
        assert_eq!(Control::read(folder.path()).unwrap(), Some(fence));
        // What cannot be read may be one.
        std::fs::write(folder.path().join(CONTROL), "{").unwrap();
        assert!(old.begin(&Folder::open(folder.path()).unwrap().unwrap()).is_err());
    }
}
