//! `labwright reconcile --once`: one round of the daemon's loop, by hand or by root's timer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use super::Ended;
use crate::client::{here, of_site_file};
use crate::control::apply::Done;
use crate::control::round::{self, Unwatched};
use crate::control::{Context, ControlError};
use crate::error::chain;
use crate::exit::Exit;
use crate::host::process;
use crate::model::id::LabName;
use crate::report::{self, Failure, Ui};

/// Keep every lab of the site as it was last applied
///
/// What has ended though it is to run is started again, what is to stand still is stopped, and what people asked for by command is
/// done. The files in labs' folders do not count: what they say is for `labwright apply`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "`labwright serve` does this all the time. Without it, a timer of root's may: once a minute, say.
A frozen lab is left alone, and so is all that a guard refuses. Exit code 1 if anything failed.

Example: labwright reconcile --once"
)]
pub(super) struct Arguments {
    /// One round, and no more.
    #[arg(long, required = true)]
    once: bool,
}

pub(super) fn run(_: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
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
