//! Parts of plans: what a refusal holds back and what goes on, and that no part walks past a guard that holds for it.

use std::collections::BTreeSet;

use labwright::model::address::Address;
use labwright::model::id::{LabName, UserName};
use labwright::plan::{Plan, refresh_only, target, unknown_addresses};
use labwright::state::{Change, Decision, Entry, FreezeScope, Frozen, Hold, Quota, Start, StateError, StorageQuota};

use crate::lab::{Applied, Lab};
use crate::plans::{PAIR, running};
use crate::world::Inner;

fn changed(plan: &Plan) -> Vec<String> {
    plan.changes.iter().map(|change| change.address.to_string()).collect()
}

fn refused(plan: &Plan) -> Vec<String> {
    plan.refusals.iter().map(|refusal| refusal.address.to_string()).collect()
}

fn freeze(lab: &Lab, scope: FreezeScope) {
    let since = "2027-01-12T07:00:00Z".parse().unwrap();
    let frozen = Frozen { who: "doraz".into(), since, why: "exam".into(), scope };
    let name = lab.desired().lab;
    lab.store().freeze((scope == FreezeScope::Lab).then_some(&name), Some(&frozen)).unwrap();
}

#[test]
fn a_freeze_holds_for_every_part() {
    for (scope, address) in [(FreezeScope::Lab, "lab/net101"), (FreezeScope::Site, "site/")] {
        let lab = running(PAIR);
        let run = lab.world.with(|inner| inner.run_of("bob-gsr"));
        lab.world.with(|inner| inner.kill_run(&run));
        freeze(&lab, scope);
        let parts = [lab.target("vm/bob-gsr"), lab.target("user/*"), refresh_only(lab.plan())];
        for part in parts {
            assert!(part.is_refused() && refused(&part)[0].starts_with(address), "{part:?}");
        }
        let stop = lab.asked(&[("alice-gsr", labwright::plan::Wish::Stop, true)]);
        assert!(stop.is_refused());
    }
}

#[test]
fn a_freeze_that_comes_while_a_plan_is_read_is_honoured() {
    for scope in [FreezeScope::Lab, FreezeScope::Site] {
        let lab = running(PAIR);
        lab.edit(&PAIR.replace("1G", "2G"));
        let plan = lab.plan();
        freeze(&lab, scope);
        assert!(matches!(lab.carry_out(&plan), Err(StateError::Frozen { .. })));
        let submits = lab.world.with(|inner| inner.submits);
        assert_eq!(submits, 1, "nothing was begun");
    }
}

/// Half a roster: nobody leaves and nobody comes, and everything else goes on.
#[test]
fn a_roster_that_shrinks_holds_back_its_group_alone() {
    let helpers = "helpers: { members: [dora] }";
    let helper = "  help: { derive: gsr, for_each: helpers, name: \"{user}-help\", state: running }\n";
    let manifest = format!("{}{helper}", PAIR.replace("students: {", &format!("{helpers}\n  students: {{")));
    let lab = running(&manifest);
    lab.edit(&manifest.replace("[alice, bob]", "[alice, carl]").replace("[dora]", "[dora, emil]"));
    let plan = lab.plan();
    assert_eq!(refused(&plan), ["user-group/students"]);
    assert_eq!(changed(&plan), ["user-group/helpers", "user/emil", "vm/emil-help"]);
    let held = ["user/bob", "user/carl", "vm/bob-gsr", "vm/carl-gsr"].map(|address| address.parse().unwrap());
    for address in &held {
        assert!(plan.refusals[0].holds(address), "{address} is not held: {:?}", plan.refusals);
        let part = target(plan.clone(), &[address.to_string().parse().unwrap()]);
        assert_eq!((refused(&part), changed(&part)), (vec!["user-group/students".to_owned()], vec![]));
    }
    assert!(matches!(lab.apply(), Applied::Done(summary) if summary.done.len() == 3));
    lab.world.with(Inner::start_all);
    assert_eq!(lab.world.with(|inner| inner.live().len()), 4, "bob runs on, emil is new");
    assert_eq!(lab.target("vm/alice-gsr").refusals, []);
}

