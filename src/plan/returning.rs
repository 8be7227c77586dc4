//! Who leaves and comes back: disks that are set aside are somebody's work, so a vm of the same name and owner does not
//! begin with new ones before somebody has chosen. Where nothing was ever written to them, there is nothing to choose.

use super::disks::NewDisk;
use super::{Ground, Inputs, Planner, Remark};
use crate::model::address::Address;
use crate::model::id::VmName;
use crate::model::lab::Vm;
use crate::state::{AsideSet, RecordedDisk};

impl Planner<'_> {
    /// Whether disks of this vm are being put back by a command that was cut short: nothing is done about it until then.
    pub(super) fn waits_for_restore(&mut self, name: &VmName) -> bool {
        let sets = self.inputs.recorded.aside.get(name);
        let Some(set) = sets.and_then(|sets| sets.iter().find(|set| set.is_returning())) else { return false };
        self.wait(&Address::vm(name), Remark::Restoring { vm: name.clone(), set: set.words() });
        true
    }

    /// Whether a vm that is not recorded may be made: no disks of its owner are aside, or the user wants new ones.
    pub(super) fn may_begin_anew(&mut self, name: &VmName, vm: &Vm) -> bool {
        let address = Address::vm(name);
        let Inputs { recorded, observed, .. } = self.inputs;
        if let Some(waiting) = recorded.waiting.get(name) {
            let fits = waiting.owner.is_empty() || waiting.owner == vm.owner.as_str();
            if !fits {
                let (theirs, owner) = (waiting.owner.clone(), vm.owner.clone());
                self.refuse(&address, Ground::DisksOfOther { theirs, owner });
            }
            return fits;
        }
        let sets = recorded.aside.get(name).map(Vec::as_slice).unwrap_or_default();
        let is_empty = |set: &AsideSet| set.disks.iter().all(|disk| observed.aside_unwritten.contains(&disk.path));
        let is_own = |set: &&AsideSet| set.may_belong_to(vm.owner.as_str()) && !is_empty(set);
        let own: Vec<&AsideSet> = sets.iter().filter(is_own).collect();
        let Some(latest) = own.last() else { return true };
        let words: Vec<String> = own.iter().map(|set| set.words()).collect();
        if self.allowed(&address) {
            self.note(&address, Remark::NewDisks { aside: words });
            return true;
        }
        let latest = (own.len() > 1).then(|| latest.name.clone());
        self.refuse(&address, Ground::WasHereBefore { sets: words, latest });
        false
    }

    /// What a new vm begins with: the disks that wait for it, and those of `new` for which none does. And the version of its
    /// template that they are of.
    pub(super) fn with_waiting(
        &self,
        name: &VmName,
        version: Option<u32>,
        new: Vec<NewDisk>,
    ) -> (Option<u32>, Vec<RecordedDisk>, Vec<NewDisk>) {
        let Some(waiting) = self.inputs.recorded.waiting.get(name) else { return (version, Vec::new(), new) };
        let kept = waiting.disks.clone();
        let is_absent = |disk: &NewDisk| kept.iter().all(|kept| kept.slot != disk.slot());
        let new = new.into_iter().filter(is_absent).collect();
        (self.inputs.recorded.version_below(&kept), kept, new)
    }
}
