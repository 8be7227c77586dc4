//! What each run of a lab used: who, where, from when to when, how much memory. In: the state's list of runs, their
//! folders, and the batch system's books for those that left no report. Changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use crate::model::id::SiteTag;
use crate::run::{BatchId, Event, Record, RunFileError, RunSpec, read_report};
use crate::scheduler::Ended;
use crate::state::PastRun;

/// One run, over or not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Used {
    pub run: String,
    pub vm: String,
    /// Whose vm it was; `None`: its folder is gone.
    pub owner: Option<String>,
    pub host: Option<String>,
    /// When its guest began.
    pub started: Option<Timestamp>,
    /// When it ended, or was last heard of; `None`: it goes on.
    pub ended: Option<Timestamp>,
    /// How long its guest ran.
    pub seconds: u64,
    pub memory_mib: Option<u64>,
    /// Why it ended, by its starter.
    pub reason: Option<String>,
}

impl Used {
    /// GiB times hours, as bills have it.
    pub fn memory_hours(&self) -> f64 {
        // Far below 2^52 both.
        #[expect(clippy::cast_precision_loss, reason = "seconds and MiB of a run are small numbers")]
        let product = self.seconds as f64 * self.memory_mib.unwrap_or(0) as f64;
        product / 3600.0 / 1024.0
    }
}

/// What the books say, by batch and task.
pub type Books = BTreeMap<(BatchId, u32), Ended>;

/// Sorts what the books say by whose it is.
pub fn books(site: &SiteTag, ended: Vec<Ended>) -> Books {
    let ours = ended.into_iter().filter_map(|ended| {
        let (_, batch) = BatchId::from_job_name(&ended.name, site)?;
        Some(((batch, ended.id.task), ended))
    });
    ours.collect()
}

/// Reads what a run's own folder, `runs/<run>/`, says of it.
pub fn used(past: &PastRun, runs: &Path, now: Timestamp) -> Result<Used, RunFileError> {
    let folder = runs.join(&past.run);
    let spec = RunSpec::read(&folder)?;
    let records = read_report(&folder)?;
    let mut used = Used {
        run: past.run.clone(),
        vm: past.vm.clone(),
        owner: spec.as_ref().map(|spec| spec.owner.to_string()),
        host: None,
        started: None,
        ended: None,
        seconds: 0,
        memory_mib: spec.map(|spec| u64::from(spec.hardware.memory_mib)),
        reason: None,
    };
    take_report(&mut used, &records, past.is_ended());
    if let Some(started) = used.started {
        used.seconds = u64::try_from(used.ended.unwrap_or(now).as_second() - started.as_second()).unwrap_or(0);
    }
    Ok(used)
}

/// From the guest's first instruction to the last that was heard of it.
fn take_report(used: &mut Used, records: &[Record], is_ended: bool) {
    for record in records {
        match &record.event {
            Event::Prepared { host } => used.host = Some(host.clone()),
            Event::Running { .. } => used.started = used.started.or(Some(record.at)),
            Event::Stopped { reason, .. } => {
                (used.ended, used.reason) = (Some(record.at), Some(reason.to_string()));
            }
            _ => {}
        }
    }
    if is_ended && used.ended.is_none() {
        used.ended = records.last().map(|record| record.at);
    }
}

/// Whether a run left so little of itself that only the books can tell of it.
pub fn needs_books(past: &PastRun, used: &Used) -> bool {
    past.is_ended() && past.job.is_some() && used.host.is_none()
}

/// Fills in what the books say of a run that left no report.
pub fn add_books(used: &mut Used, past: &PastRun, books: &Books) {
    let Some(batch) = past.batch() else { return };
    if let Some(ended) = books.get(&(batch, past.task)) {
        used.host = Some(ended.host.clone());
        used.seconds = ended.seconds;
        used.memory_mib = used.memory_mib.or(ended.memory_mib);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(second: i64, event: Event) -> Record {
        let at = Timestamp::from_second(second).unwrap();
        Record { version: None, obeys: None, run: "k3f9-1".parse().unwrap(), generation: 1, at, event }
    }

    fn running() -> Event {
        Event::Running {
            host: "h1".into(),
            pid: 1,
            tap: "lw1".into(),
            vnc: String::new(),
            ip: [10, 0, 0, 2].into(),
            mac: "de:af:de:af:00:02".parse().unwrap(),
            isolated: false,
            accel: "tcg".into(),
            clock_offset_ms: 0,
            unbounded: None,
        }
    }

    fn nothing() -> Used {
        Used {
            run: "k3f9-1".into(),
            vm: "a".into(),
            owner: None,
            host: None,
            started: None,
            ended: None,
            seconds: 0,
            memory_mib: None,
            reason: None,
        }
    }

    #[test]
    fn a_guest_that_was_restarted_ran_from_its_first_start() {
        let records = [
            record(100, Event::Prepared { host: "h1".into() }),
            record(110, running()),
            record(115, Event::Restarting { attempt: 2, exit: "signal 9".into() }),
            record(120, running()),
            record(500, Event::Heartbeat),
        ];
        let mut goes_on = nothing();
        take_report(&mut goes_on, &records, false);
        assert_eq!((goes_on.started.map(Timestamp::as_second), goes_on.ended), (Some(110), None));
        let mut gone = nothing();
        take_report(&mut gone, &records, true);
        assert_eq!(gone.ended.map(Timestamp::as_second), Some(500), "without a word: the last that was heard");
        assert_eq!(gone.host.as_deref(), Some("h1"));
    }

    #[test]
    fn memory_hours() {
        let used = Used { seconds: 5400, memory_mib: Some(2048), ..nothing() };
        assert!((used.memory_hours() - 3.0).abs() < 1e-9);
    }
}
