//! `control.json`: what the controller wants of a run now. Replaced as a whole; the starter reads it anew every second.

use std::fs::File;
use std::path::Path;

use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};

use super::{CONTROL, RunFileError, open_folder, read_json};
use crate::files::{Flush, Folder};

/// Held by a writer of `control.json` from its look at the old one to the new one. Readers need none: they see either.
const LOCK: &str = "control.lock";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// The generation of the vm that may run. A starter whose spec has a lower one ends.
    pub generation: u64,
    pub wanted: Wanted,
    /// When the guest is to be stopped, on the controller's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<jiff::Timestamp>,
    /// Asked in this order; answered once each, by number. Bounded by `REQUESTS_MAX`: old ones fall out.
    #[serde(default)]
    pub requests: Vec<Request>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    Running,
    /// Power off through ACPI, and quit after the grace period.
    Stopped,
    /// What a newer labwright wants; to us it changes nothing.
    #[serde(other)]
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub number: u64,
    pub kind: RequestKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// A picture of the guest's screen, PNG.
    Screen,
    /// The guest stands still, in memory.
    Suspend,
    /// It goes on.
    Resume,
    /// Memory and disks as they are now, under a name, in the vm's own first disk.
    Snapshot { name: String },
    /// Back to a snapshot.
    Revert { name: String },
    /// The snapshot's name and its share of the disks are free again.
    DeleteSnapshot { name: String },
    /// A request of a newer labwright, as it is written.
    #[serde(untagged)]
    Other(serde_json::Value),
}

impl Control {
    /// How many requests are kept in the file.
    pub const REQUESTS_MAX: usize = 16;

    /// Of the format. It changes only when a reader that ignores what it does not know would be led astray.
    const VERSION: u32 = 1;

    /// Without the lock: for who is alone with the folder.
    pub fn write(&self, folder: &Path) -> Result<(), RunFileError> {
        self.write_into(&open_folder(folder)?, Flush::Now)
    }

    fn text(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Written<'a> {
            version: u32,
            #[serde(flatten)]
            control: &'a Control,
        }
        serde_json::to_vec(&Written { version: Self::VERSION, control: self })
            .expect("a run's control has only string keys")
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
            control.write_into(&opened, Flush::Now)?;
        }
        Ok(Some(result))
    }

    /// Puts this in place of whatever stands there, unless that is of a higher generation: its word counts.
    pub(super) fn replace(&self, folder: &Path) -> Result<(), RunFileError> {
        let opened = open_folder(folder)?;
        let _lock = lock(&opened)?;
        match Self::read(folder)? {
            Some(standing) if standing.generation > self.generation => Ok(()),
            _ => self.write_into(&opened, Flush::Now),
        }
    }

    /// Writes the control file that a run begins with, flushed by whoever flushes its folder; `false`, and nothing is
    /// written, where the run was fenced off.
    pub(super) fn begin(&self, folder: &Folder) -> Result<bool, RunFileError> {
        if folder.write_first(CONTROL, &self.text(), 0o640, Flush::Later)? {
            return Ok(true);
        }
        let _lock = lock(folder)?;
        let standing = folder.read(CONTROL, super::JSON_BYTES_MAX)?;
        let standing = standing.and_then(|text| serde_json::from_slice::<Self>(&text).ok());
        if standing.is_some_and(|standing| standing.generation > self.generation) {
            return Ok(false);
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
        self.requests.push(Request { number, kind });
        let surplus = self.requests.len().saturating_sub(Self::REQUESTS_MAX);
        self.requests.drain(..surplus);
        number
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
        let control = Control { generation: 1, wanted: Wanted::Running, deadline: None, requests: Vec::new() };
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
        let control = |generation, wanted| Control { generation, wanted, deadline: None, requests: Vec::new() };
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
    }
}
