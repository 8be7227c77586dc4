//! `labwright purge`: disks that were set aside long ago are deleted, and what the site does not remember any more.

use std::path::Path;

use super::{Ended, LabOption, vm};
use crate::client::upkeep;
use crate::report::Ui;

/// Delete disks set aside long ago, versions that nobody needs, and what is known of old runs
#[derive(Debug, clap::Args)]
#[command(
    after_help = "This is the only command that deletes a disk; what `labwright hold` holds it leaves alone. Where
no vm is named, versions of templates go, too, that were published as long ago, if no disk lies
over them, one set aside included; the latest of each template stays. Likewise images from the
web that no lab names any more. And runs that ended before the site's `history` begins are
forgotten, with what they left: some by each apply, all by this command.

Examples:
  labwright purge --older-than 90
  labwright purge 'bob-*' exam            # only of these vms"
)]
pub(super) struct Arguments {
    /// Only disks of these vms or families; `*` stands for anything.
    #[arg(value_name = vm::NAMES)]
    vms: Vec<String>,
    /// Days that a disk must have been set aside, and at least what `keep` of its template says; that, or else the site's
    /// retention, unless said here.
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u32>,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    lab: LabOption,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let Arguments { vms, older_than, yes, lab } = arguments;
    upkeep::purge(&lab.known(site)?, vms, *older_than, *yes, ui)
}
