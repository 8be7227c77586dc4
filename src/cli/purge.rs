//! `labwright purge`: disks that were set aside long ago are deleted, and what the site does not remember any more.

use std::path::Path;

use super::{Ended, LabOption, vm};
use crate::control::{purge as control, unused};
use crate::exit::Exit;
use crate::report::{Ui, aside, templates};

/// Delete disks set aside long ago, versions that nobody needs, and what is known of old runs
#[derive(Debug, clap::Args)]
#[command(
    after_help = "This is the only command that deletes a disk; what `labwright hold` holds it leaves alone. Where
no vm is named, versions of templates go, too, that were published as long ago, if no disk lies
over them, one set aside included; the latest of each template stays. And runs that ended before
the site's `history` begins are forgotten, with what they left: some by each apply, all by this
command.

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
    let (context, desired) = arguments.lab.known(site)?;
    let days = arguments.older_than.unwrap_or(context.site.retention_days);
    let control::Old { disks, held } = control::meant(&context, &desired, &arguments.vms, days)?;
    aside::held(&held).iter().for_each(|line| ui.say(line));
    if disks.is_empty() {
        ui.say(&aside::none_old(!arguments.vms.is_empty(), days));
    } else {
        let (lines, question) = aside::deletes(&disks);
        lines.iter().for_each(|line| ui.say(line));
        if !arguments.yes {
            ui.confirmed(&question, "deleted")?;
        }
        ui.say(&aside::deleted(control::delete(&context, &desired, &disks)?));
    }
    if arguments.vms.is_empty() {
        let versions = unused::meant(&context, &desired, days)?;
        if !versions.is_empty() {
            templates::unused(&versions).iter().for_each(|line| ui.say(line));
            if !arguments.yes {
                ui.confirmed(&templates::delete_question(versions.len()), "deleted of templates")?;
            }
            ui.say(&templates::deleted(unused::delete(&context, &desired, &versions)?));
        }
        let cleared = control::forget_old_runs(&context, &desired)?;
        aside::forgotten(cleared, context.site.history_days).iter().for_each(|line| ui.say(line));
    }
    Ok(Exit::Done)
}
