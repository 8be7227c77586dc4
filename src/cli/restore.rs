//! `labwright restore`: disks that were set aside come back.

use std::path::Path;

use super::{Ended, LabOption, vm};
use crate::control::restore::{Wanted, Which};
use crate::control::restore_as;
use crate::exit::Exit;
use crate::model::id::{UserName, VmName};
use crate::report::{Failure, Ui};

/// Put disks back that were set aside
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The disks that a vm has now are set aside in their place, so both stay within reach. The vm must
be off. Where it is not recorded, its disks wait for it, and the apply that makes it takes them.

Examples:
  labwright get aside
  labwright restore bob-gsr --set 17 && labwright apply
  labwright restore bob-gsr --as then && labwright vm start bob/then    # a copy to look into
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
    /// Leave all disks where they are, and make an isolated vm of this name with full copies of them, to look into.
    #[arg(long = "as", value_name = "NAME", conflicts_with = "undo")]
    copy: Option<VmName>,
    /// Whose that vm is; whose the disks were, unless said here.
    #[arg(long, value_name = "USER", requires = "copy")]
    owner: Option<UserName>,
    /// Do not ask, where several vms are meant.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    lab: LabOption,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let way = arguments.lab.way(site)?;
    if let Some(name) = &arguments.copy {
        let [vm] = &arguments.vms[..] else {
            return Err(Failure::new(Exit::Usage, "`--as` is for the disks of one vm"));
        };
        let (name, owner) = (name.clone(), arguments.owner.clone());
        return way.restore_as(&restore_as::Wanted { vm: vm.clone(), set: arguments.set.clone(), name, owner }, ui);
    }
    let which = match &arguments.set {
        _ if arguments.undo => Which::Undo,
        None => Which::Only,
        Some(set) => Which::Set(set.clone()),
    };
    way.restore(&Wanted { vms: arguments.vms.clone(), which }, arguments.yes, ui)
}
