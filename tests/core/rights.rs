//! How a plan tells what people may do from now on, and no longer: compact, and exactly what `access` then decides.

use std::collections::BTreeSet;

use labwright::access::{Exams, Person, RightsChange, Whom, World, changes};
use labwright::model::claim::{ClaimBody, GivenAs, GrantClaim};
use labwright::model::id::{UserName, VmName};
use labwright::model::lab::{Object, Permission, Right, Subject};
use labwright::plan::Plan;
use labwright::report::{permissions, plan};
use labwright::state::Change;

use crate::access::{PEOPLE, RIGHTS, Scene, THINGS, object, random_scene};
use crate::dice::Dice;
use crate::lab::Lab;

const COURSE: &str = "
lab: net101
user_groups:
  studs: { members: [alex, doraz, eva, ion] }
  tutors: { members: [ana, eva] }
vm_groups:
  lab1: { ip_range: 192.168.100.2-192.168.100.254, gateway: 192.168.100.1, bridge: vbr0 }
templates:
  gsr: { owner: teacher, vm_group: lab1, disks: [{ image: images/gsr.qcow2 }], memory: 1G }
vms:
  web: { derive: gsr, owner: ana }
permissions:
  - { to: { group: studs }, on: { template: gsr }, allow: [derive], force_isolated: true }
  - { to: { group: tutors }, on: { template: gsr }, allow: [derive] }
  - { to: { user: doraz }, on: { vm: web }, allow: [run] }
";

fn told(lab: &Lab) -> String {
    permissions::changes(&lab.plan().rights, false)
}

#[test]
fn a_new_labs_rights_are_told_by_group() {
    let lab = Lab::new(COURSE);
    let lines = [
        "  + ana may now derive template/gsr",
        "  + doraz may now run vm/web",
        "  + group/studs may now derive template/gsr, isolated",
    ];
    let told_now = told(&lab);
    assert_eq!(told_now.lines().filter(|line| !line.is_empty()).collect::<BTreeSet<_>>(), BTreeSet::from(lines));
    assert!(plan::text(&lab.plan(), false).contains("\n  + group/studs may now derive template/gsr, isolated\n"));
    let stream = plan::stream(&lab.plan());
    let line = r#"{"gained":["derive"],"group":"studs","isolated":true,"lost":[],"on":"template/gsr","type":"rights"}"#;
    assert!(stream.lines().any(|said| said == line), "{stream}");
    lab.must_apply();
    assert_eq!(told(&lab), "", "nothing changes, nothing is told");
}

#[test]
fn an_edit_tells_who_gains_and_who_loses() {
    let lab = Lab::new(COURSE);
    lab.must_apply();
    let after = |from: &str, to: &str| {
        assert!(COURSE.contains(from));
        lab.edit(&COURSE.replace(from, to));
        told(&lab)
    };
    assert_eq!(after("allow: [run]", "allow: [run, view]"), "\n  + doraz may now view vm/web\n");
    assert_eq!(
        after("  - { to: { user: doraz }, on: { vm: web }, allow: [run] }\n", ""),
        "\n  - doraz may no longer run vm/web\n"
    );
    assert_eq!(after("tutors: { members: [ana, eva] }", "tutors: { members: [ana, eva, ion] }"), "", "ion may already");
    assert_eq!(
        after("tutors: { members: [ana, eva] }", "tutors: { members: [ana, bob, eva] }"),
        "\n  + bob may now derive template/gsr\n"
    );
    assert_eq!(
        after(", force_isolated: true", ""),
        "\n  - what group/studs runs of template/gsr need not be isolated any more\n"
    );
    // She has it by owning the vm, and as a tutor.
    assert_eq!(after("{ user: doraz }", "{ user: ana }"), "\n  - doraz may no longer run vm/web\n");
    let owned = after("web: { derive: gsr, owner: ana }", "web: { derive: gsr, owner: doraz }");
    assert_eq!(owned, "\n  - ana may no longer run, modify, view vm/web\n  + doraz may now modify, view vm/web\n");
    // A part of it, in which not all is that decides: nothing is said that may be wrong.
    lab.edit(&COURSE.replace("members: [ana, eva]", "members: [ana, bob, eva]"));
    assert!(lab.target("vm/web").rights.is_empty());
}

#[test]
fn three_hundred_students_are_a_line() {
    let students: Vec<String> = (0..300).map(|n| format!("s{n:03}")).collect();
    let of = |students: &[String]| COURSE.replace("[alex, doraz, eva, ion]", &format!("[{}]", students.join(", ")));
    let lab = Lab::new(&of(&students[..260]));
    assert!(told(&lab).contains("  + group/studs may now derive template/gsr, isolated\n"));
    lab.must_apply();
    lab.edit(&of(&students));
    assert_eq!(told(&lab), "\n  + 40 of group/studs (s260, s261, s262, …) may now derive template/gsr, isolated\n");
    // And of permissions to single people not more than anybody reads.
    let many: Vec<String> = students[..20]
        .iter()
        .map(|who| format!("  - {{ to: {{ user: {who} }}, on: {{ vm: {who}-x }}, allow: [run] }}\n"))
        .collect();
    let vms =
        students[..20].iter().map(|who| format!("  {who}-x: {{ derive: gsr, owner: ana }}\n")).collect::<String>();
    lab.edit(&(of(&students).replace("permissions:\n", &format!("{vms}permissions:\n")) + &many.concat()));
    let told = told(&lab);
    assert!(told.lines().count() == 14 && told.contains("9 more changes of rights; `--verbose` lists them"), "{told}");
}