#[test]
fn a_refusal_about_a_vm_holds_back_this_vm_alone() {
    let lab = running(PAIR);
    lab.world.with(|inner| {
        let path = inner.disks.keys().find(|path| path.to_string_lossy().contains("bob-gsr")).unwrap().clone();
        inner.disks.remove(&path);
    });
    lab.edit(&PAIR.replace("1G", "2G"));
    assert!(matches!(lab.apply(), Applied::Done(summary) if summary.failed.is_empty()));
    let memory = |vm: &str| lab.world.with(|inner| inner.runs[&inner.run_of(vm)].spec.hardware.memory_mib);
    lab.world.with(Inner::start_all);
    assert_eq!((memory("alice-gsr"), memory("bob-gsr")), (2048, 1024));
    assert_eq!(refused(&lab.plan()), ["vm/bob-gsr"]);
}

#[test]
fn what_a_vm_that_stays_needs_is_not_forgotten() {
    let open =
        "sessions: { final: { vms: [exam], start: \"2027-01-12T07:00[UTC]\", end: \"2027-01-12T10:00[UTC]\" } }\n";
    let lab = running(&format!("{PAIR}{open}"));
    let nothing = labwright::model::lab::Desired::nothing(lab.desired().lab);
    let before = lab.recorded(&nothing).objects;
    assert!(matches!(lab.apply_desired(&nothing), Applied::Done(_) | Applied::Refused(_)));
    let after = lab.recorded(&nothing).objects;
    for address in ["vm-group/lab1", "user/alice", "user/bob", "template/gsr", "session/final"] {
        let address = address.parse().unwrap();
        assert_eq!(after.get(&address), before.get(&address), "{address}");
    }
    assert_eq!(lab.world.with(|inner| inner.live().len()), 2);
}

#[test]
fn a_target_brings_its_owner_and_its_vm_group() {
    let lab = Lab::new(PAIR);
    let part = lab.target("vm/alice-gsr");
    assert_eq!(changed(&part), ["user/alice", "vm-group/lab1", "template/gsr", "vm/alice-gsr"]);
    assert_eq!(lab.carry_out(&part).unwrap().failed, []);
    lab.world.with(Inner::start_all);
    // On a day without a manifest the lab is what was applied of it.
    let applied = labwright::plan::as_applied(lab.desired().lab, &lab.recorded(&lab.desired())).unwrap();
    let alice = "alice-gsr".parse().unwrap();
    assert!(
        matches!(lab.power(&applied, &alice, labwright::plan::Wish::Restart), Applied::Done(done) if done.done.len() == 1)
    );
    let mut other = lab;
    other.edit(&PAIR.replace("lab: net101", "lab: net202").replace("-gsr", "-two"));
    other.allow.clear();
    let plan = other.plan();
    assert_eq!(refused(&plan), ["vm-group/lab1"], "the range is taken");
    assert!(!changed(&plan).iter().any(|address| address.starts_with("vm/")), "{:?}", changed(&plan));
    assert_eq!(refused(&other.target("vm/alice-two")), ["vm-group/lab1"]);
}

#[test]
fn addresses_that_name_nothing_are_found_with_what_was_meant() {
    let lab = running(PAIR);
    let patterns = ["vm/alice", "vm/*", "vm/*-net", "user-group/students", "session/x", "vm/bob-gsr"];
    let patterns = patterns.map(|pattern| pattern.parse().unwrap());
    let (desired, plan) = (lab.desired(), lab.plan());
    let recorded = lab.recorded(&desired);
    let unknown: Vec<(String, Option<String>)> = unknown_addresses(&patterns, &desired, &recorded, &plan)
        .into_iter()
        .map(|(pattern, near)| (pattern.to_string(), near.map(|near| near.to_string())))
        .collect();
    let expected = [("vm/alice", Some("vm/alice-gsr")), ("vm/*-net", None), ("session/x", None)];
    assert_eq!(unknown, expected.map(|(pattern, near)| (pattern.to_owned(), near.map(str::to_owned))));
}

