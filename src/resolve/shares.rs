//! What of a site a lab has whose owners apply it from their own accounts: read from the site's settings, and held against what
//! the lab's manifest wants, with the places where it wants more.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::Resolver;
use super::site::Builder;
use crate::manifest::{At, ImagePlace, IpRange, LabShareDecl, Named, Size, Spanned, VmGroupDecl};
use crate::model::id::{LabName, VmGroupName};
use crate::model::lab::{Desired, Object};
use crate::model::rules::Rule;
use crate::model::share::{Beyond, LabShare};
use crate::model::site::Site;

/// The addresses that a range means, the first and the last.
fn ends(range: IpRange) -> (Ipv4Addr, Ipv4Addr) {
    match range {
        IpRange::Addresses(first, last) => (first, last),
        IpRange::Network(net) => {
            // As of a vm group: the network's own address and the one for all are no guest's.
            let inner = u32::from(net.prefix_len() < 31);
            let (first, last) = (u32::from(net.network()) + inner, u32::from(net.broadcast()) - inner);
            (first.into(), last.into())
        }
    }
}

impl Builder {
    /// The labs that have owners. What would give one lab what is another's, or the site's own, is an error.
    pub(super) fn shares(&mut self, decls: &Named<LabName, LabShareDecl>, site: &mut Site) {
        for (name, decl) in decls.iter() {
            let share = self.share(decl, site);
            self.check_share(name, decl, &share, site);
            self.check_others(decl, &share, site);
            site.labs.insert(name.value.clone(), share);
        }
    }

    fn share(&self, decl: &LabShareDecl, site: &Site) -> LabShare {
        let bridges = decl.bridges.iter().map(|bridge| bridge.value.0.clone());
        LabShare {
            owners: decl.owners.iter().map(|owner| owner.value.clone()).collect(),
            owner_groups: decl.owner_groups.iter().map(|group| group.value.clone()).collect(),
            ranges: decl.ip_ranges.iter().map(|range| ends(range.value)).collect(),
            bridges: match decl.key("bridges") {
                Some(_) => bridges.collect(),
                None => BTreeSet::from([site.all_vms.bridge.clone()]),
            },
            vlans: decl.vlans.iter().filter_map(|vlan| u16::try_from(vlan.value).ok()).collect(),
            image_roots: decl.image_roots.iter().map(|root| self.path(Some(root), PathBuf::new())).collect(),
            running_vms: decl.running_vms.as_ref().map(|number| number.value),
            memory_mib: decl.memory.as_ref().map(|memory| memory.mib()),
        }
    }

    fn check_share(&mut self, name: &Spanned<LabName>, decl: &LabShareDecl, share: &LabShare, site: &Site) {
        if share.owners.is_empty() && share.owner_groups.is_empty() {
            self.note(name, "nobody owns this lab", "write `owners: [NAME]`, or remove the lab: root applies any");
        }
        if share.ranges.is_empty() {
            self.note(name, "no vm of this lab could have an address", "write `ip_ranges: [192.168.100.0/24]`");
        }
        for (range, (first, last)) in decl.ip_ranges.iter().zip(&share.ranges) {
            if last < first {
                self.note(range, "this range ends before it begins", &format!("write `{last}-{first}`"));
            }
        }
        for vlan in decl.vlans.iter().filter(|vlan| !(1..=4094).contains(&vlan.value)) {
            self.note(vlan, "this is not a vlan", "vlans are numbers from 1 to 4094");
        }
        for (written, root) in decl.image_roots.iter().zip(&share.image_roots) {
            if let Some(own) = own_folders(site).find(|own| root.starts_with(own) || own.starts_with(root)) {
                let message = format!("the owners of this lab would get at what others have in {}", own.display());
                self.note(written, &message, "give the images a folder of their own, such as `/srv/images/lan`");
            }
        }
        if let Some(none) = decl.running_vms.as_ref().filter(|number| number.value == 0) {
            self.note(none, "no vm of this lab would ever start", "leave it out for no limit of the lab's own");
        }
    }

    /// Addresses are one lab's alone; those of `all_vms` are everybody's.
    fn check_others(&mut self, decl: &LabShareDecl, share: &LabShare, site: &Site) {
        let common = (site.all_vms.range.first, site.all_vms.range.last);
        for (written, range) in decl.ip_ranges.iter().zip(&share.ranges) {
            let shared = |(_, other): &(&LabName, &(Ipv4Addr, Ipv4Addr))| {
                let (first, last) = (range.0.max(other.0), range.1.min(other.1));
                first <= last && !(common.0 <= first && last <= common.1)
            };
            let others = site.labs.iter().flat_map(|(name, other)| other.ranges.iter().map(move |range| (name, range)));
            if let Some((other, (first, last))) = others.into_iter().find(shared) {
                let message = format!("lab `{other}` has addresses of this range too: {first}-{last}");
                self.note(written, &message, "give each lab addresses of its own");
            }
        }
    }
}

/// Where the site keeps what belongs to all labs.
fn own_folders(site: &Site) -> impl Iterator<Item = &Path> {
    let storage = &site.storage;
    [&storage.runs, &storage.templates, &storage.vms, &storage.aside, &storage.submissions]
        .into_iter()
        .map(PathBuf::as_path)
        .chain(site.state.parent())
}

