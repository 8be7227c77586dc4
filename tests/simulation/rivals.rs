//! Two controllers at once: each decides while the other one does not, and then both are at work, on different things. If
//! somebody takes the lock's file away, the one that began last goes on, and the older one is stopped when it wants to write.

use std::sync::atomic::{AtomicBool, Ordering};

use labwright::plan::Wish;
use labwright::state::StateError;

use crate::lab::{Applied, Lab};
use crate::world::Inner;

/// Lets the one that stands still go on when it is dropped.
struct GoOn<'a>(&'a Lab);

impl Drop for GoOn<'_> {
    fn drop(&mut self) {
        self.0.world.go_on();
    }
}

/// One controller stands still at one of its calls while another one is at work; `None` where the first never came so far.
pub(crate) fn side_by_side(
    lab: &Lab,
    calls: u64,
    first: impl FnOnce() -> Applied + Send,
    second: impl FnOnce() -> Applied,
) -> (Applied, Option<Applied>) {
    lab.world.with(|inner| inner.faults.stall_in = Some(calls));
    let is_over = AtomicBool::new(false);
    let sides = std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            let applied = first();
            is_over.store(true, Ordering::Release);
            applied
        });
        let second = lab.world.wait_for_stall(|| is_over.load(Ordering::Acquire)).then(|| {
            // Also when the second one fails a test, the first must not wait for ever.
            let _go_on = GoOn(lab);
            second()
        });
        (first.join().unwrap(), second)
    });
    lab.world.with(|inner| inner.faults.stall_in = None);
    sides
}

fn lose_the_lock(lab: &Lab) {
    let lock = std::path::PathBuf::from(format!("{}.lock", lab.site.state.display()));
    if lock.exists() {
        std::fs::remove_file(lock).unwrap();
    }
}

const LAB: &str = "
lab: term
users: { boss: {} }
user_groups:
  class: { members: [ada, bea, cid] }
vm_groups:
  net: { ip_range: 10.1.0.2-10.1.0.40, gateway: 10.1.0.1, bridge: vbr0 }
templates:
  one: { owner: boss, vm_group: net, disks: [{ image: images/one.qcow2 }], memory: 512M }
vms:
  family: { derive: one, for_each: class, name: \"{user}-vm\", state: running }
";

/// Lets a second controller in at every call of the first, until the first gets through alone.
fn at_every_call(
    ready: impl Fn() -> Lab,
    first: impl Fn(&Lab) -> Applied + Sync,
    second: impl Fn(&Lab) -> Applied,
    mut check: impl FnMut(u64, &Lab, &Applied, &Applied),
) {
    for calls in 1.. {
        let lab = ready();
        let (one, other) = side_by_side(&lab, calls, || first(&lab), || second(&lab));
        let Some(other) = other else {
            assert!(calls > 5, "an apply of {calls} calls proves little");
            return;
        };
        check(calls, &lab, &one, &other);
    }
}

fn new_lab() -> Lab {
    Lab::new(LAB)
}

/// All three run.
fn running_lab() -> Lab {
    let lab = new_lab();
    lab.must_apply();
    lab.world.with(Inner::start_all);
    lab
}

fn ask(lab: &Lab, vm: &str, wish: Wish) -> Applied {
    lab.power(&lab.desired(), &vm.parse().unwrap(), wish)
}

#[test]
fn what_one_works_on_the_other_leaves_alone() {
    let mut at_work = 0;
    at_every_call(new_lab, Lab::apply, Lab::apply, |calls, lab, first, second| {
        // Only the very first call, for the lock's own note, is made before the lock is held.
        let is_locked = [first, second].iter().any(|applied| matches!(applied, Applied::Locked));
        at_work += u64::from(!is_locked && calls > 1);
        let is_done = |applied: &&Applied| matches!(applied, Applied::Done(done) if done.failed.is_empty());
        assert!(is_locked || [first, second].iter().all(is_done), "at call {calls}: {first:?}, {second:?}");
        assert_eq!(lab.world.with(|inner| inner.tasks.len()), 3, "each vm is submitted once");
        lab.world.with(Inner::start_all);
        assert!(lab.plan().is_empty(), "at call {calls}:\n{}", lab.plan_text());
    });
    assert!(at_work > 10, "only {at_work} times were both at work");
}

#[test]
fn others_are_stopped_and_started_while_a_restart_goes_on() {
    let mut at_work = 0;
    let restart = |lab: &Lab| ask(lab, "ada-vm", Wish::Restart);
    let stop = |lab: &Lab| ask(lab, "bea-vm", Wish::Stop);
    at_every_call(running_lab, restart, stop, |calls, lab, first, second| {
        if matches!(first, Applied::Locked) || matches!(second, Applied::Locked) {
            return;
        }
        at_work += 1;
        let is_done = |applied: &&Applied| matches!(applied, Applied::Done(done) if done.done.len() == 1);
        assert!([first, second].iter().all(is_done), "at call {calls}: {first:?}, {second:?}");
        lab.world.with(Inner::start_all);
        let live = lab.world.with(|inner| inner.live().into_keys().map(|vm| vm.to_string()).collect::<Vec<_>>());
        assert_eq!(live, ["ada-vm", "cid-vm"], "at call {calls}");
    });
    assert!(at_work > 10, "only {at_work} times were both at work");
}

#[test]
fn who_means_what_another_works_on_is_told_by_whom_it_is() {
    let mut told = 0;
    let stop = |lab: &Lab| ask(lab, "ada-vm", Wish::Stop);
    let start = |lab: &Lab| ask(lab, "ada-vm", Wish::Start);
    at_every_call(running_lab, stop, start, |calls, lab, first, second| {
        match second {
            Applied::Locked => {}
            Applied::Refused(plan) => {
                told += 1;
                assert_eq!(plan.refusals[0].address.to_string(), "vm/ada-vm");
                let text = plan.refusals[0].why.to_string();
                assert!(text.starts_with("is being stopped by test (apply 2, since "), "{text}");
            }
            // Before the first has decided, and after it has let go.
            Applied::Done(_) => assert_eq!(lab.world.with(|inner| inner.live().len()), 2 + usize::from(!is_off(first))),
            other => panic!("at call {calls}: {other:?}"),
        }
    });
    assert!(told > 3, "only {told} were told");
}

fn is_off(stop: &Applied) -> bool {
    matches!(stop, Applied::Done(done) if done.done.len() == 1)
}

#[test]
fn without_the_lock_the_older_one_is_stopped() {
    let mut stopped = 0;
    let second = |lab: &Lab| {
        lose_the_lock(lab);
        lab.apply()
    };
    at_every_call(new_lab, Lab::apply, second, |calls, lab, first, second| {
        assert!(matches!(second, Applied::Done(_)), "at call {calls}: {second:?}");
        let is_stopped = matches!(first, Applied::Stopped(StateError::Overtaken { .. } | StateError::Stale { .. }));
        stopped += u64::from(is_stopped);
        lab.world.with(Inner::start_all);
        lab.world.with(|inner| {
            inner.pass(100);
            assert_eq!(inner.broken, None, "at call {calls}: {first:?}");
            for (vm, runs) in inner.live() {
                assert_eq!(runs.len(), 1, "at call {calls}: {vm} runs as {runs:?}; {first:?}");
            }
        });
        lab.must_apply();
        lab.world.with(Inner::start_all);
        lab.must_apply();
        assert!(lab.plan().is_empty(), "at call {calls}:\n{}", lab.plan_text());
    });
    assert!(stopped > 3, "only {stopped} were stopped");
}
