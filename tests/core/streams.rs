//! What programs read is what the schemas say: the line streams of real plans and applies, and the reports of real runs.

use std::collections::{BTreeMap, BTreeSet};

use labwright::apply::{Failure, Summary};
use labwright::report;
use labwright::run::{Control, Event, Lock, Record, StopReason};
use labwright::schemas::{SchemaKind, text as schema_text};
use serde_json::Value;

use crate::lab::{Applied, Lab};
use crate::plans::PAIR;

/// Judges every line of a stream and counts them by the kind that they name.
fn judge(kind: SchemaKind, tag: &str, text: &str, seen: &mut BTreeMap<String, usize>) {
    let validator = jsonschema::draft7::new(&serde_json::from_str(&schema_text(kind)).unwrap()).unwrap();
    assert!(text.ends_with('\n'), "{text}");
    for line in text.lines() {
        let json: Value = serde_json::from_str(line).unwrap();
        let errors: Vec<String> = validator.iter_errors(&json).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}\n{line}");
        *seen.entry(json[tag].as_str().unwrap().to_owned()).or_default() += 1;
    }
}

fn names(seen: &BTreeMap<String, usize>) -> Vec<&str> {
    seen.keys().map(String::as_str).collect()
}

#[test]
fn plans_are_what_their_schema_says() {
    let mut seen = BTreeMap::new();
    let mut plan = |lab: &Lab| judge(SchemaKind::Plan, "type", &report::plan::stream(&lab.plan()), &mut seen);
    let lab = Lab::new(PAIR);
    plan(&lab);
    lab.must_apply();
    // Both wait in the queue.
    plan(&lab);
    lab.world.with(|inner| {
        inner.start_all();
        let run = inner.run_of("bob-gsr");
        inner.kill_run(&run);
    });
    plan(&lab);
    lab.must_apply();
    lab.world.with(|inner| {
        inner.start_all();
        let run = inner.run_of("bob-gsr");
        inner.end_run(&run, StopReason::Guest);
    });
    plan(&lab);
    lab.edit(&PAIR.replace("[alice, bob]", "[alice]").replace("1G", "2G"));
    plan(&lab);
    assert_eq!(names(&seen), ["change", "drift", "note", "refusal", "summary", "version", "wait"]);
    assert_eq!((seen["version"], seen["summary"]), (5, 5));
}

#[test]
fn applies_are_what_their_schema_says() {
    let mut seen = BTreeMap::new();
    let lab = Lab::new(PAIR);
    lab.world.with(|inner| inner.faults.storage_full = true);
    let Applied::Done(half) = lab.apply() else { panic!("a full disk fails single effects") };
    judge(SchemaKind::Apply, "type", &report::apply::stream(&half), &mut seen);
    lab.world.with(|inner| inner.faults.storage_full = false);
    let Applied::Done(whole) = lab.apply() else { panic!("the next one goes on") };
    assert!(whole.failed.is_empty() && whole.started.len() == 2, "{whole:?}");
    judge(SchemaKind::Apply, "type", &report::apply::stream(&whole), &mut seen);
    assert_eq!(names(&seen), ["done", "failed", "skipped", "summary", "version"]);
}

#[test]
fn checks_are_what_their_schema_says() {
    let lab = Lab::new(PAIR);
    let mut seen = BTreeMap::new();
    let mut check = |manifest: &str| {
        std::fs::write(lab.folder.path().join("lab.yaml"), manifest).unwrap();
        let checked = labwright::control::validate::check(&[lab.folder.path().to_owned()], false).unwrap();
        judge(SchemaKind::Validate, "type", &report::diagnostics_json::stream(&checked), &mut seen);
    };
    check(PAIR);
    check(&PAIR.replace("derive: gsr", "derive: gst").replace("owner: badmin", "owner: nobody"));
    assert_eq!(names(&seen), ["file", "finding", "summary", "version"]);
    assert_eq!((seen["version"], seen["summary"]), (2, 2));
}

