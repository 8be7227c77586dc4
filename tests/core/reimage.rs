//! New disks for a vm, and its old ones again: what is planned, what guards say, and what a kill at any moment leaves.

use std::collections::BTreeSet;
use std::path::PathBuf;

use labwright::model::id::RunId;
use labwright::plan::{Answer, Effect, NotDone, Plan, Wish};

use crate::lab::{Applied, Lab};
use crate::plans::{OPEN, PAIR, running};
use crate::world::Inner;

fn effects(plan: &Plan) -> Vec<&'static str> {
    plan.actions().map(|(_, action)| action.effect.name()).collect()
}

fn must(lab: &Lab, vm: &str, wish: Wish) {
    let done = lab.power(&lab.desired(), &vm.parse().unwrap(), wish);
    assert!(matches!(&done, Applied::Done(done) if done.failed.is_empty()), "{done:?}");
    lab.world.with(Inner::start_all);
}

/// The number by which the world knows the disk that the vm has.
fn disk_of(lab: &Lab, vm: &str) -> Option<u64> {
    let path = lab.recorded(&lab.desired()).vms[vm].disks.first()?.path.clone();
    lab.world.with(|inner| Some(inner.disks.get(&path)?.id))
}

fn all_disks(lab: &Lab) -> BTreeSet<u64> {
    lab.world.with(|inner| inner.disks.values().map(|disk| disk.id).collect())
}

/// The run of a vm that has a guest.
fn run_of(lab: &Lab, vm: &str) -> Option<RunId> {
    lab.world.with(|inner| inner.executing().find(|(_, spec)| spec.vm.as_str() == vm).map(|(run, _)| run.clone()))
}

#[test]
fn a_guest_that_runs_stays_in_its_run_and_one_that_is_off_stays_off() {
    let lab = running(PAIR);
    let plan = lab.asked(&[("bob-gsr", Wish::Reimage, true)]);
    let all = ["turn the guest off", "set the disks aside", "record the vm", "make the disk", "turn the guest on"];
    assert_eq!((effects(&plan), &plan.refusals[..]), (all.to_vec(), &[][..]));
    assert_eq!(plan.answers["bob-gsr"], Answer::Planned);
    let (old, run) = (disk_of(&lab, "bob-gsr").unwrap(), run_of(&lab, "bob-gsr"));
    for (wish, disk_is_old) in [(Wish::Reimage, false), (Wish::PutBack, true), (Wish::Reimage, false)] {
        must(&lab, "bob-gsr", wish);
        // Its starter looks soon; until then nothing else is to be done about it.
        assert!(lab.plan().is_empty(), "{wish:?}: {:?}", lab.plan().changes);
        lab.world.with(|inner| inner.pass(1));
        assert!(lab.plan().is_empty(), "{wish:?}: {:?}", lab.plan().changes);
        assert_eq!((run.is_some(), &run_of(&lab, "bob-gsr")), (true, &run), "{wish:?}");
        assert_eq!(disk_of(&lab, "bob-gsr") == Some(old), disk_is_old, "{wish:?}");
        assert!(all_disks(&lab).contains(&old), "{wish:?}");
    }
    lab.world.with(|inner| assert_eq!(inner.broken, None));

    must(&lab, "bob-gsr", Wish::Stop);
    let plan = lab.asked(&[("bob-gsr", Wish::PutBack, true)]);
    assert_eq!(
        effects(&plan),
        ["record what comes back", "set the disks aside", "put the disks back", "record the vm"]
    );
    must(&lab, "bob-gsr", Wish::PutBack);
    assert_eq!(disk_of(&lab, "bob-gsr"), Some(old));
    assert_eq!(lab.world.with(|inner| inner.live().len()), 1, "alice's");
}

