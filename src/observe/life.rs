//! Where a vm's latest run stands, all sources taken together: our records, its starter's report, the queue. Pure.
//!
//! A cluster can lose a job whose guest lives on a host that was cut off, so the end of a job is not the end of its guest. Two
//! things are: its starter's last word, and a silence so long that the starter must have suspended the guest. The starter
//! counts from before its last write, by a clock that nobody sets; we count from that write to now, both by the storage
//! server's clock (`run::silence`). No clock of this machine or of the host takes part.

use std::time::Duration;

use super::{Observed, Phase};
use crate::model::job::{TaskId, TaskState};
use crate::model::site::Site;
use crate::run::StopReason;
use crate::state::{RecordedRun, RecordedVm, RunState};

/// How much longer than a starter we wait: until it has noticed and qemu stands still, and for clocks that do not run alike.
const MARGIN_SECONDS: u64 = 10;

/// Where a known vm's latest run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// No run, or one that ended; `news` if the end is not recorded yet.
    Off { reason: Option<StopReason>, news: bool },
    /// In the queue or on a host.
    Live { task: Option<TaskId> },
    /// In the queue, although the submit's answer was lost.
    Lost { task: TaskId },
    /// Its host does not answer: neither dead nor alive for us.
    Unknown {
        /// As the queue names it, or its starter, where the queue knows of none.
        host: String,
        /// Seconds since its starter last wrote; `None`: it never did.
        silent_seconds: Option<u64>,
        /// The queue knows its job; one that is gone may still live on a host that was cut off.
        in_queue: bool,
    },
}

impl Life {
    /// It has a job, so that a stop is needed before anything is done with its disks.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. } | Self::Lost { .. })
    }

    /// By our records nothing of it lives.
    pub fn is_off(&self) -> bool {
        matches!(self, Self::Off { .. })
    }
}

/// Tells where a vm stands.
pub fn life(known: &RecordedVm, observed: &Observed, site: &Site) -> Life {
    known.run.as_ref().map_or(Life::Off { reason: None, news: false }, |run| life_of(run, observed, site))
}

/// The same of a run.
pub fn life_of(run: &RecordedRun, observed: &Observed, site: &Site) -> Life {
    if let RunState::Ended { reason } = &run.state {
        return Life::Off { reason: reason.clone(), news: false };
    }
    let report = observed.runs.get(&run.run);
    if let Some(Phase::Stopped { reason, .. }) = report.map(|report| &report.phase) {
        return Life::Off { reason: Some(reason.clone()), news: true };
    }
    let silent_seconds = observed.silences.get(&run.run).map(Duration::as_secs);
    let task = observed.tasks.get(&(run.batch.clone(), run.task));
    let unknown = || {
        let reported = report.and_then(|report| report.mapping.as_ref()).map(|mapping| mapping.host.clone());
        let host = task.and_then(|task| task.host.clone()).or(reported);
        let host = host.unwrap_or_else(|| "somewhere".into());
        Life::Unknown { host, silent_seconds, in_queue: task.is_some() }
    };
    match task {
        None if silent_seconds.is_some_and(|silent| !is_fenced(silent, site)) && forgets_jobs(site) => unknown(),
        None => {
            let said = observed.last_words.get(&run.run);
            Life::Off { reason: said.map(|message| StopReason::Failed { message: message.clone() }), news: true }
        }
        Some(task) if task.state == TaskState::Unknown => unknown(),
        Some(task) if run.job.is_none() => Life::Lost { task: task.id },
        Some(task) => Life::Live { task: Some(task.id) },
    }
}

/// A cluster can forget a job whose starter lives on a host that is cut off. The local scheduler cannot: there a job is in
/// the queue exactly as long as it lives.
fn forgets_jobs(site: &Site) -> bool {
    !site.scheduler.knows_every_death()
}

/// Whether a starter that has been silent for so long must have suspended its guest.
pub fn is_fenced(silent_seconds: u64, site: &Site) -> bool {
    silent_seconds >= fenced_after(site)
}

/// After how many seconds of silence a guest stands still for certain.
pub fn fenced_after(site: &Site) -> u64 {
    site.timing.self_fence_seconds.saturating_add(MARGIN_SECONDS)
}
