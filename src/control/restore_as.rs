//! What disks hold that were set aside, as another vm, to look into: full copies, in a vm of somebody's own that is isolated. The
//! disks stay where they are, and what is done to the copies is nothing to them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::aside::{AsideError, among, refuse_frozen};
use super::journal::{Decides, Lab, Order, Step};
use super::pick;
use super::restore::chosen;
use super::{Context, ControlError};
use crate::disks::{self, Owner};
use crate::model::address::Address;
use crate::model::claim::{ClaimBody, VmClaim};
use crate::model::id::{UserName, VmGroupName, VmName};
use crate::model::lab::{Desired, DiskSource, Hardware, VmSource};
use crate::resolve::with_claims;
use crate::state::{AsideDisk, AsideSet, Change, Recorded, RecordedDisk};

/// What is to be looked into, and where.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The vm, in a word.
    pub vm: String,
    /// Name or date of the set, where there are several.
    pub set: Option<String>,
    /// Without the owner's name.
    pub name: VmName,
    /// Whose the new vm is; whose the disks were, unless said here.
    pub owner: Option<UserName>,
}

/// The new vm, and what was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub vm: VmName,
    pub set: AsideSet,
}

/// Copies a set, and claims a vm that begins with the copies.
pub fn restore_as(context: &Context, desired: &Desired, wanted: &Wanted) -> Result<Made, ControlError> {
    context.audited(Some(&desired.lab), copy(context, desired, wanted))
}

fn copy(context: &Context, desired: &Desired, wanted: &Wanted) -> Result<Made, ControlError> {
    let mut store = context.known_store()?;
    let owner = context.owner()?;
    let summary = format!("restore {} --as {}", wanted.vm, wanted.name);
    let decides = Decides::begin(context, summary.clone())?;
    let recorded = store.recorded(&desired.lab)?;
    refuse_frozen(&recorded)?;
    let copying = Copying::decide(context, desired, &recorded, wanted)?;
    let steps = copying.steps(context, owner)?;
    let lab = Lab { name: &desired.lab, after: recorded.latest, doing: "copied" };
    let mut failed = lab.carry_out(&mut store, decides, &summary, Order::Chain, steps)?;
    let Copying { name, set, .. } = copying;
    failed.pop().map_or_else(|| Ok(Made { vm: name, set: set.clone() }), Err)
}

/// What is decided under the lock.
struct Copying<'a> {
    from: VmName,
    set: &'a AsideSet,
    name: VmName,
    owner: UserName,
    machine: (VmGroupName, Hardware),
    /// Each with the place of its copy.
    disks: Vec<(&'a AsideDisk, PathBuf)>,
}

impl<'a> Copying<'a> {
    fn decide(
        context: &Context,
        desired: &Desired,
        recorded: &'a Recorded,
        wanted: &Wanted,
    ) -> Result<Self, ControlError> {
        let meant = among(recorded.aside.keys(), std::slice::from_ref(&wanted.vm), desired, recorded)?;
        let from = pick::only(&wanted.vm, meant)?;
        recorded.refuse_held(&Address::vm(&from))?;
        let set = chosen(recorded, &from, wanted.set.as_deref())?;
        if set.is_returning() {
            return Err(AsideError::Returning { vm: from, set: Box::new(set.clone()) }.into());
        }
        let lab = with_claims(desired, &recorded.claims);
        let owner = owner(&lab, recorded, &from, set, wanted)?;
        let name = VmName::owned(&owner, &wanted.name);
        let is_taken = lab.vms.contains_key(&name) || recorded.vms.contains_key(&name);
        if is_taken || recorded.waiting.contains_key(&name) {
            return Err(ControlError::NameTaken { name });
        }
        let machine = machine(&lab, recorded, &from, set)?;
        let folder = free_folder(&context.site.storage.vms.join(desired.lab.as_str()), &name);
        let disks = set.disks.iter().map(|disk| (disk, folder.join(format!("disk-{}.qcow2", disk.slot)))).collect();
        Ok(Self { from, set, name, owner, machine, disks })
    }

