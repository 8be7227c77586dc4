//! `labwright apply`: plan, ask, act, and with `--wait` see the guests come up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::plan::Scope;
use super::{Ended, LabFolder};
use crate::client::here::{self, Manner};
use crate::client::own_lab::OwnLab;
use crate::client::{open, way};
use crate::control;
use crate::exit::Exit;
use crate::report::{Failure, Ui};
use crate::state::Recorded;

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
    let what = LabFolder { place: arguments.what.clone(), option: arguments.lab.clone() }.folder()?;
    let is_manifest = what.file_name().and_then(|name| name.to_str()).is_some_and(crate::manifest::is_manifest);
    if what.is_file() && !is_manifest {
        return run_saved(arguments, &what, site, ui);
    }
    let scope = control::plan::Scope::from(&arguments.scope);
    let manner = arguments.options.waiting(&arguments.waiting);
    if let Some(client) = way::daemon(site) {
        return OwnLab::read(client, &what, scope, ui)?.carry_out("apply", &manner, ui);
    }
    let context = open(site, &what)?;
    let desired = context.desired()?;
    let make = |recorded: &Recorded| scope.plan(&context, &desired, recorded);
    here::carry_out(&context, &desired, &make, &manner, "apply", ui)
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
    here::carry_out(&context, &saved.desired, &make, &arguments.options.waiting(&arguments.waiting), "apply", ui)
}
