//! Whether the site has room for what a plan starts. Only a machine that runs its own jobs says how much it has; a cluster's
//! queue knows for itself. What does not fit would wait forever, since no vm ends for another one: so it is held back, and
//! told with the smallest change that makes it fit.

use std::collections::BTreeSet;

use super::{Effect, Ground, Inputs, Planner};
use crate::model::address::Address;
use crate::model::id::{RunId, UserName, VmName};
use crate::model::lab::Hardware;
use crate::model::site::SchedulerSettings;
use crate::observe::life;
use crate::state::RecordedVm;

/// A vm that this plan starts, with what it costs.
pub(super) struct Start {
    pub(super) address: Address,
    pub(super) owner: UserName,
    pub(super) hardware: Hardware,
}

impl Planner<'_> {
    pub(super) fn guard_capacity(&mut self) {
        let SchedulerSettings::Local { slots, memory_mib, .. } = self.inputs.site.scheduler else { return };
        let (too_big, starts): (Vec<Start>, Vec<Start>) =
            self.starts().into_iter().partition(|start| start.hardware.host_memory_mib() > memory_mib);
        self.refuse_too_big(&too_big, memory_mib);
        let running = self.running_mib();
        let room = |at: usize, used: u64| running.len() + at < slots as usize && used <= memory_mib;
        let mut used: u64 = running.iter().sum();
        let before = used;
        let mut fitting = 0;
        for (at, start) in starts.iter().enumerate() {
            used += start.hardware.host_memory_mib();
            if !room(at, used) {
                break;
            }
            fitting += 1;
        }
        let Some(first) = starts.get(fitting) else { return };
        let count = running.len() + starts.len();
        let all_mib = before + starts.iter().map(|start| start.hardware.host_memory_mib()).sum::<u64>();
        let fitting_mib = fitting_memory(&starts, memory_mib.saturating_sub(before)).filter(|_| all_mib > memory_mib);
        let without = starts.len() - fitting;
        let why = Ground::NoRoom { without, slots, memory_mib, wanted_slots: count, wanted_mib: all_mib, fitting_mib };
        let held: Vec<Address> = starts[fitting..].iter().map(|start| start.address.clone()).collect();
        self.refuse_with(&first.address, why, held);
    }

    fn refuse_too_big(&mut self, too_big: &[Start], memory_mib: u64) {
        let Some(first) = too_big.first() else { return };
        let wanted_mib = first.hardware.host_memory_mib();
        let most_mib = memory_mib.saturating_sub(wanted_mib - u64::from(first.hardware.memory_mib));
        let why = Ground::TooBig { wanted_mib, others: too_big.len() - 1, memory_mib, most_mib };
        let held: Vec<Address> = too_big.iter().map(|start| start.address.clone()).collect();
        self.refuse_with(&first.address, why, held);
    }

    /// Vms that are refused already start nothing.
    pub(super) fn starts(&self) -> Vec<Start> {
        let held = |address: &Address| self.plan.refusals.iter().any(|refusal| refusal.holds(address));
        let changes = self.plan.changes.iter().filter(|change| !held(&change.address));
        let starts = changes.flat_map(|change| {
            change.actions.iter().filter_map(|action| action.effect.starts()).map(|spec| {
                let (owner, hardware) = (spec.owner.clone(), spec.hardware.clone());
                Start { address: change.address.clone(), owner, hardware }
            })
        });
        starts.collect()
    }

    /// What each guest costs that runs on.
    fn running_mib(&self) -> Vec<u64> {
        self.running_on()
            .map(|(_, known)| known)
            .filter_map(|known| known.run.as_ref())
            .map(|run| run.started.hardware.host_memory_mib())
            .collect()
    }

    /// The vms that run, and that this plan does not stop.
    pub(super) fn running_on(&self) -> impl Iterator<Item = (&VmName, &RecordedVm)> {
        let Inputs { recorded, observed, site, .. } = *self.inputs;
        let stopped: BTreeSet<&RunId> = self
            .plan
            .actions()
            .filter_map(|(_, action)| match &action.effect {
                Effect::Stop { run, .. } | Effect::RecordEnd { run, .. } => Some(run),
                _ => None,
            })
            .collect();
        let live = recorded.vms.iter().filter(move |(_, known)| !life(known, observed, site).is_off());
        live.filter(move |(_, known)| known.run.as_ref().is_some_and(|run| !stopped.contains(&run.run)))
    }
}

/// The most memory that each of these could have so that all fit; nothing where that is not worth saying.
fn fitting_memory(starts: &[Start], room_mib: u64) -> Option<u64> {
    const MEMORY_MIB_MIN: u64 = 16;
    let share = room_mib / starts.len() as u64;
    let overhead = |start: &Start| start.hardware.host_memory_mib() - u64::from(start.hardware.memory_mib);
    let memory = share.checked_sub(starts.iter().map(overhead).max()?)?;
    (memory >= MEMORY_MIB_MIN).then_some(memory)
}
