//! `labwright vm show`: one vm, with what opens its screen.

use std::path::Path;

use super::{Ended, LabOption};
use crate::client::Way;
use crate::exit::Exit;
use crate::model::id::VmName;
use crate::report::table::Format;
use crate::report::{Ui, full_vm};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The vm, such as `doraz/mine`.
    #[arg(value_name = "VM")]
    vm: VmName,
    #[command(flatten)]
    lab: LabOption,
    /// How it is written; in words unless this is given.
    #[arg(long, short, value_enum)]
    output: Option<Format>,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let Arguments { vm, lab, output } = arguments;
    let full = Way::to(site, &lab.lab)?.vm(vm)?;
    ui.data(&full_vm::text(&full, *output));
    Ok(Exit::Done)
}
