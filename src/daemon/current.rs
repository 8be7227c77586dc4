//! The site as its file says it now: who is taken out of it has no rights from the next request on. Where storage, state and
//! network are is settled for as long as we run, and a file with mistakes changes nothing.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::control::Context;

/// What tells whether a file is another one.
pub(super) type Stamp = (u64, i64, i64, u64);

pub(super) struct Current {
    seen: Mutex<(Option<Stamp>, Context)>,
}

impl Current {
    pub(super) fn new(context: Context) -> Self {
        let stamp = context.site.file.as_deref().and_then(stamp);
        Self { seen: Mutex::new((stamp, context)) }
    }

    pub(super) fn context(&self) -> Context {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = seen.1.site.file.as_deref().and_then(stamp);
        if now.is_some() && now != seen.0 {
            seen.0 = now;
            match seen.1.with_people_of_now() {
                Ok(context) => seen.1 = context,
                Err(error) => tracing::warn!(%error, "site.yaml has changed and is not understood: the old one counts"),
            }
        }
        seen.1.clone()
    }
}

pub(super) fn stamp(file: &Path) -> Option<Stamp> {
    let found = file.metadata().ok()?;
    Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
}
