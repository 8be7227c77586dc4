//! `control.json`: what the controller wants of a run now. Replaced as a whole; the starter reads it anew every second.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{
    CONTROL, RunFileError, give_to_owner_of_folder, read_json, write_atomically, write_new_unflushed, write_unflushed,
};

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
        write_atomically(&folder.join(CONTROL), &self.text(), 0o640)
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

    /// See `RunSpec::write_unflushed`.
    pub(super) fn write_unflushed(&self, folder: &Path) -> Result<(), RunFileError> {
        write_unflushed(&folder.join(CONTROL), &self.text(), 0o640)
    }

    /// Changes the file as one step, and returns what `change` came to; `None` where there is no such file. A request that a
    /// person adds and a stop that an apply writes must not undo each other.
    pub fn change<T>(folder: &Path, change: impl FnOnce(&mut Self) -> T) -> Result<Option<T>, RunFileError> {
        let _lock = lock(folder)?;
        let Some(mut control) = Self::read(folder)? else { return Ok(None) };
        let before = control.clone();
        let result = change(&mut control);
        if control != before {
            control.write(folder)?;
        }
        Ok(Some(result))
    }

    /// Puts this in place of whatever stands there.
    pub(super) fn replace(&self, folder: &Path) -> Result<(), RunFileError> {
        let _lock = lock(folder)?;
        self.write(folder)
    }

    /// Writes the folder's first control file; `false`, and nothing is written, where there is one. See
    /// `RunSpec::write_unflushed`.
    pub(super) fn write_first(&self, folder: &Path) -> Result<bool, RunFileError> {
        write_new_unflushed(&folder.join(CONTROL), &self.text(), 0o640)
    }

    /// `None` where the folder has no control file.
    pub fn read(folder: &Path) -> Result<Option<Self>, RunFileError> {
        read_json(&folder.join(CONTROL))
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

/// Held by a writer of `control.json` from its look at the old one to the new one. Readers need none: they see either.
fn lock(folder: &Path) -> Result<Flock<File>, RunFileError> {
    let path = folder.join("control.lock");
    let error = |action, source| RunFileError::Io { action, path: path.clone(), source };
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o660).open(&path);
    let file = opened.map_err(|source| error("open", source))?;
    give_to_owner_of_folder(&file, &path).map_err(|source| error("give to the folder's owner", source))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| error("lock", errno.into()))
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
}
