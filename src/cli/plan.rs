//! `labwright plan`: everything that `apply` does but the last step.

use std::path::{Path, PathBuf};

use super::{Ended, LabFolder};
use crate::client::whole::{Shown, Whole};
use crate::control::plan as control;
use crate::model::address::AddressPattern;
use crate::report::Ui;

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
    let Arguments { lab, scope, detailed_exitcode, verbose, json, output } = arguments;
    let place = lab.folder()?;
    let (has_exit_for_changes, kept_in) = (*detailed_exitcode, output.as_deref());
    let shown = Shown { is_json: *json, is_verbose: *verbose, has_exit_for_changes, kept_in };
    Whole { site, place: &place, scope: scope.into() }.plan(shown, ui)
}
