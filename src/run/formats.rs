//! Files as other versions of labwright write them: one that is as old as the formats' first version, and made-up newer ones.
//! An old starter finishes its run beside a new controller, and the other way round.

use std::path::Path;

use serde_json::{Value, json};

use super::{Batch, Control, Event, Record, RequestKind, RunFileError, RunSpec, StopReason, Wanted, parse_report};

pub(crate) const SPEC_1: &str = r#"{"version":1,"run":"k3f9-104","lab":"exam","vm":"al-final","owner":"al","generation":3,
"hardware":{"memory_mib":512,"cpus":1,"firmware":"bios","nic":"virtio","display":"std","cdrom":null},
"disks":[{"path":"/srv/disks/al/disk-0.qcow2","backing":["/srv/images/gsr/disk-0.qcow2"]}],
"network":{"bridge":"vbr0","ip":"192.168.100.7","mac":"de:af:de:af:64:07","subnet":"192.168.100.0/24","gateway":"192.168.100.1",
"dns":[],"isolated":true,"lab_ranges":[["192.168.100.2","192.168.100.254"]],"lab_mac_prefixes":["de:af:de:af"],"egress":[],
"dhcp_control_port":7911,"filter":"nftables"},
"qemu":{"binary":"/usr/bin/qemu-system-x86_64","accel":"auto","extra_args":[],"vnc_bind":"127.0.0.1"},
"service_user":"labwright","timing":{"heartbeat_seconds":10,"self_fence_seconds":60,"grace_seconds":30,"early_exit_seconds":15,
"start_attempts_max":3,"hung_seconds":60}}"#;

const CONTROL_1: &str = r#"{"generation":3,"wanted":"running","deadline":"2027-01-12T10:00:00Z",
"requests":[{"number":1,"kind":"screen"},{"number":2,"kind":{"snapshot":{"name":"before"}}}]}"#;

const REPORT_1: &str = r#"{"run":"k3f9-104","generation":3,"at":"2027-01-12T07:00:00Z","event":"prepared","host":"h1"}
{"run":"k3f9-104","generation":3,"at":"2027-01-12T07:00:01Z","event":"networked","tap":"lwk3f9104"}
{"run":"k3f9-104","generation":3,"at":"2027-01-12T07:00:09Z","event":"stopped","reason":{"failed":{"message":"no"}},"exit":null}
"#;

const BATCH_1: &str = r#"{"version":1,"id":"k3f9-104","lab":"exam","runs":["k3f9-104","k3f9-105"]}"#;

fn report(text: &str) -> Vec<Event> {
    parse_report(text.as_bytes(), Path::new("report.jsonl")).unwrap().into_iter().map(|record| record.event).collect()
}

fn written(name: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    folder
}

#[test]
fn the_first_version_of_each_file_is_read() {
    let spec = RunSpec::read(written(super::SPEC, SPEC_1).path()).unwrap().unwrap();
    assert_eq!((spec.generation, spec.timing.hung_seconds), (3, 60));
    let control = Control::read(written(super::CONTROL, CONTROL_1).path()).unwrap().unwrap();
    assert_eq!((control.wanted, control.requests.len()), (Wanted::Running, 2));
    assert_eq!(control.requests[1].kind, RequestKind::Snapshot { name: "before".to_owned() });
    let events = report(REPORT_1);
    let reason = StopReason::Failed { message: "no".to_owned() };
    assert_eq!(events[2], Event::Stopped { reason, exit: None });
    let batch = Batch::read(&written("b", BATCH_1).path().join("b")).unwrap().unwrap();
    assert_eq!(batch.run(2), Some(&"k3f9-105".parse().unwrap()));
}

#[test]
fn what_is_written_says_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::new(1, Wanted::Running);
    control.write(folder.path()).unwrap();
    let text = std::fs::read_to_string(folder.path().join(super::CONTROL)).unwrap();
    assert_eq!(text, r#"{"version":2,"generation":1,"wanted":"running","requests":[]}"#);
    assert_eq!(Control::read(folder.path()).unwrap(), Some(control));
}

const END: &str = "2027-01-12T10:00:00Z";

