//! `labwright restore`, `purge` and `import`: disks that were set aside, and disks that come from elsewhere.

use std::path::{Path, PathBuf};

use super::context::Context;
use super::plan::Scope;
use super::{Ended, LabOption};
use crate::address::{Address, Kind};
use crate::disks;
use crate::exit::Exit;
use crate::plan::Effect;
use crate::report::{Failure, Ui};
use crate::state::{AsideDisk, Change, RecordedDisk, StateError, Store};

/// Put a vm's disks back that were set aside last
#[derive(Debug, clap::Args)]
#[command(after_help = "The vm must have no disks now. The next apply takes the disks that it finds in their place.

Example: labwright restore vm/bob-gsr && labwright apply")]
pub(super) struct RestoreArguments {
    /// The vm, as `vm/NAME`.
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

/// Take over an existing qcow2 as the disk of a vm that was never applied
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The file is copied and stays where it is. A job that carries our mark needs no import: the next
apply adopts it.

Example: labwright import vm/doraz-old --disk /srv/doraz.qcow2"
)]
pub(super) struct ImportArguments {
    /// The vm, as `vm/NAME`; it must stand in the manifest.
    address: Address,
    /// The disk; several for a vm with several.
    #[arg(long, value_name = "FILE", required = true)]
    disk: Vec<PathBuf>,
    #[command(flatten)]
    lab: LabOption,
}

fn vm_only(address: &Address) -> Result<(), Failure> {
    if address.kind == Kind::Vm {
        Ok(())
    } else {
        Err(Failure::new(Exit::Usage, format!("{address} has no disks: write `vm/NAME`")))
    }
}

pub(super) fn restore(arguments: &RestoreArguments, site: Option<&Path>, ui: &Ui) -> Ended {
    vm_only(&arguments.address)?;
    let (context, lab) = Context::of_known_lab(site, &arguments.lab.lab, ui)?;
    let _lock = context.lock(format!("restore {}", arguments.address))?;
    let mut store = Store::open(&context.site.state)?;
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
    let (context, lab) = Context::of_known_lab(site, &arguments.lab.lab, ui)?;
    let _lock = context.lock("purge".into())?;
    let mut store = Store::open(&context.site.state)?;
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
        match std::fs::remove_file(&disk.path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(
                    Failure::from_error(Exit::Failed, &source).within(format!("cannot delete {}", disk.path.display()))
                );
            }
            _ => store.forget_aside(&disk.path)?,
        }
    }
    ui.say(&format!("{} deleted", disks_word(old.len())));
    Ok(Exit::Done)
}

fn disks_word(count: usize) -> String {
    if count == 1 { "1 disk".into() } else { format!("{count} disks") }
}

pub(super) fn import(arguments: &ImportArguments, site: Option<&Path>, ui: &Ui) -> Ended {
    vm_only(&arguments.address)?;
    let context = Context::new(site, &arguments.lab.lab, ui)?;
    let desired = context.desired(ui)?;
    let mut store = context.store()?;
    let _lock = context.lock(format!("import {}", arguments.address))?;
    let recorded = store.recorded(&desired.lab)?;
    let plan = Scope::default().plan(&context, &desired, &recorded)?;
    let record =
        plan.changes.iter().filter(|change| change.address == arguments.address).flat_map(|change| &change.actions);
    let record = record.into_iter().find_map(|action| match &action.effect {
        Effect::RecordVm { name, vm, ip, mac, .. } if !recorded.vms.contains_key(name) => Some((name, vm, *ip, *mac)),
        _ => None,
    });
    let Some((name, vm, ip, mac)) = record else {
        return Err(Failure::new(
            Exit::Refused,
            format!("{} is not a vm of the manifest that was never applied", arguments.address),
        )
        .hint("write it into the manifest first; a vm that has disks keeps them"));
    };
    let owner = context.owner()?;
    let folder = context.site.storage.vms.join(desired.lab.as_str()).join(name.as_str());
    let mut changes = vec![Change::PutVm { name: name.clone(), vm: vm.clone(), ip, mac, version: None }];
    for (slot, file) in (0..).zip(&arguments.disk) {
        let path = folder.join(format!("disk-{slot}.qcow2"));
        for made in disks::clone_full(file, std::slice::from_ref(&path), owner) {
            made.map_err(|error| {
                Failure::from_error(Exit::Failed, &error).within(format!("cannot import {}", file.display()))
            })?;
        }
        changes.push(Change::PutDisk {
            vm: name.clone(),
            disk: RecordedDisk { slot, path, base: None, made: true, moving_to: None },
        });
    }
    record_import(&mut store, &desired.lab, &changes)?;
    ui.say(&format!(
        "{} has {} of its own now, at {ip}; next: `labwright apply`",
        arguments.address,
        disks_word(arguments.disk.len())
    ));
    Ok(Exit::Done)
}

fn record_import(store: &mut Store, lab: &crate::id::LabName, changes: &[Change]) -> Result<(), StateError> {
    store.record(lab, changes, jiff::Timestamp::now())
}
