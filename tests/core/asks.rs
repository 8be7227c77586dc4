//! What is asked of vms by name: done, or answered.

use labwright::model::lab::Desired;
use labwright::model::share::LabShare;
use labwright::plan::{Already, Answer, Effect, Plan, Verb, Wish};

use crate::lab::{Applied, Lab};
use crate::plans::{OPEN, PAIR, running};
use crate::world::Inner;

fn answer(plan: &Plan, vm: &str) -> Answer {
    plan.answers.iter().find(|(name, _)| name.as_str() == vm).unwrap().1.clone()
}

fn effects(plan: &Plan) -> Vec<&'static str> {
    plan.actions().map(|(_, action)| action.effect.name()).collect()
}

#[test]
fn a_stop_stops_and_does_nothing_else() {
    let lab = running(PAIR);
    // Other memory, other disks, a lost disk, a lost reservation: none of it is for a stop to mend.
    lab.edit(&PAIR.replace("1G", "2G").replace("derive: gsr", "clone: gsr"));
    lab.world.with(|inner| {
        inner.reservations.clear();
        inner.disks.retain(|path, _| !path.to_string_lossy().contains("bob-gsr"));
    });
    let plan = lab.asked(&[("bob-gsr", Wish::Stop, true)]);
    assert_eq!((effects(&plan), &plan.refusals[..]), (vec!["stop the vm"], &[][..]));
    assert_eq!(answer(&plan, "bob-gsr"), Answer::Planned);
    assert_eq!(lab.carry_out(&plan).unwrap().failed, []);
    assert_eq!(lab.world.with(|inner| inner.live().len()), 1);
    let again = lab.asked(&[("bob-gsr", Wish::Stop, true)]);
    assert!(again.is_empty());
    assert_eq!(answer(&again, "bob-gsr"), Answer::Already(Already::Off));
}

#[test]
fn a_vm_whose_group_nobody_knows_is_stopped_all_the_same() {
    let lab = running(PAIR);
    lab.alter_state("DELETE FROM objects");
    let applied = labwright::plan::as_applied(lab.desired().lab, &lab.recorded(&lab.desired())).unwrap();
    let bob = "bob-gsr".parse().unwrap();
    assert!(matches!(lab.power(&applied, &bob, Wish::Stop), Applied::Done(_)));
    assert_eq!(lab.world.with(|inner| inner.live().len()), 1);
    assert!(matches!(lab.power(&applied, &bob, Wish::Start), Applied::Refused(_)), "it has no network to start in");
}

#[test]
fn a_vm_that_left_the_manifest_is_stopped_and_keeps_all() {
    let lab = running(PAIR);
    let nothing = Desired::nothing(lab.desired().lab);
    let bob = "bob-gsr".parse().unwrap();
    assert!(matches!(lab.power(&nothing, &bob, Wish::Stop), Applied::Done(_)));
    let recorded = lab.recorded(&nothing);
    assert!(recorded.vms.contains_key(&bob) && !recorded.vms[&bob].disks.is_empty());
}

#[test]
fn who_names_a_vm_of_an_open_session_means_it() {
    let lab = running(&format!("{PAIR}{OPEN}"));
    for wish in [Wish::Stop, Wish::Restart] {
        let family = lab.asked(&[("alice-gsr", wish, false), ("bob-gsr", wish, false)]);
        assert!(family.is_empty() && family.refusals.len() == 2, "{family:?}");
        assert!(
            matches!(answer(&family, "bob-gsr"), Answer::NotDone(why) if why.to_string().contains("session `final` is open"))
        );
        let named = lab.asked(&[("alice-gsr", wish, false), ("bob-gsr", wish, true)]);
        assert_eq!((named.changes.len(), named.refusals.len()), (1, 1));
        assert_eq!(answer(&named, "bob-gsr"), Answer::Planned);
    }
    // A new disk is more than was asked for.
    lab.edit(&format!("{PAIR}{OPEN}").replace("derive: gsr", "clone: gsr"));
    assert!(lab.asked(&[("bob-gsr", Wish::Restart, true)]).is_empty());
}

#[test]
fn a_restart_takes_the_settings_of_now_and_a_start_leaves_a_guest_alone() {
    let on_demand = PAIR.replace(", state: running", "");
    let lab = Lab::new(&on_demand);
    let first = lab.asked(&[("bob-gsr", Wish::Start, true)]);
    assert_eq!(answer(&first, "bob-gsr"), Answer::Planned, "also of a vm that was never applied");
    assert_eq!(lab.carry_out(&first).unwrap().failed, []);
    assert!(answer(&lab.asked(&[("bob-gsr", Wish::Start, true)]), "bob-gsr") == Answer::Already(Already::Queued));
    lab.world.with(Inner::start_all);
    lab.edit(&on_demand.replace("1G", "2G"));
    let again = lab.asked(&[("bob-gsr", Wish::Start, true)]);
    assert_eq!(answer(&again, "bob-gsr"), Answer::Already(Already::Runs));
    assert!(!again.actions().any(|(_, action)| matches!(action.effect, Effect::Stop { .. })));
    let restart = lab.asked(&[("bob-gsr", Wish::Restart, true)]);
    assert_eq!(restart.changes.iter().map(|change| change.verb).collect::<Vec<_>>(), [Verb::Restart]);
    assert_eq!(lab.carry_out(&restart).unwrap().failed, []);
    lab.world.with(Inner::start_all);
    assert_eq!(lab.world.with(|inner| inner.runs[&inner.run_of("bob-gsr")].spec.hardware.memory_mib), 2048);
}

