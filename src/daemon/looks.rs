//! Looks at a lab that many share: a class that asks at one moment costs one. A look is of use for a moment, and only as long as
//! nobody has written into the state.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::current::{Stamp, stamp};
use crate::control::view::Look;
use crate::control::{Context, ControlError};
use crate::model::id::LabName;

/// What starters report is seen no later: less than anybody notices.
const FRESH: Duration = Duration::from_millis(250);

/// The latest of each lab.
#[derive(Default)]
pub(super) struct Looks(Mutex<HashMap<LabName, Kept>>);

struct Kept {
    began: Instant,
    /// The state's files as they were before.
    stamps: [Option<Stamp>; 2],
    look: Arc<Look>,
}

impl Kept {
    fn is_fresh(&self) -> bool {
        self.began.elapsed() < FRESH
    }
}

impl Looks {
    pub(super) fn at(&self, context: &Context, lab: &LabName) -> Result<Arc<Look>, ControlError> {
        let (began, stamps) = (Instant::now(), stamps(&context.site.state));
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.retain(|_, kept| kept.is_fresh());
        if let Some(kept) = looks.get(lab).filter(|kept| kept.stamps == stamps) {
            return Ok(Arc::clone(&kept.look));
        }
        drop(looks);
        let look = Arc::new(Look::at(context, lab)?);
        let kept = Kept { began, stamps, look: Arc::clone(&look) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(lab.clone(), kept);
        Ok(look)
    }
}

/// Of the state and its log: whoever writes into it changes one of them.
fn stamps(state: &Path) -> [Option<Stamp>; 2] {
    let mut log = OsString::from(state);
    log.push("-wal");
    [stamp(state), stamp(Path::new(&log))]
}
