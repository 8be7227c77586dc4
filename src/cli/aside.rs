//! `labwright restore` and `purge`: disks that were set aside.

use std::path::Path;

use super::context::Context;
use super::{Ended, LabOption, pick};
use crate::address::{Address, Kind};
use crate::disks;
use crate::exit::Exit;
use crate::report::{Failure, Ui};
use crate::resolve::Desired;
use crate::state::AsideDisk;

/// Put a vm's disks back that were set aside last
#[derive(Debug, clap::Args)]
#[command(after_help = "The vm must have no disks now. The next apply takes the disks that it finds in their place.

Example: labwright restore vm/bob-gsr && labwright apply")]
pub(super) struct RestoreArguments {
    /// The vm, by its name or as `vm/NAME`.
    #[arg(value_parser = pick::address)]
    address: Address,
    #[command(flatten)]
    lab: LabOption,
}

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

pub(super) fn restore(arguments: &RestoreArguments, site: Option<&Path>, ui: &Ui) -> Ended {
    vm_only(&arguments.address)?;
    let (context, Desired { lab, .. }) = Context::of_known_lab(site, &arguments.lab.lab, ui)?;
    let mut store = context.known_store()?;
    let _lock = context.lock(format!("restore {}", arguments.address))?;
    let recorded = store.recorded(&lab)?;
    let name = &arguments.address.name;
    if recorded.vms.get(name.as_str()).is_some_and(|vm| !vm.disks.is_empty()) {
        return Err(Failure::new(Exit::Refused, format!("vm `{name}` has disks; nothing was changed"))
            .hint("its disks of now must be set aside first: take it out of the manifest and apply"));
    }
    let aside: Vec<AsideDisk> = store.aside(&lab)?.into_iter().filter(|disk| disk.vm == *name).collect();
    let Some(latest) = aside.iter().map(|disk| disk.since.clone()).max() else {
        return Err(Failure::new(Exit::Failed, format!("no disk of vm `{name}` was set aside"))
            .hint("`labwright get aside` lists all"));
    };
    for disk in aside.iter().filter(|disk| disk.since == latest) {
        let folder = disk.was.parent().unwrap_or(Path::new("/"));
        disks::set_aside(std::slice::from_ref(&disk.path), folder, context.owner()?)
            .map_err(|error| Failure::from_error(Exit::Failed, &error))?;
        store.forget_aside(&disk.path)?;
        ui.say(&format!("{} is back in its place", disk.was.display()));
    }
    ui.say("next: `labwright apply` takes it into use");
    Ok(Exit::Done)
}

pub(super) fn purge(arguments: &PurgeArguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, Desired { lab, .. }) = Context::of_known_lab(site, &arguments.lab.lab, ui)?;
    let mut store = context.known_store()?;
    let _lock = context.lock("purge".into())?;
    let days = arguments.older_than.unwrap_or(context.site.retention_days);
    let limit = jiff::Timestamp::now().as_second() - i64::from(days) * 24 * 60 * 60;
    let old = |disk: &AsideDisk| disk.since.parse::<jiff::Timestamp>().is_ok_and(|since| since.as_second() <= limit);
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
