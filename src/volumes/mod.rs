//! Files out of a guest's disk, read from outside: no agent in the guest, nothing mounted on the host. In: the open files of one
//! disk and what is wanted of it. Out: a stream of records and contents. Whoever used the guest wrote what is read here, byte by
//! byte, so all of it runs in a process of its own that has given up every right (`host::run::sealed`), and the other side
//! believes nothing of the answer that it has not checked itself (`hear`).
//!
//! ```text
//! files of the disk ─▶ disk ─▶ partitions ─▶ sniff ─▶ ext | fat ─▶ walk ─▶ records ═▶ hear
//! └──────────────────── sealed process ────────────────────────────────────┘      └ caller
//! ```
//!
//! A disk's header names no file that is opened: the caller names them all. Links are told and not followed.

mod disk;
mod ext;
mod fat;
mod hear;
mod names;
mod part;
mod partitions;
mod read;
mod sniff;
mod walk;

use serde::{Deserialize, Serialize};

use crate::model::file_pattern::FilePattern;

pub use hear::{HearError, hear};
pub use names::place;
pub use read::read_out;

/// Of one file; what is larger is left where it is and named.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// Of one disk's files together.
pub const DISK_BYTES_MAX: u64 = 256 << 20;
/// Files of one disk.
pub const FILES_MAX: usize = 10_000;
/// Names of one disk that are looked at: a search through endless folders ends here.
const LOOKS_MAX: usize = 50_000;
/// How deep below a folder that is wanted as a whole.
const DEPTH_MAX: usize = 32;
/// The same where all that is on a disk is listed and none of it taken: some ten systems as they are installed.
const LISTED_MAX: usize = 1_000_000;
/// What is told of a disk on which nothing was found.
const NEWEST_MAX: usize = 5;

/// What is wanted of a disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    pub patterns: Vec<FilePattern>,
    /// Every file is told, and none is taken.
    #[serde(default)]
    pub lists: bool,
}

/// One line of the answer. Paths are written as `names::written` does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Record {
    /// What follows is of this part of the disk.
    Volume { place: String, holds: Holds },
    /// So many bytes of content follow the line.
    File { path: String, bytes: u64, modified: Option<i64> },
    /// It fits, and was not taken.
    Left { path: String, why: Left },
    /// It is there, of a disk that is listed.
    Listed { path: String, bytes: u64, modified: Option<i64> },
    /// Nothing fits; this was written last.
    Newest { path: String, bytes: u64, modified: Option<i64> },
    /// All was said.
    End,
}

/// What is in a part of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "name")]
pub enum Holds {
    /// A file system that was read.
    Files(String),
    /// Something in which nobody keeps files, such as swap.
    Nothing(String),
    /// Something that cannot be read here, in words.
    Unreadable(String),
}

/// Why something that fits was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Left {
    Link,
    /// A device, a pipe or a socket.
    Special,
    TooLarge {
        bytes: u64,
    },
    /// The disk's share of bytes is used up.
    TooMuch,
    TooManyFiles,
    /// Too many names were looked at.
    TooManyNames,
    TooDeep,
    /// It has no name that a file may have.
    Name,
    Broken {
        error: String,
    },
}