/// The last 16 bits of an address make the hardware address, and two labs can have the same.
#[test]
fn no_vm_gets_the_hardware_address_of_another_lab() {
    let lab = running(PAIR);
    let other = PAIR.replace("lab: net101", "lab: net202").replace("-gsr", "-two").replace("192.168.100.", "10.7.100.");
    lab.edit(&other);
    lab.must_apply();
    let recorded = lab.recorded(&lab.desired());
    let ips: Vec<String> = recorded.vms.values().map(|vm| vm.ip.to_string()).collect();
    assert_eq!(ips, ["10.7.100.4", "10.7.100.5"], "two and three have the hardware addresses of the other lab's vms");
    let macs: std::collections::BTreeSet<_> = recorded.taken.values().map(|holder| holder.mac).collect();
    assert_eq!(macs.len(), 4);
}

/// Somebody took the lock file away: the one that began last goes on, and the older one writes nothing more.
#[test]
fn an_apply_that_was_overtaken_is_stopped() {
    let lab = Lab::new(PAIR);
    let (name, now) = (lab.desired().lab, "2027-01-12T08:00:00Z".parse().unwrap());
    let info = lab.info();
    let (mut store, mut later) = (lab.store(), lab.store());
    let decision = || {
        let hold = Hold {
            address: "user/bob".parse().unwrap(),
            doing: "changed".to_owned(),
            seat: None,
            run: None,
            stores: None,
        };
        Decision {
            after: lab.recorded(&lab.desired()).latest,
            holds: vec![hold],
            quotas: Vec::new(),
            storage: Vec::new(),
        }
    };
    let first = store.begin(&name, &decision(), &info, now).unwrap();
    let held = later.begin(&name, &decision(), &info, now).unwrap_err();
    assert!(held.to_string().starts_with("user/bob is being changed by test (apply 1, since "), "{held}");
    std::fs::remove_file(format!("{}.lock", lab.site.state.display())).unwrap();
    let second = later.begin(&name, &decision(), &info, now).unwrap();
    let change = Change::from(Entry::Object { address: "user/bob".parse().unwrap(), body: None });
    let changes = std::slice::from_ref(&change);
    assert!(matches!(store.intend(&name, first, &[], changes, now), Err(StateError::Overtaken { .. })));
    assert!(matches!(store.settle(&name, first, &[], changes, now), Err(StateError::Overtaken { .. })));
    assert_eq!(lab.recorded(&lab.desired()).serial, 0, "it wrote nothing");
    // What is done beside it, such as a guest's suspension, is no apply.
    store.note(&name, &info, &[], now).unwrap();
    later.settle(&name, second, &[], changes, now).unwrap();
    assert_eq!(lab.recorded(&lab.desired()).serial, 1);
}

/// Two that were planned at the same moment may both have found room for one more: the second to begin finds none.
#[test]
fn two_labs_at_once_start_no_more_than_one_may() {
    let lab = Lab::new(PAIR);
    let now = "2027-01-12T08:00:00Z".parse().unwrap();
    let (alice, info): (UserName, _) = ("alice".parse().unwrap(), lab.info());
    let decision = |after, number, vm: &str, limit| {
        let run = Some(Start { number, owner: alice.clone() });
        let hold = Hold { address: vm.parse().unwrap(), doing: "started".to_owned(), seat: None, run, stores: None };
        let quotas = vec![Quota { owner: alice.clone(), limit, over: BTreeSet::new() }];
        Decision { after, holds: vec![hold], quotas, storage: Vec::new() }
    };
    let (mut here, mut there) = (lab.store(), lab.store());
    let (one, two) = ("net101".parse().unwrap(), "net202".parse().unwrap());
    let first = here.begin(&one, &decision(0, 1, "vm/alice-gsr", 1), &info, now).unwrap();
    let refused = there.begin(&two, &decision(0, 2, "vm/alice-two", 1), &info, now);
    assert!(matches!(refused, Err(StateError::OverQuota { limit: 1, .. })), "{refused:?}");
    let second = there.begin(&two, &decision(0, 2, "vm/alice-two", 2), &info, now).unwrap();
    there.end(second, "", now).unwrap();
    here.end(first, "", now).unwrap();
    there.begin(&two, &decision(second.0, 3, "vm/alice-two", 1), &info, now).unwrap();
}

