//! How many may be here at once: who comes when it is full is told so at once, and tries again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// Below the 1024 files that a process may have open unless somebody raised it: the state needs some, too.
const CONNECTIONS_MAX: usize = 512;
/// Of one account; root's count like anybody's, since root needs no daemon.
const CONNECTIONS_OF_ONE_MAX: usize = 64;
/// Requests of one account that are worked on or wait for it: one person's flood is not everybody's.
const REQUESTS_OF_ONE_MAX: usize = 2;
/// Decisions are made one after the other anyway; what they decide is done side by side.
const ACTS: usize = 4;
/// Each reads the state and asks the queue.
const LOOKS: usize = 4;

pub(super) struct Bounds {
    pub(super) connections: Counted,
    pub(super) requests: Counted,
    pub(super) acts: Arc<Semaphore>,
    pub(super) looks: Arc<Semaphore>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: Counted::new(CONNECTIONS_MAX, CONNECTIONS_OF_ONE_MAX),
            requests: Counted::new(CONNECTIONS_MAX, REQUESTS_OF_ONE_MAX),
            acts: Arc::new(Semaphore::new(ACTS)),
            looks: Arc::new(Semaphore::new(LOOKS)),
        }
    }
}

/// Counts by account, with a limit in all and for each.
#[derive(Clone)]
pub(super) struct Counted {
    by_uid: Arc<Mutex<HashMap<u32, usize>>>,
    all_max: usize,
    of_one_max: usize,
}

impl Counted {
    fn new(all_max: usize, of_one_max: usize) -> Self {
        Self { by_uid: Arc::default(), all_max, of_one_max }
    }

    /// One more of this account, until the place is dropped; `None` where there is none left.
    pub(super) fn take(&self, uid: u32) -> Option<Place> {
        let mut counts = self.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let own = counts.get(&uid).copied().unwrap_or_default();
        if all >= self.all_max || own >= self.of_one_max {
            return None;
        }
        counts.insert(uid, own + 1);
        Some(Place { of: self.clone(), uid })
    }
}

/// One place that is taken.
pub(super) struct Place {
    of: Counted,
    uid: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.of.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = counts.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_account_takes_no_place_of_others() {
        let counted = Counted::new(3, 2);
        let own: Vec<_> = [7, 7, 7].map(|uid| counted.take(uid)).into_iter().flatten().collect();
        assert_eq!(own.len(), 2);
        let other = counted.take(8);
        assert!(other.is_some() && counted.take(9).is_none(), "three in all");
        drop(own);
        assert!(counted.take(7).is_some(), "what ended counts no more");
    }
}