/// What an owner gave ends when the vm becomes somebody else's.
#[test]
fn a_grant_that_counts_no_more_is_told() {
    let lab = Lab::new(COURSE);
    lab.must_apply();
    let permission = Permission {
        to: Subject::User("alex".parse().unwrap()),
        on: Object::Vm("web".parse().unwrap()),
        allow: [Right::Run].into(),
        force_isolated: false,
    };
    let body = ClaimBody::Grant(GrantClaim { version: 1, permission, given_as: GivenAs::Owner });
    let put = Change::PutClaim { name: "user:alex,vm:web".into(), body, by: "ana".into() };
    lab.store().record(&lab.desired().lab, &[put], "2027-01-12T09:00:00Z".parse().unwrap()).unwrap();
    lab.edit(&COURSE.replace("owner: ana", "owner: ion"));
    let told = told(&lab);
    assert!(told.contains("  - alex may no longer run vm/web\n"), "{told}");
}

/// A plan that was kept before rights were told, and one without any, are plans.
#[test]
fn plans_without_rights_are_read() {
    let lab = Lab::new(COURSE);
    let mut kept = serde_json::to_value(lab.plan()).unwrap();
    assert!(kept.as_object_mut().unwrap().remove("rights").is_some());
    let read: Plan = serde_json::from_value(kept).unwrap();
    assert!(read.rights.is_empty() && read.does_the_same(&lab.plan()));
}

/// Between two random labs, exactly those are told for whom `access` decides otherwise afterwards.
#[test]
fn what_is_told_is_what_access_decides() {
    let (walkthrough, mut dice) = (Scene::walkthrough(), Dice(0x51de_51de));
    let mut told = 0;
    for _ in 0..2000 {
        let (mut before, after) = (random_scene(&walkthrough, &mut dice), random_scene(&walkthrough, &mut dice));
        (before.roles, before.owners_may_share) = (after.roles.clone(), after.owners_may_share);
        // A screen may be seen in a session: here there is one all the time.
        let in_session: BTreeSet<VmName> = before.lab.vms.keys().cloned().collect();
        // Exams come and go by the clock, not with a plan.
        let none = Exams::default();
        let (before, after) = (world(&before, (&in_session, &none)), world(&after, (&in_session, &none)));
        let said = changes(&before, &after);
        told += said.len();
        for (who, on) in PEOPLE.iter().flat_map(|who| THINGS.map(|on| (*who, object(on)))) {
            // Only a vm has a screen.
            let meant = RIGHTS.into_iter().filter(|right| *right != Right::View || matches!(on, Object::Vm(_)));
            for right in meant {
                let may = |world: &World<'_>| world.may(&Person::User(who.parse().unwrap()), right, &on).is_ok();
                // What all in a vm group have is told of the group.
                let all = [on.clone(), object("vm-group:lab1")];
                let speaks = |of: fn(&RightsChange) -> &BTreeSet<Right>| {
                    said.iter()
                        .any(|one| all.contains(&one.on) && of(one).contains(&right) && is_about(&one.who, who, &after))
                };
                match (may(&before), may(&after)) {
                    (false, true) => assert!(speaks(|one| &one.gained), "{who} {right:?} {on}: {said:#?}"),
                    (true, false) => assert!(speaks(|one| &one.lost), "{who} {right:?} {on}: {said:#?}"),
                    (same, _) => {
                        let own = said.iter().filter(|one| one.on == on && is_about(&one.who, who, &after));
                        let wrong = own.filter(|one| one.gained.contains(&right) || one.lost.contains(&right)).count();
                        assert_eq!(wrong, 0, "{who} {right:?} {on} stays {same}: {said:#?}");
                    }
                }
            }
        }
    }
    assert!(told > 2000, "{told}");
}

fn world<'a>(scene: &'a Scene, (in_session, exams): (&'a BTreeSet<VmName>, &'a Exams)) -> World<'a> {
    World { in_session, exams, ..scene.world() }
}

fn is_about(whom: &Whom, who: &str, world: &World<'_>) -> bool {
    let user: UserName = who.parse().unwrap();
    match whom {
        Whom::Group(group) if group.as_str() == "all_users" => {
            world.lab.users.get(&user).is_some_and(|user| !user.is_mentioned_only)
        }
        Whom::Group(group) => world.lab.user_groups[group].members.contains(&user),
        Whom::Users { names, .. } => names.contains(&user),
    }
}
