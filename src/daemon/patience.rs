//! How long a vm is left alone whose runs keep failing: the loop would start it again for ever. In: what was started, and when.
//! Out: whether the next start's time has come. A person's start is never held up by it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::id::{LabName, VmName};

/// After the first start that was not enough; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(1800);

/// The starts of each vm that followed one another closely.
#[derive(Debug, Default)]
pub(super) struct Patience {
    starts: BTreeMap<(LabName, VmName), Starts>,
}

#[derive(Debug, Clone, Copy)]
struct Starts {
    number: u32,
    last: Instant,
}

impl Starts {
    fn pause(&self) -> Duration {
        FIRST_PAUSE.saturating_mul(1 << (self.number - 1).min(16)).min(LONGEST_PAUSE)
    }

    /// One that ran for so long did not fail for what the one before failed for.
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > LONGEST_PAUSE + self.pause()
    }
}

impl Patience {
    pub(super) fn may_start(&self, lab: &LabName, vm: &VmName, now: Instant) -> bool {
        let starts = self.starts.get(&(lab.clone(), vm.clone()));
        starts.is_none_or(|starts| now.saturating_duration_since(starts.last) >= starts.pause())
    }

    pub(super) fn started(&mut self, lab: &LabName, vm: &VmName, now: Instant) {
        self.starts.retain(|_, starts| !starts.is_over(now));
        let starts = self.starts.entry((lab.clone(), vm.clone())).or_insert(Starts { number: 0, last: now });
        *starts = Starts { number: starts.number + 1, last: now };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_keeps_failing_is_left_alone_for_ever_longer() {
        let (lab, vm, other) = ("l".parse().unwrap(), "a".parse().unwrap(), "b".parse().unwrap());
        let mut patience = Patience::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert!(patience.may_start(&lab, &vm, now));
            patience.started(&lab, &vm, now);
            let waited = (0..).step_by(30).find(|s| patience.may_start(&lab, &vm, now + Duration::from_secs(*s)));
            pauses.push(waited.unwrap());
            now += Duration::from_secs(waited.unwrap());
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1800, 1800, 1800]);
        assert!(patience.may_start(&lab, &other, now));
        now += Duration::from_secs(2 * 3600);
        patience.started(&lab, &vm, now);
        assert!(patience.may_start(&lab, &vm, now + Duration::from_secs(30)), "it ran for two hours");
    }
}
