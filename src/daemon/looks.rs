//! Looks at a lab that many share: a class that asks at one moment costs one. A look is of use to all who asked before it began, and
//! for a moment to others, as long as nobody has written into the state. There is one at a time at each lab: who asks while one goes
//! on waits for the next, with all others who do.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::current::{Stamp, stamp};
use crate::control::view::Look;
use crate::control::{Context, ControlError};
use crate::model::id::LabName;

/// What starters report is seen no later: less than anybody notices.
const FRESH: Duration = Duration::from_millis(250);

/// The latest of each lab, and the state's files as they were before it.
#[derive(Default)]
pub(super) struct Looks(Mutex<HashMap<LabName, Arc<Mutex<Latest>>>>);

type Latest = Option<([Option<Stamp>; 2], Arc<Look>)>;

impl Looks {
    /// For somebody who asked at this moment.
    pub(super) fn at(&self, context: &Context, lab: &LabName, asked: Instant) -> Result<Arc<Look>, ControlError> {
        let place = Arc::clone(locked(&self.0).entry(lab.clone()).or_default());
        // Who comes while somebody reads the records waits for these.
        let mut latest = locked(&place);
        let now = stamps(&context.site.state);
        if let Some((then, look)) = &*latest {
            if look.began_after(asked) || (*then == now && look.is_within(FRESH)) {
                return Ok(Arc::clone(look));
            }
            look.settle();
        }
        let now = stamps(&context.site.state);
        match Look::at(context, lab) {
            Ok(look) => Ok(Arc::clone(&latest.insert((now, Arc::new(look))).1)),
            Err(error) => {
                // Strangers may ask for any number of names.
                locked(&self.0).remove(lab);
                Err(error)
            }
        }
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of the state and its log: whoever writes into it changes one of them.
fn stamps(state: &Path) -> [Option<Stamp>; 2] {
    let mut log = OsString::from(state);
    log.push("-wal");
    [stamp(state), stamp(Path::new(&log))]
}