/// The same of what they may store; and a disk that came since a plan was made, which it has not measured, makes it stale.
#[test]
fn two_labs_at_once_store_no_more_than_one_may() {
    let lab = running(PAIR);
    let now = "2027-01-12T08:00:00Z".parse().unwrap();
    let (alice, info): (UserName, _) = ("alice".parse().unwrap(), lab.info());
    let (here, there) = (LabName::new("net303").unwrap(), LabName::new("net202").unwrap());
    let disk =
        lab.recorded(&lab.desired()).vms.values().find(|known| known.vm.owner == alice).unwrap().disks[0].path.clone();
    let decision = |after, vm: &str, limit_bytes, seen: &[u64]| {
        let address: Address = vm.parse().unwrap();
        let stores = Some((alice.clone(), 3));
        let hold = Hold { address: address.clone(), doing: "made".to_owned(), seat: None, run: None, stores };
        let seen = seen.iter().map(|bytes| (disk.clone(), *bytes)).collect();
        let storage = StorageQuota { owner: alice.clone(), limit_bytes, seen, vms: [(address, 3)].into() };
        Decision { after, holds: vec![hold], quotas: Vec::new(), storage: vec![storage] }
    };
    let is_refused = |begun: Result<_, StateError>| matches!(begun, Err(StateError::OverStorage { .. }));
    let (mut one, mut two) = (lab.store(), lab.store());
    assert!(
        is_refused(one.begin(&here, &decision(0, "vm/alice-a", 9, &[]), &info, now)),
        "a disk that was not measured"
    );
    let first = one.begin(&here, &decision(0, "vm/alice-a", 9, &[1]), &info, now).unwrap();
    assert!(is_refused(two.begin(&there, &decision(0, "vm/alice-b", 6, &[1]), &info, now)));
    let promised: Vec<_> = two.recorded(&there).unwrap().storing.iter().map(|storing| storing.bytes).collect();
    assert_eq!(promised, [3]);
    let second = two.begin(&there, &decision(0, "vm/alice-b", 7, &[1]), &info, now).unwrap();
    two.end(second, "", now).unwrap();
    one.end(first, "", now).unwrap();
    two.begin(&there, &decision(second.0, "vm/alice-b", 4, &[1]), &info, now).unwrap();
}

/// A disk that somebody else is making for a person just now counts, in whatever lab.
#[test]
fn a_disk_that_is_being_made_counts() {
    let manifest = PAIR.replace("students: { members", "students: { limits: { storage: 4G }, members");
    let manifest = manifest.replace("derive: gsr", "disks: [{ size: 3G }], vm_group: lab1, memory: 1G");
    let lab = Lab::new(&manifest);
    let (mut store, now) = (lab.store(), "2027-01-12T08:00:00Z".parse().unwrap());
    for (gigabytes, refusals) in [(2, vec!["vm/alice-gsr"]), (1, vec![])] {
        let stores = Some(("alice".parse().unwrap(), gigabytes << 30));
        let hold =
            Hold { address: "vm/alice-two".parse().unwrap(), doing: "made".to_owned(), seat: None, run: None, stores };
        let there: LabName = "net202".parse().unwrap();
        let after = store.recorded(&there).unwrap().latest;
        let decision = Decision { after, holds: vec![hold], quotas: Vec::new(), storage: Vec::new() };
        let id = store.begin(&there, &decision, &lab.info(), now).unwrap();
        let plan = lab.plan();
        assert_eq!(refused(&plan), refusals, "{gigabytes}");
        let bob = plan.storage.iter().find(|quota| quota.owner.as_str() == "bob").unwrap();
        assert_eq!((bob.limit_bytes, bob.vms.values().copied().collect::<Vec<_>>()), (4 << 30, vec![3 << 30]));
        store.end(id, "", now).unwrap();
    }
}

