//! `labwright apply`: plan, ask, act, and with `--wait` see the guests come up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::plan::Scope;
use super::{Ended, LabFolder};
use crate::client::here::{self, Manner};
use crate::client::whole::Whole;
use crate::report::Ui;

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
    yes: bool,

    /// How many effects run side by side.
    #[arg(long, value_name = "N", default_value_t = here::PARALLELISM, value_parser = parallelism)]
    parallelism: usize,

    /// One JSON object per line instead of text.
    #[arg(long)]
    json: bool,
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
    pub(super) fn manner(&self) -> Manner {
        let Self { yes, parallelism, json } = *self;
        Manner { is_agreed: yes, parallelism, is_json: json, wait: None }
    }

    pub(super) fn waiting(&self, waiting: &Waiting) -> Manner {
        Manner { wait: waiting.wait.then(|| Duration::from_secs(waiting.timeout)), ..self.manner() }
    }
}

fn parallelism(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=64).contains(n)).ok_or_else(|| "give a number from 1 to 64".into())
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let Arguments { what, lab, scope, options, waiting } = arguments;
    let place = LabFolder { place: what.clone(), option: lab.clone() }.folder()?;
    Whole { site, place: &place, scope: scope.into() }.apply(&options.waiting(waiting), ui)
}
