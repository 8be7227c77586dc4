//! How much each user may store, judged where disks are made. What somebody has is never taken from them for that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{Effect, Ground, Planner};
use crate::model::address::Address;
use crate::model::disk::DiskOrigin;
use crate::model::id::UserName;

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
        for (owner, vms) in new {
            self.guard_storage_of(&owner, &vms);
        }
    }

    fn guard_storage_of(&mut self, owner: &UserName, vms: &[New]) {
        let Some(user) = self.inputs.desired.users.get(owner) else { return };
        let limit_bytes = user.limits.storage_bytes;
        let used_bytes = self.stored_by(owner);
        let (mut sum, mut wanted_bytes, mut too_many) = (used_bytes, 0_u64, Vec::new());
        for New { address, bytes } in vms {
            let with_it = sum.saturating_add(*bytes);
            if with_it <= limit_bytes || self.allowed(address) {
                sum = with_it;
            } else {
                wanted_bytes = wanted_bytes.saturating_add(*bytes);
                too_many.push(address.clone());
            }
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

    /// By disks that stay where they are.
    fn stored_by(&self, owner: &UserName) -> u64 {
        let going: BTreeSet<&PathBuf> = self
            .plan
            .actions()
            .filter_map(|(_, action)| match &action.effect {
                Effect::SetAside { disks, .. } => Some(disks),
                _ => None,
            })
            .flatten()
            .collect();
        let theirs = self.inputs.recorded.vms.values().filter(|known| known.vm.owner == *owner);
        let stay = theirs.flat_map(|known| &known.disks).filter(|disk| !going.contains(&disk.path));
        let bytes = stay.filter_map(|disk| {
            let size = self.inputs.observed.sizes.get(&disk.path)?;
            Some(size.stored_bytes(disk.base.is_some()))
        });
        bytes.fold(0, u64::saturating_add)
    }
}
