//! `labwright restore`: disks that were set aside come back.

use std::path::Path;

use super::context::of_known_lab;
use super::{Ended, LabOption, vm};
use crate::control::restore::{self as control, Wanted, Which};
use crate::exit::Exit;
use crate::model::address::Address;
use crate::model::id::VmName;
use crate::report::{Failure, Ui};

/// Put disks back that were set aside
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The disks that a vm has now are set aside in their place, so both stay within reach. The vm must
be off. Where it is not recorded, its disks wait for it, and the apply that makes it takes them.

Examples:
  labwright get aside
  labwright restore bob-gsr --set 17 && labwright apply
  labwright restore exam --set 2027-01-12     # every vm of the family that has such disks"
)]
pub(super) struct Arguments {
    /// Vms or families that have disks set aside; `*` stands for anything.
    #[arg(value_name = vm::NAMES, required = true)]
    vms: Vec<String>,
    /// Which set, by its name in `get aside` or by the beginning of its date in UTC; needed where there are several.
    #[arg(long, value_name = "SET")]
    set: Option<String>,
    /// Set disks aside again that were put back and whose vm is not recorded.
    #[arg(long, conflicts_with = "set")]
    undo: bool,
    /// Do not ask, where several vms are meant.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    lab: LabOption,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, desired) = of_known_lab(site, &arguments.lab.lab)?;
    let which = match &arguments.set {
        _ if arguments.undo => Which::Undo,
        None => Which::Only,
        Some(set) => Which::Set(set.clone()),
    };
    let mut wanted = Wanted { vms: arguments.vms.clone(), which };
    if !arguments.yes {
        let names = control::meant(&context, &desired, &wanted)?;
        // One vm that is named is meant; of several a person may not have thought of all.
        if names.len() > 1 {
            ask(names.iter().map(VmName::as_str).collect(), &wanted, ui)?;
        }
        wanted.vms = names.iter().map(|name| Address::vm(name).to_string()).collect();
    }
    control::restore(&context, &desired, &wanted, &mut |moved| {
        for place in &moved.aside {
            ui.say(&format!("{} has what the vm had until now", place.display()));
        }
        for place in &moved.back {
            ui.say(&format!("{} is back in its place", place.display()));
        }
    })?;
    ui.say("next: `labwright apply` takes it from here");
    Ok(Exit::Done)
}

fn ask(names: Vec<&str>, wanted: &Wanted, ui: &Ui) -> Result<(), Failure> {
    ui.say(&format!("{} vms: {}", names.len(), names.join(", ")));
    let undo = wanted.which == Which::Undo;
    let question = if undo { "Set their disks aside again?" } else { "Put their disks back?" };
    match ui.confirm(question) {
        Some(true) => Ok(()),
        _ => Err(Failure::new(Exit::Refused, "not confirmed; nothing was changed")
            .hint("add `--yes` where no person looks on")),
    }
}
