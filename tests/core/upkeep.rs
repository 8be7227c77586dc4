//! What the site's loop does with nobody looking on: it keeps a lab as it was last applied, and goes on with what was cut short.

use labwright::apply::Summary;
use labwright::model::claim::ClaimedPower;
use labwright::plan::{Verb, Wish};
use labwright::run::StopReason;
use labwright::state::{FreezeScope, Frozen};

use crate::lab::{Applied, Lab};
use crate::plans::{PAIR, running_pair};
use crate::world::Inner;

#[track_caller]
fn keep(lab: &Lab) {
    match lab.keep() {
        Applied::Done(done) if done.failed.is_empty() => lab.world.with(Inner::start_all),
        other => panic!("a round went wrong: {other:?}"),
    }
}

/// What the loop would do, in a few words each.
fn wanted(lab: &Lab) -> Vec<String> {
    let plan = lab.upkeep();
    plan.changes.iter().map(|change| format!("{} {}", change.verb.as_str(), change.address)).collect()
}

fn running(lab: &Lab) -> usize {
    lab.world.with(|inner| inner.executing().count())
}

fn lose(lab: &Lab, vm: &str) {
    lab.world.with(|inner| {
        let run = inner.run_of(vm);
        inner.kill_run(&run);
    });
}

fn end(lab: &Lab, vm: &str, reason: StopReason) {
    lab.world.with(|inner| {
        let run = inner.run_of(vm);
        inner.end_run(&run, reason);
    });
}

#[test]
fn what_was_lost_is_started_again_as_it_was_applied_whatever_the_folder_says() {
    let lab = running_pair();
    assert_eq!(wanted(&lab), [""; 0]);
    lose(&lab, "bob-gsr");
    // None of this was applied: more memory, another student, one less, a new image.
    lab.edit(&PAIR.replace("memory: 1G", "memory: 2G").replace("[alice, bob]", "[bob, carol]"));
    let image = lab.folder.path().canonicalize().unwrap().join("images/gsr.qcow2");
    lab.world.with(|inner| inner.write_image(&image, "second"));
    assert_eq!(wanted(&lab), ["start vm/bob-gsr"]);
    keep(&lab);
    let memory = lab.world.with(|inner| inner.runs[&inner.run_of("bob-gsr")].spec.hardware.memory_mib);
    assert_eq!((running(&lab), memory), (2, 1024));
    assert_eq!(wanted(&lab), [""; 0]);
    assert!(!lab.plan().is_empty(), "the edit is still to be applied");
}

#[test]
fn who_was_stopped_by_command_stays_off_until_the_next_apply() {
    let lab = running_pair();
    assert!(matches!(lab.power(&lab.desired(), &"bob-gsr".parse().unwrap(), Wish::Stop), Applied::Done(_)));
    assert_eq!((wanted(&lab), running(&lab)), (vec![], 1));
    lab.must_apply();
    lab.world.with(Inner::start_all);
    assert_eq!(running(&lab), 2);
    // The same where nobody has recorded the end yet: that is all the loop does.
    end(&lab, "bob-gsr", StopReason::Asked);
    assert_eq!(wanted(&lab), ["record vm/bob-gsr"]);
    keep(&lab);
    assert_eq!((wanted(&lab), running(&lab)), (vec![], 1));
    // One that powered itself off stays off, as ever.
    end(&lab, "alice-gsr", StopReason::Guest);
    keep(&lab);
    assert_eq!((wanted(&lab), running(&lab)), (vec![], 0));
}

#[test]
fn claims_are_kept_and_a_start_that_failed_is_tried_again() {
    let lab = Lab::new(&PAIR.replace(", state: running", ""));
    lab.must_apply();
    assert_eq!(wanted(&lab), [""; 0]);
    lab.world.with(|inner| inner.faults.refuse_submit = true);
    let tried = lab.power(&lab.desired(), &"bob-gsr".parse().unwrap(), Wish::Start);
    assert!(matches!(&tried, Applied::Done(done) if done.failed.len() == 1), "{tried:?}");
    lab.world.with(|inner| inner.faults.refuse_submit = false);
    keep(&lab);
    assert_eq!(running(&lab), 1);
    lose(&lab, "bob-gsr");
    keep(&lab);
    assert_eq!((running(&lab), wanted(&lab)), (1, vec![]));
    let claims = lab.store().claims_on(&lab.desired().lab, "bob-gsr", 9).unwrap();
    assert_eq!(claims.iter().filter(|claim| claim.body.contains(ClaimedPower::Running.as_str())).count(), 1);
}

/// What nobody may do without being meant, the loop does not do.
#[test]
fn a_lost_disk_is_not_made_anew_and_a_frozen_lab_is_left_alone() {
    let lab = running_pair();
    lose(&lab, "bob-gsr");
    let name = lab.desired().lab;
    let frozen = Frozen {
        who: "doraz".into(),
        since: "2027-01-12T07:00:00Z".parse().unwrap(),
        why: "exam in room 303".into(),
        scope: FreezeScope::Lab,
    };
    lab.store().freeze(Some(&name), Some(&frozen)).unwrap();
    let leaves_alone = || matches!(lab.keep(), Applied::Done(done) if done == Summary::default());
    assert!(leaves_alone() && lab.upkeep().is_refused());
    lab.store().freeze(Some(&name), None).unwrap();
    lab.world.with(|inner| {
        let disk = inner.disks.keys().find(|path| path.to_string_lossy().contains("bob-gsr")).unwrap().clone();
        inner.disks.remove(&disk);
    });
    assert!(leaves_alone() && !lab.upkeep().refusals.is_empty());
    assert_eq!(running(&lab), 1);
}

/// Whenever an apply is killed, the loop goes on with it as far as it was written down, and the next apply ends where one ends that
/// nobody killed.
#[test]
fn a_killed_apply_is_gone_on_with_and_the_next_one_ends_the_same() {
    let mut kill_in = 1;
    let mut went_on = 0;
    loop {
        let lab = Lab::new(PAIR);
        lab.world.with(|inner| inner.faults.kill_in = Some(kill_in));
        match lab.apply() {
            Applied::Killed => {}
            Applied::Done(_) => break,
            other => panic!("{other:?}"),
        }
        if !lab.store().labs().unwrap().is_empty() {
            let before = running(&lab);
            assert!(lab.upkeep().changes.iter().all(|change| change.verb != Verb::SetAside), "at {kill_in}");
            match lab.keep() {
                Applied::Done(done) => assert_eq!(done.failed, [], "killed at {kill_in}"),
                Applied::Refused(_) => {}
                other => panic!("killed at {kill_in}: {other:?}"),
            }
            lab.world.with(Inner::start_all);
            went_on += usize::from(running(&lab) > before);
        }
        lab.must_apply();
        lab.world.with(Inner::start_all);
        assert_eq!(running(&lab), 2, "killed at {kill_in}");
        assert_eq!(lab.world.with(|inner| inner.broken.clone()), None, "killed at {kill_in}");
        assert!(lab.plan().is_empty() && lab.upkeep().is_empty(), "killed at {kill_in}");
        kill_in += 1;
    }
    assert!(went_on > 5, "of {kill_in} kills, the loop went on with {went_on}");
}
