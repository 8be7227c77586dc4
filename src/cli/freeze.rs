//! `labwright freeze` and `thaw`: nothing more shall be done, for the time being.

use std::path::Path;

use super::context::of_known_lab;
use super::{Ended, LabFolder};
use crate::control::freeze::{self as control, Freeze};
use crate::exit::Exit;
use crate::model::id::LabName;
use crate::model::lab::Desired;
use crate::report::{Ui, times};
use crate::state::{FreezeScope, Frozen};

/// Stop all reconciling of a lab until `labwright thaw`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: labwright freeze exam-lab --why 'exam in room 303 until noon'")]
pub(super) struct FreezeArguments {
    #[command(flatten)]
    lab: LabFolder,

    /// Freeze every lab of the site.
    #[arg(long)]
    all: bool,

    /// Shown to everybody whose plan is refused.
    #[arg(long)]
    why: Option<String>,
}

/// Let plans be applied again
#[derive(Debug, clap::Args)]
pub(super) struct ThawArguments {
    #[command(flatten)]
    lab: LabFolder,

    /// Thaw the site; labs that were frozen by themselves stay so.
    #[arg(long)]
    all: bool,
}

pub(super) fn freeze(arguments: &FreezeArguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, Desired { lab, .. }) = of_known_lab(site, &arguments.lab.folder()?)?;
    let scope = scope(arguments.all);
    let (thing, thaw) = (what(scope, &lab), thaw_command(scope));
    match control::freeze(&context, &lab, scope, arguments.why.as_deref())? {
        Freeze::Already(Frozen { who, since, why, .. }) => {
            let since = times::local(since);
            ui.say(&format!("{thing} is frozen already, by {who} at {since} ({why}); `{thaw}` ends it"));
        }
        Freeze::Done => ui.say(&format!("{thing} is frozen: plans are shown and not applied until `{thaw}`")),
    }
    Ok(Exit::Done)
}

pub(super) fn thaw(arguments: &ThawArguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, Desired { lab, .. }) = of_known_lab(site, &arguments.lab.folder()?)?;
    let thing = what(scope(arguments.all), &lab);
    match control::thaw(&context, &lab, scope(arguments.all))? {
        None => ui.say(&format!("{thing} is thawed: plans are applied again")),
        Some(Frozen { who, why, scope, .. }) => {
            let (other, thaw) = (what(scope, &lab), thaw_command(scope));
            ui.say(&format!("{thing} is thawed, but {other} is frozen by {who} ({why}) until `{thaw}`"));
        }
    }
    Ok(Exit::Done)
}

fn scope(all: bool) -> FreezeScope {
    if all { FreezeScope::Site } else { FreezeScope::Lab }
}

fn thaw_command(scope: FreezeScope) -> &'static str {
    match scope {
        FreezeScope::Site => "labwright thaw --all",
        FreezeScope::Lab => "labwright thaw",
    }
}

fn what(scope: FreezeScope, lab: &LabName) -> String {
    match scope {
        FreezeScope::Site => "the whole site".into(),
        FreezeScope::Lab => format!("lab `{lab}`"),
    }
}