    /// Nothing is recorded before all copies are whole.
    fn steps(&self, context: &Context, owner: Owner) -> Result<Vec<Step<'_>>, ControlError> {
        let failed = |source| AsideError::NotCopied { vm: self.from.clone(), source };
        let copy = |(disk, to): &'_ (&'_ AsideDisk, PathBuf)| {
            let (disk, to, from) = ((*disk).clone(), to.clone(), self.from.clone());
            let act = move || {
                let copied = disks::copy_whole(&disk.path, disk.base.as_deref(), &to, owner);
                Ok(copied.map_err(|source| AsideError::NotCopied { vm: from.clone(), source })?)
            };
            let (address, effect) = (Address::vm(&self.from), "copy the disk");
            Step { address, effect, before: Vec::new(), act: Box::new(act), after: Vec::new() }
        };
        let mut steps: Vec<Step<'_>> = self.disks.iter().map(copy).collect();
        let mut sources = Vec::new();
        for (disk, _) in &self.disks {
            sources
                .push(DiskSource::Empty { size_bytes: disks::inspect(&disk.path).map_err(failed)?.virtual_size_bytes });
        }
        let (vm_group, hardware) = self.machine.clone();
        let body = ClaimBody::Vm(VmClaim {
            version: ClaimBody::VERSION,
            owner: self.owner.clone(),
            source: VmSource::Disks(sources),
            vm_group,
            hardware,
            isolated: true,
            seed: None,
            key: None,
            was: None,
        });
        let by = context.caller.name.clone();
        let mut changes = vec![Change::PutClaim { name: self.name.to_string(), body, by }];
        changes.extend(self.disks.iter().map(|(disk, to)| self.waiting(disk, to)));
        steps.push(Step::record(Address::vm(&self.name), "claim the vm", changes));
        Ok(steps)
    }

    fn waiting(&self, disk: &AsideDisk, to: &Path) -> Change {
        let slot = disk.slot;
        let disk = RecordedDisk {
            slot,
            path: to.to_owned(),
            base: None,
            moving_to: None,
            made: true,
            image: None,
            instance: None,
        };
        Change::PutWaiting { vm: self.name.clone(), owner: self.owner.to_string(), disk }
    }
}

/// Whose the new vm is: who is named, or whose the disks were.
fn owner(
    lab: &Desired,
    recorded: &Recorded,
    from: &VmName,
    set: &AsideSet,
    wanted: &Wanted,
) -> Result<UserName, ControlError> {
    let of_vm = || recorded.vms.get(from).map(|known| known.vm.owner.clone());
    let was = || set.owner.as_deref().and_then(|owner| UserName::new(owner).ok());
    let owner = wanted.owner.clone().or_else(was).or_else(of_vm);
    let owner = owner.ok_or_else(|| AsideError::NoMachine { vm: from.clone() })?;
    match lab.users.contains_key(&owner) {
        true => Ok(owner),
        false => Err(ControlError::NoUser { user: owner, lab: lab.lab.clone() }),
    }
}

/// Its network and hardware: those of the vm, or of the template that its disks lie over.
fn machine(
    lab: &Desired,
    recorded: &Recorded,
    from: &VmName,
    set: &AsideSet,
) -> Result<(VmGroupName, Hardware), AsideError> {
    let known = lab.vms.get(from).or_else(|| Some(&recorded.vms.get(from)?.vm));
    let bases: BTreeSet<&PathBuf> = set.disks.iter().filter_map(|disk| disk.base.as_ref()).collect();
    let below = || {
        let mut versions = recorded.versions.iter();
        let below = versions.find(|(_, version)| version.disks.iter().any(|disk| bases.contains(&disk.path)));
        lab.templates.get(&below?.0.0)
    };
    let of_template = || below().map(|template| (template.vm_group.clone(), template.hardware.clone()));
    let machine = known.map(|vm| (vm.vm_group.clone(), vm.hardware.clone())).or_else(of_template);
    let (vm_group, hardware) = machine.ok_or_else(|| AsideError::NoMachine { vm: from.clone() })?;
    Ok((vm_group, Hardware { cdrom: None, ..hardware }))
}

/// What a try that was killed has left is not touched.
fn free_folder(lab: &Path, name: &VmName) -> PathBuf {
    let name = name.file_name();
    let numbered = (2..).map(|number: u32| lab.join(format!("{name}.{number}")));
    let mut folders = std::iter::once(lab.join(&name)).chain(numbered);
    folders.find(|folder| folder.symlink_metadata().is_err()).expect("one of endlessly many is free")
}
