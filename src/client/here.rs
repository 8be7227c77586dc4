//! What is done on the state itself, by who may: a plan that is shown, asked about and carried out, in the words of a terminal.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use super::Ended;
use crate::control::apply::{Done, Request};
use crate::control::{self, Context, ControlError};
use crate::exit::Exit;
use crate::host::{process, signals};
use crate::model::lab::Desired;
use crate::plan::Plan;
use crate::report::terminal::Terminal;
use crate::report::{self, Ui, command, progress, shortfall};
use crate::state::Recorded;

/// Effects that run side by side unless somebody wants it otherwise.
pub const PARALLELISM: usize = 4;

/// How somebody wants it done.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Whatever plan comes out: nobody is asked.
    pub is_agreed: bool,
    /// How many effects run side by side.
    pub parallelism: usize,
    /// One JSON object per line instead of text.
    pub is_json: bool,
    /// How long vms are waited for, if at all.
    pub wait: Option<Duration>,
}

impl Manner {
    /// For commands that only ask, if at all.
    pub fn asking(is_agreed: bool) -> Self {
        Self { is_agreed, parallelism: PARALLELISM, is_json: false, wait: None }
    }

    /// Whether it says how it is done, which is for those who do it themselves.
    pub(super) fn is_of_root(&self) -> bool {
        self.is_json || self.parallelism != PARALLELISM
    }
}

/// Carries out what `make` plans, and tells of it.
pub fn carry_out(
    context: &Context,
    desired: &Desired,
    make: &dyn Fn(&Recorded) -> Result<Plan, ControlError>,
    manner: &Manner,
    doing: &str,
    ui: &mut Ui,
) -> Ended {
    let is_root = process::is_root();
    let request =
        Request { doing, parallelism: manner.parallelism, is_root, is_agreed: manner.is_agreed, together: None };
    let mut client = Terminal::new(ui, doing, manner.is_json, watch_interrupts);
    let done = control::apply::reconcile(context, desired, make, &request, &mut client);
    let Done { plan, summary } = done.map_err(|error| shortfall::not_begun(context, error))?;
    if !plan.is_empty() {
        let text = if manner.is_json {
            report::apply::stream(&summary)
        } else {
            let look = manner.wait.is_none().then(|| command(context, "status"));
            report::apply::text(&summary, &command(context, doing), look.as_deref())
        };
        client.ui.data(&text);
    }
    if !summary.failed.is_empty() || summary.interrupted {
        return Ok(Exit::Failed);
    }
    let ended = wait(context, desired, &plan, manner, &mut client)?;
    match shortfall::left_undone(&plan) {
        Some(failure) => Err(failure),
        None => Ok(ended),
    }
}

/// Counts Ctrl-C; the second one ends us at once, which is as safe as `kill -9`.
pub fn watch_interrupts() -> Arc<AtomicU8> {
    signals::count_interrupts(|| std::process::exit(i32::from(Exit::Failed as u8)))
}

/// Waits, and ends with the table of what runs.
fn wait(context: &Context, desired: &Desired, plan: &Plan, manner: &Manner, client: &mut Terminal<'_>) -> Ended {
    let Some(timeout) = manner.wait else { return Ok(Exit::Done) };
    let waited = control::apply::wait(context, desired, plan, timeout, client);
    client.ui.progress_done();
    let Some(waited) = waited? else { return Ok(Exit::Done) };
    let mut rows = control::view::mappings(&waited.recorded, &waited.observed, &context.site);
    rows.retain(|row| waited.vms.values().any(|name| row.name == *name));
    let format = if manner.is_json { report::table::Format::Json } else { report::table::Format::Table };
    client.ui.data(&report::table::render(&rows, format));
    for line in progress::ends(&waited) {
        client.ui.say(&line);
    }
    shortfall::not_ready(&waited.readiness, waited.end, waited.goal).map_or(Ok(Exit::Done), Err)
}
