//! `labwright destroy`: the plan of a lab that wants nothing.

use std::path::Path;

use super::plan::Part;
use super::{Ended, LabFolder, apply};
use crate::client::own_lab::OwnLab;
use crate::client::{here, of_known_lab, way};
use crate::control::plan as control;
use crate::model::lab::Desired;
use crate::report::Ui;
use crate::state::Recorded;

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
    let (folder, scope) = (arguments.lab.folder()?, control::Scope::from(&arguments.part));
    let manner = arguments.options.manner();
    if let Some(client) = way::daemon(site) {
        return OwnLab::known(client, &folder, scope)?.carry_out("destroy", &manner, ui);
    }
    let (context, Desired { lab, .. }) = of_known_lab(site, &folder)?;
    let desired = Desired::nothing(lab);
    let make = |recorded: &Recorded| scope.plan(&context, &desired, recorded);
    here::carry_out(&context, &desired, &make, &manner, "destroy", ui)
}
