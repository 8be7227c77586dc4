//! How many may be here at once: who comes when it is full is told so at once, and tries again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::Semaphore;

/// A large course with a window open each.
const CONNECTIONS_MAX: u64 = 2048;
/// Open files that the state, reports and programs need beside them.
const FILES_BESIDE: u64 = 512;
/// Of one account; root's count like anybody's, since root needs no daemon.
const CONNECTIONS_OF_ONE_MAX: usize = 64;
/// Requests of one account that are worked on or wait for it: one person's flood is not everybody's.
const REQUESTS_OF_ONE_MAX: usize = 2;
/// Decisions are made one after the other anyway; what they decide is done side by side.
const ACTS: usize = 4;
/// Each reads the state and asks the queue.
const LOOKS: usize = 4;
/// Each waits for a guest on a thread of its own.
const COPIES: usize = 2;
const GUESTS: usize = 16;

/// Requests that one account may make at a moment, after it made none for a while.
const BURST: f64 = 60.0;
/// And for how long it waits between two from then on.
const REFILL: Duration = Duration::from_millis(100);
/// Streams of one account that tell of vms, each of which keeps its connection.
const STREAMS_OF_ONE_MAX: usize = 8;
/// Labs that are sent at once.
const UPLOADS_MAX: usize = 4;
const UPLOADS_OF_ONE_MAX: usize = 1;

pub(super) struct Bounds {
    pub(super) rates: Rates,
    pub(super) streams: Counted,
    pub(super) connections: Counted,
    pub(super) requests: Counted,
    pub(super) acts: Arc<Semaphore>,
    pub(super) looks: Arc<Semaphore>,
    /// Questions to guests, each of which waits for its guest.
    pub(super) guests: Arc<Semaphore>,
    /// Disks that are moved or copied beside any plan.
    pub(super) copies: Arc<Semaphore>,
    /// Labs that are sent: each may be large, and whoever is slow keeps nobody else waiting.
    pub(super) uploads: Counted,
}

impl Bounds {
    /// Raises how many files this process may have open as far as it is let, and takes no more connections than these allow.
    pub(super) fn as_files_allow() -> Self {
        let wanted = CONNECTIONS_MAX + FILES_BESIDE;
        let files = match getrlimit(Resource::RLIMIT_NOFILE) {
            Ok((soft, hard)) if soft < wanted => {
                let more = wanted.min(hard);
                if setrlimit(Resource::RLIMIT_NOFILE, more, hard).is_ok() { more } else { soft }
            }
            _ => wanted,
        };
        Self::of(usize::try_from(files.saturating_sub(FILES_BESIDE)).unwrap_or(usize::MAX).max(CONNECTIONS_OF_ONE_MAX))
    }

    fn of(connections_max: usize) -> Self {
        Self {
            rates: Rates::default(),
            streams: Counted::new(connections_max, STREAMS_OF_ONE_MAX),
            connections: Counted::new(connections_max, CONNECTIONS_OF_ONE_MAX),
            requests: Counted::new(connections_max, REQUESTS_OF_ONE_MAX),
            acts: Arc::new(Semaphore::new(ACTS)),
            looks: Arc::new(Semaphore::new(LOOKS)),
            guests: Arc::new(Semaphore::new(GUESTS)),
            copies: Arc::new(Semaphore::new(COPIES)),
            uploads: Counted::new(UPLOADS_MAX, UPLOADS_OF_ONE_MAX),
        }
    }
}

/// How often each account asks: a bucket of tokens each, which fills again with time.
#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<u32, (f64, Instant)>>);

impl Rates {
    /// One more request; where there are too many, how long to wait for the next.
    pub(super) fn take(&self, uid: u32, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = |tokens: f64, since: Instant| {
            let new = now.saturating_duration_since(since).as_secs_f64() / REFILL.as_secs_f64();
            (tokens + new).min(BURST)
        };
        // A full one is as good as none.
        buckets.retain(|of, (tokens, since)| *of == uid || filled(*tokens, *since) < BURST);
        let (tokens, since) = buckets.entry(uid).or_insert((BURST, now));
        *tokens = filled(*tokens, *since);
        *since = now;
        if *tokens < 1.0 {
            return Err(REFILL.mul_f64(1.0 - *tokens));
        }
        *tokens -= 1.0;
        Ok(())
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

    /// How many there are, of all accounts.
    pub(super) fn all(&self) -> usize {
        self.by_uid.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
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

    #[test]
    fn who_asks_too_often_waits_and_others_do_not() {
        let (rates, mut now) = (Rates::default(), Instant::now());
        let taken = (0..100).filter(|_| rates.take(7, now).is_ok()).count();
        assert_eq!(taken, 60);
        assert!(rates.take(8, now).is_ok(), "another account");
        let wait = rates.take(7, now).unwrap_err();
        assert!(wait <= REFILL && !wait.is_zero());
        now += wait;
        assert!(rates.take(7, now).is_ok() && rates.take(7, now).is_err());
        now += Duration::from_secs(60);
        assert_eq!((0..100).filter(|_| rates.take(7, now).is_ok()).count(), 60, "never more than the first burst");
    }
}
