//! Who may do what: the paper's walkthrough in words, and random labs against a plain reading of its sentences.

use std::collections::BTreeSet;

use labwright::access::{Because, Exams, Forced, Given, Person, Refused, Roles, World};
use labwright::control::permissions::roles;
use labwright::model::claim::{Claim, ClaimBody, ClaimId, GivenAs, GrantClaim, VmClaim};
use labwright::model::lab::{Desired, Object, Permission, Right, Subject, VmSource};
use labwright::model::share::LabShare;
use labwright::model::site::Site;
use labwright::resolve::with_claims;

use crate::dice::Dice;
use crate::lab::Lab;

/// The lab of the paper's section V.A: the students may derive the template, and what they derive is isolated.
const WALKTHROUGH: &str = "
lab: lab1
users: { badmin: {} }
user_groups:
  studs: { members: [doraz, alex] }
  tutors: { members: [eva] }
vm_groups:
  lab1: { ip_range: 192.168.100.2-192.168.100.254, gateway: 192.168.100.1, bridge: vbr0 }
templates:
  gsr: { owner: badmin, vm_group: lab1, disks: [{ image: images/gsr.qcow2 }], memory: 1G }
vms:
  shared: { derive: gsr, owner: badmin }
permissions:
  - { to: { group: studs }, on: { template: gsr }, allow: [derive], force_isolated: true }
  - { to: { group: tutors }, on: { vm_group: lab1 }, allow: [view] }
";

/// Doraz has derived `mine`.
fn walkthrough() -> (Desired, Vec<Claim>) {
    let lab = Lab::new(WALKTHROUGH).desired();
    let template = &lab.templates["gsr"];
    let made = VmClaim {
        version: 1,
        owner: "doraz".parse().unwrap(),
        source: VmSource::Derive("gsr".parse().unwrap()),
        vm_group: template.vm_group.clone(),
        hardware: template.hardware.clone(),
        isolated: true,
        seed: None,
        key: None,
        was: None,
    };
    let claims = vec![claim(1, "doraz/mine", "doraz", ClaimBody::Vm(made))];
    (with_claims(&lab, &claims).into_owned(), claims)
}

fn claim(id: i64, name: &str, by: &str, body: ClaimBody) -> Claim {
    Claim { id: ClaimId(id), name: name.into(), body, by: by.into(), at: "2027-01-12T08:00:00Z".parse().unwrap() }
}

fn grant(id: i64, by: &str, given_as: GivenAs, permission: Permission) -> Claim {
    claim(id, "grant", by, ClaimBody::Grant(GrantClaim { version: 1, permission, given_as }))
}

fn permission(to: &str, on: &str, allow: &[Right]) -> Permission {
    Permission {
        to: Subject::User(to.parse().unwrap()),
        on: object(on),
        allow: allow.iter().copied().collect(),
        force_isolated: false,
    }
}

pub(crate) fn object(text: &str) -> Object {
    match text.split_once(':').unwrap() {
        ("vm", name) => Object::Vm(name.parse().unwrap()),
        ("template", name) => Object::Template(name.parse().unwrap()),
        (_, name) => Object::VmGroup(name.parse().unwrap()),
    }
}

fn user(name: &str) -> Person {
    Person::User(name.parse().unwrap())
}

#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) lab: Desired,
    claims: Vec<Claim>,
    pub(crate) roles: Roles,
    pub(crate) owners_may_share: bool,
    in_session: BTreeSet<labwright::model::id::VmName>,
    exams: Exams,
}

impl Scene {
    pub(crate) fn walkthrough() -> Self {
        let (lab, claims) = walkthrough();
        let roles = Roles {
            admins: BTreeSet::from(["root2".parse().unwrap()]),
            lab_owners: BTreeSet::from(["badmin".parse().unwrap()]),
        };
        Self { lab, claims, roles, owners_may_share: true, in_session: BTreeSet::new(), exams: Exams::default() }
    }

    pub(crate) fn world(&self) -> World<'_> {
        let Self { lab, claims, roles, owners_may_share, in_session, exams } = self;
        World { lab, claims, roles, owners_may_share: *owners_may_share, in_session, exams }
    }
}

