//! Jobs that the state lost sight of: taken over by name, if all that is known of them fits.

use std::fmt::Write as _;
use std::path::PathBuf;

use insta::assert_snapshot;
use labwright::apply::Clock as _;
use labwright::model::job::TaskState;
use labwright::model::reservation::Reservation;
use labwright::observe::Phase;
use labwright::plan::FoundJob;
use labwright::run::{StopReason, Wanted};

use crate::lab::Lab;
use crate::plans::PAIR;
use crate::world::Inner;

/// What is wrong with a job, in words and in deed.
type Spoil<'a> = (&'a str, &'a dyn Fn(&mut FoundJob));

/// Two vms that run as the tasks of one job, and a state that is a copy of before they were started.
fn forgotten() -> Lab {
    let lab = Lab::new(PAIR);
    lab.must_apply();
    lab.world.with(Inner::start_all);
    lab.alter_state("DELETE FROM runs; UPDATE vms SET run = NULL, generation = 0; UPDATE site SET next_run = 1");
    lab
}

fn job_of(lab: &Lab, vm: &str) -> FoundJob {
    lab.job_of(&lab.world.with(|inner| inner.run_of(vm)))
}

#[test]
fn jobs_taken_over_one_by_one_run_on_as_if_nothing_had_been() {
    let lab = forgotten();
    let submits = lab.world.with(|inner| inner.submits);
    lab.import("alice-gsr", &job_of(&lab, "alice-gsr")).unwrap();
    assert_snapshot!("half_of_a_batch_is_taken_over", lab.plan_text());
    lab.import("bob-gsr", &job_of(&lab, "bob-gsr")).unwrap();
    assert!(lab.plan().is_empty() && lab.plan().drift.is_empty(), "{}", lab.plan_text());
    assert_eq!(lab.recorded(&lab.desired()).next_run, 3);
    lab.must_apply();
    assert_eq!(lab.world.with(|inner| inner.submits), submits, "both run, and were not submitted again");
    // The next run is a newer generation: a starter of the old one that is late gives way.
    lab.edit(&PAIR.replace("memory: 1G", "memory: 2G"));
    lab.must_apply();
    let generations = lab.recorded(&lab.desired()).vms.into_values().map(|vm| vm.generation);
    assert_eq!(generations.collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn a_vm_that_may_run_as_an_unknown_job_is_started_when_all_jobs_are_known_or_named() {
    let mut lab = forgotten();
    let submits = lab.world.with(|inner| inner.submits);
    lab.must_apply();
    assert_eq!(lab.world.with(|inner| inner.submits), submits, "each vm has one guest");
    let starts = |lab: &Lab| {
        let changes = lab.plan().changes;
        changes.iter().map(|change| change.address.to_string()).collect::<Vec<_>>()
    };
    lab.allow.extend(["vm/*", "job/1.1"].map(|pattern| pattern.parse().unwrap()));
    assert!(starts(&lab).is_empty(), "no vm is known by its name not to be job 1.2");
    lab.allow.push("job/1.2".parse().unwrap());
    assert_eq!(starts(&lab), ["vm/alice-gsr", "vm/bob-gsr"]);
    lab.allow.clear();
    // Bob's guest ends, and the other job is alice's.
    let run = lab.world.with(|inner| inner.run_of("bob-gsr"));
    lab.world.with(|inner| inner.end_run(&run, StopReason::Guest));
    lab.import("alice-gsr", &job_of(&lab, "alice-gsr")).unwrap();
    assert_eq!(starts(&lab), ["vm/bob-gsr"]);
}

/// What guests have to themselves: disks, where they are, and addresses, by reservation.
pub(crate) fn possessions(lab: &Lab) -> (Vec<PathBuf>, Vec<String>) {
    lab.world.with(|inner| {
        assert_eq!(inner.broken, None);
        let reserved = |(mark, reservation): (&String, &Reservation)| format!("{mark} {}", reservation.ip);
        (inner.disks.keys().cloned().collect(), inner.reservations.iter().map(reserved).collect())
    })
}

/// Edits of the pair that take something from a guest, which must not be done while it may live.
pub(crate) fn edits_that_take() -> [(&'static str, String); 4] {
    let moved = "moved: [{ from: vm/alice-gsr, to: vm/alice-vm }, { from: vm/bob-gsr, to: vm/bob-vm }]\n";
    [
        ("leaves", PAIR.replace("[alice, bob]", "[alice]")),
        ("is_renamed", PAIR.replace("{user}-gsr", "{user}-vm") + moved),
        ("becomes_a_clone", PAIR.replace("derive: gsr", "clone: gsr")),
        ("gets_another_address", PAIR.replace("192.168.100.2-", "192.168.100.4-")),
    ]
}

#[test]
fn a_guest_that_no_record_knows_keeps_disk_address_and_name() {
    for (what, manifest) in edits_that_take() {
        let mut lab = forgotten();
        let before = possessions(&lab);
        lab.edit(&manifest);
        lab.allow.extend(["user-group/students", "vm/*"].map(|pattern| pattern.parse().unwrap()));
        assert_snapshot!(format!("a_guest_that_no_record_knows_{what}"), lab.plan_text());
        lab.must_apply();
        assert_eq!(possessions(&lab), before, "{what}");
        for vm in ["alice-gsr", "bob-gsr"] {
            lab.import(vm, &job_of(&lab, vm)).unwrap_or_else(|reasons| panic!("{vm} {what}: {reasons:?}"));
        }
        lab.must_apply();
        assert_ne!(possessions(&lab), before, "{what}: what waited is done");
    }
}

#[test]
fn destroy_leaves_guests_that_no_record_knows_their_disks() {
    let lab = forgotten();
    let before = possessions(&lab);
    lab.apply_part(|plan| plan);
    assert_eq!(possessions(&lab), before);
}

#[test]
fn the_end_of_a_run_is_recorded_although_its_vm_waits() {
    let lab = Lab::new(PAIR);
    lab.must_apply();
    lab.world.with(Inner::start_all);
    // A copy of before the second run of each vm, whose first one ended.
    let copy = lab.folder.path().join("copy.db");
    lab.store().backup(&copy).unwrap();
    for vm in ["alice-gsr", "bob-gsr"] {
        let run = lab.world.with(|inner| inner.run_of(vm));
        lab.world.with(|inner| inner.end_run(&run, StopReason::Asked));
    }
    lab.must_apply();
    lab.world.with(Inner::start_all);
    labwright::state::Store::restore(&lab.site.state, &copy, 4, lab.world.now()).unwrap();
    let before = possessions(&lab);
    assert_snapshot!("the_end_of_a_run_is_recorded_although_its_vm_waits", lab.apply_part(|plan| plan));
    assert_eq!(possessions(&lab), before);
}

#[test]
fn a_vm_that_the_records_do_not_know_yet_may_run_as_an_unknown_job_too() {
    let lab = forgotten();
    lab.edit(&PAIR.replace("[alice, bob]", "[alice, bob, carol]"));
    let submits = lab.world.with(|inner| inner.submits);
    lab.must_apply();
    assert_eq!(lab.world.with(|inner| inner.submits), submits);
}

#[test]
fn the_first_of_a_batch_keeps_the_numbers_of_the_others() {
    let lab = forgotten();
    lab.import("alice-gsr", &job_of(&lab, "alice-gsr")).unwrap();
    assert_eq!(lab.recorded(&lab.desired()).next_run, 3, "run 2 lives, although no record knows it");
}

#[test]
fn a_run_before_that_ended_is_recorded_as_ended() {
    let lab = Lab::new(PAIR);
    lab.must_apply();
    lab.world.with(Inner::start_all);
    let copy = lab.folder.path().join("copy.db");
    lab.store().backup(&copy).unwrap();
    let first = lab.world.with(|inner| inner.run_of("bob-gsr"));
    lab.world.with(|inner| inner.end_run(&first, StopReason::Asked));
    lab.must_apply();
    lab.world.with(Inner::start_all);
    labwright::state::Store::restore(&lab.site.state, &copy, 4, lab.world.now()).unwrap();
    lab.import("bob-gsr", &job_of(&lab, "bob-gsr")).unwrap();
    assert!(lab.plan().is_empty() && lab.plan().drift.is_empty(), "{}", lab.plan_text());
    let runs = lab.store().runs(&lab.desired().lab, "bob-gsr", 9).unwrap();
    let states: Vec<_> = runs.iter().map(|run| (run.state.as_str(), run.end())).collect();
    assert_eq!(states, [("submitted", None), ("ended", Some(StopReason::Asked.to_string()))]);
}

#[test]
fn every_way_in_which_a_job_does_not_fit() {
    let lab = forgotten();
    let other_site = "zzzz-2".parse::<labwright::model::id::RunId>().unwrap();
    let spoils: [Spoil<'_>; 15] = [
        ("a job of somebody else", &|job| job.task.owner = "eve".into()),
        ("a name without our mark", &|job| job.task.name = "sleep".into()),
        ("another site's", &|job| job.task.name = "lw.zzzz.net101.1".into()),
        ("another lab's", &|job| job.task.name = job.task.name.replace("net101", "net102")),
        ("another lab's index", &|job| job.index.as_mut().unwrap().lab = "net102".parse().unwrap()),
        ("no index", &|job| job.index = None),
        ("a task that the index does not name", &|job| job.index.as_mut().unwrap().runs.truncate(1)),
        ("no spec", &|job| job.spec = None),
        ("another run's spec", &|job| job.spec.as_mut().unwrap().run = other_site.clone()),
        ("another address", &|job| job.spec.as_mut().unwrap().network.ip = "192.168.100.9".parse().unwrap()),
        ("other disks", &|job| job.spec.as_mut().unwrap().disks.clear()),
        ("fenced off", &|job| job.control.as_mut().unwrap().generation += 1),
        ("told to stop", &|job| job.control.as_mut().unwrap().wanted = Wanted::Stopped),
        ("over", &|job| job.phase = Some(Phase::Stopped { reason: StopReason::Guest, exit: None })),
        ("deleted", &|job| job.task.state = TaskState::Deleting),
    ];
    let mut text = String::new();
    let mut tell = |what: &str, vm: &str, job: &FoundJob| {
        let reasons = lab.import(vm, job).expect_err(what);
        writeln!(text, "{what}:\n  {}", reasons.join("\n  ")).unwrap();
    };
    for (what, spoil) in spoils {
        let mut job = job_of(&lab, "bob-gsr");
        spoil(&mut job);
        tell(what, "bob-gsr", &job);
    }
    tell("another vm's", "alice-gsr", &job_of(&lab, "bob-gsr"));
    lab.import("bob-gsr", &job_of(&lab, "bob-gsr")).unwrap();
    tell("known already", "bob-gsr", &job_of(&lab, "bob-gsr"));
    tell("a vm that runs", "bob-gsr", &job_of(&lab, "alice-gsr"));
    assert_snapshot!("jobs_that_do_not_fit", lab.without_names(&text));
}
