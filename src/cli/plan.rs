//! `labwright plan`: everything that `apply` does but the last step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::context::open;
use super::{Ended, LabFolder};
use crate::control::Context;
use crate::disks;
use crate::exit::Exit;
use crate::model::address::AddressPattern;
use crate::model::lab::Desired;
use crate::plan::{Effect, Plan, SavedPlan, refresh_only, target, unknown_addresses};
use crate::report::{self, Failure, Ui};
use crate::state::Recorded;

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
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Scope {
    #[command(flatten)]
    part: Part,

    /// Only bring the records in line with what is there.
    #[arg(long)]
    refresh_only: bool,
}

/// The same, where nothing else is to be done than what is asked for.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Part {
    /// Only these addresses, such as `vm/ana-gsr`, and what they need; `*` in a name stands for anything: `vm/*-gsr`.
    #[arg(long, value_name = "ADDRESS")]
    target: Vec<AddressPattern>,

    /// Do what a guard refuses, for this address; `*` in a name stands for anything: `vm/*-gsr`.
    #[arg(long, value_name = "ADDRESS")]
    allow: Vec<AddressPattern>,
}

impl Scope {
    pub(super) fn is_everything(&self) -> bool {
        self.part.target.is_empty() && self.part.allow.is_empty() && !self.refresh_only
    }

    /// The part that a kept plan was about.
    pub(super) fn of(saved: &SavedPlan) -> Self {
        let part = Part { target: saved.targets.clone(), allow: saved.allow.clone() };
        Self { part, refresh_only: saved.refresh_only }
    }

    /// The part of the lab's plan that is meant.
    pub(super) fn plan(&self, context: &Context, desired: &Desired, recorded: &Recorded) -> Result<Plan, Failure> {
        let plan = self.part.plan(context, desired, recorded)?;
        Ok(if self.refresh_only { refresh_only(plan) } else { plan })
    }
}

impl Part {
    pub(super) fn plan(&self, context: &Context, desired: &Desired, recorded: &Recorded) -> Result<Plan, Failure> {
        let plan = context.plan(desired, recorded, &self.allow, &BTreeMap::new())?;
        refuse_unknown("--target", &self.target, desired, recorded, &plan)?;
        refuse_unknown("--allow", &self.allow, desired, recorded, &plan)?;
        Ok(if self.target.is_empty() { plan } else { target(plan, &self.target) })
    }
}

/// An address that names nothing is a slip, and one that goes unseen looks like peace.
pub(super) fn refuse_unknown(
    option: &str,
    patterns: &[AddressPattern],
    desired: &Desired,
    recorded: &Recorded,
    plan: &Plan,
) -> Result<(), Failure> {
    let unknown = unknown_addresses(patterns, desired, recorded, plan);
    let Some((pattern, near)) = unknown.first() else { return Ok(()) };
    let what = format!("`{option} {pattern}` names nothing of lab `{}`; nothing was changed", desired.lab);
    Err(Failure::new(Exit::Failed, what).hint(match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`labwright plan --verbose` lists all that there is".to_owned(),
    }))
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let context = open(site, &arguments.lab.folder()?)?;
    let (desired, recorded) = context.desired_and_recorded()?;
    let recorded = match recorded {
        Some(recorded) => recorded,
        // A kept plan speaks of one state, so there must be one.
        None if arguments.output.is_some() => context.store()?.recorded(&desired.lab)?,
        None => Recorded::nothing(),
    };
    let plan = arguments.scope.plan(&context, &desired, &recorded)?;
    let text = || report::paint::plan(&report::plan::text(&plan, arguments.verbose));
    ui.data(&if arguments.json { report::plan::stream(&plan) } else { text() });
    let (refused, empty) = (!plan.refusals.is_empty(), plan.is_empty());
    if let Some(file) = &arguments.output {
        save(
            file,
            SavedPlan {
                version: SavedPlan::VERSION,
                folder: context.lab_folder,
                desired,
                allow: arguments.scope.part.allow.clone(),
                targets: arguments.scope.part.target.clone(),
                refresh_only: arguments.scope.refresh_only,
                images: digests(images_of(&plan))?,
                plan,
            },
        )?;
        ui.say(&format!("the plan is in {}: `labwright apply {}` carries it out", file.display(), file.display()));
    }
    match (refused, empty) {
        (true, _) => Ok(Exit::Refused),
        (false, false) if arguments.detailed_exitcode => Ok(Exit::Changes),
        _ => Ok(Exit::Done),
    }
}

/// The images that a plan would publish.
fn images_of(plan: &Plan) -> BTreeSet<PathBuf> {
    let sources = plan.actions().filter_map(|(_, action)| match &action.effect {
        Effect::Publish { disks, .. } => Some(disks),
        _ => None,
    });
    sources.flatten().map(|source| source.image.clone()).collect()
}

/// Digests of images, without those that are not there.
pub(super) fn digests(images: impl IntoIterator<Item = PathBuf>) -> Result<BTreeMap<PathBuf, String>, Failure> {
    let mut digests = BTreeMap::new();
    for image in images {
        match disks::sha256(&image) {
            Ok(digest) => drop(digests.insert(image, digest)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let what = format!("cannot read the image {}", image.display());
                return Err(Failure::from_error(Exit::Failed, &error).within(what));
            }
        }
    }
    Ok(digests)
}

fn save(file: &Path, saved: SavedPlan) -> Result<(), Failure> {
    let text = serde_json::to_vec(&saved).expect("a plan has only string keys");
    crate::files::write_atomically(file, &text, 0o640, crate::files::Flush::Now)
        .map_err(crate::run::RunFileError::from)?;
    Ok(())
}