/// What a manifest hands out keeps its disks, unless it says otherwise; what somebody made is theirs.
#[test]
fn new_disks_are_for_who_may_modify_a_vm_and_for_its_member_as_the_manifest_says() {
    let exam = "vms:\n  exam: { derive: gsr, for_each: studs, name: \"{user}-gsr\" MAY }\n";
    for (may, theirs) in [("", Err(Refused::NotReimaged)), (", may_reimage: true", Ok(Because::Owner))] {
        let lab = Lab::new(&WALKTHROUGH.replace("vms:\n", &exam.replace(" MAY", may))).desired();
        let (_, claims) = walkthrough();
        let scene = Scene { lab: with_claims(&lab, &claims).into_owned(), claims, ..Scene::walkthrough() };
        let may = |who: &str, vm: &str| scene.world().may_reimage(&user(who), &vm.parse().unwrap());
        assert_eq!(may("doraz", "doraz-gsr"), theirs);
        assert_eq!(may("doraz", "doraz/mine"), Ok(Because::Owner));
        assert_eq!(may("doraz", "alex-gsr"), Err(Refused::NotKnown));
        assert_eq!(may("badmin", "doraz-gsr"), Ok(Because::LabOwner));
    }
}

/// Forced isolation has one reading: the vms of a manifest have it as whoever starts them finds it, also where the owner is a site's
/// admin whom the lab does not list.
#[test]
fn what_is_forced_is_in_the_vms_of_the_manifest() {
    let more = WALKTHROUGH.replace(
        "permissions:\n",
        "  theirs: { derive: gsr, owner: ops }\n  free: { derive: gsr, owner: eva }\n\
        permissions:\n  - { to: { user: ops }, on: { vm: theirs }, allow: [], force_isolated: true }\n",
    );
    let mut lab = Lab::new(&more);
    lab.site.admins.insert("ops".parse().unwrap());
    let scene = Scene { lab: lab.desired(), claims: Vec::new(), ..Scene::walkthrough() };
    let forced = |vm: &str| scene.world().forced(None, &vm.parse().unwrap()).is_some();
    let isolated = |vm: &str| scene.lab.vms[vm].isolated;
    assert_eq!(
        ["shared", "theirs", "free"].map(|vm| (isolated(vm), forced(vm))),
        [false, true, false].map(|is| (is, is))
    );
}

#[test]
fn the_papers_walkthrough() {
    let scene = Scene::walkthrough();
    let world = scene.world();
    let (doraz, alex, eva) = (user("doraz"), user("alex"), user("eva"));
    let derive = world.may(&doraz, Right::Derive, &object("template:gsr")).unwrap();
    let Because::Permission { given: Given::Manifest(Some(place)), .. } = derive else { panic!("{derive:?}") };
    assert!(place.file.ends_with(".yaml") && place.line == 14, "{place:?}");
    assert_eq!(world.may(&doraz, Right::Run, &object("vm:doraz/mine")), Ok(Because::Owner));
    assert_eq!(world.may(&doraz, Right::Modify, &object("vm:doraz/mine")), Ok(Because::Owner));
    assert_eq!(
        world.may(&doraz, Right::Derive, &object("vm:doraz/mine")),
        Err(Refused::NoRight),
        "it is derived itself"
    );
    assert_eq!(world.may(&doraz, Right::Run, &object("template:gsr")), Err(Refused::NoRight));
    // Alex sees nothing of doraz, not even that there is something.
    assert_eq!(world.may(&alex, Right::Run, &object("vm:doraz/mine")), Err(Refused::NotKnown));
    assert_eq!(world.may(&alex, Right::Run, &object("vm:doraz/none")), Err(Refused::NotKnown));
    let seen: Vec<Object> = world.effective(&alex).into_keys().collect();
    assert_eq!(seen, [object("template:gsr")]);
    assert!(world.forced(Some("doraz".parse().as_ref().unwrap()), &"doraz/mine".parse().unwrap()).is_some());
    assert!(world.forced_on_derived(&"alex".parse().unwrap(), &object("template:gsr")));
    assert!(!world.forced_on_derived(&"eva".parse().unwrap(), &object("template:gsr")));
    // Whoever may look, may in a session.
    assert_eq!(world.may(&eva, Right::View, &object("vm:doraz/mine")), Err(Refused::NotInSession));
    assert_eq!(world.may(&eva, Right::Run, &object("vm:doraz/mine")), Err(Refused::NoRight));
    let mut scene = Scene::walkthrough();
    scene.in_session.insert("doraz/mine".parse().unwrap());
    assert!(scene.world().may(&eva, Right::View, &object("vm:doraz/mine")).is_ok());
    for (who, because) in
        [(Person::Root, Because::Root), (user("root2"), Because::SiteAdmin), (user("badmin"), Because::LabOwner)]
    {
        assert_eq!(scene.world().may(&who, Right::Modify, &object("vm:doraz/mine")), Ok(because));
        assert_eq!(scene.world().may(&who, Right::Modify, &object("vm:none")), Err(Refused::NotKnown));
    }
}

