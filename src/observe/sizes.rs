//! How large disks are, where a limit of storage asks for it: those of people who are to get new ones, and what these are copied
//! from. Nobody else's is looked at, so that a plan costs what it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{ObserveError, look_at_each};
use crate::disks::Disks;
use crate::model::disk::DiskSize;
use crate::model::id::{TemplateName, UserName, VmName};
use crate::model::lab::{Desired, DiskSource, Vm, VmSource};
use crate::state::Recorded;

pub(super) fn sizes(
    disks: &dyn Disks,
    desired: &Desired,
    recorded: &Recorded,
) -> Result<BTreeMap<PathBuf, DiskSize>, ObserveError> {
    let lacks = |name: &VmName| {
        let known = recorded.vms.get(name);
        known.is_none_or(|known| known.disks.is_empty() || known.disks.iter().any(|disk| !disk.made))
    };
    let new: Vec<&Vm> = desired.vms.iter().filter(|(name, _)| lacks(name)).map(|(_, vm)| vm).collect();
    let owners: BTreeSet<&UserName> = new.iter().map(|vm| &vm.owner).collect();
    let theirs = recorded.vms.values().filter(|known| owners.contains(&known.vm.owner));
    let mut paths: BTreeSet<&Path> =
        theirs.flat_map(|known| &known.disks).filter(|disk| disk.made).map(|disk| disk.path.as_path()).collect();
    for vm in new {
        match &vm.source {
            VmSource::Derive(_) => {}
            VmSource::Clone(template) => paths.extend(of_template(desired, recorded, template)),
            VmSource::Disks(sources) => paths.extend(sources.iter().filter_map(image)),
        }
    }
    let paths: Vec<&Path> = paths.into_iter().collect();
    let found = look_at_each(&paths, disks.at_once(), |path| disks.size(path).map_err(ObserveError::Disk))?;
    Ok(paths.into_iter().zip(found).filter_map(|(path, size)| Some((path.to_owned(), size?))).collect())
}

/// Its images, and what was published of them.
fn of_template<'a>(
    desired: &'a Desired,
    recorded: &'a Recorded,
    template: &'a TemplateName,
) -> impl Iterator<Item = &'a Path> {
    let images = desired.templates.get(template).into_iter().flat_map(|template| &template.disks).filter_map(image);
    let versions = recorded.versions.iter().filter(move |((name, _), _)| name == template);
    images.chain(versions.flat_map(|(_, version)| &version.disks).map(|disk| disk.path.as_path()))
}

fn image(source: &DiskSource) -> Option<&Path> {
    match source {
        DiskSource::Image { path, .. } => Some(path),
        DiskSource::Empty { .. } | DiskSource::Fetched { .. } => None,
    }
}
