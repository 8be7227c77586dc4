//! A run's folder on shared storage: the whole protocol between the controller and the starter on some host. No port,
//! no secret but the vnc password in a file of its own.
//!
//! ```text
//! runs/k3f9-104/
//!   spec.json      controller, before the submit; never changed          -> spec.rs
//!   control.json   controller, replaced atomically                      -> control.rs
//!   control.lock   locked by whoever replaces it
//!   report.jsonl   starter, one writer, every record fsynced            -> report.rs
//!   answers/7.png  starter, the file that answers request 7
//!   vnc.password   controller, mode 0600
//!   seed.img       controller, mode 0600, where the vm has a seed: what its guest learns of itself
//!   clock          controller, touched to learn the server's time      -> silence.rs
//! runs/controller.beat         controller, touched while somebody could move an end -> beat.rs
//! runs/controller.round        controller, touched after a round of the loop that is its only one
//! runs/batches/<batch>.json   controller: task number -> run, never changed -> batch.rs
//! ```
//!
//! Both sides poll and open anew each time: network file systems show neither inotify nor the growth of an open file.
//! Nothing here decides anything; it reads and writes, and says exactly what is wrong with what it reads.

mod answers;
mod batch;
mod beat;
mod clock;
mod control;
mod dropped;
mod folders;
#[cfg(test)]
pub(crate) mod formats;
mod job_log;
mod report;
mod silence;
mod spec;

pub use answers::answer;
pub use batch::{Batch, BatchId};
pub use beat::{BEAT_EVERY, beat, last_beat, last_round, note_round};
pub use clock::{Allowed, AtEnd, Clock, Pause};
pub use control::{Console, Control, Part, Request, RequestKind, Wanted};
pub use dropped::Dropped;
pub use folders::{OnStorage, Reports, Runs};
pub use job_log::last_words;
pub use report::{Event, Lock, PAUSED_BY_SESSION, PAUSED_ON_REQUEST, Record, StopReason, parse_report, read_report};
pub use spec::{RunDisk, RunNetwork, RunSpec};

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::files::{FileError, Folder};
use crate::model::id::RunId;

/// The longest spec or control file: the site's ranges and the last requests.
const JSON_BYTES_MAX: u64 = 8 << 20;

pub const SPEC: &str = "spec.json";
pub const CONTROL: &str = "control.json";
pub const REPORT: &str = "report.jsonl";
pub const ANSWERS: &str = "answers";
pub const CLOCK: &str = "clock";
pub const SEED: &str = "seed.img";
pub const VNC_PASSWORD: &str = "vnc.password";
/// A password has eight characters (RFC 6143, section 7.2.2); a longer file is not ours.
pub const PASSWORD_BYTES_MAX: u64 = 64;

/// What went wrong with a file of a run.
#[derive(Debug, thiserror::Error)]
pub enum RunFileError {
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} is not what labwright writes there")]
    Format { path: PathBuf, source: serde_json::Error },
    #[error("{path} has format {found}, this labwright knows {known}")]
    Version { path: PathBuf, found: u32, known: u32 },
    #[error("run {run} was given up before it was submitted: a newer run of its vm takes its place")]
    Superseded { run: RunId },
}

impl From<FileError> for RunFileError {
    fn from(FileError { action, path, source }: FileError) -> Self {
        Self::Io { action, path, source }
    }
}

/// A name for what a check makes on storage for a moment. Hosts that look at the same folder at once may have the same pid.
pub fn probe_name(of: &str) -> String {
    let host = nix::unistd::gethostname().unwrap_or_default();
    format!(".check-{of}-{}-{}", host.to_string_lossy(), std::process::id())
}

/// The folder of a run, which belongs to the account that runs guests.
fn open_folder(path: &Path) -> Result<Folder, RunFileError> {
    let missing = || RunFileError::Io { action: "open", path: path.to_owned(), source: ErrorKind::NotFound.into() };
    Folder::open(path)?.ok_or_else(missing)
}

/// Reads a JSON file of a run's folder; `None` where there is none.
fn read_json<T: serde::de::DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>, RunFileError> {
    let Some(opened) = Folder::open(folder)? else { return Ok(None) };
    let Some(text) = opened.read(name, JSON_BYTES_MAX)? else { return Ok(None) };
    parse_json(&text, &folder.join(name)).map(Some)
}

fn parse_json<T: serde::de::DeserializeOwned>(text: &[u8], path: &Path) -> Result<T, RunFileError> {
    serde_json::from_slice(text).map_err(|source| RunFileError::Format { path: path.to_owned(), source })
}
