//! `report.jsonl`: what a starter says of its run, one JSON object per line. One writer; each record is fsynced; a torn
//! last line is unfinished and not read. The file stays small: see `starter::reporter`.
//!
//! ```text
//! prepared ─▶ networked ─▶ running ─▶ ready ─▶ stopping ─▶ stopped
//!     │           │           │  ▲                            ▲
//!     │           │           ▼  │ resumed                    │
//!     │           │          paused                           │
//!     └───────────┴───────────┴────── anything may end ───────┘
//! ```

use std::net::Ipv4Addr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{REPORT, RunFileError};
use crate::id::{Mac, RunId};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub run: RunId,
    pub generation: u64,
    /// On the host's clock.
    pub at: jiff::Timestamp,
    #[serde(flatten)]
    pub event: Event,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The host has what the run needs.
    Prepared {
        host: String,
    },
    /// Filter and tap stand.
    Networked {
        tap: String,
    },
    /// qemu answers. The mapping of the paper (section III).
    Running {
        host: String,
        pid: u32,
        tap: String,
        /// `address:port` of the vnc server.
        vnc: String,
        ip: Ipv4Addr,
        mac: Mac,
        isolated: bool,
        accel: String,
        /// The host's clock minus the storage server's, in milliseconds.
        clock_offset_ms: i64,
    },
    /// The guest was seen using its planned address.
    Ready,
    /// The guest stands still: the starter could not reach its storage for `self_fence`.
    Paused {
        reason: String,
    },
    Resumed,
    Heartbeat,
    /// Request `number` was carried out, or not.
    Answer {
        number: u64,
        file: Option<String>,
        error: Option<String>,
    },
    /// The guest died early; the starter starts it again.
    Restarting {
        attempt: u32,
        exit: String,
    },
    Stopping {
        reason: StopReason,
    },
    /// The last record of a run.
    Stopped {
        reason: StopReason,
        exit: Option<String>,
    },
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The guest powered itself off.
    Guest,
    /// `control.json` asked for it, or the scheduler's signal did.
    Asked,
    /// The deadline in `control.json` has passed.
    Deadline,
    /// A newer run of the vm exists.
    Superseded,
    /// qemu ended by itself with an error.
    Crashed,
    /// Something could not be set up; the text says what, and what to do.
    Failed { message: String },
}

/// A report as it stands, in order.
pub fn read_report(folder: &Path) -> Result<Vec<Record>, RunFileError> {
    let path = folder.join(REPORT);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(RunFileError::Io { action: "read", path, source }),
    };
    let Some(complete) = text.iter().rposition(|b| *b == b'\n') else { return Ok(Vec::new()) };
    text[..complete]
        .split(|b| *b == b'\n')
        .map(|line| serde_json::from_slice(line).map_err(|source| RunFileError::Format { path: path.clone(), source }))
        .collect()
}
