//! Hosts that nobody hears of: what is planned meanwhile, and what giving them up does.

use insta::assert_snapshot;
use jiff::SignedDuration;
use labwright::model::job::{TaskId, TaskState};
use labwright::model::site::{GridEngineSettings, SchedulerSettings};
use labwright::plan::{LostHost, Plan, Wish, give_up_only};
use labwright::run::StopReason;
use labwright::scheduler::Ended;

use crate::imports::{edits_that_take, possessions};
use crate::lab::{Applied, Lab};
use crate::plans::{OPEN, PAIR, running};
use crate::world::Inner;

/// The pair of vms, both on the host `h1`, which stops answering.
fn pair_on_a_lost_host() -> Lab {
    let lab = Lab::new(PAIR);
    lab.must_apply();
    lab.world.with(|inner| {
        inner.start_all();
        inner.lose_host();
    });
    lab
}

/// As the command does it: the records and the fence, nothing else of the plan.
fn give_up(lab: &mut Lab, name: &str, powered_off: bool) -> String {
    lab.lost_host = Some(LostHost { name: name.into(), powered_off });
    lab.apply_part(give_up_only)
}

#[test]
fn nothing_is_done_about_an_unknown_vm() {
    let lab = pair_on_a_lost_host();
    assert_snapshot!(lab.plan_text());
    lab.world.with(|inner| inner.pass(100_000));
    assert!(lab.plan().is_empty(), "time alone gives nothing up");
}

#[test]
fn a_guest_on_a_lost_host_keeps_disk_address_and_name() {
    for (what, manifest) in edits_that_take() {
        let mut lab = pair_on_a_lost_host();
        let before = possessions(&lab);
        let vms = lab.recorded(&lab.desired()).vms;
        lab.edit(&manifest);
        lab.allow.extend(["user-group/students", "vm/*"].map(|pattern| pattern.parse().unwrap()));
        lab.must_apply();
        assert_eq!(possessions(&lab), before, "{what}");
        assert_eq!(lab.recorded(&lab.desired()).vms, vms, "{what}: the vms are not forgotten either");
        lab.world.with(|inner| inner.power_off("h1"));
        give_up(&mut lab, "h1", true);
        lab.lost_host = None;
        lab.must_apply();
        assert_ne!(possessions(&lab), before, "{what}: what waited is done");
    }
}

#[test]
fn a_host_is_given_up_only_after_its_guests_stand_still() {
    let mut lab = pair_on_a_lost_host();
    lab.world.with(|inner| inner.pass(69));
    assert_snapshot!(give_up(&mut lab, "h1", false));
    lab.world.with(|inner| {
        inner.pass(1);
        assert!(inner.asked_to_go.is_empty());
    });
    assert_snapshot!("given_up", give_up(&mut lab, "h1", false));
    lab.lost_host = None;
    lab.world.with(|inner| assert_eq!(inner.asked_to_go.len(), 2, "the jobs are asked to go"));
    assert_snapshot!("starts_elsewhere", lab.plan_text());
    let before = lab.recorded(&lab.desired()).vms;
    lab.must_apply();
    let after = lab.recorded(&lab.desired()).vms;
    for (name, vm) in &before {
        assert_eq!((vm.ip, &vm.disks), (after[name].ip, &after[name].disks), "{name} keeps its address and disk");
    }
    assert!(lab.plan().is_empty(), "jobs that stay in the queue until their host is back are no hindrance");
}

/// The effects on one vm, as they are called.
fn effects_on(plan: &Plan, vm: &str) -> Vec<&'static str> {
    let of_vm = plan.actions().filter(|(_, action)| action.effect.vm().is_some_and(|of| of.as_str() == vm));
    of_vm.map(|(_, action)| action.effect.name()).collect()
}

/// The pair in an open session, on a host of which nothing was heard for as long as its guests need to stand still.
fn pair_taken_over() -> Lab {
    let lab = Lab::new(&format!("{PAIR}{OPEN}"));
    lab.must_apply();
    lab.world.with(|inner| {
        inner.start_all();
        inner.lose_host();
        inner.pass(69);
    });
    assert!(lab.plan().is_empty(), "its guests may write: {}", lab.plan_text());
    lab.world.with(|inner| inner.pass(1));
    lab
}

