//! What starters say of their runs, and for how long they have been silent.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ObserveError, Observed, live, look_at_each};
use crate::model::id::RunId;
use crate::model::job::TaskState;
use crate::model::site::Storage;
use crate::run::{Dropped, Event, Record, Runs, StopReason, last_words};
use crate::state::{Recorded, RecordedRun};

/// A report, folded to its last word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReport {
    pub phase: Phase,
    /// The latest `running` record.
    pub mapping: Option<Mapping>,
    /// How many look at the guest's screen, as it was told last.
    pub viewers: u32,
    /// The latest count of frames that its filter has dropped; `None` where none was, or nobody counts.
    pub dropped: Option<Dropped>,
    /// Its starter can give the guest other disks while the run goes on.
    pub takes_disks: bool,
    /// Time of the last record of any kind, on the host's clock: for people, since clocks differ.
    pub last_beat: jiff::Timestamp,
}

/// How far a run is, by what its starter last said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Running,
    Ready,
    Paused {
        reason: String,
    },
    /// It runs, and reaches nobody.
    CutOff {
        reason: String,
    },
    /// Its guest is off, and comes back with other disks.
    Off,
    Stopping,
    Stopped {
        reason: StopReason,
        exit: Option<String>,
    },
}

impl Phase {
    /// Why a run is over, in words; of a qemu that ended by itself also how.
    pub fn end(&self) -> Option<String> {
        match self {
            Self::Stopped { reason: reason @ StopReason::Crashed, exit: Some(exit) } => {
                Some(format!("{reason}: {exit}"))
            }
            Self::Stopped { reason, .. } => Some(reason.to_string()),
            _ => None,
        }
    }
}

/// The live facts of a run, as in the paper's Mapping table (section III).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Mapping {
    pub host: String,
    pub pid: u32,
    pub tap: String,
    pub vnc: String,
    pub ip: std::net::Ipv4Addr,
    pub mac: crate::model::id::Mac,
    pub isolated: bool,
    /// Ethernet address of the gateway, where the guest's filter goes by it.
    pub gateway_mac: Option<crate::model::id::Mac>,
    pub accel: String,
    pub since: jiff::Timestamp,
    pub clock_offset_ms: i64,
}

/// What a report says in the end; `None` of an empty one.
pub fn fold(records: &[Record]) -> Option<RunReport> {
    let last_beat = records.last()?.at;
    let obeyed = records.first().and_then(|first| first.obeys.as_deref()).unwrap_or_default();
    let takes_disks = obeyed.iter().any(|part| part == "disks");
    let mut report =
        RunReport { phase: Phase::Starting, mapping: None, viewers: 0, dropped: None, takes_disks, last_beat };
    let mut before_pause = Phase::Starting;
    let mut cut_off = None;
    let mut gateway_mac = None;
    for record in records {
        match &record.event {
            Event::Prepared { .. } | Event::Restarting { .. } => report.phase = Phase::Starting,
            Event::Networked { gateway, .. } => (report.phase, gateway_mac) = (Phase::Starting, *gateway),
            Event::Running { host, pid, tap, vnc, ip, mac, isolated, accel, clock_offset_ms, unbounded: _ } => {
                report.phase = Phase::Running;
                report.mapping = Some(Mapping {
                    host: host.clone(),
                    pid: *pid,
                    tap: tap.clone(),
                    vnc: vnc.clone(),
                    ip: *ip,
                    mac: *mac,
                    isolated: *isolated,
                    gateway_mac,
                    accel: accel.clone(),
                    since: record.at,
                    clock_offset_ms: *clock_offset_ms,
                });
            }
            Event::Ready => report.phase = Phase::Ready,
            Event::Paused { reason } => {
                let before = std::mem::replace(&mut report.phase, Phase::Paused { reason: reason.clone() });
                // A guest that somebody had suspended can be paused for the sake of its storage on top of that.
                if !matches!(before, Phase::Paused { .. }) {
                    before_pause = before;
                }
            }
            Event::Resumed if matches!(report.phase, Phase::Paused { .. }) => report.phase = before_pause.clone(),
            // A guest that its site holds before its first instruction was let go.
            Event::Resumed => {}
            Event::Heartbeat | Event::Answer { .. } | Event::Warning { .. } | Event::Filtered { .. } | Event::Other => {
            }
            Event::Opened | Event::Locked { .. } | Event::Warned { .. } => {}
            Event::LookedAt { viewers, .. } => report.viewers = *viewers,
            Event::CutOff { reason } => cut_off = Some(reason.clone()),
            Event::Connected => cut_off = None,
            Event::Dropped(dropped) => report.dropped = Some(*dropped),
            Event::Off { .. } => report.phase = Phase::Off,
            Event::Stopping { .. } => report.phase = Phase::Stopping,
            Event::Stopped { reason, exit } => {
                report.phase = Phase::Stopped { reason: reason.clone(), exit: exit.clone() };
            }
        }
    }
    if let (Some(reason), Phase::Running | Phase::Ready) = (cut_off, &report.phase) {
        report.phase = Phase::CutOff { reason };
    }
    Some(report)
}

pub(super) fn reports(runs: &dyn Runs, of: &[&RunId]) -> Result<BTreeMap<RunId, RunReport>, ObserveError> {
    if of.is_empty() {
        return Ok(BTreeMap::new());
    }
    let report = runs.reports().map_err(ObserveError::Report)?;
    let reports = look_at_each(of, runs.at_once(), |run| {
        let records = report(run).map_err(ObserveError::Report)?;
        Ok(fold(&records).map(|report| (RunId::clone(run), report)))
    })?;
    Ok(reports.into_iter().flatten().collect())
}

pub(super) fn silences<'a>(
    runs: &dyn Runs,
    of: impl Iterator<Item = &'a RecordedRun>,
    observed: &Observed,
) -> Result<BTreeMap<RunId, Duration>, ObserveError> {
    let unheard = of.filter(|run| {
        let task = observed.tasks.get(&(run.batch.clone(), run.task));
        live(Some(run)) && task.is_none_or(|task| task.state == TaskState::Unknown)
    });
    let unheard: Vec<&RunId> = unheard.map(|run| &run.run).collect();
    let silences = look_at_each(&unheard, runs.at_once(), |run| {
        let silence = runs.silence(run).map_err(ObserveError::Report)?;
        Ok(silence.map(|silence| (RunId::clone(run), silence)))
    })?;
    Ok(silences.into_iter().flatten().collect())
}

/// A starter that could not even begin its report has told its batch system why.
pub(super) fn last_words_of_gone(
    storage: &Storage,
    recorded: &Recorded,
    observed: &Observed,
) -> BTreeMap<RunId, String> {
    let runs = recorded.vms.values().filter_map(|vm| vm.run.as_ref()).filter(|run| live(Some(run)));
    let gone = runs.filter(|run| {
        !observed.runs.contains_key(&run.run) && !observed.tasks.contains_key(&(run.batch.clone(), run.task))
    });
    gone.filter_map(|run| Some((run.run.clone(), last_words(&storage.runs, run.job?.0, run.task)?))).collect()
}
