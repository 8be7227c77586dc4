//! What was collected from one vm, as it is kept beside the files.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::file_pattern::FilePattern;
use crate::model::id::LabName;
use crate::volumes::{Holds, Left};

/// What came of a vm's disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Submitted,
    /// Its disks were read, and no file is what was asked for.
    Nothing,
    /// Its files could not be read, or not all; the disk itself was kept.
    Unreadable,
    /// It has no disk.
    Absent,
}

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub format: u32,
    pub lab: LabName,
    /// Its name; where its owner has a candidate number, with that in it in place of theirs.
    pub vm: String,
    /// Candidate number or login name.
    pub student: String,
    /// Not where the guest might have been running.
    pub is_submission: bool,
    pub verdict: Verdict,
    pub collected: Timestamp,
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    pub patterns: Vec<FilePattern>,
    /// Version of the template that its disks derive from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_version: Option<u32>,
    pub files: Vec<Taken>,
    pub left: Vec<LeftThere>,
    /// Where nothing was found: the files that were written last.
    pub newest: Vec<Newest>,
    pub disks: Vec<DiskRead>,
}

impl Receipt {
    pub const FORMAT: u32 = 1;

    /// Decides what it all comes to.
    pub(super) fn judge(&mut self) {
        let is_cut = self.disks.iter().any(|disk| disk.fault.is_some()) || self.left.iter().any(LeftThere::is_unseen);
        let is_unreadable = self.disks.iter().any(DiskRead::is_unreadable);
        self.verdict = match (is_cut, self.files.is_empty(), is_unreadable) {
            (true, ..) | (false, true, true) => Verdict::Unreadable,
            (false, false, _) => Verdict::Submitted,
            (false, true, false) => Verdict::Nothing,
        };
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// A file that is in the folder now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Below the folder.
    pub path: String,
    pub bytes: u64,
    /// By the guest's clock, in seconds since 1970.
    pub modified: Option<i64>,
    pub sha256: String,
}

/// One that fits, and was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftThere {
    pub path: String,
    pub why: Left,
}

impl LeftThere {
    /// There may be something that nobody has seen.
    pub(super) fn is_unseen(&self) -> bool {
        matches!(self.why, Left::Broken { .. } | Left::TooManyNames)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    pub path: String,
    pub bytes: u64,
    pub modified: Option<i64>,
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRead {
    pub slot: u32,
    /// The template's disk below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    pub volumes: Vec<VolumeRead>,
    /// Why not all of it was read, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
}

impl DiskRead {
    /// A part is told again when its newest files are.
    pub(super) fn add(&mut self, volume: VolumeRead) {
        if !self.volumes.contains(&volume) {
            self.volumes.push(volume);
        }
    }

    /// Whether something in it could not be read.
    pub fn is_unreadable(&self) -> bool {
        self.volumes.iter().any(|volume| matches!(volume.holds, Holds::Unreadable(_)))
    }
}

/// A part of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRead {
    pub place: String,
    pub holds: Holds,
}

/// The disk as it is, over its base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Below the folder.
    pub path: String,
    pub bytes: u64,
    pub sha256: String,
}
