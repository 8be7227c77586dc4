//! How much each user may store, judged where disks are made. What somebody has is never taken from them for that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{Effect, Ground, Inputs, Planner};
use crate::model::address::Address;
use crate::model::disk::DiskOrigin;
use crate::model::id::{UserName, VmName};
use crate::state::StorageQuota;

/// A vm that gets disks, and how much of its owner's limit they take as they are made.
struct New {
    address: Address,
    bytes: u64,
}

impl Planner<'_> {
    pub(super) fn guard_storage(&mut self) {
        let mut new: BTreeMap<UserName, Vec<New>> = BTreeMap::new();
        for (owner, vm) in self.new_by_owner() {
            new.entry(owner).or_default().push(vm);
        }
        let mut disks = if new.is_empty() { BTreeMap::new() } else { self.disks_of(&new) };
        for (owner, vms) in new {
            let seen = disks.remove(&owner).unwrap_or_default();
            self.guard_storage_of(&owner, &vms, seen);
        }
    }

    fn guard_storage_of(&mut self, owner: &UserName, vms: &[New], seen: BTreeMap<PathBuf, u64>) {
        let Some(user) = self.inputs.desired.users.get(owner) else { return };
        let limit_bytes = user.limits.storage_bytes;
        let used_bytes = seen.values().copied().chain(self.promised_to(owner)).fold(0, u64::saturating_add);
        let (mut promised, mut is_counted) = (BTreeMap::new(), false);
        let (mut sum, mut wanted_bytes, mut too_many) = (used_bytes, 0_u64, Vec::new());
        for New { address, bytes } in vms {
            let with_it = sum.saturating_add(*bytes);
            if with_it <= limit_bytes || self.allowed(address) {
                sum = with_it;
                is_counted |= *bytes > 0;
                promised.insert(address.clone(), bytes.saturating_add(self.stays_of(address, &seen)));
            } else {
                wanted_bytes = wanted_bytes.saturating_add(*bytes);
                too_many.push(address.clone());
            }
        }
        // What is meant all the same may come to more, and then nobody else's is in the way.
        if is_counted && sum <= limit_bytes {
            let (owner, vms) = (owner.clone(), promised);
            self.plan.storage.push(StorageQuota { owner, limit_bytes, seen, vms });
        }
        let Some(first) = too_many.first().cloned() else { return };
        let why = Ground::OverStorage { owner: owner.clone(), limit_bytes, used_bytes: sum, wanted_bytes };
        self.refuse_with(&first, why, too_many);
    }

    /// What is refused already gets no disk.
    fn new_by_owner(&self) -> Vec<(UserName, New)> {
        let is_held = |address: &Address| self.plan.refusals.iter().any(|refusal| refusal.holds(address));
        let mut all = Vec::new();
        for change in self.plan.changes.iter().filter(|change| !is_held(&change.address)) {
            let made = change.actions.iter().filter_map(|action| match &action.effect {
                Effect::MakeDisk { vm, origin, .. } => Some((vm, self.bytes_of(origin))),
                _ => None,
            });
            let made: Vec<_> = made.collect();
            let Some(vm) = made.first().and_then(|(vm, _)| self.inputs.desired.vms.get(*vm)) else { continue };
            let bytes = made.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
            all.push((vm.owner.clone(), New { address: change.address.clone(), bytes }));
        }
        all
    }

    fn bytes_of(&self, origin: &DiskOrigin) -> u64 {
        match origin {
            DiskOrigin::Derive { .. } => 0,
            DiskOrigin::Empty { size_bytes } => *size_bytes,
            DiskOrigin::Copy { image } => {
                let sizes = &self.inputs.observed.sizes;
                let published = || sizes.get(self.source_of(image)?);
                sizes.get(image).or_else(published).map_or(0, |size| size.virtual_bytes)
            }
        }
    }

    /// The image of what this plan publishes first.
    fn source_of(&self, published: &PathBuf) -> Option<&PathBuf> {
        self.plan.actions().find_map(|(_, action)| match &action.effect {
            Effect::Publish { disks, .. } => disks.iter().find(|disk| disk.path == *published).map(|disk| &disk.image),
            _ => None,
        })
    }

    /// The disks of these people in all labs, with what each takes. One that is set aside takes nothing, nor does one of a vm to
    /// which another apply has promised what it will have.
    fn disks_of(&self, owners: &BTreeMap<UserName, Vec<New>>) -> BTreeMap<UserName, BTreeMap<PathBuf, u64>> {
        let Inputs { recorded, observed, .. } = self.inputs;
        let going = self.plan.actions().filter_map(|(_, action)| match &action.effect {
            Effect::SetAside { disks, .. } => Some(disks),
            _ => None,
        });
        let going: BTreeSet<&PathBuf> = going.flatten().collect();
        let promised = recorded.storing.iter().filter(|storing| storing.lab == self.plan.lab);
        let promised: BTreeSet<&VmName> = promised.map(|storing| &storing.vm).collect();
        let elsewhere = |owner| observed.elsewhere.get(owner).map(|seen| seen.stored.clone()).unwrap_or_default();
        let mut all: BTreeMap<_, _> = owners.keys().map(|owner| (owner.clone(), elsewhere(owner))).collect();
        for (name, known) in &recorded.vms {
            let Some(theirs) = all.get_mut(&known.vm.owner) else { continue };
            for disk in known.disks.iter().filter(|disk| disk.made) {
                let counts = !going.contains(&disk.path) && !promised.contains(name);
                let size = observed.sizes.get(&disk.path).filter(|_| counts);
                let bytes = size.map_or(0, |size| size.stored_bytes(disk.base.is_some()));
                theirs.entry(disk.path.clone()).or_insert(bytes);
            }
        }
        all
    }

    /// What others are about to make for them.
    fn promised_to(&self, owner: &UserName) -> impl Iterator<Item = u64> {
        let theirs = self.inputs.recorded.storing.iter().filter(move |storing| storing.owner == *owner);
        theirs.map(|storing| storing.bytes)
    }

    /// By the disks of a vm that it keeps.
    fn stays_of(&self, vm: &Address, seen: &BTreeMap<PathBuf, u64>) -> u64 {
        let disks = self.inputs.recorded.vms.get(vm.name.as_str()).into_iter().flat_map(|known| &known.disks);
        disks.filter_map(|disk| seen.get(&disk.path)).copied().fold(0, u64::saturating_add)
    }
}
