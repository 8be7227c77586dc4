//! What people ask for by command: it stands beside the manifest until it is over, whatever becomes of guests and hosts.

use insta::assert_snapshot;
use labwright::control::view::VmState;
use labwright::model::claim::{Claim, ClaimBody, ClaimId, ClaimedPower, GivenAs, GrantClaim, PowerClaim, VmClaim};
use labwright::model::lab::{Desired, Object, Permission, PowerState, Right, Subject, VmSource};
use labwright::plan::{Already, Answer, Plan, Wish, refresh_only};
use labwright::resolve::{why_idle, with_claims};
use labwright::run::StopReason;
use labwright::state::Change;
use std::borrow::Cow;

use crate::lab::{Applied, Lab};
use crate::plans::PAIR;
use crate::world::Inner;

/// The pair, left to people.
fn on_demand() -> String {
    PAIR.replace(", state: running", "")
}

/// Both are made, bob's was started by command.
fn bob_started() -> Lab {
    let lab = Lab::new(&on_demand());
    lab.must_apply();
    ask(&lab, "bob-gsr", Wish::Start);
    lab.world.with(Inner::start_all);
    lab
}

#[track_caller]
fn ask(lab: &Lab, vm: &str, wish: Wish) {
    let done = lab.power(&lab.desired(), &vm.parse().unwrap(), wish);
    assert!(matches!(&done, Applied::Done(done) if done.failed.is_empty()), "{done:?}");
}

/// The claims that stand, in a few words each.
fn standing(lab: &Lab) -> Vec<String> {
    let claims = lab.recorded(&lab.desired()).claims;
    let words = |claim: &Claim| match &claim.body {
        ClaimBody::Power(power) => format!("{} of {}: {}", claim.name, claim.by, power.wanted.as_str()),
        other => format!("{} {}", other.kind(), claim.name),
    };
    claims.iter().map(words).collect()
}

/// How the latest claim on a vm ended.
fn ended(lab: &Lab, vm: &str) -> Option<String> {
    let claims = lab.store().claims_on(&lab.desired().lab, vm, 1).unwrap();
    claims.into_iter().next().and_then(|claim| claim.ended)
}

fn running(lab: &Lab) -> usize {
    lab.world.with(|inner| inner.executing().count())
}

#[test]
fn a_vm_that_was_started_by_hand_is_started_again_when_its_run_dies() {
    let lab = bob_started();
    assert_eq!(standing(&lab), ["bob-gsr of test: running"]);
    assert!(lab.plan().is_empty());
    lab.world.with(|inner| {
        let run = inner.run_of("bob-gsr");
        inner.kill_run(&run);
    });
    assert_snapshot!(lab.plan_text());
    lab.must_apply();
    lab.world.with(Inner::start_all);
    assert_eq!(running(&lab), 1);
    assert_eq!(standing(&lab), ["bob-gsr of test: running"]);
    assert!(lab.plan().is_empty());
}

/// Before its end is recorded, and after that as long as it is not started again.
#[test]
fn of_a_vm_that_was_started_by_hand_people_see_that_it_ended_without_a_word() {
    let lab = bob_started();
    assert_eq!(lab.seen("bob-gsr").why, None);
    lab.world.with(|inner| {
        let run = inner.run_of("bob-gsr");
        inner.kill_run(&run);
    });
    let seen = lab.seen("bob-gsr");
    assert_eq!((seen.state, seen.why.as_deref()), (VmState::Gone, Some("its run ended without a word")));
    assert_eq!(lab.carry_out(&refresh_only(lab.plan())).unwrap().failed, []);
    let seen = lab.seen("bob-gsr");
    assert_eq!((seen.state, seen.wanted), (VmState::Off, PowerState::Running));
    assert_eq!(seen.why.as_deref(), Some("its run ended without a word"));
    // Who wants it off has nothing to be told.
    ask(&lab, "bob-gsr", Wish::Stop);
    assert_eq!(lab.seen("bob-gsr").why, None);
    assert_eq!(lab.seen("alice-gsr").why, None, "it was never started");
}