/// What somebody else starts just now counts as if it ran, here and in other labs; what they only work on does not.
#[test]
fn a_vm_that_is_being_started_counts_and_one_that_is_copied_does_not() {
    let manifest = PAIR.replace("students: { members", "students: { limits: { running_vms: 1 }, members");
    assert_ne!(manifest, PAIR);
    let lab = Lab::new(&manifest);
    let now = "2027-01-12T08:00:00Z".parse().unwrap();
    let alice: UserName = "alice".parse().unwrap();
    let mut store = lab.store();
    for (lab_name, vm, starts, refusals) in [
        ("net202", "vm/alice-two", true, vec!["vm/alice-gsr"]),
        ("net202", "vm/alice-two", false, vec![]),
        ("net101", "vm/alice-old", true, vec!["vm/alice-gsr"]),
        ("net101", "vm/alice-old", false, vec![]),
    ] {
        let number = lab.recorded(&lab.desired()).next_run;
        let run = starts.then(|| Start { number, owner: alice.clone() });
        let hold = Hold { address: vm.parse().unwrap(), doing: "made".to_owned(), seat: None, run, stores: None };
        let lab_name: LabName = lab_name.parse().unwrap();
        let after = store.recorded(&lab_name).unwrap().latest;
        let decision = Decision { after, holds: vec![hold], quotas: Vec::new(), storage: Vec::new() };
        let id = store.begin(&lab_name, &decision, &lab.info(), now).unwrap();
        assert_eq!(refused(&lab.plan()), refusals, "{lab_name} {vm} {starts}");
        store.end(id, "", now).unwrap();
    }
}

/// Runs of another lab's apply take numbers, and no plan is another one for that.
#[test]
fn a_plan_does_the_same_whatever_numbers_its_runs_get() {
    let lab = Lab::new(PAIR);
    let then = lab.plan();
    lab.alter_state("UPDATE site SET next_run = 42");
    let now = lab.plan();
    assert!(then != now && now.does_the_same(&then));
    lab.edit(&PAIR.replace("memory: 1G", "memory: 2G"));
    assert!(!lab.plan().does_the_same(&then));
}

/// One that was kept before applies could run side by side does not say after which apply it was made.
#[test]
fn a_plan_of_before_there_were_several_at_once_is_read() {
    let lab = running(PAIR);
    let plan = lab.plan();
    assert!(plan.after > 0);
    let mut kept = serde_json::to_value(&plan).unwrap();
    kept.as_object_mut().unwrap().remove("after").unwrap();
    let read: labwright::plan::Plan = serde_json::from_value(kept).unwrap();
    assert_eq!(read, labwright::plan::Plan { after: 0, ..plan });
}

/// A vm that comes back while its disks are kept: its student would look for the work on them.
#[test]
fn disks_that_were_set_aside_are_named_before_new_ones_are_made() {
    let mut lab = running(PAIR);
    lab.edit(&PAIR.replace("[alice, bob]", "[alice]"));
    lab.allow.push("user-group/students".parse().unwrap());
    lab.must_apply();
    lab.allow.clear();
    lab.edit(&PAIR.replace("[alice, bob]", "[alice, bob, carl]"));
    let plan = lab.plan();
    assert_eq!(refused(&plan), ["vm/bob-gsr"]);
    let refusal = &plan.refusals[0];
    assert!(
        refusal.why.to_string().contains("2027-01-12 08:00:01")
            && refusal.hint().contains("labwright restore vm/bob-gsr"),
        "{refusal:?}"
    );
    must_apply_the_rest(&lab);
    let disks = |lab: &Lab, of: &str| {
        lab.world.with(|inner| inner.disks.keys().filter(|path| path.to_string_lossy().contains(of)).count())
    };
    assert_eq!(["/vms/net101/bob", "/vms/net101/carl", "/aside/"].map(|of| disks(&lab, of)), [0, 1, 1]);
    lab.allow.push("vm/bob-gsr".parse().unwrap());
    lab.must_apply();
    assert_eq!(["/vms/net101/bob", "/aside/"].map(|of| disks(&lab, of)), [1, 1], "the old one is kept");
}