/// Readers of version 1 may count on these bytes.
#[test]
fn a_stream_reads_the_same_in_every_version_1() {
    let address = "vm/a".parse().unwrap();
    let failure = Failure { address, effect: "make the disk", detail: "it is full".into() };
    let summary = Summary { failed: vec![failure], done: BTreeSet::new(), ..Summary::default() };
    let expected = format!(
        r#"{{"labwright":"{}","stream":"apply","type":"version","version":"1.0"}}
{{"address":"vm/a","detail":"it is full","effect":"make the disk","type":"failed"}}
{{"done":0,"failed":1,"interrupted":false,"skipped":0,"started":[],"type":"summary"}}
"#,
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(report::apply::stream(&summary), expected);
}

#[test]
fn reports_are_what_their_schema_says() {
    let lab = Lab::new(PAIR);
    lab.must_apply();
    let mut records: Vec<Record> = lab.world.with(|inner| {
        inner.start_all();
        inner.records()
    });
    let first = records[0].clone();
    let failed = StopReason::Failed { message: "there is no bridge `vbr0`; run `labwright host setup`".into() };
    let more = [
        Event::Paused { reason: "its storage is gone".into() },
        Event::Resumed,
        Event::Locked { reason: Lock::Early },
        Event::Opened,
        Event::Warned { left_seconds: 600, failed: None },
        Event::LookedAt { viewers: 1, began: vec!["10.0.0.9:40022".into()] },
        Event::Heartbeat,
        Event::Answer { number: 7, file: Some("answers/7.png".into()), error: None },
        Event::Restarting { attempt: 2, exit: "exit status: 1".into() },
        Event::Stopping { reason: StopReason::Asked },
        Event::Stopped { reason: failed, exit: None },
    ];
    records.extend(more.into_iter().map(|event| Record { event, ..first.clone() }));
    let text: String = records.iter().map(|record| format!("{}\n", serde_json::to_string(record).unwrap())).collect();
    let mut seen = BTreeMap::new();
    judge(SchemaKind::Report, "event", &text, &mut seen);
    let all = [
        "answer",
        "heartbeat",
        "locked",
        "looked_at",
        "networked",
        "opened",
        "paused",
        "prepared",
        "ready",
        "restarting",
        "resumed",
        "running",
        "stopped",
        "stopping",
        "warned",
    ];
    assert_eq!(names(&seen), all);
}

#[test]
fn a_control_file_is_what_its_schema_says() {
    let text = r#"{"version":2,"generation":3,"wanted":"stopped",
        "clock":{"start":"2027-01-12T09:00:00Z","end":"2027-01-12T12:00:00Z","pauses":[{"since":"2027-01-12T10:00:00Z"}],
        "grace_seconds":120,"offline_grace_seconds":1800,"warn_before_seconds":[600,120],"at_end":"keep"},
        "disks":[{"path":"/d","backing":["/b"]}],"egress":[{"net":"10.0.0.5/32","port":53,"protocol":"udp"}],"console":"shut",
        "requests":[{"number":1,"kind":"screen"},{"number":2,"kind":{"snapshot":{"name":"before"}}}]}"#;
    let control: Control = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_value(&control).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    let validator = jsonschema::draft7::new(&serde_json::from_str(&schema_text(SchemaKind::Control)).unwrap()).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&serde_json::to_value(&control).unwrap()).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn a_line_that_lacks_something_is_not_accepted() {
    for (kind, line) in [
        (SchemaKind::Plan, r#"{"type":"change","address":"vm/a"}"#),
        (SchemaKind::Apply, r#"{"type":"summary","done":1}"#),
        (SchemaKind::Control, r#"{"version":2,"generation":1,"requests":[]}"#),
        (
            SchemaKind::Control,
            r#"{"version":2,"generation":1,"wanted":"running","requests":[],"clock":{"pauses":[{}]}}"#,
        ),
        (SchemaKind::Report, r#"{"run":"k3f9-1","generation":1,"at":"2027-01-12T08:00:00Z"}"#),
    ] {
        let validator = jsonschema::draft7::new(&serde_json::from_str(&schema_text(kind)).unwrap()).unwrap();
        assert!(!validator.is_valid(&serde_json::from_str(line).unwrap()), "{line}");
    }
}
