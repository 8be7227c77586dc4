//! Records that another version of labwright wrote: a field more or less changes nothing and opens no guard, and what cannot
//! be read at all stops the plan.

use labwright::state::StateError;

use crate::lab::{Applied, Lab};
use crate::plans::{OPEN, PAIR, running};

/// Open at the time of the simulated world, 08:00.
/// What a plan refuses.
fn refused(lab: &Lab) -> Vec<String> {
    lab.plan().refusals.iter().map(|refusal| refusal.address.to_string()).collect()
}

fn is_unreadable(lab: &Lab) -> bool {
    matches!(lab.store().recorded(&lab.desired().lab), Err(StateError::Row { .. }))
}

#[test]
fn what_a_guest_was_started_with_may_have_been_written_by_any_version() {
    let lab = running(PAIR);
    let today = r#"{"hardware":{"memory_mib":1024,"cpus":1,"firmware":"bios","nic":"virtio","display":"std","cdrom":null},"isolated":false,"ip":"192.168.100.2","mac":"de:af:de:af:64:02","bridge":"vbr0","disks":["FOLDER/.labwright/vms/net101/alice-gsr/disk-0.qcow2"]}"#;
    let folder = lab.folder.path().canonicalize().unwrap();
    let today = today.replace("FOLDER", folder.to_str().unwrap());
    let found = lab.store().recorded(&lab.desired().lab).unwrap().vms.into_values().next().unwrap().run.unwrap();
    assert_eq!(found.started, serde_json::from_str(&today).unwrap());
    let spaced = today.replace(":", ": ").replace("de: af: de: af: 64: 02", "de:af:de:af:64:02");
    let newer =
        today.replace(r#""cpus":1"#, r#""cpus":1,"tpm":false"#).replace(r#"{"hardware""#, r#"{"rate":7,"hardware""#);
    let older = today.replace(r#","display":"std","cdrom":null"#, "");
    for written in [&today, &spaced, &newer, &older] {
        lab.alter_state(&format!("UPDATE runs SET started = '{written}' WHERE vm = 'alice-gsr'"));
        assert!(lab.plan().is_empty(), "{written}\n{}", lab.plan_text());
    }
    lab.alter_state(&format!("UPDATE runs SET started = '{}'", today.replace("1024", "512")));
    assert!(!lab.plan().is_empty(), "other memory is another start");
    lab.alter_state("UPDATE runs SET started = '{}'");
    assert!(is_unreadable(&lab));
}

#[test]
fn an_open_session_is_guarded_whatever_fields_its_record_has() {
    for change in [
        "json_remove(body, '$.egress')",
        "json_remove(body, '$.at_end', '$.open_before_seconds', '$.extra_time_percent')",
        "json_set(body, '$.rooms', json('[303]'))",
    ] {
        let lab = running(&format!("{PAIR}{OPEN}"));
        lab.alter_state(&format!("UPDATE objects SET body = {change} WHERE kind = 'session'"));
        assert!(lab.plan().is_empty(), "{change}: {}", lab.plan_text());
        lab.edit(&PAIR.replace("1G", "2G"));
        assert_eq!(refused(&lab), ["session/final", "vm/alice-gsr", "vm/bob-gsr"], "{change}");
    }
}

#[test]
fn a_session_that_cannot_be_read_stops_the_plan() {
    let lab = running(&format!("{PAIR}{OPEN}"));
    lab.alter_state("UPDATE objects SET body = json_remove(body, '$.end') WHERE kind = 'session'");
    assert!(is_unreadable(&lab));
}

#[test]
fn a_roster_is_guarded_whatever_fields_its_record_has_and_they_are_kept() {
    let mut lab = running(PAIR);
    lab.alter_state("UPDATE objects SET body = json_set(body, '$.lead', 'badmin') WHERE kind = 'user-group'");
    assert!(lab.plan().is_empty());
    lab.edit(&PAIR.replace("[alice, bob]", "[alice]"));
    assert_eq!(refused(&lab), ["user-group/students"]);
    lab.allow.push("user-group/students".parse().unwrap());
    lab.must_apply();
    let recorded = lab.recorded(&lab.desired());
    let group = &recorded.objects[&"user-group/students".parse().unwrap()];
    assert_eq!(group.body, r#"{"lead":"badmin","limits":null,"members":["alice"]}"#);
}

#[test]
fn an_end_that_cannot_be_read_is_not_taken_for_a_crash() {
    let lab = running(PAIR);
    lab.alter_state("UPDATE runs SET state = 'ended', reason = '{'");
    assert!(is_unreadable(&lab));
}

#[test]
fn an_open_session_is_not_put_off() {
    let open = format!("{PAIR}{OPEN}");
    let lab = running(&open);
    lab.edit(&open.replace("T07:00", "T09:00").replace("T10:00", "T11:00"));
    assert_eq!(refused(&lab), ["session/final"]);
    assert!(lab.plan_text().contains("would start only later"), "{}", lab.plan_text());
    for kept in [open.replace("T10:00", "T11:00"), open.replace("T07:00", "T06:00"), open.replace("T07:00", "T07:30")] {
        lab.edit(&kept);
        assert_eq!(refused(&lab), [""; 0]);
    }
    assert!(matches!(lab.apply(), Applied::Done(_)));
}

#[test]
fn the_order_of_what_has_no_order_changes_nothing() {
    let session = |egress: &str| {
        let egress = format!("egress: [{egress}] }} }}");
        format!("{PAIR}{OPEN}")
            .replace("state: running", "state: running, isolated: true")
            .replace("\" } }", &format!("\", {egress}"))
    };
    let lab = running(&session("\"10.0.0.5:443/tcp\", \"10.0.0.6:53/udp\""));
    // As it was recorded when it had an order.
    lab.alter_state(
        "UPDATE objects SET body = json_set(body, '$.egress', json_array(json_extract(body, '$.egress[1]'), json_extract(body, '$.egress[0]'))) WHERE kind = 'session'",
    );
    assert!(lab.plan().is_empty(), "{}", lab.plan_text());
    lab.edit(&session("\"10.0.0.6:53/udp\", \"10.0.0.5:443/tcp\", \"10.0.0.6:53/udp\""));
    assert!(lab.plan().is_empty(), "{}", lab.plan_text());
}
