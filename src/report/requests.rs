//! What running guests were asked for, and what came of it.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::table::{Column, Format, Row, column, render, word};
use super::times;
use crate::control::view::Standing;
use crate::disks::Snapshot;
use crate::model::id::VmName;
use crate::run::RequestKind;

/// What came of a request, in words.
pub fn done(vm: &VmName, kind: &RequestKind) -> String {
    match kind {
        RequestKind::Screen => format!("a picture of {vm} was taken"),
        RequestKind::Suspend => format!("{vm} stands still; `labwright vm resume {vm}` lets it go on"),
        RequestKind::Resume => format!("{vm} goes on"),
        RequestKind::Reset => format!("{vm} was reset and boots; its disks are as they were"),
        RequestKind::Snapshot { name } => format!("{vm} can go back to now: `labwright vm revert {vm} {name}`"),
        RequestKind::Revert { name } => format!("{vm} is as it was at `{name}`"),
        RequestKind::DeleteSnapshot { name } => format!("{vm} has no snapshot `{name}` any more"),
        RequestKind::Other(what) => format!("{vm} did {what}"),
    }
}

/// What to know before a vm is started by hand that runs.
pub fn runs(vm: &VmName, running: &str) -> String {
    format!("warning: {vm} runs by what is recorded: {running}; the script says how to stop it first")
}

/// Where the picture of a guest's screen is.
pub fn pictured(vm: &VmName, file: &Path) -> String {
    format!("the screen of {vm} is in {}", file.display())
}

/// The snapshots of a vm.
pub fn snapshots(snapshots: &[Snapshot], format: Format) -> String {
    render(&snapshots.iter().map(SnapshotRow::new).collect::<Vec<_>>(), format)
}

#[derive(Debug, Serialize)]
struct SnapshotRow {
    name: String,
    taken: jiff::Timestamp,
    memory_mib: u64,
}

impl SnapshotRow {
    fn new(snapshot: &Snapshot) -> Self {
        let memory_mib = snapshot.memory_bytes.div_ceil(1 << 20);
        Self { name: snapshot.name.clone(), taken: snapshot.taken, memory_mib }
    }
}

impl Row for SnapshotRow {
    const COLUMNS: &'static [Column<Self>] = &[
        column("name", |snapshot| snapshot.name.clone()),
        column("taken", |snapshot| times::local(snapshot.taken)),
        column("memory", |snapshot| format!("{} MiB", snapshot.memory_mib)),
    ];
}

/// Where a vm stands, in a line for who waits for it.
pub fn standing(vm: &VmName, standing: &Standing) -> String {
    let takes_all = "a string takes all";
    let mut line = format!("{vm}: {}", word(&standing.state));
    if let Some(place) = standing.place {
        write!(line, ", place {place} in the queue").expect(takes_all);
    }
    if let Some(host) = &standing.host {
        write!(line, ", on {host}").expect(takes_all);
    }
    if let Some(why) = &standing.why {
        write!(line, ": {}", super::escaped(why)).expect(takes_all);
    }
    line
}
