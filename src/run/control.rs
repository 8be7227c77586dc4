//! `control.json`: what the controller wants of a run now. Replaced as a whole; the starter reads it anew every second.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{CONTROL, RunFileError, read_json, write_atomically, write_unflushed};

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
}

impl Control {
    /// How many requests are kept in the file.
    pub const REQUESTS_MAX: usize = 16;

    pub fn write(&self, folder: &Path) -> Result<(), RunFileError> {
        let text = serde_json::to_vec(self).expect("a run's control has only string keys");
        write_atomically(&folder.join(CONTROL), &text, 0o640)
    }

    /// See `RunSpec::write_unflushed`.
    pub(super) fn write_unflushed(&self, folder: &Path) -> Result<(), RunFileError> {
        let text = serde_json::to_vec(self).expect("a run's control has only string keys");
        write_unflushed(&folder.join(CONTROL), &text, 0o640)
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
