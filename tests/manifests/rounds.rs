//! Rounds of mutated inputs: a fixed number in the normal tests, as many as fit into a time in `tests/run campaign fuzz`. A round
//! that panics names the seed that repeats it. `LABWRIGHT_FUZZ_SECONDS` is the time, `LABWRIGHT_FUZZ_FROM` begins at another
//! seed, `LABWRIGHT_FUZZ_SEED` repeats one that failed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

/// xorshift64*: small, seeded, the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// Runs them; answers how many there were where it was a campaign.
pub(crate) fn campaign(name: &str, rounds_short: u64, mut round: impl FnMut(u64, &mut Random)) -> Option<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (seconds, only) = (number("LABWRIGHT_FUZZ_SECONDS"), number("LABWRIGHT_FUZZ_SEED"));
    let from = number("LABWRIGHT_FUZZ_FROM").unwrap_or(0);
    let (began, mut rounds) = (Instant::now(), 0);
    while match (only, seconds) {
        (Some(_), _) => rounds == 0,
        (None, Some(seconds)) => began.elapsed().as_secs() < seconds,
        (None, None) => rounds < rounds_short,
    } {
        let seed = only.unwrap_or(from + rounds);
        let attempt = AssertUnwindSafe(|| round(seed, &mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)));
        if let Err(panic) = catch_unwind(attempt) {
            say(&format!("{name}: LABWRIGHT_FUZZ_SEED={seed} repeats this"));
            resume_unwind(panic);
        }
        rounds += 1;
    }
    seconds.map(|_| rounds)
}

/// A campaign is watched by a person.
#[expect(clippy::print_stderr, reason = "the person who runs a campaign reads it, and the seed repeats a failure")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}
