//! Files as other versions of labwright write them: one that is as old as the formats' first version, and made-up newer ones.
//! An old starter finishes its run beside a new controller, and the other way round.

use std::path::Path;

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
    let control = Control { generation: 1, wanted: Wanted::Running, deadline: None, requests: Vec::new() };
    control.write(folder.path()).unwrap();
    let text = std::fs::read_to_string(folder.path().join(super::CONTROL)).unwrap();
    assert_eq!(text, r#"{"version":1,"generation":1,"wanted":"running","requests":[]}"#);
    assert_eq!(Control::read(folder.path()).unwrap(), Some(control));
}

/// What it does not know is passed over; what it knows is obeyed.
#[test]
fn a_newer_control_file_is_obeyed_as_far_as_it_is_understood() {
    let text = r#"{"version":2,"generation":4,"wanted":"hibernated","clock":"x","deadline":"2027-01-12T10:00:00Z",
        "requests":[{"number":1,"kind":"screen"},{"number":2,"kind":{"type":{"keys":"x"}},"by":"al"},{"number":3,"kind":"sing"}]}"#;
    let control = Control::read(written(super::CONTROL, text).path()).unwrap().unwrap();
    assert_eq!((control.generation, control.wanted, control.deadline.is_some()), (4, Wanted::Other, true));
    let known: Vec<bool> = control.requests.iter().map(|r| !matches!(r.kind, RequestKind::Other(_))).collect();
    assert_eq!(known, [true, false, false]);
}

/// Who changes a newer file keeps what only its writer understands of the requests.
#[test]
fn an_unknown_request_stays_as_it_is() {
    let folder = written(
        super::CONTROL,
        r#"{"generation":4,"wanted":"running","requests":[{"number":2,"kind":{"type":{"keys":"x"}}}]}"#,
    );
    Control::change(folder.path(), |control| control.ask(RequestKind::Screen, 0)).unwrap();
    let text = std::fs::read_to_string(folder.path().join(super::CONTROL)).unwrap();
    assert!(text.contains(r#"{"number":2,"kind":{"type":{"keys":"x"}}},{"number":3,"kind":"screen"}"#), "{text}");
}

#[test]
fn a_newer_report_is_read_as_far_as_it_is_understood() {
    let newer = r#"{"version":2,"run":"k3f9-104","generation":3,"at":"2027-01-12T07:00:00Z","event":"prepared","host":"h1","rack":7}
{"run":"k3f9-104","generation":3,"at":"2027-01-12T07:00:01Z","event":"migrated","to":{"host":"h2"}}
{"run":"k3f9-104","generation":3,"at":"2027-01-12T07:00:02Z","event":"ready"}
{"run":"k3f9-104","generation":3,"at":"2027-01-12T07:00:09Z","event":"stopped","reason":{"melted":{"at":"100C"}},"exit":null}
"#;
    let reason = StopReason::Other(serde_json::json!({ "melted": { "at": "100C" } }));
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
    let record = |version| Record {
        version,
        run: "k3f9-1".parse().unwrap(),
        generation: 1,
        at: jiff::Timestamp::UNIX_EPOCH,
        event: Event::Ready,
    };
    let text = |version| serde_json::to_string(&record(version)).unwrap();
    let plain = r#""run":"k3f9-1","generation":1,"at":"1970-01-01T00:00:00Z","event":"ready"}"#;
    assert_eq!(text(None), format!("{{{plain}"));
    assert_eq!(text(Some(Record::VERSION)), format!("{{\"version\":1,{plain}"));
}
