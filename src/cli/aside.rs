//! `labwright purge`: disks that were set aside long ago.

use std::path::Path;

use super::context::Context;
use super::{Ended, LabOption};
use crate::disks;
use crate::exit::Exit;
use crate::model::address::{Address, Kind};
use crate::model::lab::Desired;
use crate::report::{Failure, Ui};
use crate::state::AsideDisk;

/// Delete disks that were set aside long ago
#[derive(Debug, clap::Args)]
#[command(after_help = "This is the only command that deletes a disk.

Example: labwright purge --older-than 90")]
pub(super) struct PurgeArguments {
    /// Days that a disk must have been set aside; the site's retention unless said here.
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u32>,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    lab: LabOption,
}

pub(super) fn vm_only(address: &Address) -> Result<(), Failure> {
    if address.kind == Kind::Vm {
        Ok(())
    } else {
        Err(Failure::new(Exit::Usage, format!("{address} has no disks: write `vm/NAME`")))
    }
}

pub(super) fn purge(arguments: &PurgeArguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, Desired { lab, .. }) = Context::of_known_lab(site, &arguments.lab.lab, ui)?;
    let mut store = context.known_store()?;
    let _lock = context.lock("purge".into())?;
    let days = arguments.older_than.unwrap_or(context.site.retention_days);
    let limit = jiff::Timestamp::now().as_second() - i64::from(days) * 24 * 60 * 60;
    // What is being put back is in use, whatever its age.
    let old = |disk: &AsideDisk| {
        disk.to.is_none() && disk.since.parse::<jiff::Timestamp>().is_ok_and(|since| since.as_second() <= limit)
    };
    let old: Vec<AsideDisk> = store.aside(&lab)?.into_iter().filter(old).collect();
    if old.is_empty() {
        ui.say(&format!(
            "no disk was set aside more than {} ago",
            if days == 1 { "1 day".to_owned() } else { format!("{days} days") }
        ));
        return Ok(Exit::Done);
    }
    for disk in &old {
        ui.say(&format!("  {} of {}, set aside {}", disk.path.display(), disk.vm, disk.since));
    }
    if !arguments.yes && ui.confirm(&format!("Delete {} for good?", disks_word(old.len()))) != Some(true) {
        return Err(Failure::new(Exit::Refused, "not confirmed; nothing was deleted")
            .hint("add `--yes` where no person looks on"));
    }
    for disk in &old {
        disks::delete(&disk.path).map_err(|error| Failure::from_error(Exit::Failed, &error))?;
        store.forget_aside(&disk.path)?;
    }
    ui.say(&format!("{} deleted", disks_word(old.len())));
    Ok(Exit::Done)
}

pub(super) fn disks_word(count: usize) -> String {
    if count == 1 { "1 disk".into() } else { format!("{count} disks") }
}
