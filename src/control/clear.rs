//! What the site does not remember any more is cleared away: a piece after each apply, all of it when disks are purged.

use super::{Context, ControlError, Note};
use crate::apply::{Cleared, Clearing};
use crate::disks::Owner;
use crate::model::id::LabName;
use crate::state::{Recorded, Store};

/// How many lines of the audit one piece takes.
const ACTS_AT_ONCE: usize = 3000;

/// Clears one piece away. What was applied stands, whatever becomes of this: the next apply tries it again.
pub(super) fn piece(context: &Context, lab: &LabName, recorded: &Recorded, store: &mut Store) {
    if let Err(error) = clear(context, lab, recorded, store) {
        context.listener.note(&Note::NotCleared { error: &error });
    }
}

/// Clears all of it away, and says what that was.
pub(super) fn everything(context: &Context, lab: &LabName, store: &mut Store) -> Result<Cleared, ControlError> {
    let recorded = store.recorded(lab)?;
    let mut all = Cleared::default();
    loop {
        let piece = clear(context, lab, &recorded, store)?;
        all.runs += piece.runs;
        all.effects += piece.effects;
        all.acts += piece.acts;
        if !piece.is_full() && piece.acts < ACTS_AT_ONCE {
            return Ok(all);
        }
    }
}

fn clear(context: &Context, lab: &LabName, recorded: &Recorded, store: &mut Store) -> Result<Cleared, ControlError> {
    let scheduler = context.scheduler();
    // Removing gives nothing to anybody.
    let runs = context.runs(Owner { uid: 0, gid: 0 });
    let now = context.clock().now();
    let days_ago = |days: u32| now - jiff::SignedDuration::from_hours(24 * i64::from(days));
    let acts = store.forget_acts(days_ago(context.site.audit_days), ACTS_AT_ONCE)?;
    let before = days_ago(context.site.history_days);
    let clearing = Clearing { lab, recorded, scheduler: &*scheduler, runs: &*runs, before, now };
    Ok(Cleared { acts, ..clearing.piece(store)? })
}
