//! All labs of a site, one after the other: what one refuses holds up no other.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use super::{Ended, Manner, here, of_site_file, open};
use crate::control::apply::Done;
use crate::control::round::{self, Unwatched};
use crate::control::{Context, ControlError, forget};
use crate::error::chain;
use crate::exit::Exit;
use crate::host::process;
use crate::model::id::LabName;
use crate::plan::LostHost;
use crate::report::{self, Failure, Ui};
use crate::state::Recorded;

/// One round: every lab is kept as it was applied.
pub fn reconcile(site: Option<&Path>, ui: &Ui) -> Ended {
    if !process::is_root() {
        return Err(Failure::new(Exit::Refused, "keeping labs as they were applied takes root; nothing was done"));
    }
    let context = of_site_file(site)?;
    let interrupts = here::watch_interrupts();
    let found = round::look(&context, &|_, _| true)?;
    let mut ended = Exit::Done;
    for (lab, found) in found.labs {
        let kept = found.and_then(|_| keep(&context, &lab, &interrupts));
        if !tell(&lab, kept, ui) {
            ended = Exit::Failed;
        }
    }
    for (lab, came) in round::submissions(&context, found.waiting, report::collect::WORDS) {
        if let Err(error) = came {
            ui.say(&format!("error: submissions of lab `{lab}` are not all collected: {}", chain(&error)));
            ended = Exit::Failed;
        }
    }
    round::over(&context);
    Ok(ended)
}

/// Nothing where by now it needs nothing that may be done.
fn keep(context: &Context, lab: &LabName, interrupts: &Arc<AtomicU8>) -> Result<Option<Done>, ControlError> {
    let mut client = Unwatched::new(Arc::clone(interrupts));
    match round::keep(context, lab, &|_, _| true, &mut client) {
        Err(ControlError::PlanRefused) => Ok(None),
        kept => kept.map(Some),
    }
}

/// Whether all went well.
fn tell(lab: &LabName, kept: Result<Option<Done>, ControlError>, ui: &Ui) -> bool {
    match kept {
        Ok(None) => true,
        Ok(Some(Done { plan, .. })) if plan.is_empty() => true,
        Ok(Some(Done { plan, summary })) => {
            ui.data(&report::plan::text(&plan, false));
            ui.data(&report::apply::text(&summary, "labwright reconcile --once", None));
            summary.failed.is_empty() && !summary.interrupted
        }
        Err(error) => {
            ui.say(&format!("error: lab `{lab}` is not kept as it was applied: {}", chain(&error)));
            false
        }
    }
}

/// A host that is lost is given up, by the lab in this folder alone or by all of the site.
pub fn forget(lost: &LostHost, only: Option<&Path>, manner: &Manner, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let context = open(site, only.unwrap_or(Path::new(".")))?;
    let labs = forget::labs(&context, lost, only.is_some())?;
    let host = &lost.name;
    let mut worst = Exit::Done;
    for (context, desired) in &labs {
        let make = |recorded: &Recorded| forget::plan(context, desired, recorded, lost);
        let ended = here::carry_out(context, desired, &make, manner, &format!("host forget {host}"), ui);
        let ended = ui.ended(ended);
        worst = if worst == Exit::Done { ended } else { worst };
    }
    if labs.is_empty() {
        ui.say(&format!("nothing to do: no vm on {host} is unknown; the batch system takes some time to miss a host"));
    } else if worst == Exit::Done {
        ui.say("the next `labwright apply` starts them elsewhere");
    }
    Ok(worst)
}