/// Another run, where this one cannot have other disks, or must begin anew for something else.
#[test]
fn a_guest_is_stopped_and_started_where_its_run_cannot_stay() {
    type Happens = fn(&mut Lab);
    let table: [(&str, Happens); 3] = [
        ("its starter is an older one", |_| {}),
        ("it was edited", |lab| lab.edit(&PAIR.replace("memory: 1G", "memory: 2G"))),
        ("it waits in the queue", |lab| {
            must(lab, "bob-gsr", Wish::Stop);
            lab.power(&lab.desired(), &"bob-gsr".parse().unwrap(), Wish::Start);
        }),
    ];
    for (case, happens) in table {
        let mut lab = Lab::new(PAIR);
        if case.contains("older") {
            lab.world.with(|inner| inner.faults.obeyed = Some(&["generation", "wanted", "requests", "clock.end"]));
        }
        lab.must_apply();
        lab.world.with(Inner::start_all);
        happens(&mut lab);
        let plan = lab.asked(&[("bob-gsr", Wish::Reimage, true)]);
        let all = ["stop the vm", "set the disks aside", "record the vm", "make the disk", "submit the run"];
        assert_eq!((effects(&plan), &plan.refusals[..]), (all.to_vec(), &[][..]), "{case}");
    }
}

#[test]
fn who_names_the_vm_means_it_in_an_open_session_too() {
    let lab = running(&format!("{PAIR}{OPEN}"));
    for wish in [Wish::Reimage, Wish::PutBack] {
        let family = lab.asked(&[("alice-gsr", wish, false), ("bob-gsr", wish, false)]);
        assert!(family.is_empty() && family.refusals.len() == 2, "{family:?}");
        let named = lab.asked(&[("alice-gsr", wish, false), ("bob-gsr", Wish::Reimage, true)]);
        assert_eq!((named.changes.len(), named.refusals.len()), (1, 1), "{named:?}");
        must(&lab, "alice-gsr", Wish::Reimage);
    }
    assert!(effects(&lab.asked(&[("alice-gsr", Wish::PutBack, true)])).contains(&"put the disks back"));
}

#[test]
fn what_cannot_be_is_refused_and_says_why() {
    let empty = PAIR.replace("derive: gsr", "disks: [{ size: 1G }]");
    // (the manifest, what is asked, why not)
    let table = [
        (PAIR, Wish::PutBack, "none of its disks is set aside that could come back"),
        (&empty, Wish::Reimage, "it was made with an empty disk, and there is nothing to make another from"),
    ];
    for (manifest, wish, why) in table {
        for lab in [running(manifest), Lab::new(manifest)] {
            let plan = lab.asked(&[("bob-gsr", wish, true)]);
            if wish == Wish::Reimage && lab.recorded(&lab.desired()).vms.is_empty() {
                assert!(!plan.is_empty(), "a vm that was never made gets its first disk");
                continue;
            }
            assert!(plan.is_empty() && plan.refusals[0].why.to_string() == why, "{plan:?}");
            assert!(
                matches!(&plan.answers["bob-gsr"], Answer::NotDone(why) if matches!(**why, NotDone::Refused { .. }))
            );
        }
    }
}

/// A lost disk has nothing that could be kept, and is no hindrance to a new one.
#[test]
fn a_vm_whose_disk_is_lost_gets_a_new_one() {
    let lab = running(PAIR);
    must(&lab, "bob-gsr", Wish::Stop);
    lab.world.with(|inner| inner.disks.retain(|path, _| !path.to_string_lossy().contains("bob-gsr")));
    must(&lab, "bob-gsr", Wish::Reimage);
    assert!(lab.asked(&[("bob-gsr", Wish::Start, true)]).refusals.is_empty());
}

