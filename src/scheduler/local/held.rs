//! Byte ranges of the file `held`, and what a lock on each means. A lock is inherited with the file's descriptor and freed by the
//! kernel when the last process that has it ends (see `files::ranges`).
//!
//! ```text
//! 0 .. 2^31                     slots, one byte each
//! 2^31 .. 2^32                  memory, one byte per MEMORY_UNIT_MIB
//! 2^40 + job * 2^21 ..          one job: 2^20 bytes for pending tasks, 2^20 for running ones
//! ```

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

pub(super) use crate::files::ranges::{lock, locked, unlock};

/// Memory is handed out in these units: fine enough for small guests, coarse enough that a terabyte fits its range.
pub(super) const MEMORY_UNIT_MIB: u64 = 16;

/// Tasks of one job; the width of a job's two ranges.
pub(super) const TASKS_MAX: u32 = (1 << 20) - 1;

/// Where the memory's range starts, and so the most slots there can be.
const MEMORY_START: u64 = 1 << 31;
const MEMORY_END: u64 = 1 << 32;
const JOBS_START: u64 = 1 << 40;
const TASK_SPAN: u64 = 1 << 20;

/// The first `count` slots.
pub(super) fn slots(count: u32) -> Range<u64> {
    0..u64::from(count).min(MEMORY_START)
}

/// All bytes that can be slots: a site that became smaller still has its old ones in use.
pub(super) fn all_slots() -> Range<u64> {
    0..MEMORY_START
}

/// The memory units of a site with `mib` MiB.
pub(super) fn memory(mib: u64) -> Range<u64> {
    MEMORY_START..(MEMORY_START + mib / MEMORY_UNIT_MIB).min(MEMORY_END)
}

pub(super) fn all_memory() -> Range<u64> {
    MEMORY_START..MEMORY_END
}

/// Everything of one job.
pub(super) fn job(job: u64) -> Range<u64> {
    let start = JOBS_START + job * 2 * TASK_SPAN;
    start..start + 2 * TASK_SPAN
}

/// Bytes of a job's pending tasks; task n has byte n.
pub(super) fn pending(of: u64) -> Range<u64> {
    let start = job(of).start;
    start..start + TASK_SPAN
}

/// Bytes of a job's running tasks; task n has byte n.
pub(super) fn running(of: u64) -> Range<u64> {
    let start = pending(of).end;
    start..start + TASK_SPAN
}

/// The byte of one task in a job's range.
pub(super) fn task(range: &Range<u64>, task: u32) -> Range<u64> {
    let byte = range.start + u64::from(task);
    byte..byte + 1
}

/// `held`, to lock in; made where it is missing.
pub(super) fn open(folder: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(folder.join(HELD))
}

/// `held`, to look at only.
pub(super) fn open_to_look(folder: &Path) -> io::Result<File> {
    File::open(folder.join(HELD))
}

pub(super) const HELD: &str = "held";

/// What `locked` leaves of `range`, lowest first, cut to `count` bytes; `None` where there are fewer.
pub(super) fn choose_free(range: &Range<u64>, locked: &[Range<u64>], count: u64) -> Option<Vec<Range<u64>>> {
    let mut chosen = Vec::new();
    let (mut missing, mut at) = (count, range.start);
    let end = range.end..range.end;
    for taken in locked.iter().chain([&end]) {
        let length = taken.start.saturating_sub(at).min(missing);
        if length > 0 {
            chosen.push(at..at + length);
            missing -= length;
        }
        at = at.max(taken.end);
    }
    (missing == 0).then_some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_of_other_descriptions_are_seen_and_go_with_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (open(folder.path()).unwrap(), open(folder.path()).unwrap());
        assert!(lock(&theirs, &(3..5)).unwrap());
        assert!(lock(&theirs, &(9..10)).unwrap());
        assert!(!lock(&ours, &(4..6)).unwrap());
        assert!(lock(&ours, &(5..6)).unwrap());
        let look = open_to_look(folder.path()).unwrap();
        assert_eq!(locked(&look, &(0..100)).unwrap(), [3..5, 5..6, 9..10]);
        assert_eq!(locked(&look, &(4..9)).unwrap(), [4..5, 5..6]);
        unlock(&theirs, &(3..4)).unwrap();
        assert_eq!(locked(&ours, &(0..100)).unwrap(), [4..5, 9..10]);
        drop(theirs);
        assert_eq!(locked(&ours, &(0..100)).unwrap(), []);
    }

    #[test]
    fn free_bytes_are_taken_from_the_gaps() {
        assert_eq!(choose_free(&(0..10), &[2..4, 5..9], 3), Some(vec![0..2, 4..5]));
        assert_eq!(choose_free(&(0..10), &[2..4, 5..9], 4), Some(vec![0..2, 4..5, 9..10]));
        assert_eq!(choose_free(&(0..10), &[2..4, 5..9], 5), None);
        assert_eq!(choose_free(&(0..10), &[], 0), Some(vec![]));
        assert_eq!(choose_free(&(4..6), std::slice::from_ref(&(0..20)), 1), None);
    }

    #[test]
    fn ranges_never_meet() {
        assert!(all_slots().end <= all_memory().start && all_memory().end <= job(0).start);
        assert_eq!(job(0).end, job(1).start);
        assert!(task(&running(7), TASKS_MAX).end <= job(8).start);
        assert!(task(&pending(7), TASKS_MAX).end <= running(7).start);
        assert_eq!(memory(33).end - memory(33).start, 2);
    }
}