#[test]
fn owners_share_what_is_theirs_and_no_more() {
    let mut scene = Scene::walkthrough();
    let (doraz, alex) = (user("doraz"), user("alex"));
    let run = permission("alex", "vm:doraz/mine", &[Right::Run, Right::View]);
    assert_eq!(scene.world().may_grant(&doraz, &run), Ok(GivenAs::Owner));
    let derive = permission("alex", "vm:doraz/mine", &[Right::Derive]);
    assert_eq!(scene.world().may_grant(&doraz, &derive), Err(Refused::NoRight), "nobody gives what they have not");
    assert_eq!(scene.world().may_grant(&alex, &run), Err(Refused::NotKnown));
    let template = permission("eva", "template:gsr", &[Right::Derive]);
    assert_eq!(scene.world().may_grant(&doraz, &template), Err(Refused::NoRight), "it is not theirs");
    let force = Permission { force_isolated: true, ..run.clone() };
    assert_eq!(scene.world().may_grant(&doraz, &force), Err(Refused::NoRight));
    assert_eq!(scene.world().may_grant(&user("badmin"), &force), Ok(GivenAs::Admin));
    scene.claims.push(grant(2, "doraz", GivenAs::Owner, run.clone()));
    assert!(scene.world().may(&alex, Right::Run, &object("vm:doraz/mine")).is_ok());
    assert!(scene.world().may(&alex, Right::View, &object("vm:doraz/mine")).is_ok(), "the owner has agreed");
    assert_eq!(scene.world().may(&alex, Right::Modify, &object("vm:doraz/mine")), Err(Refused::NoRight));
    scene.owners_may_share = false;
    assert_eq!(scene.world().may(&alex, Right::Run, &object("vm:doraz/mine")), Err(Refused::NotKnown));
    assert_eq!(scene.world().may_grant(&doraz, &run), Err(Refused::NoRight));
    scene.owners_may_share = true;
    // What counts is who owns the vm now.
    scene.lab.vms.get_mut("doraz/mine").unwrap().owner = "eva".parse().unwrap();
    assert_eq!(scene.world().may(&alex, Right::Run, &object("vm:doraz/mine")), Err(Refused::NotKnown));
    scene.claims.push(grant(3, "doraz", GivenAs::Owner, derive));
    assert!(scene.world().effective(&alex).into_keys().eq([object("template:gsr")]));
}

#[test]
fn a_vm_stays_isolated_when_the_permission_goes() {
    let mut scene = Scene::walkthrough();
    scene.lab.permissions.clear();
    let mine = "doraz/mine".parse().unwrap();
    assert_eq!(scene.world().forced(None, &mine), Some(Forced::FromTheStart));
    scene.claims.clear();
    assert_eq!(scene.world().forced(None, &mine), None);
}

pub(crate) const PEOPLE: [&str; 5] = ["badmin", "doraz", "alex", "eva", "nobody"];
pub(crate) const THINGS: [&str; 4] = ["vm:doraz/mine", "vm:shared", "template:gsr", "vm-group:lab1"];
pub(crate) const RIGHTS: [Right; 4] = [Right::Run, Right::Modify, Right::Derive, Right::View];

fn random_permission(dice: &mut Dice) -> Permission {
    let to = match dice.below(4) {
        0 => Subject::Group("studs".parse().unwrap()),
        1 => Subject::Group("all_users".parse().unwrap()),
        _ => Subject::User(dice.pick(&PEOPLE).unwrap().parse().unwrap()),
    };
    let allow = RIGHTS.into_iter().filter(|_| dice.one_in(2)).collect();
    Permission { to, on: object(dice.pick(&THINGS).unwrap()), allow, force_isolated: dice.one_in(4) }
}

/// An exam of one of the vms, before it, in it or after it, and somebody who may sit another one.
fn random_exams(scene: &mut Scene, dice: &mut Dice) {
    if dice.one_in(2) {
        return;
    }
    let vm = dice.pick(&["doraz/mine", "shared"]).unwrap();
    scene.exams.vms.insert(vm.parse().unwrap());
    if dice.one_in(2) {
        scene.exams.closed.insert(vm.parse().unwrap());
    }
    if dice.one_in(2) {
        let own = if dice.one_in(2) { BTreeSet::from([vm.parse().unwrap()]) } else { BTreeSet::new() };
        scene.exams.sitting.insert(dice.pick(&PEOPLE).unwrap().parse().unwrap(), own);
    }
}

