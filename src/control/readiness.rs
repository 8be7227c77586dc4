//! Before an apply does anything: whether this machine can do it. What cannot work for one vm cannot work for three hundred,
//! and is said once, with the mend, while nothing has happened yet.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Context, ControlError};
use crate::host::machine::readiness::{Needs, lacks};
use crate::host::machine::setup::Wanted;
use crate::model::lab::{Desired, VmGroup};
use crate::model::site::Site;
use crate::plan::{Effect, Plan};
use crate::run::RunSpec;

/// What a machine was found ready for.
#[derive(Debug, Default)]
pub(super) struct Ready {
    groups: Vec<VmGroup>,
    paths: BTreeSet<PathBuf>,
    starts_here: bool,
}

/// Refuses where the machine is not ready for what a plan does. What it was found ready for `already` is not looked at again.
pub(super) fn refuse_unready(
    context: &Context,
    desired: &Desired,
    plan: &Plan,
    already: &Ready,
) -> Result<Ready, ControlError> {
    let site = &context.site;
    if !takes_a_ready_machine(plan) || !context.is_of_this_machine() {
        return Ok(Ready::default());
    }
    let starts: Vec<&RunSpec> = plan
        .actions()
        .filter_map(|(_, action)| match &action.effect {
            Effect::Start { spec, .. } => Some(spec.as_ref()),
            _ => None,
        })
        .collect();
    let starts_here = site.scheduler.is_this_machine() && !starts.is_empty();
    let needed = Ready { groups: groups(desired, plan), paths: paths(site, &starts), starts_here };
    if already.covers(&needed) {
        return Ok(needed);
    }
    let paths: Vec<&Path> = needed.paths.iter().map(PathBuf::as_path).collect();
    let lacking = lacks(&Needs { wanted: Wanted::new(&needed.groups, site), paths: &paths, starts_here });
    if lacking.is_empty() { Ok(needed) } else { Err(ControlError::NotReady { lacking }) }
}

impl Ready {
    /// One that was never looked at covers nothing.
    fn covers(&self, needed: &Self) -> bool {
        !self.paths.is_empty()
            && (self.starts_here || !needed.starts_here)
            && needed.groups.iter().all(|group| self.groups.contains(group))
            && needed.paths.is_subset(&self.paths)
    }
}

/// Whether it does anything that a machine may not be ready for.
fn takes_a_ready_machine(plan: &Plan) -> bool {
    plan.actions().any(|(_, action)| {
        matches!(
            action.effect,
            Effect::Start { .. } | Effect::Reserve { .. } | Effect::Publish { .. } | Effect::MakeDisk { .. }
        )
    })
}

/// What the guests' account must get to: the folders of the site, and each file that qemu opens.
fn paths(site: &Site, starts: &[&RunSpec]) -> BTreeSet<PathBuf> {
    let storage = &site.storage;
    let mut paths: BTreeSet<PathBuf> = [&storage.runs, &storage.vms, &storage.templates].into_iter().cloned().collect();
    for spec in starts {
        let disks = spec.disks.iter().flat_map(|disk| std::iter::once(&disk.path).chain(&disk.backing));
        // The disks themselves are made with the right owner.
        paths.extend(disks.filter_map(|disk| disk.parent()).map(Path::to_owned));
        paths.extend(spec.hardware.cdrom.clone());
    }
    paths
}

/// The networks of the vms that the plan starts, or gives their addresses; people's own are among them.
fn groups(desired: &Desired, plan: &Plan) -> Vec<VmGroup> {
    let vms = plan.actions().filter_map(|(_, action)| match &action.effect {
        Effect::Start { spec, .. } => Some(&spec.vm),
        Effect::Reserve { vm, .. } => Some(vm),
        _ => None,
    });
    let names: BTreeSet<_> = vms.filter_map(|vm| desired.vms.get(vm)).map(|vm| &vm.vm_group).collect();
    names.into_iter().filter_map(|name| desired.vm_groups.get(name)).cloned().collect()
}
