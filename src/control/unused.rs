//! Versions of templates that nobody needs any more: neither the latest, from which new vms come, nor below any disk, one that was
//! set aside included. They go when somebody purges, and not before they are as old as a disk would have to be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::aside::refuse_frozen;
use super::journal::{Decides, Lab, Order, Step};
use super::{Context, ControlError};
use crate::disks;
use crate::model::address::{Address, Kind};
use crate::model::id::TemplateName;
use crate::model::lab::{Desired, VmSource};
use crate::state::{Change, Recorded, RecordedVm};

/// A version that can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    pub template: TemplateName,
    pub version: u32,
    pub since: String,
    pub disks: Vec<PathBuf>,
}

/// Those that were published more than `days` ago, by template, oldest first. They are shown to whoever asks, who may say no.
pub fn meant(context: &Context, desired: &Desired, days: u32) -> Result<Vec<Unused>, ControlError> {
    let mut store = context.known_store()?;
    let recorded = store.recorded(&desired.lab)?;
    refuse_frozen(&recorded)?;
    let mut since = store.published(&desired.lab)?;
    let limit = jiff::Timestamp::now().as_second() - i64::from(days) * 24 * 60 * 60;
    let is_old = |since: &str| since.parse::<jiff::Timestamp>().is_ok_and(|since| since.as_second() <= limit);
    let unused = unused(desired, &recorded).into_iter().filter_map(|(template, version)| {
        let since = since.remove(&(template.to_string(), version)).filter(|since| is_old(since))?;
        let disks =
            recorded.versions[&(template.clone(), version)].disks.iter().map(|disk| disk.path.clone()).collect();
        Some(Unused { template, version, since, disks })
    });
    Ok(unused.collect())
}

fn unused(desired: &Desired, recorded: &Recorded) -> Vec<(TemplateName, u32)> {
    let of_vms = recorded.vms.values().flat_map(|vm| &vm.disks);
    let waiting = recorded.waiting.values().flat_map(|waiting| &waiting.disks);
    let aside = recorded.aside.values().flatten().flat_map(|set| &set.disks);
    let below: BTreeSet<&Path> = of_vms
        .chain(waiting)
        .map(|disk| &disk.base)
        .chain(aside.map(|disk| &disk.base))
        .flatten()
        .map(PathBuf::as_path)
        .collect();
    // A disk of a vm that is lost, or was not made yet, comes from the version that its others are of.
    let is_of = |vm: &RecordedVm, template: &TemplateName, version: u32| match &vm.vm.source {
        VmSource::Derive(from) | VmSource::Clone(from) => from == template && vm.version == Some(version),
        VmSource::Disks(_) => false,
    };
    let is_wanted = |template: &TemplateName| {
        let address = Address::new(Kind::Template, template);
        desired.templates.contains_key(template) || recorded.objects.contains_key(&address)
    };
    let is_unused = |(template, version): &&(TemplateName, u32)| {
        let is_latest = recorded.next_version(template) == version + 1;
        let disks = &recorded.versions[&((*template).clone(), *version)].disks;
        let is_needed = is_latest && is_wanted(template)
            || disks.iter().any(|disk| below.contains(disk.path.as_path()))
            || recorded.vms.values().any(|vm| is_of(vm, template, *version));
        !is_needed
    };
    recorded.versions.keys().filter(is_unused).cloned().collect()
}

/// Deletes these versions for good, and answers how many that were. One that came into use meanwhile is let be.
pub fn delete(context: &Context, desired: &Desired, meant: &[Unused]) -> Result<usize, ControlError> {
    context.audited(Some(&desired.lab), delete_each(context, desired, meant))
}

fn delete_each(context: &Context, desired: &Desired, meant: &[Unused]) -> Result<usize, ControlError> {
    let mut store = context.known_store()?;
    let decides = Decides::begin(context, "purge".into())?;
    let recorded = store.recorded(&desired.lab)?;
    refuse_frozen(&recorded)?;
    let unused = unused(desired, &recorded);
    let still = |one: &&Unused| unused.contains(&(one.template.clone(), one.version));
    let versions: Vec<&Unused> = meant.iter().filter(still).collect();
    let address = |one: &Unused| Address::new(Kind::Template, &one.template);
    for one in &versions {
        recorded.refuse_held(&address(one))?;
    }
    let step = |one: &&'_ Unused| {
        let disks = one.disks.clone();
        let act = move || disks.iter().try_for_each(|disk| Ok(disks::delete(disk)?));
        let after = vec![Change::DropVersion { template: one.template.clone(), version: one.version }];
        let effect = "delete the version for good";
        Step { address: address(one), effect, before: Vec::new(), act: Box::new(act), after }
    };
    let lab = Lab { name: &desired.lab, after: recorded.latest, doing: "purged" };
    let summary = match versions.len() {
        1 => "1 version of a template to delete".to_owned(),
        number => format!("{number} versions of templates to delete"),
    };
    let failed = lab.carry_out(&mut store, decides, &summary, Order::Any, versions.iter().map(step).collect())?;
    failed.into_iter().next().map_or(Ok(versions.len()), Err)
}
