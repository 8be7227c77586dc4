//! Disks of vms: which ones a vm needs, what becomes of those that it must not keep, and what is done about lost ones.
//! A disk is made once and set aside at the end; nothing in between replaces it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::templates::CurrentVersion;
use super::vms::{Steps, Work};
use super::{ActionId, DiskLoss, Effect, Ground, Held, Planner, Remark};
use crate::model::address::{Address, Kind};
use crate::model::disk::DiskOrigin;
use crate::model::id::{TemplateName, VmName};
use crate::model::lab::{DiskSource, Template, Vm, VmSource};
use crate::observe::Observed;
use crate::state::{Recorded, RecordedDisk, RecordedVm};

/// The disks of a vm, after this plan.
pub(super) struct NewDisks {
    pub(super) version: Option<u32>,
    pub(super) kept: Vec<RecordedDisk>,
    pub(super) new: Vec<NewDisk>,
}

pub(super) struct NewDisk {
    disk: RecordedDisk,
    origin: DiskOrigin,
    /// The action that publishes what it derives from.
    needs: Option<ActionId>,
}

impl NewDisk {
    pub(super) fn slot(&self) -> u32 {
        self.disk.slot
    }
}

/// The folders of disks whose vm was renamed since they were made.
pub(super) fn kept_folders(recorded: &Recorded) -> BTreeSet<&Path> {
    let folders = recorded.vms.iter().flat_map(|(name, vm)| {
        let folders = vm.disks.iter().filter_map(|disk| disk.path.parent());
        folders.filter(|folder| folder.file_name().is_none_or(|folder| folder != name.as_str()))
    });
    folders.collect()
}