/// Nobody says so; and what the lost host writes later meets a file that nobody uses.
#[test]
fn a_vm_of_an_open_session_starts_elsewhere_by_itself_on_a_copy() {
    let lab = pair_taken_over();
    let all =
        ["fence the lost run off", "record the end of the run", "renew the disks", "check the disks", "submit the run"];
    assert_eq!(effects_on(&lab.plan(), "alice-gsr"), all);
    assert_eq!(effects_on(&lab.upkeep(), "bob-gsr"), all, "nobody needs to look on");
    let before = lab.recorded(&lab.desired()).vms;
    let was = |path: &std::path::Path| lab.world.with(|inner| inner.disks[path].id);
    let ids: Vec<u64> = before.values().map(|vm| was(&vm.disks[0].path)).collect();
    lab.must_apply();
    lab.world.with(Inner::start_all);
    let recorded = lab.recorded(&lab.desired());
    for ((name, vm), id) in before.iter().zip(ids) {
        assert_eq!((vm.ip, &vm.disks), (recorded.vms[name].ip, &recorded.vms[name].disks));
        let set = &recorded.aside[name][0];
        assert_eq!((set.name.as_str(), set.owner.as_deref()), ("lost-1", Some(vm.vm.owner.as_str())));
        assert_eq!((was(&set.disks[0].path), was(&vm.disks[0].path) == id), (id, false), "the old file is set aside");
    }
    assert!(lab.plan().is_empty(), "{}", lab.plan_text());
    lab.world.with(|inner| {
        inner.host_returns();
        inner.start_all();
        assert_eq!((inner.live().len(), &inner.broken), (2, &None));
    });
}

#[test]
fn a_kill_at_any_moment_of_a_takeover_ends_on_one_copy() {
    let mut calls = 1;
    loop {
        let lab = pair_taken_over();
        let before: Vec<u64> = lab.world.with(|inner| inner.disks.values().map(|disk| disk.id).collect());
        lab.world.with(|inner| inner.faults.kill_in = Some(calls));
        if !matches!(lab.apply(), Applied::Killed) {
            assert!(calls > 5, "it was hardly cut short");
            break;
        }
        lab.must_apply();
        lab.world.with(Inner::start_all);
        let recorded = lab.recorded(&lab.desired());
        for name in ["alice-gsr", "bob-gsr"] {
            assert_eq!((recorded.vms[name].disks.len(), recorded.aside[name].len()), (1, 1), "killed at call {calls}");
        }
        let after: Vec<u64> = lab.world.with(|inner| inner.disks.values().map(|disk| disk.id).collect());
        assert!(before.iter().all(|id| after.contains(id)), "killed at call {calls}");
        assert_eq!(after.len(), before.len() + 2, "killed at call {calls}");
        assert!(lab.plan().is_empty(), "killed at call {calls}");
        lab.world.with(|inner| assert_eq!(inner.broken, None));
        calls += 1;
    }
}

/// Of a guest that was asked to go, and of one that ended by itself, nothing is in doubt.
#[test]
fn disks_are_looked_through_where_their_guest_ended_without_a_word() {
    let lab = running(PAIR);
    lab.world.with(|inner| {
        let run = inner.run_of("alice-gsr");
        inner.kill_run(&run);
    });
    let checks = ["fence the lost run off", "record the end of the run", "check the disks", "submit the run"];
    assert_eq!(effects_on(&lab.plan(), "alice-gsr"), checks);
    lab.must_apply();
    lab.world.with(Inner::start_all);
    let restart = lab.asked(&[("alice-gsr", Wish::Restart, true)]);
    assert_eq!(effects_on(&restart, "alice-gsr"), ["stop the vm", "submit the run"]);
}

#[test]
fn starters_of_a_host_that_was_only_cut_off_end_when_it_is_back() {
    let mut lab = pair_on_a_lost_host();
    give_up(&mut lab, "h1", true);
    lab.lost_host = None;
    lab.must_apply();
    lab.world.with(|inner| {
        let old: Vec<_> = inner.tasks.values().filter(|task| task.state == TaskState::Unknown).collect();
        assert_eq!(old.len(), 2);
        inner.host_returns();
        inner.start_all();
        let live = inner.live();
        assert_eq!(live.len(), 2);
        for (vm, runs) in live {
            assert_eq!(runs.len(), 1, "{vm} runs twice");
            assert_eq!(inner.runs[&runs[0]].spec.generation, 2);
        }
        let ends = inner.runs.values().filter_map(|run| run.records().pop()).filter(|record| {
            matches!(record.event, labwright::run::Event::Stopped { reason: StopReason::Superseded, .. })
        });
        assert_eq!(ends.count(), 2);
    });
    assert!(lab.plan().is_empty());
}

#[test]
fn a_starter_that_never_wrote_is_given_up_only_with_its_power() {
    let mut lab = Lab::new(PAIR);
    lab.must_apply();
    lab.world.with(|inner| {
        for task in inner.tasks.values_mut() {
            task.state = TaskState::Unknown;
        }
        inner.pass(100_000);
    });
    assert_snapshot!(give_up(&mut lab, "h1", false));
    give_up(&mut lab, "h1.cluster.example", true);
    lab.lost_host = None;
    assert_eq!(lab.plan().changes.len(), 2, "{}", lab.plan_text());
}

#[test]
fn another_host_and_one_that_answers_are_left_alone() {
    let mut lab = pair_on_a_lost_host();
    assert_snapshot!(give_up(&mut lab, "h2", true));
    lab.world.with(Inner::host_returns);
    assert_snapshot!("one_that_answers", give_up(&mut lab, "h1", true));
}

