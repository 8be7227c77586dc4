//! How far a copy is, for people who wait for it: told once a second, so that a short one says nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// What is copied: a file, or an address of the web.
    pub what: PathBuf,
    pub bytes: u64,
    /// Of so many; `None` where that is not known yet.
    pub of_bytes: Option<u64>,
    /// In this time.
    pub new_bytes: u64,
    pub took: Duration,
}

/// Who is told.
pub type Tell<'a> = dyn Fn(Copied) + 'a;

const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Meter<'a> {
    what: &'a Path,
    tell: &'a Tell<'a>,
    from: u64,
    began: Instant,
    last: Instant,
}

impl<'a> Meter<'a> {
    /// `from` bytes are there already.
    pub(super) fn new(what: &'a Path, from: u64, tell: &'a Tell<'a>) -> Self {
        let now = Instant::now();
        Self { what, tell, from, began: now, last: now }
    }

    pub(super) fn is_at(&mut self, bytes: u64, of_bytes: Option<u64>) {
        if self.last.elapsed() < PAUSE {
            return;
        }
        self.last = Instant::now();
        let new_bytes = bytes.saturating_sub(self.from);
        (self.tell)(Copied { what: self.what.to_owned(), bytes, of_bytes, new_bytes, took: self.began.elapsed() });
    }
}
