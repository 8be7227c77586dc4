//! What of a site a lab has whose owners plan and apply it from their own accounts. In: the share, and the lab as it is wanted.
//! Out: what goes beyond it. The share holds whoever applies the lab: the files that say what it wants are its owners'.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::id::{UserGroupName, UserName, VmGroupName};
use super::lab::{Desired, DiskSource, Hardware, Object, PowerState, VmGroup, VmSource};

/// Who owns a lab, and how much of the site is theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabShare {
    pub owners: BTreeSet<UserName>,
    /// Groups of the machine whose members own it as well.
    pub owner_groups: BTreeSet<UserGroupName>,
    /// First and last address of each range.
    pub ranges: Vec<(Ipv4Addr, Ipv4Addr)>,
    pub bridges: BTreeSet<String>,
    pub vlans: BTreeSet<u16>,
    /// Folders below which its images are.
    pub image_roots: Vec<PathBuf>,
    /// How many of its vms may run at once; as many as the site has room for where none is written.
    pub running_vms: Option<u32>,
    /// How much memory its running vms may have together.
    pub memory_mib: Option<u64>,
}

/// Something that a lab wants and that is not its.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beyond {
    Range(VmGroupName),
    Bridge(VmGroupName),
    Vlan(VmGroupName),
    /// Of a template or a vm.
    Image {
        of: Object,
        path: PathBuf,
    },
    /// A cd: the guest's host opens it by its name, where a link could lead anywhere by then.
    Cdrom {
        of: Object,
        path: PathBuf,
    },
    StorageFolder(UserName),
    /// So many vms are to run by the manifest.
    Running(u32),
    /// So much memory those have together.
    Memory(u64),
}

impl LabShare {
    /// All that a lab wants beyond its share.
    pub fn beyond(&self, lab: &Desired) -> Vec<Beyond> {
        let groups = lab.vm_groups.iter().flat_map(|(name, group)| self.beyond_network(name, group));
        let templates = lab.templates.iter().flat_map(|(name, template)| {
            self.beyond_roots(&template.disks, &template.hardware, &Object::Template(name.clone()))
        });
        let vms = lab.vms.iter().flat_map(|(name, vm)| {
            let disks: &[DiskSource] = if let VmSource::Disks(disks) = &vm.source { disks } else { &[] };
            self.beyond_roots(disks, &vm.hardware, &Object::Vm(name.clone()))
        });
        let folders = lab.users.iter().filter(|(_, user)| user.storage_folder.is_some());
        let folders = folders.map(|(name, _)| Beyond::StorageFolder(name.clone()));
        groups.chain(templates).chain(vms).chain(folders).chain(self.beyond_hosts(lab)).collect()
    }

    fn beyond_network(&self, name: &VmGroupName, group: &VmGroup) -> impl Iterator<Item = Beyond> {
        let is_within = |(first, last): &(Ipv4Addr, Ipv4Addr)| *first <= group.range.first && group.range.last <= *last;
        let range = !self.ranges.iter().any(is_within);
        let vlan = group.vlan.is_some_and(|vlan| !self.vlans.contains(&vlan));
        // A group with a vlan has a bridge of its own, named after it unless it says otherwise.
        let is_of_vlan = group.vlan.is_some_and(|vlan| group.bridge == VmGroup::bridge_of_vlan(vlan));
        let bridge = !is_of_vlan && !self.bridges.contains(&group.bridge);
        let found = [
            range.then(|| Beyond::Range(name.clone())),
            vlan.then(|| Beyond::Vlan(name.clone())),
            bridge.then(|| Beyond::Bridge(name.clone())),
        ];
        found.into_iter().flatten()
    }

    fn beyond_roots(&self, disks: &[DiskSource], hardware: &Hardware, of: &Object) -> Vec<Beyond> {
        let images = disks.iter().filter_map(|disk| match disk {
            DiskSource::Image { path, .. } => Some(path.clone()),
            // What is fetched is no file of anybody's: a site that lets a lab's owners name one says so by no folder.
            DiskSource::Fetched { url, .. } => Some(url.into()),
            DiskSource::Empty { .. } => None,
        });
        let outside = images.filter(|image| !self.has_image(image));
        let images = outside.map(|path| Beyond::Image { of: of.clone(), path });
        let cdrom = hardware.cdrom.iter().cloned().map(|path| Beyond::Cdrom { of: of.clone(), path });
        images.chain(cdrom).collect()
    }

    /// Whether an image is below one of its roots, as its path is written.
    pub fn has_image(&self, image: &Path) -> bool {
        self.image_roots.iter().any(|root| image.starts_with(root) && image != root)
    }

    fn beyond_hosts(&self, lab: &Desired) -> impl Iterator<Item = Beyond> + use<> {
        let running = || lab.vms.values().filter(|vm| vm.state == PowerState::Running);
        let number = u32::try_from(running().count()).unwrap_or(u32::MAX);
        let memory: u64 = running().map(|vm| u64::from(vm.hardware.memory_mib)).sum();
        let too_many = self.running_vms.filter(|limit| number > *limit).map(|_| Beyond::Running(number));
        let too_much = self.memory_mib.filter(|limit| memory > *limit).map(|_| Beyond::Memory(memory));
        too_many.into_iter().chain(too_much)
    }
}
