//! Jobs, and what they used.

use super::shown;
use crate::control::view::{Job, Usage};
use crate::report::table::Row;
use crate::report::{one_line, times};

impl Row for Job {
    const COLUMNS: &'static [&'static str] =
        &["job", "vm", "run", "state", "host", "started", "run_time", "reason", "owner"];
    const WIDE: &'static [&'static str] = &["owner"];
    const YIELDING: &'static [&'static str] = &["run", "started", "job"];
    fn cells(&self) -> Vec<String> {
        vec![
            shown(self.job.as_ref()),
            shown(self.vm.as_ref()),
            shown(self.run.as_ref()),
            self.state.into(),
            shown(self.host.as_ref()),
            self.started.as_ref().map(times::moment).unwrap_or_default(),
            clock(self.run_seconds),
            self.reason.as_deref().map(one_line).unwrap_or_default(),
            self.owner.clone(),
        ]
    }
}

impl Row for Usage {
    const COLUMNS: &'static [&'static str] = &["user", "lab", "vms", "runs", "run_time", "memory_gib_hours"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.user.clone(),
            self.lab.to_string(),
            self.vms.to_string(),
            self.runs.to_string(),
            clock(self.run_seconds),
            format!("{:.2}", self.memory_gib_hours),
        ]
    }
}

/// `h:mm:ss`.
fn clock(seconds: u64) -> String {
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