#[test]
fn the_guests_own_power_off_ends_the_claim() {
    let lab = bob_started();
    lab.world.with(|inner| {
        let run = inner.run_of("bob-gsr");
        inner.end_run(&run, StopReason::Guest);
    });
    assert_snapshot!(lab.plan_text());
    lab.must_apply();
    assert_eq!((standing(&lab), running(&lab)), (vec![], 0));
    assert_eq!(ended(&lab, "bob-gsr").as_deref(), Some("its guest powered itself off"));
    assert!(lab.plan().is_empty());
    // Whoever starts it after that means the next run, not the one that is over.
    ask(&lab, "bob-gsr", Wish::Start);
    assert_eq!(standing(&lab), ["bob-gsr of test: running"]);
    assert!(lab.plan().is_empty(), "{}", lab.plan_text());
}

/// The submit fails after the claim was recorded; the run before it had ended by the guest's own will.
#[test]
fn a_power_off_before_the_claim_is_no_answer_to_it() {
    let lab = bob_started();
    lab.world.with(|inner| {
        let run = inner.run_of("bob-gsr");
        inner.end_run(&run, StopReason::Guest);
    });
    lab.must_apply();
    lab.world.with(|inner| inner.faults.refuse_submit = true);
    let tried = lab.power(&lab.desired(), &"bob-gsr".parse().unwrap(), Wish::Start);
    assert!(matches!(&tried, Applied::Done(done) if done.failed.len() == 1), "{tried:?}");
    lab.world.with(|inner| inner.faults.refuse_submit = false);
    assert_eq!(standing(&lab), ["bob-gsr of test: running"]);
    lab.must_apply();
    lab.world.with(Inner::start_all);
    assert_eq!(running(&lab), 1, "the next apply does what was asked for");
}

#[test]
fn a_stop_ends_the_claim_and_one_that_is_cut_short_goes_on() {
    let lab = bob_started();
    ask(&lab, "bob-gsr", Wish::Stop);
    assert_eq!((standing(&lab), running(&lab)), (vec![], 0));
    assert!(lab.plan().is_empty());
    // Its run died, and nobody started it again: then nobody wants it any more.
    ask(&lab, "bob-gsr", Wish::Start);
    lab.world.with(|inner| {
        inner.start_all();
        let run = inner.run_of("bob-gsr");
        inner.kill_run(&run);
    });
    ask(&lab, "bob-gsr", Wish::Stop);
    assert_eq!((standing(&lab), ended(&lab, "bob-gsr").as_deref()), (vec![], Some("test asked for a stop")));
    assert!(lab.plan().is_empty());
    // The controller dies while it waits for the guest.
    ask(&lab, "bob-gsr", Wish::Start);
    lab.world.with(|inner| {
        inner.start_all();
        let run = inner.run_of("bob-gsr");
        inner.runs.get_mut(&run).unwrap().hung = true;
    });
    let mut calls = 1;
    while standing(&lab) != ["bob-gsr of test: stopped"] {
        lab.world.with(|inner| inner.faults.kill_in = Some(calls));
        let killed = lab.power(&lab.desired(), &"bob-gsr".parse().unwrap(), Wish::Stop);
        assert!(matches!(killed, Applied::Killed), "at call {calls}: {killed:?}");
        calls += 1;
    }
    lab.world.with(|inner| {
        let run = inner.run_of("bob-gsr");
        inner.runs.get_mut(&run).unwrap().hung = false;
    });
    assert_snapshot!(lab.plan_text());
    lab.must_apply();
    assert_eq!((standing(&lab), running(&lab)), (vec![], 0));
}

