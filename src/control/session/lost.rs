//! The time that faults take from people. Pure: what starters said in, seconds by cause out.
//!
//! ```text
//! nothing yet          not ready
//! running, resumed     can work
//! paused, cut off      cannot, for the reason that is told; not lost, where the session itself stands still
//! stopped              cannot, for the reason that is told, until the next run is up; not lost after an own end
//! ```

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::model::session::AddedPause;
use crate::run::{Event, PAUSED_BY_SESSION, Record, StopReason};

/// What of the time from `own.0` to `own.1` was lost, by cause; pauses are nobody's working time.
pub(super) fn lost(runs: &[&[Record]], own: (Timestamp, Timestamp), pauses: &[AddedPause]) -> BTreeMap<String, u64> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    let (mut cause, mut since) = (Some("not ready".to_owned()), Timestamp::MIN);
    let mut add = |cause: &Option<String>, from: Timestamp, until: Timestamp| {
        let seconds = working_seconds(from.max(own.0), until.min(own.1), pauses);
        if let (Some(cause), 1..) = (cause, seconds) {
            *sums.entry(cause.clone()).or_default() += seconds;
        }
    };
    for records in runs {
        let offset = offset(records);
        for record in *records {
            let Some(next) = after(&record.event) else { continue };
            let at = record.at.checked_sub(offset).unwrap_or(record.at).max(since);
            add(&cause, since, at);
            (cause, since) = (next, at);
        }
    }
    add(&cause, since, Timestamp::MAX);
    sums
}

/// How far the host's clock is ahead of the storage server's, which all times count by.
fn offset(records: &[Record]) -> SignedDuration {
    let offset = records.iter().find_map(|record| match &record.event {
        Event::Running { clock_offset_ms, .. } => Some(*clock_offset_ms),
        _ => None,
    });
    SignedDuration::from_millis(offset.unwrap_or(0))
}

/// Why nobody can work after this; `Some(None)`: they can. `None`: it changes nothing.
fn after(event: &Event) -> Option<Option<String>> {
    let because = |why: &str| Some(Some(why.to_owned()));
    match event {
        Event::Running { .. } | Event::Resumed | Event::Connected => Some(None),
        Event::Paused { reason } if reason == PAUSED_BY_SESSION => Some(None),
        Event::Paused { reason } => because(reason),
        Event::CutOff { .. } => because("no network"),
        Event::Off { .. } => because("new disks"),
        Event::Restarting { .. } => because("restarted"),
        Event::Stopped { reason: StopReason::Deadline, .. } => Some(None),
        Event::Stopped { reason, .. } => Some(Some(reason.to_string())),
        _ => None,
    }
}

fn working_seconds(from: Timestamp, until: Timestamp, pauses: &[AddedPause]) -> u64 {
    let length = |from: Timestamp, until: Timestamp| until.as_second().saturating_sub(from.as_second()).max(0);
    let paused: i64 =
        pauses.iter().map(|pause| length(pause.from.max(from), pause.until.unwrap_or(Timestamp::MAX).min(until))).sum();
    u64::try_from(length(from, until).saturating_sub(paused)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(36_000 + minute * 60).unwrap()
    }

    fn said(minute: i64, event: serde_json::Value) -> Record {
        let mut record = event;
        for (key, value) in
            [("run", serde_json::json!("k3f9-7")), ("generation", 1.into()), ("at", serde_json::json!(at(minute)))]
        {
            record[key] = value;
        }
        serde_json::from_value(record).unwrap()
    }

    fn running(minute: i64, offset_ms: i64) -> Record {
        said(
            minute,
            serde_json::json!({ "event": "running", "host": "a", "pid": 1, "tap": "t", "vnc": "v", "ip": "10.0.0.2",
                "mac": "de:af:de:af:00:02", "isolated": true, "accel": "kvm", "clock_offset_ms": offset_ms }),
        )
    }

    fn of(runs: &[&[Record]], pauses: &[(i64, i64)]) -> Vec<(String, u64)> {
        let pause = |(from, until): &(i64, i64)| AddedPause { user: None, from: at(*from), until: Some(at(*until)) };
        let pauses: Vec<AddedPause> = pauses.iter().map(pause).collect();
        lost(runs, (at(0), at(60)), &pauses).into_iter().map(|(cause, seconds)| (cause, seconds / 60)).collect()
    }

    #[test]
    fn what_faults_take_is_counted_by_cause_and_within_the_own_time() {
        let paused = |minute: i64, why: &str| said(minute, serde_json::json!({ "event": "paused", "reason": why }));
        let resumed = |minute: i64| said(minute, serde_json::json!({ "event": "resumed" }));
        let stopped = |minute: i64, why: &str| {
            said(minute, serde_json::json!({ "event": "stopped", "reason": why, "exit": null }))
        };
        let no_loss: Vec<(String, u64)> = Vec::new();
        assert_eq!(of(&[&[running(-20, 0)]], &[]), no_loss, "it booted ahead");
        assert_eq!(of(&[&[running(7, 0)]], &[]), [("not ready".to_owned(), 7)]);
        assert_eq!(of(&[], &[]), [("not ready".to_owned(), 60)]);
        // A host whose clock is five minutes ahead.
        assert_eq!(of(&[&[running(7, 300_000)]], &[]), [("not ready".to_owned(), 2)]);
        let storage = [running(-5, 0), paused(10, "storage"), resumed(14)];
        assert_eq!(of(&[&storage], &[]), [("storage".to_owned(), 4)]);
        assert_eq!(of(&[&storage], &[(12, 20)]), [("storage".to_owned(), 2)], "two of them stood in a pause");
        assert_eq!(of(&[&[running(-5, 0), paused(10, PAUSED_BY_SESSION), resumed(14)]], &[(10, 14)]), no_loss);
        // One run dies, and the next comes up; after the own end nobody loses anything.
        let died = [running(-5, 0), stopped(20, "crashed")];
        let crashed = StopReason::Crashed.to_string();
        assert_eq!(of(&[&died, &[running(26, 0), stopped(60, "deadline")]], &[]), [(crashed.clone(), 6)]);
        assert_eq!(of(&[&died], &[]), [(crashed, 40)]);
        assert_eq!(of(&[&[running(-5, 0), stopped(58, "deadline")]], &[]), no_loss);
    }
}
