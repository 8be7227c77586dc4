//! Two controllers at once: the lock refuses the second one. If somebody takes the lock away, the apply that began last goes
//! on, and the older one is stopped when it wants to write.

use std::sync::atomic::{AtomicBool, Ordering};

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

/// One apply stands still at one of its calls while another one is tried; `None` where the first never came so far.
pub(crate) fn side_by_side(lab: &Lab, calls: u64, lock_is_lost: bool) -> (Applied, Option<Applied>) {
    lab.world.with(|inner| inner.faults.stall_in = Some(calls));
    let is_over = AtomicBool::new(false);
    let sides = std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            let applied = lab.apply();
            is_over.store(true, Ordering::Release);
            applied
        });
        let second = lab.world.wait_for_stall(|| is_over.load(Ordering::Acquire)).then(|| {
            // Also when the second one fails a test, the first must not wait for ever.
            let _go_on = GoOn(lab);
            let lock = std::path::PathBuf::from(format!("{}.lock", lab.site.state.display()));
            if lock_is_lost && lock.exists() {
                std::fs::remove_file(lock).unwrap();
            }
            lab.apply()
        });
        (first.join().unwrap(), second)
    });
    lab.world.with(|inner| inner.faults.stall_in = None);
    sides
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
fn at_every_call(lock_is_lost: bool, mut check: impl FnMut(u64, &Lab, &Applied, &Applied)) {
    for calls in 1.. {
        let lab = Lab::new(LAB);
        let (first, second) = side_by_side(&lab, calls, lock_is_lost);
        let Some(second) = second else {
            assert!(calls > 5, "an apply of {calls} calls proves little");
            return;
        };
        check(calls, &lab, &first, &second);
    }
}

#[test]
fn the_lock_keeps_a_second_controller_away() {
    // Only the very first call, for the lock's own note, is made before the lock is held.
    at_every_call(false, |calls, lab, first, second| {
        let locked = [first, second].iter().filter(|applied| matches!(applied, Applied::Locked)).count();
        assert!(locked == 1 || calls == 1, "at call {calls}: {first:?}, {second:?}");
        assert_eq!(lab.world.with(|inner| inner.tasks.len()), 3, "each vm is submitted once");
    });
}

#[test]
fn without_the_lock_the_older_one_is_stopped() {
    let mut stopped = 0;
    at_every_call(true, |calls, lab, first, second| {
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
