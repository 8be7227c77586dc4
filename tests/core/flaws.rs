//! The checker of plans sees what it is there to see: sound plans, each spoilt by hand in one way.

use labwright::model::job::{JobId, TaskId};
use labwright::plan::{Effect, Flaw, Plan, Wish};
use labwright::run::StopReason;
use labwright::state::Entry;

use crate::lab::Lab;
use crate::plans::{PAIR, running};
use crate::world::Inner;

/// Two vms that run, and an edit that restarts both.
fn restarting() -> Lab {
    let lab = Lab::new(PAIR);
    lab.must_apply();
    lab.world.with(Inner::start_all);
    lab.edit(&PAIR.replace("memory: 1G", "memory: 2G"));
    lab
}

/// A plan in which a vm leaves and another comes.
fn leaving() -> Lab {
    let mut lab = Lab::new(PAIR);
    lab.must_apply();
    lab.world.with(Inner::start_all);
    lab.edit(&PAIR.replace("[alice, bob]", "[alice, carol]"));
    lab.allow.push("user-group/students".parse().unwrap());
    lab
}

fn change<'a>(plan: &'a mut Plan, address: &str) -> &'a mut labwright::plan::Change {
    plan.changes.iter_mut().find(|change| change.address.to_string() == address).unwrap()
}

fn effects(plan: &mut Plan) -> impl Iterator<Item = &mut Effect> {
    plan.changes.iter_mut().flat_map(|change| &mut change.actions).map(|action| &mut action.effect)
}

/// The flaws of a lab's plan after `spoil`; without it there are none.
#[track_caller]
fn flaws(lab: &Lab, spoil: impl FnOnce(&mut Plan)) -> Vec<Flaw> {
    assert_eq!(lab.flaws(|_| {}), []);
    lab.flaws(spoil)
}

#[test]
fn one_address_for_two_vms() {
    let found = flaws(&Lab::new(PAIR), |plan| {
        let mut first = None;
        for effect in effects(plan) {
            if let Effect::Record(Entry::Vm { ip, mac, .. }) = effect {
                (*ip, *mac) = *first.get_or_insert((*ip, *mac));
            }
        }
    });
    let vms = || ["alice-gsr".to_owned(), "bob-gsr".to_owned()];
    assert_eq!(
        found,
        [
            Flaw::AddressTwice { ip: "192.168.100.2".into(), vms: vms() },
            Flaw::MacTwice { mac: "de:af:de:af:64:02".into(), vms: vms() },
        ]
    );
}

#[test]
fn an_address_that_somebody_has() {
    let found = flaws(&leaving(), |plan| {
        for effect in effects(plan) {
            if let Effect::Record(Entry::Vm { ip, .. }) = effect {
                *ip = "192.168.100.2".parse().unwrap();
            }
        }
    });
    assert!(matches!(&found[..], [Flaw::AddressTwice { vms, .. }] if vms[0] == "alice-gsr"), "{found:?}");
}

#[test]
fn an_action_before_what_it_needs() {
    let found = flaws(&Lab::new(PAIR), |plan| {
        let at = plan.changes.iter().position(|change| change.address.to_string() == "vm/alice-gsr").unwrap();
        plan.changes[at].actions.swap(0, 1);
    });
    assert!(matches!(found[..], [Flaw::Order { .. }, ..]), "{found:?}");
}

