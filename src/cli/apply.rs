//! `labwright apply`: plan, ask, act, and with `--wait` see the guests come up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use super::context::open;
use super::plan::Scope;
use super::{Ended, LabFolder, remote};
use crate::client::own_lab::{Manner, OwnLab};
use crate::control::apply::{Done, Request};
use crate::control::{self, Context, ControlError};
use crate::exit::Exit;
use crate::host::{process, signals};
use crate::model::lab::Desired;
use crate::plan::Plan;
use crate::report::terminal::Terminal;
use crate::report::{self, Failure, Ui, command, progress, shortfall};
use crate::state::Recorded;

/// Effects that run side by side unless `--parallelism` says otherwise.
pub(super) const PARALLELISM: usize = 4;

/// Make the lab as its manifest says
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright apply labs/quickstart             # shows the plan and asks
  labwright apply --yes --wait                # no question; ends when every guest uses its address

Ctrl-C once finishes and records what is under way, and ends a wait at once; twice stops at once, which is safe too.
What a guard refuses is left as it is, and the rest is done: then the exit code is 4.")]
pub(super) struct Arguments {
    /// Folder of the lab's manifests, or a plan that `labwright plan -o` kept. Without it, the folder that LABWRIGHT_LAB
    /// names, or this one.
    #[arg(value_name = "LAB|PLAN")]
    what: Option<PathBuf>,

    /// The lab's folder, written as an option.
    #[arg(long, short = 'C', value_name = "FOLDER")]
    lab: Option<PathBuf>,

    #[command(flatten)]
    scope: Scope,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    waiting: Waiting,
}

/// What all that change a lab have in common.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Options {
    /// Do not ask.
    #[arg(long, short)]
    pub(super) yes: bool,

    /// How many effects run side by side.
    #[arg(long, value_name = "N", default_value_t = PARALLELISM, value_parser = parallelism)]
    pub(super) parallelism: usize,

    /// One JSON object per line instead of text.
    #[arg(long)]
    pub(super) json: bool,

    /// How long vms are waited for, if at all.
    #[arg(skip)]
    pub(super) wait: Option<Duration>,
}

/// What those have in common that bring vms up.
#[derive(Debug, clap::Args)]
pub(super) struct Waiting {
    /// Wait until every vm that is on its way up uses its address; where vms are named, until these do.
    #[arg(long)]
    wait: bool,

    /// How long `--wait` waits.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

impl Options {
    /// For commands that only ask, if at all.
    pub(super) fn asking(yes: bool) -> Self {
        Self { yes, parallelism: PARALLELISM, json: false, wait: None }
    }

    /// Whether they say how it is done, which is for those who do it themselves.
    pub(super) fn is_of_root(&self) -> bool {
        self.json || self.parallelism != PARALLELISM
    }

    pub(super) fn waiting(&self, waiting: &Waiting) -> Self {
        Self { wait: waiting.wait.then(|| Duration::from_secs(waiting.timeout)), ..self.clone() }
    }
}

fn parallelism(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=64).contains(n)).ok_or_else(|| "give a number from 1 to 64".into())
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let what = LabFolder { place: arguments.what.clone(), option: arguments.lab.clone() }.folder()?;
    let is_manifest = what.file_name().and_then(|name| name.to_str()).is_some_and(crate::manifest::is_manifest);
    if what.is_file() && !is_manifest {
        return run_saved(arguments, &what, site, ui);
    }
    let scope = control::plan::Scope::from(&arguments.scope);
    let options = arguments.options.waiting(&arguments.waiting);
    if let Some(client) = remote::client(site) {
        let own = OwnLab::read(client, &what, scope, ui)?;
        return by_daemon(&own, "apply", &options, ui);
    }
    let context = open(site, &what)?;
    let desired = context.desired()?;
    let make = |recorded: &Recorded| scope.plan(&context, &desired, recorded);
    reconcile(&context, &desired, &make, &options, "apply", ui)
}