/// What stands in a file, and what of it a starter obeys that keeps ends: when the guest ends, and what is passed over.
#[test]
fn a_control_file_of_any_version_is_obeyed_as_far_as_it_is_understood() {
    let table = [
        ("version 1", r#""deadline":"END""#, true, ""),
        ("version 1 of nothing", "", false, ""),
        ("version 2", r#""version":2,"clock":{"end":"END"}"#, true, ""),
        (
            "version 2 of all",
            r#""version":2,"clock":{"start":"END","end":"END","pauses":[{"since":"END"},{"since":"END","until":"END"}],
            "grace_seconds":120,"offline_grace_seconds":1800,"warn_before_seconds":[600,120],"at_end":"keep",
            "egress":{"from":"END","until":"END","to":[{"net":"10.0.0.5/32","port":443,"protocol":"tcp"}]}},
            "disks":[{"path":"/d","backing":["/b"]}],"egress":[{"net":"10.0.0.5/32","port":443,"protocol":"tcp"}],"console":"shut""#,
            true,
            "clock.at_end clock.egress clock.grace_seconds clock.offline_grace_seconds clock.pauses clock.start clock.warn_before_seconds \
             console disks egress",
        ),
        ("version 3 with parts of its own", r#""version":3,"deadline":"END","sound":"off""#, true, "sound"),
        (
            "version 3 with more in known parts",
            r#""version":3,"clock":{"end":"END","zone":"x","pauses":[{"since":"END","why":"fire"}]},"console":"dim",
            "egress":[{"net":"10.0.0.5/32","port":443,"protocol":"tcp","name":"x"}],"disks":"none""#,
            true,
            "clock.pauses clock.zone console disks egress",
        ),
        ("version 3 with another clock", r#""version":3,"clock":"x""#, false, "clock"),
        ("version 3 with another clock and an end", r#""version":3,"clock":"x","deadline":"END""#, true, "clock"),
        ("version 3 with another end", r#""version":3,"clock":{"end":{"of":"x"}}"#, false, "clock.end"),
        ("version 3 with another wish", r#""version":3,"wanted":"hibernated""#, false, "wanted"),
        (
            "version 3 with requests of its own",
            r#""version":3,"requests":[{"number":1,"kind":"screen","by":"al"},{"number":2,"kind":"sing"}]"#,
            false,
            "requests.by",
        ),
    ];
    for (case, parts, ends, unheeded) in table {
        let wanted = if parts.contains("wanted") { "" } else { r#""wanted":"running","# };
        let text = format!(r#"{{{wanted}"generation":4,{parts}}}"#).replace(",}", "}").replace("END", END);
        let folder = written(super::CONTROL, &text);
        let control = Control::read(folder.path()).unwrap().unwrap();
        assert_eq!(control.end(), ends.then(|| END.parse().unwrap()), "{case}");
        let found: Vec<String> =
            control.unheeded(&["generation", "wanted", "requests", "clock.end"]).into_iter().collect();
        assert_eq!(found.join(" "), unheeded, "{case}");
        // Whoever changes one thing keeps all others to the letter.
        Control::change(folder.path(), |control| control.generation += 1).unwrap().unwrap();
        let mut expected: Value = serde_json::from_str(&text).unwrap();
        expected["generation"] = 5.into();
        for (key, default) in [("version", json!(1)), ("requests", json!([]))] {
            expected.as_object_mut().unwrap().entry(key).or_insert(default);
        }
        assert_eq!(stands(folder.path()), expected, "{case}");
    }
}

/// A starter is spoken to in the version that it reads: by its own first record, or by what its run began with.
#[test]
fn a_control_file_keeps_to_the_version_of_its_starter() {
    let first =
        |obeys: &str| format!(r#"{{"version":1,{obeys}"run":"k3f9-4","generation":4,"at":"{END}","event":"ready"}}"#);
    let (old, new) = (first(""), first(r#""obeys":["clock.end"],"#));
    let ends = |version: u32| match version {
        1 => format!(r#""version":1,"deadline":"{END}""#),
        _ => format!(r#""version":{version},"clock":{{"end":"{END}"}}"#),
    };
    // (version that stands, first record, version that is written)
    let table = [(1, "", 1), (2, "", 2), (3, "", 3), (1, &old, 1), (2, &old, 1), (2, &new, 2), (3, &new, 3)];
    for (stands_in, first, expected) in table {
        let text = format!(r#"{{"generation":4,"wanted":"running","requests":[],"new":[7],{}}}"#, ends(stands_in));
        let folder = written(super::CONTROL, &text);
        if !first.is_empty() {
            std::fs::write(folder.path().join(super::REPORT), format!("{first}\n")).unwrap();
        }
        let written = |wanted: &str, requests: Value| {
            let mut written = format!(r#"{{"generation":4,"wanted":"{wanted}","new":[7],{}}}"#, ends(expected))
                .parse::<Value>()
                .unwrap();
            written["requests"] = requests;
            written
        };
        Control::change(folder.path(), |control| control.ask(RequestKind::Screen, 0)).unwrap().unwrap();
        let asked = written("running", json!([{ "number": 1, "kind": "screen" }]));
        assert_eq!(stands(folder.path()), asked, "{stands_in} {first}");
        // A stop says nothing of what else is wanted, and nothing is asked of a guest any more that stops.
        Control::new(4, Wanted::Stopped).replace(folder.path()).unwrap();
        assert_eq!(stands(folder.path()), written("stopped", json!([])), "{stands_in} {first}");
    }
}

fn stands(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(super::CONTROL)).unwrap()).unwrap()
}

#[test]
fn a_newer_report_is_read_as_far_as_it_is_understood() {
    let newer = r#"{"version":2,"run":"k3f9-104","generation":3,"at":"2027-01-12T07:00:00Z","event":"prepared","host":"h1","rack":7}
{"run":"k3f9-104","generation":3,"at":"2027-01-12T07:00:01Z","event":"migrated","to":{"host":"h2"}}
{"run":"k3f9-104","generation":3,"at":"2027-01-12T07:00:02Z","event":"ready"}
{"run":"k3f9-104","generation":3,"at":"2027-01-12T07:00:09Z","event":"stopped","reason":{"melted":{"at":"100C"}},"exit":null}
"#;
    let reason = StopReason::Other(json!({ "melted": { "at": "100C" } }));
    let host = "h1".to_owned();
    let stopped = Event::Stopped { reason, exit: None };
    assert_eq!(report(newer), [Event::Prepared { host }, Event::Other, Event::Ready, stopped]);
}

/// A known event that lacks what it needs is damage, not news.
#[test]
fn a_damaged_record_is_no_newer_one() {
    let damaged = r#"{"run":"k3f9-104","generation":3,"at":"2027-01-12T07:00:00Z","event":"prepared"}"#;
    let read = parse_report(format!("{damaged}\n").as_bytes(), Path::new("report.jsonl"));
    assert!(matches!(read, Err(RunFileError::Format { .. })), "{read:?}");
}

/// A run that is not understood to the last word is not carried out.
#[test]
fn a_newer_spec_or_batch_is_refused_with_both_versions() {
    let newer = |text: &str| text.replace("\"version\":1", "\"version\":2");
    let spec = RunSpec::read(written(super::SPEC, &newer(SPEC_1)).path()).unwrap_err();
    let folder = written("b", &newer(BATCH_1));
    let batch = Batch::read(&folder.path().join("b")).unwrap_err();
    for error in [spec, batch] {
        assert!(matches!(error, RunFileError::Version { found: 2, known: 1, .. }), "{error}");
    }
}

#[test]
fn the_version_stands_in_the_first_record_alone() {
    let record = |version: Option<u32>| Record {
        version,
        obeys: version.map(|_| vec!["wanted".to_owned()]),
        run: "k3f9-1".parse().unwrap(),
        generation: 1,
        at: jiff::Timestamp::UNIX_EPOCH,
        event: Event::Ready,
    };
    let text = |version| serde_json::to_string(&record(version)).unwrap();
    let plain = r#""run":"k3f9-1","generation":1,"at":"1970-01-01T00:00:00Z","event":"ready"}"#;
    assert_eq!(text(None), format!("{{{plain}"));
    assert_eq!(text(Some(Record::VERSION)), format!("{{\"version\":1,\"obeys\":[\"wanted\"],{plain}"));
}
