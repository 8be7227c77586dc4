//! `labwright purge`: disks that were set aside long ago are deleted, and what the site does not remember any more.

use std::path::Path;

use super::context::of_known_lab;
use super::{Ended, LabOption, vm};
use crate::apply::Cleared;
use crate::control::aside::disks_word;
use crate::control::purge as control;
use crate::exit::Exit;
use crate::report::{Failure, Ui, times};
use crate::state::AsideDisk;

/// Delete disks that were set aside long ago, and forget runs that are long over
#[derive(Debug, clap::Args)]
#[command(
    after_help = "This is the only command that deletes a disk. Runs that ended before the site's `history` begins
are forgotten too, with what they left, where no vm is named: some by each apply, all by this command.

Examples:
  labwright purge --older-than 90
  labwright purge 'bob-*' exam            # only of these vms"
)]
pub(super) struct Arguments {
    /// Only disks of these vms or families; `*` stands for anything.
    #[arg(value_name = vm::NAMES)]
    vms: Vec<String>,
    /// Days that a disk must have been set aside; the site's retention unless said here.
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u32>,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    lab: LabOption,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, desired) = of_known_lab(site, &arguments.lab.lab)?;
    let days = arguments.older_than.unwrap_or(context.site.retention_days);
    let disks = control::meant(&context, &desired, &arguments.vms, days)?;
    if disks.is_empty() {
        let whose = if arguments.vms.is_empty() { "" } else { " of these vms" };
        let days = if days == 1 { "1 day".to_owned() } else { format!("{days} days") };
        ui.say(&format!("no disk{whose} was set aside more than {days} ago"));
    } else {
        ask(&disks, arguments.yes, ui)?;
        let deleted = control::delete(&context, &desired, &disks)?;
        ui.say(&format!("{} deleted", disks_word(deleted)));
    }
    if arguments.vms.is_empty() {
        tell_of_forgotten(control::forget_old_runs(&context, &desired)?, context.site.history_days, ui);
    }
    Ok(Exit::Done)
}

fn ask(disks: &[AsideDisk], yes: bool, ui: &Ui) -> Result<(), Failure> {
    for disk in disks {
        ui.say(&format!("  {} of {}, set aside {}", disk.path.display(), disk.vm, times::local_text(&disk.since)));
    }
    if yes || ui.confirm(&format!("Delete {} for good?", disks_word(disks.len()))) == Some(true) {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "not confirmed; nothing was deleted").hint("add `--yes` where no person looks on"))
}

fn tell_of_forgotten(Cleared { runs, effects }: Cleared, days: u32, ui: &Ui) {
    if (runs, effects) != (0, 0) {
        ui.say(&format!(
            "forgotten, since they ended more than {days} days ago: {runs} runs, {effects} effects of applies"
        ));
    }
}
