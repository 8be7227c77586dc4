//! Seed disks: what each says, how long a guest is the same one, and that an edit disturbs nobody.

use labwright::model::claim::{ClaimBody, VmClaim};
use labwright::model::lab::VmSource;
use labwright::model::seed::SeedDisk;
use labwright::plan::{Effect, Plan, Verb, Wish};
use labwright::state::Change;

use crate::lab::{Applied, Lab};
use crate::plans::{PAIR, running};
use crate::world::Inner;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

/// Alice has a key; all who are made from the template get a seed.
fn manifest() -> String {
    PAIR.replace("{ badmin: {} }", &format!("{{ badmin: {{}}, alice: {{ ssh_keys: [\"{KEY} alice@home\"] }} }}"))
        .replace(
            "memory: 1G",
            &format!("memory: 1G, seed: {{ users: [\"{{user}}\", teacher], ssh_keys: [\"{KEY} teacher\"] }}"),
        )
}

fn seeds(plan: &Plan) -> Vec<SeedDisk> {
    let seed = |effect: &Effect| match effect {
        Effect::Start { seed, .. } | Effect::TurnOn { seed, .. } => seed.as_deref().cloned(),
        _ => None,
    };
    plan.actions().filter_map(|(_, action)| seed(&action.effect)).collect()
}

fn must(lab: &Lab, wish: Wish) {
    let done = lab.power(&lab.desired(), &"alice-gsr".parse().unwrap(), wish);
    assert!(matches!(&done, Applied::Done(done) if done.failed.is_empty()), "{done:?}");
    lab.world.with(Inner::start_all);
}

/// What a guest that begins now would be told.
fn told(lab: &Lab, wish: Wish) -> SeedDisk {
    seeds(&lab.asked(&[("alice-gsr", wish, true)])).remove(0)
}

#[test]
fn each_guest_learns_whose_it_is() {
    let lab = Lab::new(&manifest());
    let [alice, bob] = seeds(&lab.plan()).try_into().unwrap();
    let accounts = |seed: &SeedDisk| -> Vec<(String, usize)> {
        seed.users.iter().map(|user| (user.name.clone(), user.ssh_keys.len())).collect()
    };
    assert_eq!((accounts(&alice), &*alice.hostname), (vec![("alice".into(), 2), ("teacher".into(), 1)], "alice-gsr"));
    assert_eq!(accounts(&bob), [("bob".into(), 1), ("teacher".into(), 1)]);
    assert_ne!(alice.instance, bob.instance);
    let spec = lab.plan().actions().find_map(|(_, action)| action.effect.starts().cloned()).unwrap();
    assert!(spec.seed.unwrap().ends_with(format!("{}/seed.img", spec.run)));
    let plain = Lab::new(PAIR).plan();
    assert!(
        seeds(&plain).is_empty() && plain.actions().all(|(_, a)| a.effect.starts().is_none_or(|s| s.seed.is_none()))
    );
}

#[test]
fn a_guest_is_the_same_for_as_long_as_its_disk_is() {
    let lab = running(&manifest());
    let first = told(&lab, Wish::Restart).instance;
    must(&lab, Wish::Restart);
    assert_eq!(told(&lab, Wish::Restart).instance, first);
    must(&lab, Wish::Reimage);
    let second = told(&lab, Wish::Restart).instance;
    assert_ne!(second, first, "cloud-init begins anew on a new disk");
    must(&lab, Wish::PutBack);
    assert_eq!(told(&lab, Wish::Restart).instance, first, "and knows the old one again");
    lab.edit(&(manifest().replace("{user}-gsr", "{user}-lan") + "moved: [{ from: vm/alice-gsr, to: vm/alice-lan }]\n"));
    lab.must_apply();
    let recorded = lab.recorded(&lab.desired());
    let known = &recorded.vms["alice-lan"];
    assert_eq!(recorded.instance(&lab.desired().lab, &"alice-lan".parse().unwrap(), &known.disks), first);
}

#[test]
fn an_edit_counts_for_disks_that_have_not_booted_and_disturbs_nobody() {
    for edited in [PAIR.to_owned(), manifest().replace("teacher]", "tutor]")] {
        let lab = running(&manifest());
        lab.edit(&edited);
        let plan = lab.plan();
        assert!(plan.changes.iter().all(|change| change.verb == Verb::Update), "{:?}", plan.changes);
        lab.must_apply();
        assert!(lab.plan().is_empty(), "{:?}", lab.plan().changes);
    }
    // Where the guest had none, a new disk needs another run: its device is not there.
    let lab = running(PAIR);
    lab.edit(&manifest());
    lab.must_apply();
    let plan = lab.asked(&[("alice-gsr", Wish::Reimage, true)]);
    assert!(plan.starts().any(|vm| vm.as_str() == "alice-gsr"));
    assert_eq!(seeds(&plan).len(), 1);
}

#[test]
fn what_somebody_makes_has_the_seed_of_its_template() {
    let lab = running(&manifest());
    let desired = lab.desired();
    let template = &desired.templates["gsr"];
    let made = VmClaim {
        version: 1,
        owner: "alice".parse().unwrap(),
        source: VmSource::Derive("gsr".parse().unwrap()),
        vm_group: template.vm_group.clone(),
        hardware: template.hardware.clone(),
        isolated: false,
        seed: template.seed.clone().map(Box::new),
        key: None,
        was: None,
    };
    let put = Change::PutClaim { name: "alice/mine".into(), body: ClaimBody::Vm(made), by: "alice".into() };
    lab.store().record(&desired.lab, &[put], "2027-01-12T09:00:00Z".parse().unwrap()).unwrap();
    lab.must_apply();
    let seed = seeds(&lab.asked(&[("alice/mine", Wish::Start, true)])).remove(0);
    assert_eq!((&*seed.hostname, seed.users[0].ssh_keys.len()), ("alice-mine", 2));
}

/// Plans and states of before there were seeds.
#[test]
fn what_was_written_before_is_read() {
    let lab = running(PAIR);
    let plan = lab.asked(&[("alice-gsr", Wish::Restart, true)]);
    let text = serde_json::to_string(&plan).unwrap();
    assert!(!text.contains("\"seed") && !text.contains("ssh_keys"), "{text}");
    let again: Plan = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), text);
}