pub(crate) fn random_scene(walkthrough: &Scene, dice: &mut Dice) -> Scene {
    let mut scene = walkthrough.clone();
    scene.roles = Roles::default();
    if dice.one_in(8) {
        scene.roles.lab_owners.insert(dice.pick(&PEOPLE).unwrap().parse().unwrap());
    }
    scene.owners_may_share = dice.one_in(2);
    if dice.one_in(2) {
        scene.in_session.insert("doraz/mine".parse().unwrap());
    }
    random_exams(&mut scene, dice);
    if dice.one_in(2) {
        scene.lab.vms.get_mut("shared").unwrap().owner = dice.pick(&PEOPLE).unwrap().parse().unwrap();
    }
    scene.lab.permissions = (0..dice.below(4)).map(|_| random_permission(dice)).collect();
    for id in 0..dice.below(4) {
        let given_as = if dice.one_in(2) { GivenAs::Admin } else { GivenAs::Owner };
        let (by, permission) = (dice.pick(&PEOPLE).unwrap(), random_permission(dice));
        scene.claims.push(grant(10 + i64::try_from(id).unwrap(), by, given_as, permission));
    }
    scene
}

/// The rules once more, one sentence after the other, for one question.
fn reference(scene: &Scene, who: &str, right: Right, on: &str) -> bool {
    let lab = &scene.lab;
    // "Members of admin have full control"; the lab's owners have it over the lab.
    if scene.roles.admins.iter().chain(&scene.roles.lab_owners).any(|name| name.as_str() == who) {
        return true;
    }
    let owner_of = |on: &Object| match on {
        Object::Vm(vm) => Some(lab.vms[vm].owner.to_string()),
        Object::Template(template) => Some(lab.templates[template].owner.to_string()),
        Object::VmGroup(_) => None,
    };
    let is_derived = |on: &Object| matches!(on, Object::Vm(vm) if matches!(lab.vms[vm].source, VmSource::Derive(_)));
    // "The owner has full permissions over his vms", but "we cannot make a template from a differential disc".
    let owns = |who: &str, right: Right, on: &Object| {
        owner_of(on).as_deref() == Some(who) && !(right == Right::Derive && is_derived(on))
    };
    let thing = object(on);
    let vm = match &thing {
        Object::Vm(vm) => Some(vm),
        _ => None,
    };
    // Who sits an exam has their vms of it, and there is nothing else.
    let sits = scene.exams.sitting.get(who);
    if sits.is_some_and(|own| vm.is_none_or(|vm| !own.contains(vm))) {
        return false;
    }
    // A vm that is closed is not there, but for those who look at others' screens.
    let is_closed = vm.is_some_and(|vm| scene.exams.closed.contains(vm)) && sits.is_none();
    let looks = right == Right::View && owner_of(&thing).as_deref() != Some(who);
    if is_closed && !looks {
        return false;
    }
    if owns(who, right, &thing) {
        return true;
    }
    let concerns = |permission: &Permission| {
        let Some(known) = lab.users.get(who) else { return false };
        let whom = match &permission.to {
            Subject::User(name) => name.as_str() == who,
            Subject::Group(group) if group.as_str() == "all_users" => !known.is_mentioned_only,
            Subject::Group(group) => known.groups.contains(group),
        };
        // Everything here is in the one vm group.
        whom && permission.allow.contains(&right)
            && (permission.on == thing || permission.on == object("vm-group:lab1"))
    };
    let is_open = matches!(&thing, Object::Vm(vm) if scene.in_session.contains(vm));
    let watches = right != Right::View || is_open;
    if watches && lab.permissions.iter().any(concerns) {
        return true;
    }
    scene.claims.iter().any(|claim| {
        let ClaimBody::Grant(grant) = &claim.body else { return false };
        let of_owner = owner_of(&thing).as_deref() == Some(claim.by.as_str());
        let counts = grant.given_as == GivenAs::Admin
            || (scene.owners_may_share
                && !matches!(&grant.permission.on, Object::Vm(vm) if scene.exams.vms.contains(vm))
                && !grant.permission.force_isolated
                && grant.permission.allow.iter().all(|right| owns(&claim.by, *right, &grant.permission.on))
                && owner_of(&grant.permission.on).as_deref() == Some(claim.by.as_str()));
        counts && concerns(&grant.permission) && (watches || of_owner)
    })
}

