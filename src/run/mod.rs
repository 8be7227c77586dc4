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
//!   clock          controller, touched to learn the server's time      -> silence.rs
//! runs/batches/<batch>.json   controller: task number -> run, never changed -> batch.rs
//! ```
//!
//! Both sides poll and open anew each time: network file systems show neither inotify nor the growth of an open file.
//! Nothing here decides anything; it reads and writes, and says exactly what is wrong with what it reads.

mod batch;
mod control;
mod folders;
#[cfg(test)]
pub(crate) mod formats;
mod report;
mod silence;
mod spec;

pub use batch::{Batch, BatchId};
pub use control::{Control, Request, RequestKind, Wanted};
pub use folders::{OnStorage, Runs};
pub use report::{Event, Record, StopReason, parse_report, read_report};
pub use spec::{RunDisk, RunNetwork, RunSpec};

use std::path::{Path, PathBuf};

use crate::id::RunId;

pub const SPEC: &str = "spec.json";
pub const CONTROL: &str = "control.json";
pub const REPORT: &str = "report.jsonl";
pub const ANSWERS: &str = "answers";
pub const CLOCK: &str = "clock";
pub const VNC_PASSWORD: &str = "vnc.password";

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

/// A name for what a check makes on storage for a moment. Hosts that look at the same folder at once may have the same pid.
pub fn probe_name(of: &str) -> String {
    let host = nix::unistd::gethostname().unwrap_or_default();
    format!(".check-{of}-{}-{}", host.to_string_lossy(), std::process::id())
}

/// Writes a file whole or not at all: a reader sees the old text or the new one, also after a crash. Written by root, it
/// belongs to whom its folder belongs: the other side of the protocol may be an unprivileged account.
pub fn write_atomically(path: &Path, text: &[u8], mode: u32) -> Result<(), RunFileError> {
    write_whole(path, text, mode, std::fs::File::sync_all)
}

/// The same for many files whose writer flushes the file system once when all are there.
fn write_unflushed(path: &Path, text: &[u8], mode: u32) -> Result<(), RunFileError> {
    write_whole(path, text, mode, |_| Ok(()))
}

/// The same, but only where there is no such file yet; `false` where there is one. `link(2)` never replaces a file.
fn write_new_unflushed(path: &Path, text: &[u8], mode: u32) -> Result<bool, RunFileError> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".first");
    let draft = PathBuf::from(draft);
    write_unflushed(&draft, text, mode)?;
    let linked = match std::fs::hard_link(&draft, path) {
        Ok(()) => Ok(true),
        Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(RunFileError::Io { action: "create", path: path.to_owned(), source }),
    };
    // A left-over draft is harmless and replaced next time; the link's own result is what counts.
    drop(std::fs::remove_file(&draft));
    linked
}

fn write_whole(
    path: &Path,
    text: &[u8],
    mode: u32,
    flush: impl FnOnce(&std::fs::File) -> std::io::Result<()>,
) -> Result<(), RunFileError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let error = |action, source| RunFileError::Io { action, path: path.to_owned(), source };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .map_err(|source| error("create", source))?;
    let written = file
        .write_all(text)
        .and_then(|()| give_to_owner_of_folder(&file, path))
        .and_then(|()| flush(&file))
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|source| {
        // The failed write is what the user must hear of; a left-over temporary file is harmless and overwritten next time.
        drop(std::fs::remove_file(&temporary));
        error("write", source)
    })
}

fn give_to_owner_of_folder(file: &std::fs::File, path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, fchown};
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::fs::metadata(folder)?;
    fchown(file, Some(folder.uid()), Some(folder.gid()))
}

/// Reads a JSON file of the protocol; `None` where there is none.
fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, RunFileError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RunFileError::Io { action: "read", path: path.to_owned(), source }),
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| RunFileError::Format { path: path.to_owned(), source })
}
