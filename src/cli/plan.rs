//! `labwright plan`: everything that `apply` does but the last step.

use std::path::{Path, PathBuf};

use super::{Ended, LabFolder};
use crate::client::own_lab::OwnLab;
use crate::client::{open, way};
use crate::control::plan as control;
use crate::exit::Exit;
use crate::model::address::AddressPattern;
use crate::plan::Plan;
use crate::report::{self, Failure, Ui};

/// Show what would change, and change nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright plan labs/quickstart
  labwright plan --detailed-exitcode          # in CI: 0 no change, 2 changes
  labwright plan -o exam.plan && labwright apply exam.plan
  labwright plan --target 'vm/alice-*'
  labwright plan --json | jq 'select(.type == \"change\")'")]
pub(super) struct Arguments {
    #[command(flatten)]
    lab: LabFolder,

    #[command(flatten)]
    scope: Scope,

    /// Exit with 2 when there are changes.
    #[arg(long)]
    detailed_exitcode: bool,

    /// Show every field, user, group and permission.
    #[arg(long, short)]
    verbose: bool,

    /// One JSON object per line instead of text.
    #[arg(long)]
    json: bool,

    /// Keep this exact plan in a file for `labwright apply FILE`.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Which part of a plan is meant, and which guards are.
#[derive(Debug, clap::Args)]
pub(super) struct Scope {
    #[command(flatten)]
    part: Part,

    /// Only bring the records in line with what is there.
    #[arg(long)]
    refresh_only: bool,
}

/// The same, where nothing else is to be done than what is asked for.
#[derive(Debug, clap::Args)]
pub(super) struct Part {
    /// Only these addresses, such as `vm/ana-gsr`, and what they need; `*` in a name stands for anything: `vm/*-gsr`.
    #[arg(long, value_name = "ADDRESS")]
    target: Vec<AddressPattern>,

    /// Do what a guard refuses, for this address; `*` in a name stands for anything: `vm/*-gsr`.
    #[arg(long, value_name = "ADDRESS")]
    allow: Vec<AddressPattern>,
}

impl From<&Scope> for control::Scope {
    fn from(typed: &Scope) -> Self {
        Self { refresh_only: typed.refresh_only, ..Self::from(&typed.part) }
    }
}

impl From<&Part> for control::Scope {
    fn from(typed: &Part) -> Self {
        Self { targets: typed.target.clone(), allow: typed.allow.clone(), refresh_only: false }
    }
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let folder = arguments.lab.folder()?;
    if let Some(client) = way::daemon(site) {
        if arguments.output.is_some() {
            return Err(Failure::new(Exit::Usage, "the daemon keeps no plans in files; nothing was done")
                .hint("without `-o`, `labwright apply` shows the plan and asks"));
        }
        let plan = OwnLab::read(client, &folder, control::Scope::from(&arguments.scope), ui)?.plan(ui)?;
        return Ok(show(&plan, arguments, ui));
    }
    let context = open(site, &folder)?;
    let scope = control::Scope::from(&arguments.scope);
    let (desired, plan) = scope.fresh(&context, arguments.output.is_some())?;
    let exit = show(&plan, arguments, ui);
    if let Some(file) = &arguments.output {
        control::save(file, &scope.keep(&context, desired, plan)?)?;
        ui.say(&format!("the plan is in {}: `labwright apply {}` carries it out", file.display(), file.display()));
    }
    Ok(exit)
}

/// The plan, and what it means for whoever calls this.
fn show(plan: &Plan, arguments: &Arguments, ui: &Ui) -> Exit {
    let text = || report::paint::plan(&report::plan::text(plan, arguments.verbose));
    ui.data(&if arguments.json { report::plan::stream(plan) } else { text() });
    match (!plan.refusals.is_empty(), plan.is_empty()) {
        (true, _) => Exit::Refused,
        (false, false) if arguments.detailed_exitcode => Exit::Changes,
        _ => Exit::Done,
    }
}
