//! `labwright freeze` and `thaw`: nothing more shall be done, for the time being.

use std::path::Path;

use super::{Ended, LabFolder, said};
use crate::client::of_known_lab;
use crate::control::freeze as control;
use crate::model::lab::Desired;
use crate::report::{Ui, freeze as words};
use crate::state::FreezeScope;

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
    let done = control::freeze(&context, &lab, scope, arguments.why.as_deref())?;
    said(ui, &words::frozen(&done, scope, &lab))
}

pub(super) fn thaw(arguments: &ThawArguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, Desired { lab, .. }) = of_known_lab(site, &arguments.lab.folder()?)?;
    let scope = scope(arguments.all);
    let left = control::thaw(&context, &lab, scope)?;
    said(ui, &words::thawed(left.as_ref(), scope, &lab))
}

fn scope(all: bool) -> FreezeScope {
    if all { FreezeScope::Site } else { FreezeScope::Lab }
}
