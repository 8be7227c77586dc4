//! Limits that the lab itself exceeds: what apply would keep running or promise in full, against what users may have.

use std::collections::BTreeMap;

use super::Resolver;
use crate::manifest::{At, ImageFacts, Size};
use crate::model::id::{FamilyName, UserName};
use crate::model::lab::{Desired, DiskSource, PowerState, Vm, VmSource};
use crate::model::rules::Rule;

/// What a user would have too much of, and the first of the families that make it so.
struct Use<'d> {
    amount: u64,
    family: &'d FamilyName,
}

impl<'d> Use<'d> {
    fn add(uses: &mut BTreeMap<&'d UserName, Self>, vm: &'d Vm, amount: u64) {
        let used = uses.entry(&vm.owner).or_insert(Self { amount: 0, family: &vm.family });
        used.amount = used.amount.saturating_add(amount);
        used.family = used.family.min(&vm.family);
    }
}

impl Resolver<'_> {
    pub(super) fn running_limits(&mut self, desired: &Desired) {
        let mut running: BTreeMap<&UserName, Use<'_>> = BTreeMap::new();
        for vm in desired.vms.values().filter(|vm| vm.state == PowerState::Running) {
            Use::add(&mut running, vm, 1);
        }
        let limit = |user: &UserName| desired.users.get(user).map(|user| u64::from(user.limits.running_vms));
        for (exceeding, users) in exceeding(&running, limit) {
            let Exceeding { amount, limit, family } = exceeding;
            let message = format!("{} would run {amount} vms at once; the limit is {limit}", who(&users));
            let hint =
                format!("write `limits: {{ running_vms: {amount} }}` for the group or user, or `state: on_demand`");
            self.note(Rule::RunningLimit, self.family_place(family), message, hint);
        }
    }

    /// Copies in full and disks of a vm's own count; a derived disk starts empty.
    pub(super) fn storage_limits(&mut self, desired: &Desired) {
        let mut stored: BTreeMap<&UserName, Use<'_>> = BTreeMap::new();
        for vm in desired.vms.values() {
            let bytes = match &vm.source {
                VmSource::Derive(_) => 0,
                VmSource::Clone(template) => {
                    desired.templates.get(template).map_or(0, |template| self.bytes(&template.disks))
                }
                VmSource::Disks(disks) => self.bytes(disks),
            };
            if bytes > 0 {
                Use::add(&mut stored, vm, bytes);
            }
        }
        let limit = |user: &UserName| desired.users.get(user).map(|user| user.limits.storage_bytes);
        for (exceeding, users) in exceeding(&stored, limit) {
            let Exceeding { amount, limit, family } = exceeding;
            let (amount, limit) = (Size(amount).display(), Size(limit).display());
            let message = format!("the disks of {} have {amount} in all; the limit is {limit}", who(&users));
            let hint = format!(
                "write `limits: {{ storage: {amount} }}` for the group or user, or `derive` instead of `clone`"
            );
            self.note(Rule::StorageLimit, self.family_place(family), message, hint);
        }
    }

    fn bytes(&self, disks: &[DiskSource]) -> u64 {
        let size = |disk: &DiskSource| match disk {
            DiskSource::Empty { size_bytes } => *size_bytes,
            DiskSource::Image { path, .. } => match self.manifest.images.get(path) {
                Some(ImageFacts::Qcow2 { virtual_bytes, .. }) => *virtual_bytes,
                Some(ImageFacts::Raw { virtual_bytes, .. }) => *virtual_bytes,
                _ => 0,
            },
            DiskSource::Fetched { .. } => 0,
        };
        disks.iter().map(size).fold(0, u64::saturating_add)
    }

    fn family_place(&self, family: &FamilyName) -> At {
        let entry = self.manifest.vms.iter().find(|(name, _)| name.value == *family);
        entry.expect("every vm comes from an entry of the manifest").0.at
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Exceeding<'d> {
    amount: u64,
    limit: u64,
    family: &'d FamilyName,
}

/// Users beyond their limit, those alike together, so that a class of 300 makes one finding.
fn exceeding<'d>(
    uses: &BTreeMap<&'d UserName, Use<'d>>,
    limit: impl Fn(&UserName) -> Option<u64>,
) -> BTreeMap<Exceeding<'d>, Vec<&'d UserName>> {
    let mut found: BTreeMap<Exceeding<'d>, Vec<&'d UserName>> = BTreeMap::new();
    for (user, used) in uses {
        let Some(limit) = limit(user).filter(|limit| used.amount > *limit) else { continue };
        found.entry(Exceeding { amount: used.amount, limit, family: used.family }).or_default().push(user);
    }
    found
}

fn who(users: &[&UserName]) -> String {
    match users {
        [one] => format!("`{one}`"),
        [first, ..] => format!("each of {} users, such as `{first}`,", users.len()),
        [] => "nobody".to_owned(),
    }
}
