//! What the site does not remember any more is cleared away: a piece after each apply, all of it by `purge`.

use crate::apply::{ClearError, Cleared, Clearing};
use crate::control::Context;
use crate::disks::Owner;
use crate::model::id::LabName;
use crate::report::{Failure, Ui};
use crate::state::{Recorded, Store};

/// Clears one piece away. What was applied stands, whatever becomes of this: the next apply tries it again.
pub(super) fn piece(context: &Context, lab: &LabName, recorded: &Recorded, store: &mut Store, ui: &Ui) {
    if let Err(error) = cleared(context, lab, recorded, |clearing| clearing.piece(store)) {
        let why: Vec<String> = std::iter::once(error.message).chain(error.causes).collect();
        ui.say(&format!("warning: what is long over is not cleared away: {}", why.join(": ")));
    }
}

/// Clears all of it away, and says what that was.
pub(super) fn everything(context: &Context, lab: &LabName, store: &mut Store, ui: &Ui) -> Result<(), Failure> {
    let recorded = store.recorded(lab)?;
    let mut all = Cleared::default();
    loop {
        let piece = cleared(context, lab, &recorded, |clearing| clearing.piece(store))?;
        all.runs += piece.runs;
        all.effects += piece.effects;
        if !piece.is_full() {
            break;
        }
    }
    if all != Cleared::default() {
        let (runs, effects, days) = (all.runs, all.effects, context.site.history_days);
        ui.say(&format!(
            "forgotten, since they ended more than {days} days ago: {runs} runs, {effects} effects of applies"
        ));
    }
    Ok(())
}

fn cleared(
    context: &Context,
    lab: &LabName,
    recorded: &Recorded,
    clear: impl FnOnce(&Clearing<'_>) -> Result<Cleared, ClearError>,
) -> Result<Cleared, Failure> {
    let scheduler = context.scheduler()?;
    // Removing gives nothing to anybody.
    let runs = context.runs(Owner { uid: 0, gid: 0 });
    let now = jiff::Timestamp::now();
    let before = now - jiff::SignedDuration::from_hours(24 * i64::from(context.site.history_days));
    let clearing = Clearing { lab, recorded, scheduler: &*scheduler, runs: &runs, before, now };
    clear(&clearing).map_err(|error| Failure::from_error(crate::exit::Exit::Failed, &error))
}
