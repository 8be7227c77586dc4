//! Jobs, and what they used.

use super::shown;
use crate::control::view::{Job, Usage};
use crate::report::table::{Column, Row, column, wide, yielding};
use crate::report::{one_line, times};

impl Row for Job {
    const COLUMNS: &'static [Column<Self>] = &[
        yielding(3, "job", |job| shown(job.job.as_ref())),
        column("vm", |job| shown(job.vm.as_ref())),
        yielding(1, "run", |job| shown(job.run.as_ref())),
        column("state", |job| job.state.into()),
        column("host", |job| shown(job.host.as_ref())),
        yielding(2, "started", |job| job.started.as_ref().map(times::moment).unwrap_or_default()),
        column("run_time", |job| clock(job.run_seconds)),
        column("reason", |job| job.reason.as_deref().map(one_line).unwrap_or_default()),
        wide("owner", |job| job.owner.clone()),
    ];
}

impl Row for Usage {
    const COLUMNS: &'static [Column<Self>] = &[
        column("user", |usage| usage.user.clone()),
        column("lab", |usage| usage.lab.to_string()),
        column("vms", |usage| usage.vms.to_string()),
        column("runs", |usage| usage.runs.to_string()),
        column("run_time", |usage| clock(usage.run_seconds)),
        column("memory_gib_hours", |usage| format!("{:.2}", usage.memory_gib_hours)),
    ];
}

/// `h:mm:ss`.
fn clock(seconds: u64) -> String {
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
