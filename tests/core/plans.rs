//! Plans as the user reads them. Each case is a lab in a simulated world, a change to one of the two, and the plan's text.

use std::collections::BTreeMap;

use insta::assert_snapshot;

use crate::lab::{Applied, Lab};
use labwright::model::address::AddressPattern;
use labwright::plan::{SavedPlan, Today, Wish, as_applied};
use labwright::run::{StopReason, Wanted};
use labwright::state::FreezeScope;

/// Two students with a running vm each, derived from one template.
pub(crate) const PAIR: &str = "
lab: net101
users: { badmin: {} }
user_groups:
  students: { members: [alice, bob] }
vm_groups:
  lab1: { ip_range: 192.168.100.2-192.168.100.9, gateway: 192.168.100.1, bridge: vbr0 }
templates:
  gsr: { owner: badmin, vm_group: lab1, disks: [{ image: images/gsr.qcow2 }], memory: 1G }
vms:
  exam: { derive: gsr, for_each: students, name: \"{user}-gsr\", state: running }
";

/// A session that is open at the world's time.
pub(crate) const OPEN: &str =
    "sessions: { final: { vms: [exam], start: \"2027-01-12T07:00[UTC]\", end: \"2027-01-12T10:00[UTC]\" } }\n";

/// A lab that was applied and whose guests are up.
pub(crate) fn running(manifest: &str) -> Lab {
    let lab = Lab::new(manifest);
    lab.must_apply();
    lab.world.with(crate::world::Inner::start_all);
    lab
}

pub(crate) fn running_pair() -> Lab {
    running(PAIR)
}

fn allow(lab: &mut Lab, pattern: &str) {
    lab.allow.push(pattern.parse::<AddressPattern>().unwrap());
}

#[test]
fn a_new_lab() {
    assert_snapshot!(Lab::new(PAIR).plan_text());
}

#[test]
fn an_applied_lab_has_no_changes() {
    let lab = running_pair();
    assert_snapshot!(lab.plan_text());
    let calls = lab.world.with(|inner| inner.tasks.len());
    lab.must_apply();
    assert_eq!(lab.world.with(|inner| inner.tasks.len()), calls, "a second apply submits nothing");
}

#[test]
fn more_memory_restarts_exactly_the_vms_of_the_template() {
    let lab = running_pair();
    lab.edit(&PAIR.replace("memory: 1G", "memory: 2G"));
    assert_snapshot!(lab.plan_text());
    lab.must_apply();
    lab.world.with(crate::world::Inner::start_all);
    let memory = lab.world.with(|inner| inner.runs[&inner.run_of("alice-gsr")].spec.hardware.memory_mib);
    assert_eq!(memory, 2048);
    assert!(lab.plan().is_empty());
}

#[test]
fn a_comment_line_above_changes_nothing() {
    let lab = running_pair();
    lab.edit(&format!("# one\n# two\n{PAIR}"));
    assert!(lab.plan().is_empty());
}

#[test]
fn a_student_who_leaves_is_stopped_and_keeps_the_disks() {
    let mut lab = running_pair();
    lab.edit(&PAIR.replace("[alice, bob]", "[alice]"));
    assert_snapshot!(lab.plan_text());
    assert!(matches!(lab.apply(), Applied::Refused(_)), "half of a roster gone is refused");
    allow(&mut lab, "user-group/students");
    lab.must_apply();
    lab.world.with(|inner| {
        let aside: Vec<_> = inner.disks.iter().filter(|(path, _)| path.to_string_lossy().contains("/aside/")).collect();
        assert_eq!(aside.len(), 1);
        assert_eq!(aside[0].1.work_of.as_ref().map(|vm| vm.as_str()), Some("bob-gsr"));
        assert_eq!(inner.live().len(), 1);
    });
    assert!(lab.plan().is_empty());
}

#[test]
fn a_vm_that_leaves_while_storage_is_away_is_not_forgotten() {
    let mut lab = Lab::new(&PAIR.replace("state: running", "state: stopped"));
    lab.must_apply();
    lab.edit(&PAIR.replace("[alice, bob]", "[alice]").replace("state: running", "state: stopped"));
    allow(&mut lab, "user-group/students");
    lab.world.with(|inner| inner.faults.storage_unmounted = true);
    let refused = lab.plan().refusals;
    assert!(refused.iter().any(|refusal| refusal.address.to_string() == "vm/bob-gsr"), "{refused:?}");
    lab.world.with(|inner| inner.faults.storage_unmounted = false);
    lab.must_apply();
}

#[test]
fn an_address_is_kept_and_the_lowest_free_one_is_given() {
    let mut lab = running_pair();
    lab.edit(&PAIR.replace("[alice, bob]", "[bob, carol]"));
    allow(&mut lab, "user-group/students");
    assert_snapshot!(lab.plan_text());
}

#[test]
fn a_run_that_died_is_started_again() {
    let lab = running_pair();
    lab.world.with(|inner| {
        let run = inner.run_of("bob-gsr");
        inner.kill_run(&run);
    });
    assert_snapshot!(lab.plan_text());
}

#[test]
fn a_guest_that_powered_itself_off_stays_off() {
    let lab = running_pair();
    lab.world.with(|inner| {
        let run = inner.run_of("bob-gsr");
        inner.end_run(&run, StopReason::Guest);
    });
    assert_snapshot!(lab.plan_text());
    lab.must_apply();
    assert_snapshot!("a_guest_that_powered_itself_off_stays_off_after", lab.plan_text());
    lab.edit(&PAIR.replace("state: running }", "state: running, restart: always }"));
    assert_snapshot!("restart_always_starts_it", lab.plan_text());
}

#[test]
fn a_lost_disk_is_never_replaced_silently() {
    let mut lab = running_pair();
    lab.world.with(|inner| {
        let path = inner.disks.keys().find(|path| path.to_string_lossy().contains("bob-gsr")).unwrap().clone();
        inner.disks.remove(&path);
    });
    assert_snapshot!(lab.plan_text());
    allow(&mut lab, "vm/bob-gsr");
    assert_snapshot!("a_lost_disk_is_given_up", lab.plan_text());
}

#[test]
fn another_template_is_refused_until_it_is_meant() {
    let mut lab = running_pair();
    let other = PAIR.replace(
        "templates:\n",
        "templates:\n  alpine: { owner: badmin, vm_group: lab1, disks: [{ image: images/alpine.qcow2 }] }\n",
    );
    lab.edit(&other.replace("derive: gsr", "derive: alpine"));
    assert_snapshot!(lab.plan_text());
    allow(&mut lab, "vm/*-gsr");
    lab.must_apply();
    lab.world.with(crate::world::Inner::start_all);
    assert!(lab.plan().is_empty());
}

#[test]
fn an_image_that_changes_under_derived_disks_is_refused() {
    let mut lab = running_pair();
    let image = lab.folder.path().canonicalize().unwrap().join("images/gsr.qcow2");
    lab.world.with(|inner| inner.write_image(&image, "second"));
    assert_snapshot!(lab.plan_text());
    allow(&mut lab, "template/gsr");
    lab.must_apply();
    assert!(lab.plan().is_empty(), "the vms keep the version that they derive from");
}

#[test]
fn an_image_that_is_only_touched_is_no_change_for_anybody() {
    let lab = running_pair();
    let image = lab.folder.path().canonicalize().unwrap().join("images/gsr.qcow2");
    lab.world.with(|inner| inner.write_image(&image, "first"));
    assert_snapshot!(lab.plan_text());
    lab.must_apply();
    assert!(lab.plan().is_empty());
}

#[test]
fn a_rename_rebuilds_nothing() {
    let lab = running_pair();
    let moved = "moved: [{ from: vm/bob-gsr, to: vm/bob-net }, { from: vm/alice-gsr, to: vm/alice-net }]\n";
    lab.edit(&format!("{}{moved}", PAIR.replace("{user}-gsr", "{user}-net")));
    assert_snapshot!(lab.plan_text());
    lab.must_apply();
    assert!(lab.plan().is_empty());
    assert_eq!(lab.world.with(|inner| inner.live().len()), 2, "both run on under their old runs");
}

#[test]
fn a_lost_answer_is_looked_up_before_anything_else() {
    let lab = Lab::new(PAIR);
    lab.world.with(|inner| inner.faults.lose_submit_answer = true);
    let Applied::Done(summary) = lab.apply() else { panic!("the apply itself goes through") };
    assert_eq!(summary.failed.len(), 0, "the job was found by its mark: {summary:?}");
    lab.world.with(crate::world::Inner::start_all);
    assert!(lab.plan().is_empty());
    assert_eq!(lab.world.with(|inner| inner.tasks.len()), 2);
}

#[test]
fn a_missing_reservation_is_made_again() {
    let lab = running_pair();
    lab.world.with(|inner| inner.reservations.clear());
    assert_snapshot!(lab.plan_text());
    lab.must_apply();
    assert!(lab.plan().is_empty());
}

#[test]
fn destroy_is_the_plan_of_a_lab_that_wants_nothing() {
    let lab = running_pair();
    let nothing = labwright::model::lab::Desired::nothing(lab.desired().lab);
    let Applied::Done(summary) = lab.apply_desired(&nothing) else { panic!("destroy is no guarded thing") };
    assert_eq!(summary.failed, []);
    lab.world.with(|inner| {
        assert_eq!((inner.tasks.len(), inner.reservations.len()), (0, 0));
        assert!(inner.disks.keys().all(|path| !path.to_string_lossy().contains("/vms/")));
    });
}

#[test]
fn an_open_session_is_guarded_even_when_an_edit_removes_it() {
    let session =
        "sessions: { final: { vms: [exam], start: \"2027-01-12T07:00[UTC]\", end: \"2027-01-12T10:00[UTC]\" } }\n";
    let lab = Lab::new(&format!("{PAIR}{session}"));
    lab.must_apply();
    lab.world.with(crate::world::Inner::start_all);
    lab.edit(&PAIR.replace("memory: 1G", "memory: 2G"));
    assert_snapshot!(lab.plan_text());
}

#[test]
fn a_lab_as_it_was_last_applied_wants_what_there_is() {
    let session =
        "sessions: { final: { vms: [exam], start: \"2027-01-12T09:00[UTC]\", end: \"2027-01-12T10:00[UTC]\" } }\n";
    let permission = "permissions: [{ to: { group: students }, on: { template: gsr }, allow: [derive] }]\n";
    let lab = Lab::new(&format!("{PAIR}{session}{permission}"));
    lab.must_apply();
    lab.world.with(crate::world::Inner::start_all);
    let wanted = lab.desired();
    let applied = as_applied(wanted.lab.clone(), &lab.recorded(&wanted)).unwrap();
    assert_eq!((&applied.vms, &applied.sessions), (&wanted.vms, &wanted.sessions));
    let Applied::Done(done) = lab.apply_desired(&applied) else { panic!("it is refused") };
    assert_eq!(done.done.len(), 0, "{done:?}");
    let bob = applied.vms.keys().find(|name| name.as_str() == "bob-gsr").unwrap();
    assert!(matches!(lab.power(&applied, bob, Wish::Stop), Applied::Done(_)));
    assert_eq!(lab.world.with(|inner| inner.live().len()), 1, "one vm is stopped, the other runs on");
}

#[test]
fn two_labs_must_not_share_a_range() {
    let lab = running_pair();
    let mut other = lab;
    other.edit(&PAIR.replace("lab: net101", "lab: net202").replace("-gsr", "-two"));
    assert_snapshot!(other.plan_text());
    other.allow.clear();
}

#[test]
fn two_labs_share_the_predefined_vm_group() {
    let in_all_vms = |lab: &str, vm: &str| {
        format!("lab: {lab}\nvms:\n  {vm}: {{ owner: eva, disks: [{{ size: 1G }}], state: running }}\n")
    };
    let lab = Lab::new(&in_all_vms("net101", "one"));
    lab.must_apply();
    lab.edit(&in_all_vms("net202", "two"));
    assert_snapshot!(lab.plan_text());
}

#[test]
fn texts_and_lists_are_shown_as_differences() {
    let described = |text: &str| PAIR.replace("gsr: { owner", &format!("gsr: {{ description: \"{text}\", owner"));
    let lab = Lab::new(&described("Scientific Linux for the LAN course\\nroot's password is on the board"));
    lab.must_apply();
    lab.edit(
        &described("Debian for the LAN course\\nroot's password is on the board")
            .replace("[alice, bob]", "[alice, bob, carol]"),
    );
    assert_snapshot!(lab.plan_text());
}

#[test]
fn everything_is_shown_on_request() {
    let lab = Lab::new(PAIR);
    assert_snapshot!("everything_of_a_new_lab", lab.whole_plan_text());
    lab.must_apply();
    lab.world.with(crate::world::Inner::start_all);
    assert_snapshot!("everything_of_an_applied_lab", lab.whole_plan_text());
    lab.edit(&PAIR.replace("memory: 1G", "memory: 2G"));
    assert_snapshot!("everything_of_a_restart", lab.whole_plan_text());
}

#[test]
fn a_job_of_somebody_else_with_our_mark_is_shown_and_left_alone() {
    let lab = running_pair();
    let foreign = lab.world.with(|inner| {
        let (id, task) = inner.tasks.iter().next().unwrap();
        let (id, name) = (*id, task.name.clone());
        let run = task.run.clone();
        // The queue holds a job in our job's name; ours is gone.
        inner.kill_run(&run);
        inner.foreign.insert(id, name);
        id
    });
    assert_snapshot!(lab.plan_text());
    lab.must_apply();
    assert!(lab.world.with(|inner| inner.foreign.contains_key(&foreign)), "it was killed");
}

#[test]
fn a_disk_over_another_base_is_not_started() {
    let mut lab = running_pair();
    lab.world.with(|inner| {
        let path = inner.disks.keys().find(|path| path.to_string_lossy().contains("bob-gsr")).unwrap().clone();
        let base = "/srv/other.qcow2".into();
        inner.disks.get_mut(&path).unwrap().origin = labwright::model::disk::DiskOrigin::Derive { base };
    });
    assert_snapshot!("a_disk_over_another_base_is_drift", lab.plan_text());
    lab.world.with(|inner| {
        let run = inner.run_of("bob-gsr");
        inner.kill_run(&run);
    });
    assert_snapshot!(lab.plan_text());
    allow(&mut lab, "vm/bob-gsr");
    lab.must_apply();
    lab.world.with(|inner| {
        inner.start_all();
        assert!(inner.disks.keys().any(|path| path.to_string_lossy().contains("/aside/")), "the strange disk is kept");
    });
    lab.allow.clear();
    assert!(lab.plan().is_empty());
}

#[test]
fn a_freeze_names_what_is_frozen() {
    let lab = running_pair();
    let frozen = |scope| labwright::state::Frozen {
        who: "doraz".into(),
        since: "2027-01-12T07:00:00Z".parse().unwrap(),
        why: "exam in room 303".into(),
        scope,
    };
    let name = lab.desired().lab;
    lab.store().freeze(Some(&name), Some(&frozen(FreezeScope::Lab))).unwrap();
    assert_snapshot!("a_frozen_lab", lab.plan_text());
    assert!(matches!(lab.apply(), Applied::Refused(_)));
    lab.store().freeze(Some(&name), None).unwrap();
    lab.store().freeze(None, Some(&frozen(FreezeScope::Site))).unwrap();
    assert_snapshot!("a_frozen_site", lab.plan_text());
    lab.store().freeze(None, None).unwrap();
    lab.must_apply();
}

#[test]
fn a_vm_that_leaves_an_open_session_must_be_named() {
    let session =
        "sessions: { final: { vms: [exam], start: \"2027-01-12T07:00[UTC]\", end: \"2027-01-12T10:00[UTC]\" } }\n";
    let mut lab = Lab::new(&format!("{PAIR}{session}"));
    lab.must_apply();
    lab.world.with(crate::world::Inner::start_all);
    lab.edit(&PAIR.replace("[alice, bob]", "[alice]"));
    for pattern in ["user-group/students", "session/final"] {
        allow(&mut lab, pattern);
    }
    assert_snapshot!(lab.plan_text());
    let run = lab.world.with(|inner| inner.run_of("bob-gsr"));
    lab.world.with(|inner| inner.end_run(&run, StopReason::Guest));
    assert_snapshot!("one_whose_guest_is_off_must_be_named_too", lab.plan_text());
}

/// The teacher thinks again after an apply that was killed in the middle of a stop.
#[test]
fn a_run_that_a_killed_apply_had_told_to_stop_is_started_again() {
    let lab = running_pair();
    lab.world.with(|inner| inner.runs.values_mut().for_each(|run| run.hung = true));
    lab.edit(&PAIR.replace("state: running", "state: stopped"));
    let told = || lab.world.with(|inner| inner.runs.values().any(|run| run.control.wanted == Wanted::Stopped));
    for calls in 1.. {
        lab.world.with(|inner| inner.faults.kill_in = Some(calls));
        assert!(matches!(lab.apply(), Applied::Killed));
        if told() {
            break;
        }
    }
    lab.edit(PAIR);
    assert_snapshot!(lab.plan_text());
    lab.world.with(|inner| inner.runs.values_mut().for_each(|run| run.hung = false));
    lab.must_apply();
    lab.world.with(crate::world::Inner::start_all);
    assert!(lab.plan().is_empty());
    assert_eq!(lab.world.with(|inner| inner.tasks.len()), 2, "both run");
}

/// What `control` reads of a file in which a plan stands as the first version wrote it: half-sentences in place of reasons.
fn as_version_1_kept_it(saved: &SavedPlan) -> SavedPlan {
    let mut kept = serde_json::to_value(SavedPlan { version: 1, ..saved.clone() }).unwrap();
    for (line, change) in kept["plan"]["changes"].as_array_mut().unwrap().iter_mut().zip(&saved.plan.changes) {
        line.as_object_mut().unwrap().remove("reasons").unwrap();
        line["reason"] = change.reason().into();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kept.plan");
    std::fs::write(&file, kept.to_string()).unwrap();
    let read = labwright::control::plan::read(&file).unwrap();
    let newer = serde_json::json!({ "version": SavedPlan::VERSION + 1, "what": "nobody knows" });
    std::fs::write(&file, newer.to_string()).unwrap();
    let refused = labwright::control::plan::read(&file).unwrap_err().to_string();
    assert!(refused.ends_with("has format 3, this labwright knows 1 to 2; nothing was changed"), "{refused}");
    read
}

/// The lab, the state and the images that a saved plan is held against are moved in `tests/cli/apply_moved_plan`.
#[test]
fn a_saved_plan_says_which_jobs_moved() {
    let lab = running_pair();
    let edited = PAIR.replace("memory: 1G", "memory: 2G");
    lab.edit(&edited);
    let saved = SavedPlan {
        version: SavedPlan::VERSION,
        folder: lab.folder.path().to_owned(),
        desired: lab.desired(),
        allow: Vec::new(),
        targets: Vec::new(),
        refresh_only: false,
        images: BTreeMap::new(),
        plan: lab.plan(),
    };
    let moved_of = |saved: &SavedPlan| {
        saved.moved(&Today { desired: &lab.desired(), plan: &lab.plan(), images: &BTreeMap::new() })
    };
    let moved = || moved_of(&saved);
    assert_eq!(moved(), [""; 0]);
    assert_eq!(moved_of(&as_version_1_kept_it(&saved)), [""; 0], "one of before reasons had codes holds as well");
    lab.world.with(|inner| {
        let (alice, bob) = (inner.run_of("alice-gsr"), inner.run_of("bob-gsr"));
        inner.kill_run(&alice);
        inner.end_run(&bob, StopReason::Guest);
    });
    assert_snapshot!(moved().join("\n"));
}