#[test]
fn what_cannot_be_done_now_is_answered() {
    let lab = Lab::new(&PAIR.replace("[{ image: images/gsr.qcow2 }]", "[{ size: 5G }]"));
    let plan = lab.asked(&[("alice-gsr", Wish::Start, true)]);
    let why = "it waits until template `gsr` is installed and published";
    assert!(matches!(answer(&plan, "alice-gsr"), Answer::NotDone(not) if not.to_string() == why));
    let lab = running(PAIR);
    lab.world.with(Inner::lose_host);
    let plan = lab.asked(&[("bob-gsr", Wish::Stop, true)]);
    assert!(matches!(answer(&plan, "bob-gsr"), Answer::NotDone(why) if why.to_string().contains("host forget")));
}

#[test]
fn nobody_runs_more_at_once_than_they_may() {
    let spare = "  spare: { derive: gsr, owner: bob, count: 3, name: \"spare-{n}\" }\n";
    let mut lab = Lab::new(&(PAIR.replace(", state: running", "") + spare));
    lab.must_apply();
    let start = |lab: &Lab, vms: &[&str]| lab.asked(&vms.iter().map(|vm| (*vm, Wish::Start, true)).collect::<Vec<_>>());
    assert!(start(&lab, &["bob-gsr", "spare-1"]).refusals.is_empty(), "two at once, as the paper has it");
    let plan = start(&lab, &["bob-gsr", "spare-1", "spare-2", "alice-gsr"]);
    assert_eq!(plan.actions().filter(|(_, action)| matches!(action.effect, Effect::Start { .. })).count(), 3);
    assert_eq!(plan.refusals.len(), 1);
    assert!(lab.carry_out(&start(&lab, &["bob-gsr"])).unwrap().failed.is_empty());
    assert!(lab.carry_out(&start(&lab, &["spare-1"])).unwrap().failed.is_empty());
    lab.world.with(crate::world::Inner::start_all);
    let refused = start(&lab, &["spare-3"]);
    let why = refused.refusals[0].why.to_string();
    assert_eq!(why, "bob may run 2 vms at once: 2 run (bob-gsr, spare-1), and 1 would start");
    assert!(start(&lab, &["alice-gsr"]).refusals.is_empty(), "others are not concerned");
    let restart = lab.asked(&[("spare-1", Wish::Restart, true)]);
    assert!(restart.refusals.is_empty(), "what is stopped first does not count: {:?}", restart.refusals);
    lab.allow.push("vm/spare-3".parse().unwrap());
    assert!(start(&lab, &["spare-3"]).refusals.is_empty(), "whoever means it");
}

#[test]
fn a_lab_with_owners_runs_no_more_than_its_share() {
    let spare = "  spare: { derive: gsr, owner: eva, count: 2, name: \"spare-{n}\" }\n";
    let mut lab = Lab::new(&(PAIR.replace(", state: running", "") + spare));
    lab.must_apply();
    let start = |lab: &Lab, vms: &[&str]| lab.asked(&vms.iter().map(|vm| (*vm, Wish::Start, true)).collect::<Vec<_>>());
    assert!(lab.carry_out(&start(&lab, &["bob-gsr"])).unwrap().failed.is_empty());
    lab.world.with(Inner::start_all);
    let others = ["alice-gsr", "spare-1", "spare-2"];
    assert!(start(&lab, &others).refusals.is_empty(), "without a share there is none to keep to");
    let name = lab.desired().lab;
    let share = LabShare {
        ranges: vec![("192.168.100.0".parse().unwrap(), "192.168.100.255".parse().unwrap())],
        bridges: ["vbr0".to_owned()].into(),
        image_roots: vec![lab.folder.path().to_owned()],
        running_vms: Some(3),
        ..LabShare::default()
    };
    lab.site.labs.insert(name.clone(), share);
    lab.allow.push("vm/*".parse().unwrap());
    let plan = start(&lab, &others);
    assert_eq!(plan.actions().filter(|(_, action)| matches!(action.effect, Effect::Start { .. })).count(), 2);
    assert_eq!(
        plan.refusals[0].why.to_string(),
        "the site lets this lab run 3 vms at once: 1 run, and with 3 more they would have 4096 MiB",
        "no `--allow` goes beyond it"
    );
    lab.site.labs.get_mut(&name).unwrap().memory_mib = Some(2048);
    let plan = start(&lab, &others);
    assert_eq!(plan.actions().filter(|(_, action)| matches!(action.effect, Effect::Start { .. })).count(), 1);
    assert!(lab.asked(&[("bob-gsr", Wish::Restart, true)]).refusals.is_empty(), "what is stopped first does not count");
}