#[test]
fn a_written_state_ends_a_claim() {
    for (state, left) in [("running", 2), ("stopped", 0)] {
        let lab = bob_started();
        lab.edit(&PAIR.replace("state: running", &format!("state: {state}")));
        lab.must_apply();
        lab.world.with(Inner::start_all);
        assert_eq!((standing(&lab), running(&lab)), (vec![], left), "{state}");
        assert_eq!(ended(&lab, "bob-gsr"), Some(format!("its manifest says `state: {state}`")));
        assert!(lab.plan().is_empty());
        ask(&lab, "alice-gsr", Wish::Restart);
        assert!(standing(&lab).is_empty(), "what a manifest says needs no claim");
    }
}

#[test]
fn who_leaves_ends_the_claim_and_who_is_renamed_takes_it_along() {
    let mut lab = bob_started();
    let renamed = on_demand().replace("{user}-gsr", "{user}-box")
        + "moved: [{ from: vm/alice-gsr, to: vm/alice-box }, { from: vm/bob-gsr, to: vm/bob-box }]\n";
    lab.edit(&renamed);
    lab.must_apply();
    assert_eq!(standing(&lab), ["bob-box of test: running"]);
    let run = lab.recorded(&lab.desired()).vms["bob-box"].run.clone().unwrap().run;
    lab.world.with(|inner| inner.kill_run(&run));
    lab.must_apply();
    lab.world.with(Inner::start_all);
    assert_eq!(running(&lab), 1, "it is started again under its new name");
    lab.edit(&renamed.replace("[alice, bob]", "[alice]").replace(", { from: vm/bob-gsr, to: vm/bob-box }", ""));
    lab.allow.push("user-group/students".parse().unwrap());
    lab.must_apply();
    assert_eq!((standing(&lab), running(&lab)), (vec![], 0));
    assert_eq!(ended(&lab, "bob-box").as_deref(), Some("left the manifest"));
}

/// A rename and a death at once: the claim is found under the name that is recorded.
#[test]
fn a_vm_that_died_under_its_old_name_is_started_under_the_new_one() {
    let lab = bob_started();
    lab.world.with(|inner| {
        let run = inner.run_of("bob-gsr");
        inner.kill_run(&run);
    });
    lab.edit(
        &(on_demand().replace("{user}-gsr", "{user}-box")
            + "moved: [{ from: vm/alice-gsr, to: vm/alice-box }, { from: vm/bob-gsr, to: vm/bob-box }]\n"),
    );
    lab.must_apply();
    lab.world.with(Inner::start_all);
    assert_eq!((running(&lab), standing(&lab)), (1, vec!["bob-box of test: running".to_owned()]));
}

#[test]
fn an_edit_does_not_disturb_who_works() {
    let lab = bob_started();
    lab.edit(&on_demand().replace("1G", "2G"));
    assert_snapshot!(lab.plan_text());
    lab.must_apply();
    assert_eq!(lab.world.with(|inner| inner.runs[&inner.run_of("bob-gsr")].spec.hardware.memory_mib), 1024);
}

#[test]
fn a_vm_of_others_is_taken_down_only_if_it_is_meant() {
    let mut lab = bob_started();
    lab.alter_state("UPDATE claims SET \"by\" = 'ana'");
    let nothing = Desired::nothing(lab.desired().lab);
    let refused = lab.apply_desired(&nothing);
    let text = match &refused {
        Applied::Done(done) => format!("{} done", done.done.len()),
        other => format!("{other:?}"),
    };
    assert!(matches!(refused, Applied::Done(_)), "{text}");
    assert_eq!(running(&lab), 1, "what nobody claimed is taken down, ana's runs on");
    assert_eq!(lab.recorded(&nothing).vms.keys().map(ToString::to_string).collect::<Vec<_>>(), ["bob-gsr"]);
    assert_snapshot!(lab.apply_part(|plan: Plan| plan));
    lab.allow.push("vm/bob-gsr".parse().unwrap());
    assert!(matches!(lab.apply_desired(&nothing), Applied::Done(_)));
    assert_eq!((running(&lab), standing(&lab)), (0, vec![]));
    assert_eq!(lab.store().aside(&nothing.lab).unwrap().len(), 2, "its disks are kept");
    // One's own need no word more.
    let lab = bob_started();
    assert!(matches!(lab.apply_desired(&nothing), Applied::Done(_)));
    assert_eq!((running(&lab), lab.recorded(&nothing).vms.len()), (0, 0));
}