#[test]
fn random_labs_read_as_the_sentences_do() {
    let (walkthrough, mut dice) = (Scene::walkthrough(), Dice(0x01ab_01ab));
    let mut allowed = 0;
    for _ in 0..4000 {
        let scene = random_scene(&walkthrough, &mut dice);
        let (who, right, on) = (dice.pick(&PEOPLE).unwrap(), dice.pick(&RIGHTS).unwrap(), dice.pick(&THINGS).unwrap());
        let decision = scene.world().may(&user(who), right, &object(on));
        let expected = reference(&scene, who, right, on);
        let Scene { lab, claims, roles, owners_may_share, in_session, exams } = &scene;
        let permissions = &lab.permissions;
        assert_eq!(
            decision.is_ok(),
            expected,
            "{who} {right:?} {on}: {decision:?}\n{permissions:#?}\n{claims:#?}\n{roles:?} {owners_may_share} {in_session:?} {exams:?}"
        );
        allowed += usize::from(expected);
    }
    assert!((500..3500).contains(&allowed), "both answers are tried: {allowed} of 4000");
}

/// Whatever people without the admin's rights grant, in whatever order, nobody ever gets what no grantor could give.
#[test]
fn no_chain_of_grants_widens_anything() {
    let (walkthrough, mut dice) = (Scene::walkthrough(), Dice(0x9e37_79b9));
    let mut given = 0;
    for _ in 0..400 {
        let mut scene = random_scene(&walkthrough, &mut dice);
        scene.roles = Roles::default();
        scene.owners_may_share = true;
        scene.claims.truncate(1);
        let before = |scene: &Scene, who: &str, on: &str| {
            RIGHTS.map(|right| scene.world().may(&user(who), right, &object(on)).is_ok())
        };
        let held: Vec<_> = PEOPLE.iter().flat_map(|who| THINGS.map(|on| (who, on, before(&scene, who, on)))).collect();
        for id in 0..20 {
            let (by, permission) = (dice.pick(&PEOPLE).unwrap(), random_permission(&mut dice));
            if let Ok(given_as) = scene.world().may_grant(&user(by), &permission) {
                scene.claims.push(grant(100 + id, by, given_as, permission));
                given += 1;
            }
        }
        for (who, on, had) in held {
            let owner = match object(on) {
                Object::Vm(vm) => scene.lab.vms[&vm].owner.to_string(),
                Object::Template(template) => scene.lab.templates[&template].owner.to_string(),
                Object::VmGroup(_) => String::new(),
            };
            for (right, had) in RIGHTS.into_iter().zip(had) {
                let has = scene.world().may(&user(who), right, &object(on)).is_ok();
                let could_be_given =
                    PEOPLE.contains(&owner.as_str()) && scene.world().may(&user(&owner), right, &object(on)).is_ok();
                assert!(!has || had || could_be_given, "{who} got {right:?} on {on}");
            }
        }
    }
    assert!(given > 100, "{given} grants were made");
}

/// Whoever owns a lab has all rights in it, and in any other what everybody would have: whatever the site says of how many labs.
#[test]
fn lab_owners_own_their_own_lab_alone() {
    let (walkthrough, mut dice) = (Scene::walkthrough(), Dice(0x0a0b_0c0d));
    let labs = ["lab1", "lab2", "lab3"];
    let (mut owned, mut others) = (0, 0);
    for _ in 0..1000 {
        let mut site = Site::embedded(std::path::Path::new("/lab"), 4096, 2);
        for lab in labs {
            if dice.one_in(2) {
                continue;
            }
            let owner = dice.pick(&PEOPLE).unwrap().parse().unwrap();
            let share = LabShare { owners: BTreeSet::from([owner]), ..LabShare::default() };
            site.labs.insert(lab.parse().unwrap(), share);
        }
        let (who, right, on) = (dice.pick(&PEOPLE).unwrap(), dice.pick(&RIGHTS).unwrap(), dice.pick(&THINGS).unwrap());
        let mut scene = random_scene(&walkthrough, &mut dice);
        let is_owner = site.labs.get("lab1").is_some_and(|share| share.owners.contains(who));
        scene.roles = roles(&site, &scene.lab.lab, &user(who));
        let expected = is_owner || reference(&Scene { roles: Roles::default(), ..scene.clone() }, who, right, on);
        assert_eq!(scene.world().may(&user(who), right, &object(on)).is_ok(), expected, "{who} {right:?} {on}");
        owned += usize::from(is_owner);
        others += usize::from(!is_owner && site.labs.values().any(|share| share.owners.contains(who)));
    }
    assert!(owned > 50 && others > 50, "both are tried: {owned}, {others}");
}