#[test]
fn the_books_tell_of_runs_that_ended_without_a_word() {
    let lab = Lab::new(PAIR);
    lab.must_apply();
    lab.world.with(|inner| {
        inner.start_all();
        let task = |inner: &Inner, vm: &str| {
            let run = inner.run_of(vm);
            let (id, task) = inner.tasks.iter().find(|(_, task)| task.run == run).unwrap();
            (*id, task.name.clone(), run)
        };
        let (id, name, alices) = task(inner, "alice-gsr");
        let (.., bobs) = task(inner, "bob-gsr");
        let wrong = Some("signal 9 ended it".to_owned());
        let ended = Ended { id, name, host: "h1".into(), seconds: 7, memory_mib: None, wrong };
        // Another lab's, whose mark begins alike.
        let name = format!("{}1", ended.name.replace("net101", "net101.b"));
        let foreign = Ended { id: TaskId { task: 2, ..id }, name, ..ended.clone() };
        inner.books = vec![ended, foreign];
        inner.kill_run(&alices);
        inner.kill_run(&bobs);
    });
    assert_eq!(lab.plan().changes.len(), 2);
    lab.world.with(|inner| assert_eq!(inner.looks_at_books, 0, "a plan never looks"));
    lab.must_apply();
    lab.world.with(|inner| assert_eq!(inner.looks_at_books, 1, "one look, however many runs"));
    let store = lab.store();
    let first_end = |vm: &str| store.runs(&lab.desired().lab, vm, 9).unwrap().last().unwrap().end();
    let told = "its starter said nothing; by the batch system's books, signal 9 ended it";
    assert_eq!(first_end("alice-gsr").as_deref(), Some(told));
    assert_eq!(first_end("bob-gsr").as_deref(), Some("ended without a word"));
}

#[test]
fn a_job_that_the_queue_forgot_is_over_only_when_its_starter_is_silent() {
    let lab = pair_on_a_cluster();
    lab.world.with(|inner| {
        let run = inner.run_of("alice-gsr");
        inner.kill_run(&run);
        inner.pass(5);
    });
    assert_snapshot!(lab.plan_text());
    lab.world.with(|inner| inner.pass(65));
    assert_snapshot!("and_then_it_starts_again", lab.plan_text());
}

/// The pair on a cluster, running.
fn pair_on_a_cluster() -> Lab {
    let mut lab = Lab::new(PAIR);
    lab.site.scheduler = SchedulerSettings::GridEngine(GridEngineSettings::new("/sge".into()));
    lab.must_apply();
    lab.world.with(Inner::start_all);
    lab
}

#[test]
fn a_clock_that_jumps_ends_no_run() {
    let lab = pair_on_a_cluster();
    for hours in [-5, 5] {
        lab.world.with(|inner| {
            inner.tasks.clear();
            inner.controller_ahead = SignedDuration::from_hours(hours);
        });
        let plan = lab.plan();
        assert!(plan.is_empty() && plan.waits.len() == 2, "{hours} h:\n{}", lab.plan_text());
    }
}

#[test]
fn a_stop_does_not_take_a_job_that_the_queue_forgot_for_over() {
    let mut lab = pair_on_a_cluster();
    lab.edit(&PAIR.replace("[alice, bob]", "[alice]"));
    lab.allow.push("user-group/students".parse().unwrap());
    let (plan, before) = (lab.plan(), possessions(&lab));
    lab.world.with(|inner| {
        inner.cut_off("h1");
        inner.tasks.clear();
    });
    let done = lab.carry_out(&plan).unwrap();
    assert_eq!(done.failed.iter().map(|failed| failed.effect).collect::<Vec<_>>(), ["stop the vm"]);
    assert_eq!(possessions(&lab), before);
    lab.world.with(|inner| inner.pass(100));
    lab.must_apply();
    assert_ne!(possessions(&lab), before, "its guest stands still for certain");
}

#[test]
fn a_job_number_that_came_around_is_not_ours() {
    let lab = Lab::new(PAIR);
    lab.must_apply();
    let ours = lab.world.with(|inner| {
        inner.start_all();
        let run = inner.run_of("alice-gsr");
        let (id, _) = inner.tasks.iter().find(|(_, task)| task.run == run).unwrap();
        let id = *id;
        inner.kill_run(&run);
        // The numbers began again at 1, and somebody else got what was alice's.
        inner.foreign.insert(id, "sleep".to_owned());
        id
    });
    assert_snapshot!(lab.plan_text());
    lab.must_apply();
    lab.world.with(|inner| {
        inner.start_all();
        assert!(inner.foreign.contains_key(&ours), "a job that is not ours is left alone");
        assert_eq!(inner.live().len(), 2);
    });
    assert!(lab.plan().is_empty());
}
