//! What people ask of a vm's disks by name: new ones, or those of before. The old ones are set aside either way, so each
//! can be taken back. A guest that runs is stopped for it and started again; one that is off stays off.
//!
//! ```text
//! reimage         stop ─▶ set its disks aside ─▶ make new ones, of the template's latest version ─▶ start
//! reimage --undo  stop ─▶ write down what comes back ─▶ set its disks aside ─▶ put those back ─▶ start
//! ```
//!
//! From the moment on at which it is written down what comes back, nothing else is done about the vm's disks: an undo that
//! is cut short goes on when it is asked for again, or as a `restore`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::disks::NewDisks;
use super::vms::{Steps, Work};
use super::{Effect, Ground, Planner, Remark, Wish};
use crate::model::address::Address;
use crate::model::id::VmName;
use crate::model::lab::{DiskSource, Vm, VmSource};
use crate::state::{AsideDisk, AsideSet, Entry, Recorded, RecordedDisk, RecordedVm};

impl<'a> Planner<'a> {
    /// Whether somebody asks for other disks of this vm: new ones, or those of before.
    pub(super) fn wants_other_disks(&self, name: &VmName) -> bool {
        self.wish(name).is_some_and(Wish::is_about_disks)
    }

    /// Whether new disks can be made as often as somebody wants them; an empty one has nothing to begin anew with.
    pub(super) fn may_reimage(&mut self, name: &VmName, vm: &Vm) -> bool {
        let is_empty = |disk: &DiskSource| matches!(disk, DiskSource::Empty { .. });
        let begins_empty = matches!(&vm.source, VmSource::Disks(disks) if disks.iter().any(is_empty));
        if begins_empty && self.wish(name) == Some(Wish::Reimage) {
            self.refuse(&Address::vm(name), Ground::BeginsEmpty);
            return false;
        }
        true
    }

    /// The disks that are to come back, where that is asked for: what is on its way already, or what went last.
    pub(super) fn wanted_back(&mut self, name: &VmName, known: &RecordedVm) -> Result<Option<&'a AsideSet>, ()> {
        if self.wish(name) != Some(Wish::PutBack) {
            return Ok(None);
        }
        let sets = self.inputs.recorded.aside.get(name).map(Vec::as_slice).unwrap_or_default();
        let is_own = |set: &&AsideSet| set.may_belong_to(known.vm.owner.as_str());
        let set = sets.iter().find(|set| set.is_returning()).or_else(|| sets.iter().rfind(is_own));
        if set.is_none() {
            self.refuse(&Address::vm(name), Ground::NothingAside);
        }
        set.map(Some).ok_or(())
    }

    /// A restart may be all that is needed, and costs nobody anything.
    pub(super) fn advise_restart(&mut self, address: &Address, work: &Work<'_>) {
        let is_first_run = work.known.generation == 1 && work.life.is_live();
        if is_first_run && self.wish(work.name) == Some(Wish::Reimage) {
            self.note(address, Remark::NeverRestarted { vm: work.name.clone() });
        }
    }

    /// The disks of now go aside, and those of `set` come back.
    pub(super) fn put_back(&mut self, steps: &mut Steps, work: &Work<'_>, set: &AsideSet) -> NewDisks {
        let Work { name, known, .. } = *work;
        let moves: Vec<(PathBuf, PathBuf)> = set
            .disks
            .iter()
            .map(|disk| (disk.path.clone(), place_back(disk, self.inputs.recorded, name, &self.given_back)))
            .collect();
        self.given_back.extend(moves.iter().map(|(_, to)| to.clone()));
        self.step(steps, Entry::WantBack { vm: name.clone(), moves: moves.clone() });
        if !known.disks.is_empty() {
            self.set_aside(steps, name, known);
        }
        let back = |(disk, (_, to)): (&AsideDisk, &(PathBuf, PathBuf))| RecordedDisk {
            path: to.clone(),
            ..disk.clone().into()
        };
        let kept: Vec<RecordedDisk> = set.disks.iter().zip(&moves).map(back).collect();
        self.step(steps, Effect::PutBack { vm: name.clone(), moves });
        NewDisks { version: self.inputs.recorded.version_below(&kept), kept, new: Vec::new() }
    }
}

/// Where a disk goes that was set aside: where it was, unless another vm has that place by now, or gets it in the same go.
pub fn place_back(disk: &AsideDisk, recorded: &Recorded, name: &VmName, others_get: &BTreeSet<PathBuf>) -> PathBuf {
    if let Some(to) = &disk.to {
        return to.clone();
    }
    let others = recorded.vms.iter().filter(|(other, _)| *other != name).flat_map(|(_, vm)| &vm.disks);
    let waiting = recorded.waiting.iter().filter(|(other, _)| *other != name).flat_map(|(_, waiting)| &waiting.disks);
    let taken: Vec<&Path> = others.chain(waiting).map(|disk| disk.path.as_path()).collect();
    let (folder, file) = (disk.was.parent().unwrap_or(Path::new("/")), disk.was.file_name().unwrap_or_default());
    let numbered = (2..).map(|number: u32| {
        let mut numbered = folder.as_os_str().to_owned();
        numbered.push(format!(".{number}"));
        PathBuf::from(numbered).join(file)
    });
    let mut places = std::iter::once(disk.was.clone()).chain(numbered);
    places
        .find(|place| !taken.contains(&place.as_path()) && !others_get.contains(place))
        .expect("one of endlessly many is free")
}
