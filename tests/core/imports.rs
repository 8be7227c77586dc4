//! Jobs that the state lost sight of: taken over by name, if all that is known of them fits.

use std::fmt::Write as _;

use insta::assert_snapshot;
use labwright::apply::Clock as _;
use labwright::observe::{Phase, fold};
use labwright::plan::FoundJob;
use labwright::run::{Batch, BatchId, Runs as _, StopReason, Wanted};
use labwright::scheduler::{Scheduler as _, TaskState};

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

/// The job that runs a vm, with all that its mark leads to.
fn job_of(lab: &Lab, vm: &str) -> FoundJob {
    let run = lab.world.with(|inner| inner.run_of(vm));
    let lab_name = lab.desired().lab;
    let (id, runs, spec, control) = lab.world.with(|inner| {
        let id = *inner.tasks.iter().find(|(_, task)| task.run == run).unwrap().0;
        let runs: Vec<_> =
            inner.tasks.iter().filter(|(other, _)| other.job == id.job).map(|(_, task)| task.run.clone()).collect();
        let sim = &inner.runs[&run];
        (id, runs, sim.spec.clone(), sim.control.clone())
    });
    FoundJob {
        task: lab.world.list().unwrap().into_iter().find(|task| task.id == id).unwrap(),
        account: "root".into(),
        index: Some(Batch { version: Batch::VERSION, id: BatchId(runs[0].clone()), lab: lab_name, runs }),
        spec: Some(spec),
        control: Some(control),
        phase: fold(&lab.world.report(&run).unwrap()).map(|report| report.phase),
    }
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
fn a_vm_that_may_run_as_an_unknown_job_is_not_started_unless_it_is_named() {
    let mut lab = forgotten();
    let submits = lab.world.with(|inner| inner.submits);
    lab.must_apply();
    assert_eq!(lab.world.with(|inner| inner.submits), submits, "each vm has one guest");
    // Bob's guest ends, and his teacher knows that the other job is not his.
    let run = lab.world.with(|inner| inner.run_of("bob-gsr"));
    lab.world.with(|inner| inner.end_run(&run, StopReason::Guest));
    lab.allow.push("vm/bob-gsr".parse().unwrap());
    assert_snapshot!("one_is_started_by_name", lab.plan_text());
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
    let other_site = "zzzz-2".parse::<labwright::id::RunId>().unwrap();
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