#[test]
fn a_family_with_another_key_keeps_its_vms() {
    let families = format!(
        "{}  own: {{ derive: gsr, owner: badmin, count: 11 }}\n",
        PAIR.replace(", name: \"{user}-gsr\"", "").replace("192.168.100.9", "192.168.100.40")
    );
    let lab = running(&families);
    let before = lab.recorded(&lab.desired()).vms;
    let renamed = families.replace("  exam:", "  test:").replace("  own:", "  mine:");
    let moved = "moved: [{ from: vm/exam, to: vm/test }, { from: vm/own, to: vm/mine }]\n";
    lab.edit(&format!("{renamed}{moved}"));
    let plan = lab.plan();
    let kept = plan.changes.iter().all(|change| change.reason().starts_with("was vm/"));
    assert_eq!((plan.changes.len(), kept, refused(&plan)), (13, true, vec![]), "{}", lab.plan_text());
    lab.must_apply();
    let after = lab.recorded(&lab.desired()).vms;
    for (name, vm) in &after {
        let old = name.as_str().replace("test", "exam").replace("mine", "own");
        let old = &before[old.as_str()];
        assert_eq!((vm.ip, &vm.disks), (old.ip, &old.disks), "{name}");
    }
    assert!(lab.plan().is_empty(), "{}", lab.plan_text());
    assert_eq!(lab.world.with(|inner| inner.live().len()), 2, "nobody was restarted");
}

fn must_apply_the_rest(lab: &Lab) {
    let applied = lab.apply();
    assert!(matches!(&applied, Applied::Done(summary) if summary.failed.is_empty()), "{applied:?}");
}

#[test]
fn what_does_not_fit_is_said_before_anything_is_done() {
    let mut lab = Lab::new(PAIR);
    let room = |lab: &mut Lab, slots: u32, memory_mib: u64| {
        let folder = lab.folder.path().join("queue");
        lab.site.scheduler = labwright::model::site::SchedulerSettings::Local { folder, slots, memory_mib };
    };
    // A guest of 1 GiB takes 1024 + 16 + 16 + 128.
    room(&mut lab, 4, 2 * 1184);
    assert_eq!((refused(&lab.plan()), lab.plan().changes.len()), (vec![], 8));
    room(&mut lab, 4, 2 * 1184 - 1);
    let plan = lab.plan();
    assert_eq!(refused(&plan), ["vm/bob-gsr"]);
    assert!(plan.refusals[0].hint().contains("`memory: 1023M`"), "{:?}", plan.refusals);
    lab.edit(&PAIR.replace("1G", "1023M"));
    assert_eq!(refused(&lab.plan()), [""; 0], "as the hint says");
    lab.edit(PAIR);
    room(&mut lab, 1, 64 * 1024);
    let plan = lab.plan();
    assert_eq!(refused(&plan), ["vm/bob-gsr"]);
    assert!(plan.refusals[0].hint().contains("`slots: 2`"), "{:?}", plan.refusals);
    room(&mut lab, 4, 1000);
    let plan = lab.plan();
    assert_eq!(refused(&plan), ["vm/alice-gsr"], "one line for both");
    assert!(plan.refusals[0].holds(&"vm/bob-gsr".parse().unwrap()), "{:?}", plan.refusals);
    assert!(plan.refusals[0].hint().contains("`memory: 840M`"), "{:?}", plan.refusals);
    lab.edit(&PAIR.replace("1G", "840M"));
    assert_eq!(refused(&lab.plan()), ["vm/bob-gsr"], "one fits then, and not two");
    // A guest that runs already takes room too, and one that is restarted takes its own again.
    room(&mut lab, 4, 1500);
    must_apply_the_rest(&lab);
    lab.world.with(Inner::start_all);
    lab.edit(&PAIR.replace("1G", "841M"));
    assert_eq!(refused(&lab.plan()), ["vm/bob-gsr"]);
    assert!(changed(&lab.plan()).contains(&"vm/alice-gsr".to_owned()));
}

/// Only the vms of a family that is made for the members of a group are students'.
#[test]
fn students_are_counted_by_their_families() {
    let staff = "  badmin-x: { derive: gsr, owner: badmin, count: 2, state: running }\n";
    let text = Lab::new(&format!("{PAIR}{staff}")).plan_text();
    assert!(text.contains("Touches 2 students (alice, bob) and 1 other owner (badmin), 0 running."), "{text}");
}
