//! A lab as it was found at one moment, for all who look at it then: what each of them may see of it is judged for each.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::View;
use crate::control::{Context, ControlError};
use crate::model::id::LabName;
use crate::model::lab::Desired;
use crate::observe::Observed;
use crate::resolve::with_claims;
use crate::state::Recorded;

/// One look.
#[derive(Debug)]
pub struct Look {
    folder: PathBuf,
    desired: Desired,
    recorded: Recorded,
    /// Before anything was read.
    begun: Instant,
    /// When the records had been read.
    read: Instant,
    /// Looked for by the first who asks, while the others wait: by then the records have been read.
    observed: Mutex<Option<(Arc<Observed>, Instant)>>,
}

impl Look {
    /// At a lab as it was last applied, with what people asked for by command.
    pub fn at(context: &Context, lab: &LabName) -> Result<Self, ControlError> {
        let begun = Instant::now();
        let (context, desired, recorded) = context.of_recorded_lab(lab)?;
        let desired = with_claims(&desired, &recorded.claims).into_owned();
        let (folder, read) = (context.lab_folder, Instant::now());
        Ok(Self { folder, desired, recorded, begun, read, observed: Mutex::default() })
    }

    /// Whether it ended so short a time ago, or goes on: however slow it is, who asks meanwhile waits for it.
    pub fn is_within(&self, age: Duration) -> bool {
        let ended = match self.observed.try_lock() {
            Ok(observed) => observed.as_ref().map_or(self.read, |(_, ended)| *ended),
            Err(TryLockError::WouldBlock) => return true,
            Err(TryLockError::Poisoned(_)) => return false,
        };
        ended.elapsed() < age
    }

    /// Whether it sees all that was there at this moment.
    pub fn began_after(&self, moment: Instant) -> bool {
        self.begun >= moment
    }

    /// Waits until somebody who observes for it is done.
    pub fn settle(&self) {
        drop(self.observed.lock());
    }

    /// For one who looks, and who knows the site.
    pub fn seen_by<T>(&self, context: &Context, see: impl FnOnce(&View<'_>) -> T) -> T {
        let context = context.with_lab(self.folder.clone());
        let (desired, recorded) = (Cow::Borrowed(&self.desired), Cow::Borrowed(&self.recorded));
        see(&View { context: &context, desired, recorded, shared: Some(self) })
    }

    pub(super) fn observed(&self, context: &Context) -> Result<Arc<Observed>, ControlError> {
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((seen, _)) = &*observed {
            return Ok(Arc::clone(seen));
        }
        let seen = Arc::new(context.observe(&self.desired, &self.recorded)?);
        *observed = Some((Arc::clone(&seen), Instant::now()));
        Ok(seen)
    }
}