/// Carries out a kept plan, or refuses if another one would be made today.
fn run_saved(arguments: &Arguments, file: &Path, site: Option<&Path>, ui: &mut Ui) -> Ended {
    if !control::plan::Scope::from(&arguments.scope).is_everything() {
        return Err(Failure::new(Exit::Usage, "a kept plan has its own `--target`, `--allow` and `--refresh-only`")
            .hint("give them to `labwright plan -o FILE`"));
    }
    let saved = control::plan::read(file)?;
    let context = open(site, &saved.folder)?;
    let desired = context.desired()?;
    let make = |recorded: &Recorded| control::plan::again(&context, file, &saved, &desired, recorded);
    reconcile(&context, &saved.desired, &make, &arguments.options.waiting(&arguments.waiting), "apply", ui)
}

/// Carries out what `make` plans, and tells of it.
pub(super) fn reconcile(
    context: &Context,
    desired: &Desired,
    make: &dyn Fn(&Recorded) -> Result<Plan, ControlError>,
    options: &Options,
    doing: &str,
    ui: &mut Ui,
) -> Ended {
    let is_root = process::is_root();
    let request = Request { doing, parallelism: options.parallelism, is_root, is_agreed: options.yes, together: None };
    let mut client = Terminal::new(ui, doing, options.json, watch_interrupts);
    let done = control::apply::reconcile(context, desired, make, &request, &mut client);
    let Done { plan, summary } = done.map_err(|error| shortfall::not_begun(context, error))?;
    if !plan.is_empty() {
        let text = if options.json {
            report::apply::stream(&summary)
        } else {
            let look = options.wait.is_none().then(|| command(context, "status"));
            report::apply::text(&summary, &command(context, doing), look.as_deref())
        };
        client.ui.data(&text);
    }
    if !summary.failed.is_empty() || summary.interrupted {
        return Ok(Exit::Failed);
    }
    let ended = wait(context, desired, &plan, options, &mut client)?;
    match shortfall::left_undone(&plan) {
        Some(failure) => Err(failure),
        None => Ok(ended),
    }
}

/// The same by the daemon.
pub(super) fn by_daemon(own: &OwnLab, doing: &str, options: &Options, ui: &mut Ui) -> Ended {
    if options.parallelism != PARALLELISM {
        return Err(Failure::new(Exit::Usage, "the daemon takes no `--parallelism`; nothing was done"));
    }
    let manner = Manner { is_agreed: options.yes, is_json: options.json, wait: options.wait };
    own.carry_out(doing, &manner, &mut Terminal::new(ui, doing, options.json, watch_interrupts))
}

/// Counts Ctrl-C; the second one ends us at once, which is as safe as `kill -9`.
pub(super) fn watch_interrupts() -> Arc<AtomicU8> {
    signals::count_interrupts(|| std::process::exit(i32::from(Exit::Failed as u8)))
}

/// Waits, and ends with the table of what runs.
fn wait(context: &Context, desired: &Desired, plan: &Plan, options: &Options, client: &mut Terminal<'_>) -> Ended {
    let Some(timeout) = options.wait else { return Ok(Exit::Done) };
    let waited = control::apply::wait(context, desired, plan, timeout, client);
    client.ui.progress_done();
    let Some(waited) = waited? else { return Ok(Exit::Done) };
    let mut rows = control::view::mappings(&waited.recorded, &waited.observed, &context.site);
    rows.retain(|row| waited.vms.values().any(|name| row.name == *name));
    let format = if options.json { report::table::Format::Json } else { report::table::Format::Table };
    client.ui.data(&report::table::render(&rows, format));
    for line in progress::ends(&waited) {
        client.ui.say(&line);
    }
    shortfall::not_ready(&waited.readiness, waited.end, waited.goal).map_or(Ok(Exit::Done), Err)
}