#[test]
fn a_vm_that_was_never_applied_is_made_for_who_starts_it() {
    let lab = Lab::new(&on_demand());
    lab.world.with(|inner| inner.faults.refuse_submit = true);
    let tried = lab.power(&lab.desired(), &"bob-gsr".parse().unwrap(), Wish::Start);
    assert!(matches!(&tried, Applied::Done(done) if done.failed.len() == 1), "{tried:?}");
    lab.world.with(|inner| inner.faults.refuse_submit = false);
    lab.must_apply();
    lab.world.with(Inner::start_all);
    assert_eq!((running(&lab), standing(&lab)), (1, vec!["bob-gsr of test: running".to_owned()]));
}

#[test]
fn who_starts_a_vm_that_runs_already_claims_it() {
    let lab = bob_started();
    lab.alter_state("DELETE FROM claims");
    let plan = lab.asked(&[("bob-gsr", Wish::Start, true)]);
    assert_eq!(plan.answers["bob-gsr"], Answer::Already(Already::Runs));
    assert_eq!(lab.carry_out(&plan).unwrap().failed, []);
    assert_eq!(standing(&lab), ["bob-gsr of test: running"]);
    assert!(lab.asked(&[("bob-gsr", Wish::Start, true)]).is_empty(), "once is enough");
    lab.world.with(|inner| {
        let run = inner.run_of("bob-gsr");
        inner.end_run(&run, StopReason::Guest);
    });
    lab.must_apply();
    assert!(standing(&lab).is_empty(), "it is about the run that was there when it was made");
}