impl Planner<'_> {
    /// Recorded disks that are not there, and those that are others than recorded; both are drift.
    pub(super) fn lost_disks<'k>(
        &mut self,
        address: &Address,
        known: &'k RecordedVm,
    ) -> (Vec<&'k RecordedDisk>, Vec<&'k RecordedDisk>) {
        let Observed { disks_missing, disks_strange, .. } = self.inputs.observed;
        let (mut missing, mut strange) = (Vec::new(), Vec::new());
        for disk in known.disks.iter().filter(|disk| disk.made && disk.moving_to.is_none()) {
            if disks_missing.contains(&disk.path) {
                self.drift(address, Remark::DiskGone { disk: disk.path.clone() });
                missing.push(disk);
            } else if let Some(found) = disks_strange.get(&disk.path) {
                let (found, base) = (found.clone(), disk.base.clone());
                self.drift(address, Remark::DiskStrange { disk: disk.path.clone(), found, base });
                strange.push(disk);
            }
        }
        (missing, strange)
    }

    /// qemu is told what lies below a disk by our records: over another base, the guest would read a mixture of the two.
    pub(super) fn refuse_strange_disk(&mut self, address: &Address, disk: &RecordedDisk) {
        self.refuse(address, Ground::DiskStrange { disk: disk.path.clone() });
    }

    /// The storage may only be away: what our records forget now, nobody would find when it is back.
    pub(super) fn refuse_missing_disk(&mut self, address: &Address, disk: &RecordedDisk, loss: DiskLoss) {
        self.refuse(address, Ground::DiskGone { disk: disk.path.clone(), loss });
    }

    /// Whether a vm would begin its life with the disks that it has. An image is its content, never its path: where the
    /// content is known, that decides.
    pub(super) fn same_source(&self, known: &RecordedVm, wanted: &VmSource) -> bool {
        let (VmSource::Disks(old), VmSource::Disks(new)) = (&known.vm.source, wanted) else {
            return self.moves.same_source(&known.vm.source, wanted);
        };
        let copied = |slot: usize| known.disks.iter().find(|disk| disk.slot as usize == slot)?.image.as_ref();
        let same = |(slot, (old, new)): (usize, (&DiskSource, &DiskSource))| match (old, new) {
            (
                DiskSource::Image { path: was, sha256: written_then },
                DiskSource::Image { path: image, sha256: written },
            ) => {
                let there = (was != image).then(|| self.inputs.observed.digest(image)).flatten();
                match (copied(slot).or(written_then.as_ref()), written.as_ref().or(there)) {
                    (Some(copied), Some(wanted)) => copied == wanted,
                    _ => was == image,
                }
            }
            (old, new) => old == new,
        };
        old.len() == new.len() && old.iter().zip(new).enumerate().all(same)
    }

    pub(super) fn set_aside(&mut self, steps: &mut Steps, name: &VmName, known: &RecordedVm) {
        let site = &self.inputs.site.storage.aside;
        let fresh = || {
            site.join(self.inputs.desired.lab.as_str())
                .join(name.file_name())
                .join(self.inputs.recorded.serial.to_string())
        };
        // A move that was cut short goes on to where it was going.
        let under_way = known.disks.iter().find_map(|disk| disk.moving_to.as_deref()?.parent());
        let folder = under_way.map_or_else(fresh, PathBuf::from);
        let missing = &self.inputs.observed.disks_missing;
        let is_lost = |disk: &&RecordedDisk| disk.moving_to.is_none() && missing.contains(&disk.path);
        let (lost, disks): (Vec<&RecordedDisk>, Vec<&RecordedDisk>) = known.disks.iter().partition(is_lost);
        let paths = |disks: Vec<&RecordedDisk>| disks.into_iter().map(|disk| disk.path.clone()).collect();
        self.step(steps, Effect::SetAside { vm: name.clone(), disks: paths(disks), folder, lost: paths(lost) });
    }

    /// The disks a vm needs and has not, after those it must not keep were set aside.
    pub(super) fn mend_disks(&mut self, steps: &mut Steps, address: &Address, work: &Work<'_>) -> Option<NewDisks> {
        let Work { name, vm, known, .. } = work;
        if let Some(set) = work.back {
            return Some(self.put_back(steps, work, set));
        }
        if work.replaced || !work.given_up.is_empty() {
            let (version, new) = self.new_disks(address, name, vm, None)?;
            if !known.disks.is_empty() {
                self.set_aside(steps, name, known);
            }
            return Some(NewDisks { version, kept: Vec::new(), new });
        }
        let kept: Vec<RecordedDisk> = known.disks.iter().filter(|disk| disk.made).cloned().collect();
        if self.has_all_disks(vm, known) {
            return Some(NewDisks { version: known.version, kept, new: Vec::new() });
        }
        // An apply was cut short, or could not make them all: the others come from the same version.
        let (version, wanted) = self.new_disks(address, name, vm, known.version)?;
        let absent = wanted.into_iter().filter(|new| kept.iter().all(|disk| disk.slot != new.disk.slot));
        let begun = |new: NewDisk| match known.disks.iter().find(|disk| disk.slot == new.disk.slot) {
            Some(RecordedDisk { path, base: Some(base), .. }) => NewDisk {
                disk: RecordedDisk { path: path.clone(), base: Some(base.clone()), ..new.disk },
                origin: DiskOrigin::Derive { base: base.clone() },
                ..new
            },
            Some(RecordedDisk { path, .. }) => NewDisk { disk: RecordedDisk { path: path.clone(), ..new.disk }, ..new },
            None => new,
        };
        let new = absent.map(begun).collect();
        Some(NewDisks { version, kept, new })
    }

    /// Whether every disk that the vm starts its life with was made.
    fn has_all_disks(&self, vm: &Vm, known: &RecordedVm) -> bool {
        let expected = match &vm.source {
            VmSource::Disks(sources) => Some(sources.len()),
            // An imported vm has the disks that it came with.
            VmSource::Derive(_) | VmSource::Clone(_) if known.version.is_none() && !known.disks.is_empty() => None,
            VmSource::Derive(template) | VmSource::Clone(template) => {
                Some(self.version_of(template, known.version).map_or(1, |current| current.disks.len()))
            }
        };
        known.disks.iter().all(|disk| disk.made) && expected.is_none_or(|expected| known.disks.len() >= expected)
    }

    /// A template's version, as recorded or as it will be published; the current one where none is named.
    fn version_of(&self, template: &TemplateName, version: Option<u32>) -> Option<CurrentVersion> {
        let current = self.current_versions.get(template);
        let Some(number) = version.filter(|number| current.is_none_or(|current| current.version != *number)) else {
            return current.cloned();
        };
        let recorded_name = self.moves.templates.get(template).unwrap_or(template).clone();
        // A version that was never published has no disk over it: its apply was cut short, and the image changed since.
        let Some(version) = self.inputs.recorded.versions.get(&(recorded_name, number)) else {
            return current.cloned();
        };
        let disks = version.disks.iter().map(|disk| disk.path.clone()).collect();
        Some(CurrentVersion { version: number, disks, published_by: None })
    }

    /// Where a vm's new disks go. A vm that was renamed keeps its disks where they are, so another one by its old name must
    /// go elsewhere: what stands there would be taken for its own, and two guests would write on one disk.
    fn disk_folder(&self, name: &VmName) -> PathBuf {
        let lab = self.inputs.site.storage.vms.join(self.inputs.desired.lab.as_str());
        let name = name.file_name();
        let numbered = (2..).map(|number: u32| lab.join(format!("{name}.{number}")));
        let mut folders = std::iter::once(lab.join(&name)).chain(numbered);
        folders.find(|folder| !self.kept_folders.contains(folder.as_path())).expect("one of endlessly many is free")
    }

    /// Path and origin of each disk that a vm starts its life with.
    pub(super) fn new_disks(
        &mut self,
        address: &Address,
        name: &VmName,
        vm: &Vm,
        version: Option<u32>,
    ) -> Option<(Option<u32>, Vec<NewDisk>)> {
        if self.waits_for_others(name, vm, true) {
            return None;
        }
        let folder = self.disk_folder(name);
        let path = |slot: u32| folder.join(format!("disk-{slot}.qcow2"));
        let instance = Some(self.inputs.recorded.next_instance(&self.inputs.desired.lab, name));
        let (VmSource::Derive(template) | VmSource::Clone(template)) = &vm.source else {
            let VmSource::Disks(sources) = &vm.source else { unreachable!("the other sources are matched above") };
            let disks = (0..).zip(sources).map(|(slot, source)| NewDisk {
                disk: RecordedDisk {
                    slot,
                    path: path(slot),
                    base: None,
                    moving_to: None,
                    made: false,
                    image: None,
                    instance: instance.clone(),
                },
                origin: match source {
                    DiskSource::Image { path, .. } => DiskOrigin::Copy { image: path.clone() },
                    DiskSource::Fetched { sha256, .. } => {
                        DiskOrigin::Copy { image: self.inputs.site.storage.fetched().join(sha256) }
                    }
                    DiskSource::Empty { size_bytes } => DiskOrigin::Empty { size_bytes: *size_bytes },
                },
                needs: None,
            });
            return Some((None, disks.collect()));
        };
        let Some(current) = self.version_of(template, version) else {
            if self.inputs.desired.templates.get(template).is_some_and(is_to_be_installed) {
                self.wait(address, Remark::TemplateUnpublished { template: template.clone() });
                return None;
            }
            self.hold_with_template(address, template);
            return None;
        };
        if current.published_by.is_none() && !self.may_lie_over(address, &current.disks) {
            return None;
        }
        let derive = matches!(vm.source, VmSource::Derive(_));
        let disks = (0..).zip(&current.disks).map(|(slot, image)| NewDisk {
            disk: RecordedDisk {
                slot,
                path: path(slot),
                base: derive.then(|| image.clone()),
                moving_to: None,
                made: false,
                image: None,
                instance: instance.clone(),
            },
            origin: if derive {
                DiskOrigin::Derive { base: image.clone() }
            } else {
                DiskOrigin::Copy { image: image.clone() }
            },
            needs: current.published_by,
        });
        Some((Some(current.version), disks.collect()))
    }

    /// A vm of a template that is refused is held back with it, in the same line however many there are.
    fn hold_with_template(&mut self, address: &Address, template: &TemplateName) {
        let of_template = Address::new(Kind::Template, template);
        let refusal = self.plan.refusals.iter_mut().find(|refusal| refusal.address == of_template);
        if let Some(Held::Only(held)) = refusal.map(|refusal| &mut refusal.holds) {
            held.insert(address.clone());
            return;
        }
        self.refuse(address, Ground::NoVersion { template: template.clone() });
    }

    /// Actions that make the disks, side by side; answers what they will be.
    pub(super) fn make_disks(&mut self, steps: &mut Steps, name: &VmName, disks: Vec<NewDisk>) -> Vec<RecordedDisk> {
        let before = steps.last.clone();
        let mut actions = Vec::new();
        let mut made = Vec::new();
        for NewDisk { disk, origin, needs } in disks {
            made.push(RecordedDisk { made: true, ..disk.clone() });
            let needs = before.iter().copied().chain(needs).collect();
            let action = self.action(needs, Effect::MakeDisk { vm: name.clone(), disk, origin });
            actions.push(action.id);
            steps.actions.push(action);
        }
        if !actions.is_empty() {
            steps.last = actions;
        }
        made
    }
}

/// A template with an empty disk has no version until somebody has installed it.
fn is_to_be_installed(template: &Template) -> bool {
    template.disks.iter().any(|disk| matches!(disk, DiskSource::Empty { .. }))
}