/// Killed at any call, the vm has one disk at the end, and no disk of anybody is gone.
#[test]
fn a_kill_at_any_moment_loses_nothing() {
    for wish in [Wish::Reimage, Wish::PutBack] {
        let mut calls = 1;
        loop {
            let lab = running(PAIR);
            let (first, run) = (disk_of(&lab, "bob-gsr"), run_of(&lab, "bob-gsr"));
            must(&lab, "bob-gsr", Wish::Reimage);
            let before = all_disks(&lab);
            lab.world.with(|inner| inner.faults.kill_in = Some(calls));
            let ended = lab.power(&lab.desired(), &"bob-gsr".parse().unwrap(), wish);
            if !matches!(ended, Applied::Killed) {
                assert!(calls > 4, "{wish:?} was hardly cut short");
                break;
            }
            // Who does not have what they asked for asks again.
            if (disk_of(&lab, "bob-gsr") == first) != (wish == Wish::PutBack) {
                must(&lab, "bob-gsr", wish);
            }
            lab.must_apply();
            assert!(all_disks(&lab).is_superset(&before), "{wish:?}, killed at call {calls}");
            assert_eq!(disk_of(&lab, "bob-gsr") == first, wish == Wish::PutBack, "{wish:?}, killed at call {calls}");
            let recorded = lab.recorded(&lab.desired());
            let paths: Vec<&PathBuf> = recorded.vms["bob-gsr"].disks.iter().map(|disk| &disk.path).collect();
            assert_eq!(paths.len(), 1, "{wish:?}, killed at call {calls}");
            lab.world.with(|inner| inner.pass(1));
            assert!(lab.plan().is_empty(), "{wish:?}, killed at call {calls}");
            assert_eq!(run_of(&lab, "bob-gsr"), run, "{wish:?}, killed at call {calls}");
            lab.world.with(|inner| assert_eq!(inner.broken, None));
            calls += 1;
        }
    }
}

/// What a plan says of it: the guest that was never restarted, and which disks come back.
#[test]
fn the_plan_says_what_becomes_of_the_disks() {
    let lab = running(PAIR);
    let plan = lab.asked(&[("bob-gsr", Wish::Reimage, true)]);
    let notes: Vec<String> = plan.notes.iter().map(|note| note.what.to_string()).collect();
    assert_eq!(
        notes,
        ["its guest was never restarted: `labwright vm restart bob-gsr` keeps its disks and may be enough"]
    );
    assert_eq!(plan.changes[0].reason(), "new disks are asked for; the old ones are kept");
    must(&lab, "bob-gsr", Wish::Reimage);
    let plan = lab.asked(&[("bob-gsr", Wish::PutBack, true)]);
    let said = plan.changes[0].reason();
    assert!(said.starts_with("set ") && said.ends_with("comes back, and the disks of now are set aside"), "{said}");
    assert!(
        plan.actions().any(|(_, action)| matches!(&action.effect, Effect::PutBack { moves, .. } if moves.len() == 1))
    );
}

/// Who stands on an older version is told of in the plan until they are brought up to date.
#[test]
fn the_plan_says_who_is_behind() {
    let mut lab = running(PAIR);
    let image = lab.folder.path().canonicalize().unwrap().join("images/gsr.qcow2");
    lab.world.with(|inner| inner.write_image(&image, "second"));
    lab.allow.push("template/gsr".parse().unwrap());
    lab.must_apply();
    let behind = |lab: &Lab| -> Vec<String> {
        let plan = lab.plan();
        assert!(plan.is_empty(), "it is no change");
        plan.notes.iter().map(|note| note.what.to_string()).collect()
    };
    let said = |vms: &str| {
        format!("{vms} on versions before 2: `labwright template update gsr` gives new disks and keeps the old ones")
    };
    assert_eq!(behind(&lab), [said("2 vms stand")]);
    must(&lab, "bob-gsr", Wish::Reimage);
    assert_eq!(behind(&lab), [said("1 vm stands")]);
    let bob = lab.recorded(&lab.desired()).vms["bob-gsr"].clone();
    assert_eq!(bob.version, Some(2));
    assert!(bob.disks[0].base.as_ref().is_some_and(|base| base.to_string_lossy().contains("/v2/")), "{bob:?}");
    must(&lab, "alice-gsr", Wish::Reimage);
    assert_eq!(behind(&lab), Vec::<String>::new());
    // What is put back is of the version that it was.
    must(&lab, "bob-gsr", Wish::PutBack);
    assert_eq!(behind(&lab), [said("1 vm stands")]);
}