/// Everybody of the lab is a group that no manifest lists: what is given to it counts. Admins need nothing.
#[test]
fn what_is_given_to_all_users_is_not_idle() {
    let lab = bob_started();
    let grant = |group: &str| {
        let permission = format!(
            r#"{{"to":{{"group":"{group}"}},"on":{{"template":"gsr"}},"allow":["derive"],"force_isolated":false}}"#
        );
        let body = format!(r#"{{"version":1,"permission":{permission},"given_as":"admin"}}"#);
        lab.alter_state(&format!(
            "INSERT INTO claims (lab, kind, name, body, \"by\", at)
             VALUES ('net101', 'grant', 'group:{group},template:gsr', '{body}', 'ana', '2027-01-12T08:00:00Z')"
        ));
    };
    ["all_users", "admin", "strangers"].into_iter().for_each(grant);
    let desired = lab.desired();
    let recorded = lab.recorded(&desired);
    let idle = |claim: &Claim| why_idle(&desired, claim, |vm| recorded.vms.contains_key(vm));
    let idle: Vec<Option<String>> = recorded.claims.iter().map(idle).collect();
    let of_nobody = "whom or what it names is not in the manifest";
    assert_eq!(idle, [None, None, Some("admins may do everything anyway".into()), Some(of_nobody.into())]);
}

/// A newer labwright's claims, and those that fit nothing: kept, and shown with the reason.
#[test]
fn what_fits_nothing_stays() {
    let lab = bob_started();
    lab.alter_state(
        "INSERT INTO claims (lab, kind, name, body, \"by\", at) VALUES
         ('net101', 'wish', 'bob-gsr', 'anything', 'ana', '2027-01-12T08:00:00Z'),
         ('net101', 'power', 'alice-gsr', '{\"version\":2,\"wanted\":\"asleep\"}', 'ana', '2027-01-12T08:00:00Z'),
         ('net101', 'power', 'nobody-gsr', '{\"version\":1,\"wanted\":\"running\",\"generation\":1}', 'ana', '2027-01-12T08:00:00Z'),
         ('net101', 'time', 'final', '{\"version\":1,\"session\":\"final\",\"user\":null,\"change\":{\"extend\":{\"seconds\":600}}}', 'ana', '2027-01-12T08:00:00Z')",
    );
    let before = standing(&lab);
    assert_eq!(before.len(), 5);
    lab.must_apply();
    assert!(lab.plan().is_empty());
    let desired = lab.desired();
    let recorded = lab.recorded(&desired);
    assert_eq!(standing(&lab), before);
    let idle: Vec<Option<String>> =
        recorded.claims.iter().map(|claim| why_idle(&desired, claim, |vm| recorded.vms.contains_key(vm))).collect();
    let newer = Some("it is a newer labwright's".to_owned());
    assert_eq!(idle[..3], [None, newer.clone(), newer]);
    assert_eq!(idle[3].as_deref(), Some("there is no vm `nobody-gsr`"));
    assert_eq!(idle[4].as_deref(), Some("there is no session `final`"));
    lab.alter_state("UPDATE claims SET body = '{}' WHERE kind = 'time'");
    let unread = lab.store().recorded(&desired.lab).unwrap_err().to_string();
    assert!(unread.contains("claim 5 is not what labwright writes there"), "a known kind is read or refused: {unread}");
}

fn claim(id: i64, name: &str, body: ClaimBody) -> Claim {
    Claim { id: ClaimId(id), name: name.into(), body, by: "ana".into(), at: "2027-01-12T08:00:00Z".parse().unwrap() }
}

fn power(id: i64, name: &str) -> Claim {
    let body = PowerClaim { version: 1, wanted: ClaimedPower::Running, generation: 1, key: None };
    claim(id, name, ClaimBody::Power(body))
}

#[test]
fn claims_add_to_a_lab_and_take_nothing_from_it() {
    let lab = Lab::new(PAIR);
    let desired = lab.desired();
    assert!(matches!(with_claims(&desired, &[]), Cow::Borrowed(same) if *same == desired), "without claims, the lab");
    let grant = |to: &str, on: &str| {
        let permission = format!(r#"{{"to":{{"user":"{to}"}},"on":{{"template":"{on}"}},"allow":["derive"]}}"#);
        let permission = serde_json::from_str(&permission).unwrap();
        ClaimBody::Grant(GrantClaim { version: 1, permission, given_as: GivenAs::Admin })
    };
    let other = ClaimBody::Other { kind: "vm".into(), body: "{}".into() };
    let claims = [
        power(1, "alice-gsr"),
        power(2, "no such name / at all"),
        claim(3, "gsr", grant("bob", "gsr")),
        claim(4, "gsr", grant("bob", "gone")),
        claim(5, "gsr", grant("eve", "gsr")),
        claim(6, "bob-gsr", other),
    ];
    let merged = with_claims(&desired, &claims).into_owned();
    assert_eq!(merged.power.len(), 1);
    assert!(merged.vms["alice-gsr"].state == PowerState::Running, "what the manifest says, stays");
    assert_eq!(Desired { power: desired.power.clone(), ..merged }, desired, "grants are looked at, not written down");
    let nothing = Desired::nothing(desired.lab.clone());
    assert!(with_claims(&nothing, &claims).is_nothing(), "a lab that is taken down wants nothing, whoever claims what");
}

#[test]
fn a_claim_that_is_taken_back_stands_no_more() {
    let lab = bob_started();
    let (name, now) = (lab.desired().lab, "2027-01-12T09:00:00Z".parse().unwrap());
    let why = "ana took it back".to_owned();
    lab.store().record(&name, &[Change::EndClaim { id: ClaimId(1), why }], now).unwrap();
    assert_eq!((standing(&lab), running(&lab)), (vec![], 1));
    assert!(lab.plan().is_empty(), "the vm is left as it is");
    lab.world.with(|inner| {
        let run = inner.run_of("bob-gsr");
        inner.kill_run(&run);
    });
    lab.must_apply();
    assert_eq!(lab.world.with(|inner| inner.live().len()), 0, "and nobody starts it again");
}

/// Bob derives a vm of his own from the template that the class has.
fn bob_derives(lab: &Lab, isolated: bool) {
    let desired = lab.desired();
    let template = &desired.templates["gsr"];
    let made = VmClaim {
        version: 1,
        owner: "bob".parse().unwrap(),
        source: VmSource::Derive("gsr".parse().unwrap()),
        vm_group: template.vm_group.clone(),
        hardware: template.hardware.clone(),
        isolated,
        seed: None,
        key: None,
        was: None,
    };
    let now = "2027-01-12T09:00:00Z".parse().unwrap();
    let put = Change::PutClaim { name: "bob/mine".into(), body: ClaimBody::Vm(made), by: "bob".into() };
    lab.store().record(&desired.lab, &[put], now).unwrap();
}

/// The pair, where bob has derived one more vm and started it.
fn bobs_own() -> Lab {
    let lab = Lab::new(&on_demand());
    lab.must_apply();
    bob_derives(&lab, false);
    lab.must_apply();
    ask(&lab, "bob/mine", Wish::Start);
    lab.world.with(Inner::start_all);
    lab
}

#[test]
fn a_vm_that_somebody_made_is_the_labs_like_any_other() {
    let lab = Lab::new(&on_demand());
    lab.must_apply();
    bob_derives(&lab, false);
    assert_snapshot!(lab.plan_text());
    lab.must_apply();
    assert_eq!(running(&lab), 0, "its power is for people");
    ask(&lab, "bob/mine", Wish::Start);
    lab.world.with(Inner::start_all);
    assert_eq!(running(&lab), 1);
    assert!(lab.plan().is_empty());
    // A manifest's vm by the short name is another one.
    lab.edit(&on_demand().replace("vms:\n", "vms:\n  mine: { derive: gsr, owner: bob }\n"));
    lab.must_apply();
    let recorded = lab.recorded(&lab.desired());
    let path = |vm: &str| recorded.vms[vm].disks[0].path.clone();
    assert_ne!(path("mine"), path("bob/mine"));
    assert_eq!(path("bob/mine").parent().unwrap().file_name().unwrap(), "bob~mine", "one folder, as every vm has");
    assert!(lab.plan().is_empty());
}

#[test]
fn what_forces_isolation_is_about_what_people_made_too() {
    let lab = bobs_own();
    let isolated = |lab: &Lab| {
        let desired = lab.desired();
        with_claims(&desired, &lab.recorded(&desired).claims).vms["bob/mine"].isolated
    };
    assert!(!isolated(&lab));
    let force = "permissions:\n  - { to: { group: students }, on: { template: gsr }, force_isolated: true }\n";
    lab.edit(&(on_demand() + force));
    assert!(isolated(&lab), "through its template");
    lab.edit(&on_demand());
    assert!(!isolated(&lab));
    lab.alter_state(
        "UPDATE claims SET body = replace(body, '\"isolated\":false', '\"isolated\":true') WHERE kind = 'vm'",
    );
    assert!(isolated(&lab), "what was forced when it was made, stays");
}

#[test]
fn what_people_made_leaves_when_they_mean_it() {
    let mut lab = bobs_own();
    lab.edit(&on_demand().replace("alice, bob", "alice"));
    lab.allow.push("user-group/students".parse().unwrap());
    assert_snapshot!(lab.plan_text());
    assert_eq!(running(&lab), 1);
    lab.allow.push("vm/bob/mine".parse().unwrap());
    lab.must_apply();
    assert_eq!(running(&lab), 0);
    let recorded = lab.recorded(&lab.desired());
    assert!(recorded.claims.is_empty() && recorded.aside.contains_key("bob/mine"), "its disks are kept");
}

/// As `vm set` and `vm rename` write it: the claim is another, and the plan does what that takes.
#[test]
fn what_somebody_made_is_changed_without_a_stop() {
    let lab = bobs_own();
    let amend = |lab: &Lab, name: &str, change: fn(&mut VmClaim)| {
        let recorded = lab.recorded(&lab.desired());
        let of_bob = recorded.claims.iter().find_map(|claim| match &claim.body {
            ClaimBody::Vm(made) => Some((claim.id, made.clone())),
            _ => None,
        });
        let (id, mut made) = of_bob.unwrap();
        change(&mut made);
        let put = Change::PutClaim { name: name.into(), body: ClaimBody::Vm(made), by: "bob".into() };
        let end = Change::EndClaim { id, why: "bob asked for something else".into() };
        lab.store().record(&lab.desired().lab, &[end, put], "2027-01-12T09:00:00Z".parse().unwrap()).unwrap();
    };
    amend(&lab, "bob/mine", |made| (made.hardware.memory_mib, made.hardware.cpus) = (3072, 2));
    let before = lab.world.with(|inner| inner.run_of("bob/mine"));
    assert_snapshot!(lab.plan_text());
    lab.must_apply();
    assert_eq!(running(&lab), 1, "it goes on with what it has");
    assert_eq!(lab.world.with(|inner| inner.run_of("bob/mine")), before);

    let disk = lab.recorded(&lab.desired()).vms["bob/mine"].disks[0].path.clone();
    amend(&lab, "bob/web", |made| made.was = Some("bob/mine".parse().unwrap()));
    assert_snapshot!(lab.plan_text());
    lab.must_apply();
    assert_eq!(running(&lab), 1);
    let recorded = lab.recorded(&lab.desired());
    assert!(!recorded.vms.contains_key("bob/mine") && recorded.aside.is_empty());
    assert_eq!(recorded.vms["bob/web"].disks[0].path, disk, "the same disk");
    assert_eq!(standing(&lab), ["bob/web of test: running", "vm bob/web"]);
    assert!(lab.plan().is_empty());
    // Its new memory comes with its next start; a new vm may have its old name.
    ask(&lab, "bob/web", Wish::Restart);
    lab.world.with(Inner::start_all);
    bob_derives(&lab, false);
    lab.must_apply();
    assert!(lab.recorded(&lab.desired()).vms.contains_key("bob/mine"));
    assert!(lab.plan().is_empty());
}

/// What an owner lets others do is about this vm of theirs, not about the next that has its name.
#[test]
fn what_its_owner_let_others_do_ends_with_a_vm() {
    let mut lab = bobs_own();
    let desired = lab.desired();
    let grant = |given_as, on: &str, by: &str| {
        let permission = Permission {
            to: Subject::User("alice".parse().unwrap()),
            on: Object::Vm(on.parse().unwrap()),
            allow: [Right::Run].into(),
            force_isolated: false,
        };
        let body = ClaimBody::Grant(GrantClaim { version: 1, permission, given_as });
        Change::PutClaim { name: format!("user:alice,vm:{on}:{by}"), body, by: by.into() }
    };
    let grants = [
        grant(GivenAs::Owner, "bob/mine", "bob"),
        grant(GivenAs::Admin, "bob/mine", "root"),
        grant(GivenAs::Owner, "bob-gsr", "bob"),
        // It was alice's once.
        grant(GivenAs::Owner, "bob-gsr", "alice"),
    ];
    lab.store().record(&desired.lab, &grants, "2027-01-12T09:00:00Z".parse().unwrap()).unwrap();
    let idle = |lab: &Lab| {
        let (desired, recorded) = (lab.desired(), lab.recorded(&lab.desired()));
        let desired = with_claims(&desired, &recorded.claims);
        let of_grant = |claim: &&Claim| matches!(claim.body, ClaimBody::Grant(_));
        let claims = recorded.claims.iter().filter(of_grant);
        claims.map(|claim| (claim.name.clone(), why_idle(&desired, claim, |_| false))).collect::<Vec<_>>()
    };
    let anothers = Some("who gave it does not own it any more".to_owned());
    let why: Vec<Option<String>> = idle(&lab).into_iter().map(|(_, why)| why).collect();
    assert_eq!(why, [None, None, None, anothers]);

    lab.edit(&on_demand().replace("alice, bob", "alice"));
    lab.allow.extend(["user-group/students", "vm/bob/mine"].map(|allowed| allowed.parse().unwrap()));
    lab.must_apply();
    let left: Vec<String> = idle(&lab).into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["user:alice,vm:bob/mine:root"], "the other's ended with its vm, whoever gave it");
}

#[test]
fn who_starts_what_its_manifest_stops_is_told() {
    let lab = Lab::new(&PAIR.replace("state: running", "state: stopped"));
    lab.must_apply();
    let plan = lab.asked(&[("bob-gsr", Wish::Start, true)]);
    let told: Vec<String> = plan.notes.iter().map(|note| format!("{}: {}", note.address, note.what)).collect();
    assert_eq!(told, ["vm/bob-gsr: is started, and its manifest says `state: stopped`: the next apply stops it again"]);
    assert!(lab.asked(&[("bob-gsr", Wish::Stop, true)]).notes.is_empty());
}

#[test]
fn a_lab_that_is_taken_down_asks_for_what_people_made() {
    let mut lab = bobs_own();
    let nothing = Desired::nothing(lab.desired().lab);
    let refused = lab.apply_desired(&nothing);
    assert_eq!(running(&lab), 1, "{refused:?}");
    lab.allow.push("vm/bob/mine".parse().unwrap());
    let done = lab.apply_desired(&nothing);
    assert!(matches!(&done, Applied::Done(done) if done.failed.is_empty()), "{done:?}");
    assert_eq!(running(&lab), 0);
}

#[test]
fn time_that_was_given_is_not_taken_away_by_an_edit() {
    let session = "sessions:\n  final: { vms: [exam], start: 2027-01-12T09:00:00Z, end: 2027-01-12T11:00:00Z }\n";
    let lab = Lab::new(&(PAIR.to_owned() + session));
    lab.alter_state(
        "INSERT INTO claims (lab, kind, name, body, \"by\", at) VALUES
         ('net101', 'time', 'final', '{\"version\":1,\"session\":\"final\",\"user\":null,\"change\":{\"extend\":{\"seconds\":600}}}', 'ana', '2027-01-12T10:00:00Z'),
         ('net101', 'time', 'final', '{\"version\":1,\"session\":\"final\",\"user\":\"bob\",\"change\":{\"extend\":{\"seconds\":300}}}', 'ana', '2027-01-12T10:00:00Z')",
    );
    let end = |lab: &Lab| {
        let desired = lab.desired();
        let claims = lab.recorded(&desired).claims;
        let merged = with_claims(&desired, &claims);
        assert_eq!(with_claims(&merged, &claims).sessions, merged.sessions, "once merged is merged");
        merged.sessions["final"].window().1.to_string()
    };
    assert_eq!(end(&lab), "2027-01-12T11:15:00Z");
    lab.edit(&(PAIR.to_owned() + &session.replace("T11:00", "T10:30")));
    assert_eq!(end(&lab), "2027-01-12T10:45:00Z");
    lab.alter_state(
        "INSERT INTO claims (lab, kind, name, body, \"by\", at) VALUES
         ('net101', 'time', 'final', '{\"version\":1,\"session\":\"final\",\"user\":null,\"change\":{\"pause\":{\"from\":\"2027-01-12T10:00:00Z\",\"until\":null}}}', 'ana', '2027-01-12T10:00:00Z')",
    );
    assert!(end(&lab).starts_with("9999"), "it stands still until somebody says otherwise");
}
