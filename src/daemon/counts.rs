//! How much of what was done since the daemon began: numbers alone, nobody's name.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Counts {
    rounds: AtomicU64,
    round_micros: AtomicU64,
}

impl Counts {
    /// Does one round of the loop.
    pub(super) fn timed<T>(&self, round: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = round();
        self.rounds.fetch_add(1, Ordering::Relaxed);
        self.round_micros.fetch_add(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        done
    }
}
