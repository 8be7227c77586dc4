//! A kill at every call: an apply is killed at its first call, at its second, and so on until it gets through; after each
//! the next controller must end where one that nobody killed would have ended. The executor reads the clock before each
//! write to the state, so the moments between journal and effect, and between effect and record, are among them.

use labwright::model::lab::Desired;
use labwright::run::StopReason;

use crate::lab::{Applied, Lab};
use crate::promises::Watched;
use crate::terms::silence_kills;
use crate::world::Inner;

/// Three students with a running vm each, and a server with a disk of its own.
const LAB: &str = "
lab: term
users: { boss: { limits: { running_vms: 9 } } }
user_groups:
  class: { members: [ada, bea, cid] }
vm_groups:
  net: { ip_range: 10.1.0.2-10.1.0.40, gateway: 10.1.0.1, bridge: vbr0 }
templates:
  one: { owner: boss, vm_group: net, disks: [{ image: images/one.qcow2 }], memory: 512M }
  two: { owner: boss, vm_group: net, disks: [{ image: images/two.qcow2 }, { image: images/data.qcow2 }], memory: 512M }
vms:
  family: { derive: one, for_each: class, name: \"{user}-vm\", state: running }
  server: { owner: boss, vm_group: net, disks: [{ size: 1G }], memory: 256M, state: running }
";

/// What is different about the lab when it is applied, and what its manifest says then.
struct Scenario {
    name: &'static str,
    /// The lab was applied before and its guests run.
    applied: bool,
    happens: fn(&mut Inner),
    manifest: fn() -> String,
    destroy: bool,
}

const SAME: fn() -> String = || LAB.to_owned();

const SCENARIOS: [Scenario; 12] = [
    Scenario { name: "everything is new", applied: false, happens: |_| {}, manifest: SAME, destroy: false },
    Scenario {
        name: "a submit's answer is lost",
        applied: false,
        happens: |inner| inner.faults.lose_submit_answer = true,
        manifest: SAME,
        destroy: false,
    },
    Scenario {
        name: "all restart with more memory",
        applied: true,
        happens: |_| {},
        manifest: || LAB.replace("512M", "1G"),
        destroy: false,
    },
    Scenario {
        name: "one leaves and another comes",
        applied: true,
        happens: |_| {},
        manifest: || LAB.replace("bea, cid", "bea, dan"),
        destroy: false,
    },
    Scenario {
        name: "all get disks of another template",
        applied: true,
        happens: |_| {},
        manifest: || LAB.replace("derive: one", "derive: two"),
        destroy: false,
    },
    Scenario {
        name: "all get clones",
        applied: true,
        happens: |_| {},
        manifest: || LAB.replace("derive: one", "clone: one"),
        destroy: false,
    },
    Scenario {
        name: "all get another name",
        applied: true,
        happens: |_| {},
        manifest: || {
            let moves = ["ada", "bea", "cid"].map(|user| format!("  - {{ from: vm/{user}-vm, to: vm/{user}-box }}\n"));
            format!("{}moved:\n{}", LAB.replace("{user}-vm", "{user}-box"), moves.concat())
        },
        destroy: false,
    },
    Scenario {
        name: "all get another address",
        applied: true,
        happens: |_| {},
        manifest: || LAB.replace("10.1.0.2-10.1.0.40", "10.1.0.20-10.1.0.60"),
        destroy: false,
    },
    Scenario { name: "all leave", applied: true, happens: |_| {}, manifest: SAME, destroy: true },
    Scenario {
        name: "a guest died and a disk's reservation is gone",
        applied: true,
        happens: |inner| {
            let (dead, crashed) = (inner.run_of("ada-vm"), inner.run_of("server"));
            inner.kill_run(&dead);
            inner.end_run(&crashed, StopReason::Crashed);
            inner.reservations.clear();
        },
        manifest: SAME,
        destroy: false,
    },
    Scenario {
        name: "the image changes and one comes",
        applied: true,
        happens: |inner| {
            let image = inner.images.keys().find(|path| path.ends_with("one.qcow2")).unwrap().clone();
            inner.write_image(&image, "second");
        },
        manifest: || LAB.replace("bea, cid", "bea, cid, dan"),
        destroy: false,
    },
    Scenario {
        name: "all are stopped",
        applied: true,
        happens: |_| {},
        manifest: || LAB.replace("state: running", "state: stopped"),
        destroy: false,
    },
];

/// The lab as the scenario finds it.
fn begin(scenario: &Scenario) -> (Lab, Watched) {
    let mut lab = Lab::new(LAB);
    lab.allow = ["user-group/*", "template/*", "vm/*"].map(|pattern| pattern.parse().unwrap()).to_vec();
    let watched = Watched::new(&lab.world);
    if scenario.applied {
        lab.must_apply();
        lab.world.with(Inner::start_all);
    }
    lab.world.with(scenario.happens);
    lab.edit(&(scenario.manifest)());
    (lab, watched)
}

fn apply(lab: &Lab, scenario: &Scenario) -> Applied {
    let desired = lab.desired();
    if scenario.destroy { lab.apply_desired(&Desired::nothing(desired.lab)) } else { lab.apply_desired(&desired) }
}

#[test]
fn an_apply_may_be_killed_at_every_call() {
    silence_kills();
    for scenario in &SCENARIOS {
        let mut call = 0;
        loop {
            call += 1;
            if survives(scenario, call, None) {
                break;
            }
        }
        assert!(call > 5, "{}: an apply of {call} calls proves little", scenario.name);
    }
}

/// The one that mends what a kill left behind is killed as well.
#[test]
fn and_so_may_the_next_one() {
    silence_kills();
    for scenario in &SCENARIOS {
        for call in [4, 9, 14, 19, 24, 29] {
            for next in [3, 7, 11, 15, 19] {
                survives(scenario, call, Some(next));
            }
        }
    }
}

/// Kills an apply at one call, and the next one at `next`; whether the first got through. Panics on a broken promise.
fn survives(scenario: &Scenario, call: u64, next: Option<u64>) -> bool {
    let (lab, mut watched) = begin(scenario);
    let mut check = |lab: &Lab, when: &str| {
        let broken = lab.world.with(|inner| watched.broken(inner));
        assert_eq!(broken, None, "{}, killed at call {call} and then at {next:?}: {when}", scenario.name);
    };
    lab.world.with(|inner| inner.faults.kill_in = Some(call));
    let first = apply(&lab, scenario);
    check(&lab, "after the kill");
    if next.is_some() {
        lab.world.with(|inner| inner.faults.kill_in = next);
        drop(apply(&lab, scenario));
        check(&lab, "after the second kill");
    }
    // What was submitted may begin before the next controller looks, or after: half of each.
    lab.world.with(|inner| {
        inner.faults = crate::world::Faults::default();
        let waiting: Vec<_> = inner.tasks.keys().copied().collect();
        waiting.into_iter().step_by(2).for_each(|id| inner.start_task(id));
    });
    check(&lab, "some have begun");
    for _ in 0..2 {
        let applied = apply(&lab, scenario);
        let went_well = matches!(&applied, Applied::Done(summary) if summary.failed.is_empty());
        assert!(went_well, "{}, killed at call {call} and then at {next:?}: {applied:?}", scenario.name);
        check(&lab, "after the next apply");
        lab.world.with(Inner::start_all);
        check(&lab, "all have begun");
    }
    if scenario.destroy {
        let left = lab.world.with(|inner| (inner.tasks.len(), inner.reservations.len(), inner.live().len()));
        assert_eq!(left, (0, 0, 0), "{}, killed at call {call}: something is left", scenario.name);
    } else {
        assert!(lab.plan().is_empty(), "{}, killed at call {call}:\n{}", scenario.name, lab.plan_text());
        let broken = watched.broken_at_rest(&lab);
        assert_eq!(broken, None, "{}, killed at call {call} and then at {next:?}", scenario.name);
    }
    !matches!(first, Applied::Killed)
}
