//! `labwright hold`: disks that no purge deletes.

use std::path::Path;

use super::{Ended, LabOption, vm};
use crate::daemon::messages::Hold;
use crate::report::Ui;

/// Keep all disks of vms from every purge, for an appeal or an inquiry
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It is about the disks that a vm has now, and all that were or will be set aside of it. A vm that is
renamed takes it along.

Examples:
  labwright hold ana-final --until 2027-03-01 --why 'appeal of task 2'
  labwright hold ana-final --release"
)]
pub(super) struct Arguments {
    /// Vms or families, also those that have left; `*` stands for anything.
    #[arg(value_name = vm::NAMES, required = true)]
    vms: Vec<String>,
    /// The last day; without it, they are held until they are released.
    #[arg(long, value_name = "DATE")]
    until: Option<jiff::civil::Date>,
    /// Why, for those who would delete them.
    #[arg(long, value_name = "WORDS", required_unless_present = "release")]
    why: Option<String>,
    /// Hold them no more.
    #[arg(long, conflicts_with_all = ["until", "why"])]
    release: bool,
    #[command(flatten)]
    lab: LabOption,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let wanted = match &arguments.why {
        Some(why) => Hold::Hold { until: arguments.until, why: why.clone() },
        None => Hold::Release,
    };
    arguments.lab.way(site)?.hold(&arguments.vms, &wanted, ui)
}