impl Resolver<'_> {
    /// What the lab wants and the site does not give it.
    pub(super) fn share(&mut self, desired: &Desired) {
        let Some(share) = self.site.labs.get(&desired.lab) else { return };
        let mut said = BTreeSet::new();
        for beyond in share.beyond(desired) {
            let Some(at) = self.place_beyond(&beyond, desired) else { continue };
            let (message, hint) = words(&beyond, share, desired);
            // The vms of a family all want the same.
            if said.insert((at.file, at.start, message.clone())) {
                self.note(Rule::BeyondShare, at, message, hint);
            }
        }
    }

    fn place_beyond(&self, beyond: &Beyond, desired: &Desired) -> Option<At> {
        let manifest = self.manifest;
        let lab = manifest.lab.as_ref().map(|lab| lab.at);
        let group = |name: &VmGroupName| manifest.vm_groups.iter().find(|(key, _)| key.value == *name);
        match beyond {
            // The predefined group is written nowhere.
            Beyond::Range(name) => group(name).map(|(_, decl)| decl.ip_range.at).or(lab),
            Beyond::Bridge(name) => {
                let written = |decl: &VmGroupDecl| decl.bridge.as_ref().map(|bridge| bridge.at);
                group(name).map(|(key, decl)| written(decl).unwrap_or(key.at)).or(lab)
            }
            Beyond::Vlan(name) => group(name).and_then(|(_, decl)| decl.vlan.as_ref()).map(|vlan| vlan.at).or(lab),
            Beyond::Image { of, path } | Beyond::Cdrom { of, path } => {
                let (at, disks, cdrom) = match of {
                    Object::Template(name) => {
                        let (key, decl) = manifest.templates.iter().find(|(key, _)| key.value == *name)?;
                        (key.at, &decl.disks, &decl.cdrom)
                    }
                    Object::Vm(name) => {
                        let family = &desired.vms.get(name)?.family;
                        let (key, decl) = manifest.vms.iter().find(|(key, _)| key.value == *family)?;
                        (key.at, &decl.disks, &decl.cdrom)
                    }
                    Object::VmGroup(_) => return None,
                };
                let is_it = |image: &&Spanned<ImagePlace>| {
                    manifest.image(image).unwrap_or_else(|| image.text().into()) == *path
                };
                let image = disks.iter().filter_map(|disk| disk.image.as_ref()).find(is_it).map(|image| image.at);
                let cdrom = cdrom.iter().find(|cdrom| manifest.path(cdrom) == *path).map(|cdrom| cdrom.at);
                Some(image.or(cdrom).unwrap_or(at))
            }
            Beyond::StorageFolder(user) => {
                let (key, decl) = manifest.users.iter().find(|(key, _)| key.value == *user)?;
                Some(decl.storage_folder.as_ref().map_or(key.at, |folder| folder.at))
            }
            Beyond::Running(_) | Beyond::Memory(_) => lab,
        }
    }
}

/// What is wrong, and what would be right.
fn words(beyond: &Beyond, share: &LabShare, desired: &Desired) -> (String, String) {
    let lab = &desired.lab;
    let ask = "or ask an admin to change `labs:` in site.yaml";
    let list = |what: Vec<String>| if what.is_empty() { "none".to_owned() } else { what.join(", ") };
    match beyond {
        Beyond::Range(name) => {
            let ranges = share.ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect();
            let message = format!("the addresses of `{name}` are not all of those that the site gives lab `{lab}`");
            (message, format!("it has {}: keep within one of them, {ask}", list(ranges)))
        }
        Beyond::Bridge(name) => {
            let message = format!("`{name}` joins a bridge that the site does not give lab `{lab}`");
            let bridges = share.bridges.iter().map(|bridge| format!("`{bridge}`")).collect();
            (message, format!("it has {}: take one of them, {ask}", list(bridges)))
        }
        Beyond::Vlan(name) => {
            let message = format!("`{name}` has a vlan that the site does not give lab `{lab}`");
            let vlans = share.vlans.iter().map(ToString::to_string).collect();
            (message, format!("it has {}: take one of them, {ask}", list(vlans)))
        }
        Beyond::Image { path, .. } if path.starts_with("https:") => {
            let message = format!("lab `{lab}` has owners, and nothing is fetched for it, such as {}", path.display());
            let roots = share.image_roots.iter().map(|root| root.display().to_string()).collect();
            (message, format!("download it and put it into {}", list(roots)))
        }
        Beyond::Image { path, .. } => {
            let message = format!("{} is in no folder that the site gives lab `{lab}` for images", path.display());
            let roots = share.image_roots.iter().map(|root| root.display().to_string()).collect();
            (message, format!("it has {}: put the image there, {ask}", list(roots)))
        }
        Beyond::Cdrom { path, .. } => {
            let message = format!("lab `{lab}` has owners, and no guest of it gets a cd such as {}", path.display());
            (message, "install the image elsewhere, and name it under `disks`".to_owned())
        }
        Beyond::StorageFolder(user) => {
            let message = format!("disks of `{user}` would lie outside the site's own folders");
            (message, "only a lab without owners in site.yaml may say where disks are: remove it".to_owned())
        }
        Beyond::Running(wanted) => {
            let limit = share.running_vms.unwrap_or(*wanted);
            let message = format!("{wanted} vms are to run; the site lets lab `{lab}` run {limit} at once");
            (message, format!("write `state: on_demand` for some, {ask}"))
        }
        Beyond::Memory(wanted) => {
            let (wanted, limit) = (Size(wanted << 20).display(), Size(share.memory_mib.unwrap_or(*wanted) << 20));
            let message = format!(
                "the vms that are to run have {wanted} of memory; the site gives lab `{lab}` {}",
                limit.display()
            );
            (message, format!("write a smaller `memory`, or `state: on_demand` for some, {ask}"))
        }
    }
}
