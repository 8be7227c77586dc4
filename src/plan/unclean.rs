//! Disks of a guest that did not end as a guest should. Before the next start they are looked through, and one that is damaged
//! is left to a person. Those of a lost host become other files first: should it come back, it writes into the old ones.
//!
//! ```text
//! ended without a word, crashed         ─▶ checked ─▶ start
//! its host was lost       ─▶ copied ────▶ checked ─▶ start
//!                              └ the old file is set aside
//! ```
//!
//! As long as that run is the vm's latest, each plan says the same: what was cut short goes on.

use super::vms::{Steps, Work};
use super::{Effect, Planner};
use crate::model::id::VmName;
use crate::observe::{Life, is_fenced};
use crate::run::StopReason;
use crate::state::RecordedDisk;

impl Planner<'_> {
    /// What is done about the disks that a start would go on with.
    pub(super) fn make_sure_of(&mut self, steps: &mut Steps, work: &Work<'_>, kept: &[RecordedDisk]) {
        let Life::Off { reason, .. } = &work.life else { return };
        if work.known.run.is_none() || work.back.is_some() || kept.is_empty() || ended_well(reason.as_ref()) {
            return;
        }
        let vm = work.name.clone();
        if matches!(reason, Some(StopReason::HostLost { .. })) {
            let of_lab = self.inputs.site.storage.aside.join(self.inputs.desired.lab.as_str());
            let folder = of_lab.join(vm.file_name()).join(format!("lost-{}", work.known.generation));
            let sets = self.inputs.recorded.aside.get(work.name).map(Vec::as_slice).unwrap_or_default();
            let is_done = sets.iter().flat_map(|set| &set.disks).any(|disk| disk.path.starts_with(&folder));
            if !is_done {
                self.step(steps, Effect::Renew { vm: vm.clone(), disks: kept.to_vec(), folder });
            }
        }
        let disks = kept.iter().map(|disk| disk.path.clone()).collect();
        self.step(steps, Effect::CheckDisks { vm, disks });
    }

    /// Whether a vm of an open session is taken over from a host that nobody hears of: nobody is there in the night before an
    /// exam who could say so, and its guest stands still for certain.
    pub(super) fn takes_over(&self, name: &VmName, silent_seconds: Option<u64>) -> bool {
        self.open_sessions.iter().any(|open| open.holds(name))
            && silent_seconds.is_some_and(|silent| is_fenced(silent, self.inputs.site))
    }
}

/// Whether qemu wrote all that its guest had given it: one that was asked to go does, and one that never began had nothing.
fn ended_well(reason: Option<&StopReason>) -> bool {
    match reason {
        Some(
            StopReason::Guest
            | StopReason::Asked
            | StopReason::Deadline
            | StopReason::Superseded
            | StopReason::Failed { .. },
        ) => true,
        None
        | Some(
            StopReason::Crashed
            | StopReason::HostLost { .. }
            | StopReason::Scheduler { .. }
            | StopReason::Broken { .. }
            | StopReason::Other(_),
        ) => false,
    }
}