#[test]
fn effects_on_one_vm_that_do_not_wait_for_each_other() {
    let found = flaws(&leaving(), |plan| {
        change(plan, "vm/bob-gsr").actions.iter_mut().for_each(|action| action.needs.clear());
    });
    let pairs: Vec<(&str, &str)> = found
        .iter()
        .map(|flaw| match flaw {
            Flaw::Unordered { first, then, .. } => (*first, *then),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        ("stop the vm", "release the address"),
        ("stop the vm", "set the disks aside"),
        ("stop the vm", "forget the vm"),
        ("release the address", "forget the vm"),
        ("set the disks aside", "forget the vm"),
    ];
    assert_eq!(pairs, expected);
}

#[test]
fn a_disk_that_does_not_wait_for_what_it_derives_from() {
    let found = flaws(&Lab::new(PAIR), |plan| {
        let publish = change(plan, "template/gsr").actions[0].id;
        for action in plan.changes.iter_mut().flat_map(|change| &mut change.actions) {
            action.needs.retain(|need| *need != publish);
        }
    });
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(matches!(found[0], Flaw::Unordered { first: "publish the image", then: "make the disk", .. }), "{found:?}");
}

#[test]
fn a_second_run_of_a_vm() {
    let found = flaws(&restarting(), |plan| {
        for change in &mut plan.changes {
            let stop = change.actions.iter().position(|action| matches!(action.effect, Effect::Stop { .. }));
            if let Some(stop) = stop {
                let id = change.actions.remove(stop).id;
                change.actions.iter_mut().for_each(|action| action.needs.retain(|need| *need != id));
            }
        }
    });
    assert_eq!(found.len(), 2);
    assert!(matches!(&found[0], Flaw::SecondRun { vm, .. } if vm == "alice-gsr"), "{found:?}");
}

#[test]
fn disks_taken_from_under_a_guest() {
    let found = flaws(&leaving(), |plan| {
        let actions = &mut change(plan, "vm/bob-gsr").actions;
        let stop = actions.remove(0).id;
        actions.iter_mut().for_each(|action| action.needs.retain(|need| *need != stop));
    });
    assert_eq!(found, [Flaw::UnderGuest { vm: "bob-gsr".into(), effect: "set the disks aside" }]);
}

/// A guest that is only turned off has a run that lives.
#[test]
fn a_guest_that_is_turned_on_too_early_or_started_beside_its_run() {
    let lab = running(PAIR);
    let asks = [("bob-gsr", Wish::Reimage)];
    let early = lab.flaws_of(&asks, |plan| {
        change(plan, "vm/bob-gsr").actions.last_mut().unwrap().needs.clear();
    });
    assert!(
        matches!(early[0], Flaw::Unordered { first: "turn the guest off", then: "turn the guest on", .. }),
        "{early:?}"
    );
    let under = lab.flaws_of(&asks, |plan| {
        let actions = &mut change(plan, "vm/bob-gsr").actions;
        let off = actions.remove(0).id;
        actions.iter_mut().for_each(|action| action.needs.retain(|need| *need != off));
    });
    assert_eq!(under, [Flaw::UnderGuest { vm: "bob-gsr".into(), effect: "set the disks aside" }]);
    let beside = lab.flaws_of(&asks, |plan| {
        let mut restart = lab.asked(&[("bob-gsr", Wish::Restart, true)]);
        let start = change(&mut restart, "vm/bob-gsr").actions.pop().unwrap();
        let last = change(plan, "vm/bob-gsr").actions.last_mut().unwrap();
        last.effect = start.effect;
    });
    assert!(matches!(&beside[..], [Flaw::SecondRun { vm, .. }] if vm == "bob-gsr"), "{beside:?}");
    let lost = lab.flaws_of(&asks, |plan| {
        for effect in effects(plan) {
            if let Effect::TurnOn { disks, .. } = effect {
                disks.clear();
            }
        }
    });
    assert_eq!(lost, [Flaw::NoDisk { vm: "bob-gsr".into() }]);
}

#[test]
fn a_run_number_that_was_given_before() {
    let lab = restarting();
    let found = flaws(&lab, |plan| {
        let first = effects(plan).find_map(|effect| match effect {
            Effect::Stop { run, .. } => Some(run.clone()),
            _ => None,
        });
        for effect in effects(plan) {
            if let Effect::Start { spec, .. } = effect {
                spec.run = first.clone().unwrap();
            }
        }
    });
    assert!(matches!(found[..], [Flaw::RunTwice { .. }, Flaw::RunTwice { .. }]), "{found:?}");
}

#[test]
fn a_run_that_we_do_not_know() {
    let found = flaws(&restarting(), |plan| {
        let mut stops = effects(plan).filter_map(|effect| match effect {
            Effect::Stop { run, task, .. } => Some((run, task)),
            _ => None,
        });
        let (run, task) = stops.next().unwrap();
        *run = "zzzz-7".parse().unwrap();
        *task = None;
    });
    assert_eq!(found, [Flaw::UnknownRun { vm: "alice-gsr".into(), run: "zzzz-7".into() }]);
}

#[test]
fn fencing_a_run_that_we_do_not_know() {
    let lab = Lab::new(PAIR);
    lab.must_apply();
    lab.world.with(|inner| {
        inner.start_all();
        let run = inner.run_of("bob-gsr");
        inner.kill_run(&run);
    });
    let found = flaws(&lab, |plan| {
        for effect in effects(plan) {
            if let Effect::Fence { run, .. } = effect {
                *run = "zzzz-7".parse().unwrap();
            }
        }
    });
    assert_eq!(found, [Flaw::UnknownRun { vm: "bob-gsr".into(), run: "zzzz-7".into() }]);
}

#[test]
fn a_job_that_is_not_ours() {
    let found = flaws(&restarting(), |plan| {
        for effect in effects(plan) {
            if let Effect::Stop { vm, task, .. } = effect
                && vm.as_str() == "bob-gsr"
            {
                *task = Some(TaskId { job: JobId(99), task: 1 });
            }
        }
    });
    assert_eq!(found, [Flaw::ForeignJob { vm: "bob-gsr".into(), job: "99.1".into() }]);
}

#[test]
fn a_reservation_that_is_not_ours() {
    let found = flaws(&leaving(), |plan| {
        for effect in effects(plan) {
            if let Effect::Release { reservation, .. } = effect {
                reservation.mark = "printer-2nd-floor".into();
            }
        }
    });
    assert_eq!(found, [Flaw::ForeignReservation { mark: "printer-2nd-floor".into() }]);
}

#[test]
fn starts_without_disks() {
    let lab = restarting();
    let found = flaws(&lab, |plan| {
        for effect in effects(plan) {
            if let Effect::Start { spec, .. } = effect {
                match spec.vm.as_str() {
                    "alice-gsr" => spec.disks.clear(),
                    _ => spec.disks[0].path = "/srv/elsewhere.qcow2".into(),
                }
            }
        }
    });
    assert_eq!(
        found,
        [
            Flaw::NoDisk { vm: "alice-gsr".into() },
            Flaw::DiskNotThere { vm: "bob-gsr".into(), path: "/srv/elsewhere.qcow2".into() },
        ]
    );
}

#[test]
fn a_start_whose_disk_nobody_makes() {
    let found = flaws(&Lab::new(PAIR), |plan| {
        let change = change(plan, "vm/alice-gsr");
        let made = change.actions.iter().position(|action| matches!(action.effect, Effect::MakeDisk { .. })).unwrap();
        let gone = change.actions.remove(made);
        for action in &mut change.actions {
            if action.needs.contains(&gone.id) {
                action.needs.clone_from(&gone.needs);
            }
        }
    });
    assert!(matches!(&found[..], [Flaw::DiskNotThere { vm, .. }] if vm == "alice-gsr"), "{found:?}");
}

#[test]
fn disks_of_others_and_files_outside_our_folders() {
    let found = flaws(&leaving(), |plan| {
        for effect in effects(plan) {
            match effect {
                Effect::SetAside { disks, folder, .. } => {
                    disks[0] = "/home/doraz/thesis.qcow2".into();
                    *folder = folder.join("../../../../etc");
                }
                Effect::MakeDisk { disk, .. } => disk.path = "/etc/passwd".into(),
                Effect::Start { spec, .. } => spec.disks[0].path = "/etc/passwd".into(),
                _ => {}
            }
        }
    });
    assert!(
        matches!(&found[0], Flaw::ForeignDisk { vm, path } if vm == "bob-gsr" && path.contains("thesis")),
        "{found:?}"
    );
    let outside = |flaw: &Flaw| matches!(flaw, Flaw::OutsideStorage { .. });
    assert_eq!((found.len(), found.iter().filter(|flaw| outside(flaw)).count()), (3, 2), "{found:?}");
}

#[test]
fn a_template_published_outside_our_folders() {
    for place in ["/etc/passwd", "CLIMBS"] {
        let found = flaws(&Lab::new(PAIR), |plan| {
            for effect in effects(plan) {
                if let Effect::Publish { disks, .. } = effect {
                    let climbing = disks[0].path.join("../../../../../../etc/passwd");
                    disks[0].path = if place == "CLIMBS" { climbing } else { place.into() };
                }
            }
        });
        assert!(
            matches!(&found[..], [Flaw::OutsideStorage { path }] if path.ends_with("etc/passwd")),
            "{place}: {found:?}"
        );
    }
}

#[test]
fn an_adopted_job_that_is_not_ours() {
    let lab = Lab::new(PAIR);
    lab.must_apply();
    lab.world.with(Inner::start_all);
    lab.alter_state("UPDATE runs SET state = 'intended', job = NULL");
    let spoil = |change: &dyn Fn(&mut labwright::model::id::RunId, &mut TaskId)| {
        flaws(&lab, |plan| {
            for effect in effects(plan) {
                if let Effect::Adopt { vm, run, task } = effect
                    && vm.as_str() == "bob-gsr"
                {
                    change(run, task);
                }
            }
        })
    };
    let foreign = spoil(&|_, task| *task = TaskId { job: JobId(99), task: 1 });
    assert_eq!(foreign, [Flaw::ForeignJob { vm: "bob-gsr".into(), job: "99.1".into() }]);
    let unknown = spoil(&|run, _| *run = "zzzz-7".parse().unwrap());
    assert_eq!(unknown, [Flaw::UnknownRun { vm: "bob-gsr".into(), run: "zzzz-7".into() }]);
}

#[test]
fn a_stop_inside_an_open_session() {
    let session =
        "sessions: { final: { vms: [exam], start: \"2027-01-12T07:00[UTC]\", end: \"2027-01-12T10:00[UTC]\" } }\n";
    let mut lab = Lab::new(&format!("{PAIR}{session}"));
    lab.must_apply();
    lab.world.with(Inner::start_all);
    lab.edit(&format!("{}{session}", PAIR.replace("memory: 1G", "memory: 2G")));
    lab.allow.push("vm/alice-gsr".parse().unwrap());
    let found = flaws(&lab, |plan| {
        let mut stop = change(plan, "vm/alice-gsr")
            .actions
            .iter()
            .find(|a| matches!(a.effect, Effect::Stop { .. }))
            .unwrap()
            .clone();
        let Effect::Stop { vm, task, .. } = &mut stop.effect else { unreachable!() };
        *vm = "bob-gsr".parse().unwrap();
        *task = None;
        stop.id = labwright::plan::ActionId(1000);
        change(plan, "vm/alice-gsr").actions.push(stop);
    });
    let during = Flaw::DuringSession { vm: "bob-gsr".into(), effect: "stop the vm" };
    assert!(found.contains(&during), "{found:?}");
}

#[test]
fn a_run_that_ended_needs_no_stop() {
    let lab = Lab::new(PAIR);
    lab.must_apply();
    lab.world.with(|inner| {
        inner.start_all();
        let run = inner.run_of("bob-gsr");
        inner.end_run(&run, StopReason::Asked);
    });
    assert_eq!(lab.flaws(|_| {}), []);
}

#[test]
fn a_flawed_plan_is_refused_as_our_bug() {
    let lab = Lab::new(PAIR);
    let judged = lab.judged(|plan| {
        let twice = change(plan, "vm/alice-gsr").actions[0].clone();
        change(plan, "vm/bob-gsr").actions[0].effect = twice.effect;
    });
    let refusal = judged.refusals.last().expect("it is refused");
    assert_eq!(refusal.address.to_string(), "lab/net101");
    let text = refusal.why.to_string();
    assert!(text.contains("bug of labwright") && text.contains("does not wait for"), "{refusal:?}");
    assert_eq!(lab.judged(|_| {}).refusals, []);
}
