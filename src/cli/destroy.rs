//! `labwright destroy`: the plan of a lab that wants nothing.

use std::path::Path;

use super::plan::Part;
use super::{Ended, LabFolder, apply};
use crate::client::whole::Whole;
use crate::report::Ui;

/// Stop the whole lab and set its disks aside
#[derive(Debug, clap::Args)]
#[command(after_help = "Nothing of a student is deleted: disks go to the site's set-aside folder.

The manifest may be broken or gone: the state knows what there is. Where the folder is gone too, name the lab.

Example: labwright destroy labs/quickstart --yes")]
pub(super) struct Arguments {
    #[command(flatten)]
    lab: LabFolder,

    #[command(flatten)]
    part: Part,

    #[command(flatten)]
    options: apply::Options,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let place = arguments.lab.folder()?;
    Whole { site, place: &place, scope: (&arguments.part).into() }.destroy(&arguments.options.manner(), ui)
}
