//! Power: whether a vm's guest is stopped or started, and what its run is told. Where the run stands is found by `life`.

use std::net::Ipv4Addr;

use super::claims;
use super::spec::{Seat, run_disk, run_spec};
use super::vms::{Steps, Work};
use super::{Effect, Inputs, Planner, Reason, Remark, Wish};
use crate::model::address::Address;
use crate::model::claim::ClaimedPower;
use crate::model::id::{Mac, RunId, VmName};
use crate::model::job::TaskState;
use crate::model::lab::{PowerState, RestartPolicy, Vm, VmGroup};
use crate::observe::{Life, Phase, RunReport, life};
use crate::run::{SEED, StopReason};
use crate::state::{RecordedDisk, RecordedRun, RecordedVm, Started};

/// Whether a vm is stopped, whether it is started, and why.
pub(super) struct Decision {
    pub(super) stop: bool,
    pub(super) start: bool,
    pub(super) reasons: Vec<Reason>,
}

impl Planner<'_> {
    /// Whether the vm is stopped and whether it is started, and why. What is asked of it now goes before its manifest.
    pub(super) fn decide(&mut self, address: &Address, work: &Work<'_>, live: bool, stale: bool) -> Decision {
        let reasons = Vec::new();
        if self.wants_other_disks(work.name) {
            let why = work.back.map_or(Reason::Reimaged, |set| Reason::PutBack { set: set.words() });
            return Decision { stop: live, start: live, reasons: vec![why] };
        }
        let is_asked_to_run = matches!(self.wish(work.name), Some(Wish::Start | Wish::Restart));
        if is_asked_to_run && work.vm.state == PowerState::Stopped {
            self.note(address, Remark::StopsAgain);
        }
        let wanted = match self.wish(work.name) {
            Some(Wish::Restart) if live => {
                return Decision { stop: true, start: true, reasons: vec![Reason::Asked] };
            }
            Some(Wish::Start) if live && !work.must_be_off() => PowerState::OnDemand,
            Some(Wish::Start | Wish::Restart) => PowerState::Running,
            Some(Wish::Stop) => PowerState::Stopped,
            Some(Wish::Reimage | Wish::PutBack) | None => match work.claim.map(|claim| claim.wanted) {
                // Whoever works on it is not disturbed by an edit.
                Some(ClaimedPower::Running) if live && !work.must_be_off() => PowerState::OnDemand,
                Some(ClaimedPower::Running) => PowerState::Running,
                Some(ClaimedPower::Stopped) => PowerState::Stopped,
                None => self.state_now(work.name, work.vm).0,
            },
        };
        match (wanted, live) {
            (PowerState::Running, true) if stale => Decision { stop: true, start: true, reasons },
            (PowerState::Running, true) if self.told_to_stop(work) => {
                let reasons = vec![Reason::ToldToStop];
                Decision { stop: true, start: true, reasons }
            }
            (PowerState::Running, true) => {
                self.note_on_queue(address, work);
                Decision { stop: false, start: work.must_be_off(), reasons }
            }
            (PowerState::Running, false) => self.decide_off(address, work, stale),
            (PowerState::Stopped, true) => {
                let why = work.claim.map_or(Reason::Wanted { state: PowerState::Stopped }, claims::reason);
                Decision { stop: true, start: false, reasons: vec![why] }
            }
            (PowerState::OnDemand, true) if stale => {
                self.note(address, Remark::OldSettings);
                Decision { stop: false, start: false, reasons }
            }
            (PowerState::OnDemand, true) => {
                self.note_on_queue(address, work);
                Decision { stop: false, start: false, reasons }
            }
            (PowerState::Stopped | PowerState::OnDemand, false) => Decision { stop: false, start: false, reasons },
        }
    }

    fn told_to_stop(&self, work: &Work<'_>) -> bool {
        work.known.run.as_ref().is_some_and(|run| self.inputs.observed.told_to_stop.contains(&run.run))
    }

    fn decide_off(&mut self, address: &Address, work: &Work<'_>, stale: bool) -> Decision {
        let Life::Off { reason, .. } = &work.life else { unreachable!("decide_off is for vms that are off") };
        let powered_off = matches!(reason, Some(StopReason::Guest));
        let asked_for = self.inputs.asks.contains_key(work.name);
        if powered_off && !asked_for && work.claim.is_none() && work.vm.restart == RestartPolicy::OnFailure && !stale {
            self.note(address, Remark::PoweredOff { vm: work.name.clone() });
            return Decision { stop: false, start: false, reasons: Vec::new() };
        }
        if self.may_run_unknown(work.name) {
            return Decision { stop: false, start: false, reasons: Vec::new() };
        }
        let claimed = match work.claim {
            _ if asked_for => None,
            Some(claim) => Some(claims::reason(claim)),
            None => self.state_now(work.name, work.vm).1,
        };
        let why = match (&work.known.run, reason) {
            _ if asked_for => Reason::Asked,
            (None, _) => Reason::Wanted { state: PowerState::Running },
            (Some(_), reason) => Reason::RunEnded { reason: reason.clone() },
        };
        let why = if work.known.run.is_none() && claimed.is_some() { None } else { Some(why) };
        Decision { stop: false, start: true, reasons: claimed.into_iter().chain(why).collect() }
    }

    fn note_on_queue(&mut self, address: &Address, work: &Work<'_>) {
        let Some(run) = &work.known.run else { return };
        let task = self.inputs.observed.tasks.get(&(run.batch.clone(), run.task));
        match task.map(|task| &task.state) {
            Some(TaskState::Pending { reason }) => {
                self.wait(address, Remark::Queued { reason: reason.clone() });
            }
            Some(TaskState::Held) => self.wait(address, Remark::QueueHeld),
            Some(TaskState::Suspended) => self.wait(address, Remark::JobSuspended),
            Some(TaskState::Deleting) => self.wait(address, Remark::JobDeleting),
            Some(state @ TaskState::Error { .. }) => {
                self.wait(address, Remark::JobError { reason: state.reason() });
            }
            _ => {}
        }
        if let Some(Phase::Paused { reason }) = self.inputs.observed.runs.get(&run.run).map(|report| &report.phase) {
            self.wait(address, Remark::Paused { reason: reason.clone() });
        }
    }

    /// Where a vm stands; one on the host that is given up for lost is off, if that may be done, and so is one of an open session
    /// whose guest stands still there.
    pub(super) fn life(&mut self, name: &VmName, known: &RecordedVm) -> Life {
        let Inputs { observed, site, lost_host, .. } = *self.inputs;
        let life = life(known, observed, site);
        match (&life, lost_host) {
            (Life::Unknown { host, silent_seconds, .. }, Some(lost))
                if lost.is(host) && self.may_give_up(name, host, *silent_seconds) =>
            {
                Life::Off { reason: Some(StopReason::HostLost { host: host.clone() }), news: true }
            }
            (Life::Unknown { host, silent_seconds, .. }, None) if self.takes_over(name, *silent_seconds) => {
                Life::Off { reason: Some(StopReason::HostLost { host: host.clone() }), news: true }
            }
            _ => life,
        }
    }

    pub(super) fn record_news(&mut self, steps: &mut Steps, name: &VmName, known: &RecordedVm, life: &Life) {
        let Some(run) = &known.run else { return };
        let address = Address::vm(name);
        match life {
            Life::Off { reason, news: true } => {
                self.drift(&address, Remark::RunEnded { run: run.run.clone(), reason: reason.clone() });
                let task = self.inputs.observed.tasks.get(&(run.batch.clone(), run.task)).map(|task| task.id);
                let (batch, number) = (run.batch.clone(), run.task);
                let (vm, run, reason) = (name.clone(), run.run.clone(), reason.clone());
                // A log is no report: its words explain an end, and prove none.
                let is_reported = !self.inputs.observed.last_words.contains_key(&run);
                if matches!(reason, None | Some(StopReason::HostLost { .. })) || !is_reported {
                    let generation = known.generation + 1;
                    self.step(steps, Effect::Fence { vm: vm.clone(), run: run.clone(), generation, task });
                }
                self.step(steps, Effect::RecordEnd { vm, run, batch, task: number, reason });
            }
            Life::Lost { task } => {
                self.drift(&address, Remark::SubmitUnconfirmed { run: run.run.clone(), task: *task });
                let (vm, run, task) = (name.clone(), run.run.clone(), *task);
                self.step(steps, Effect::Adopt { vm, run, task });
            }
            _ => {}
        }
    }

    pub(super) fn stop(&mut self, steps: &mut Steps, name: &VmName, known: &RecordedVm, life: &Life) {
        let (Some(RecordedRun { run, .. }), Life::Live { .. } | Life::Lost { .. }) = (&known.run, life) else { return };
        let task = match life {
            Life::Live { task } => *task,
            Life::Lost { task } => Some(*task),
            Life::Off { .. } | Life::Unknown { .. } => None,
        };
        let effect = Effect::Stop { vm: name.clone(), run: run.clone(), generation: known.generation, task };
        self.step(steps, effect);
    }

    /// Whether the guest leaves its run, or comes back, with none but its disks changed: then its job, its host and its network
    /// stay. What an apply that was cut short has turned off comes back likewise.
    pub(super) fn stays_in_run(&self, work: &Work<'_>, decision: &Decision) -> bool {
        let Inputs { observed, .. } = self.inputs;
        let Some(run) = work.known.run.as_ref().filter(|_| work.stays && matches!(work.life, Life::Live { .. })) else {
            return false;
        };
        let report = observed.runs.get(&run.run).filter(|report| report.takes_disks);
        let Some(RunReport { phase, .. }) = report else { return false };
        let is_ending = matches!(phase, Phase::Stopping | Phase::Stopped { .. }) || self.told_to_stop(work);
        match decision.stop {
            _ if is_ending => false,
            true => self.wants_other_disks(work.name) && decision.start && !needs_another_run(run, work),
            false => observed.told_to_be_off.contains(&run.run),
        }
    }

    /// Whether the guest must begin anew for what is wanted now. Which disks it had until it was turned off is no matter.
    pub(super) fn is_stale(&self, work: &Work<'_>) -> bool {
        let differs = |run: &RecordedRun| match self.inputs.observed.told_to_be_off.contains(&run.run) {
            true => needs_another_run(run, work),
            // A seed is read once, when a disk first boots: nobody is disturbed for one.
            false => Started { seeded: run.started.seeded, ..work.started() } != run.started,
        };
        work.known.run.as_ref().is_some_and(differs)
    }

    /// The guest goes until its disks are others.
    pub(super) fn turn_off(&mut self, steps: &mut Steps, work: &Work<'_>) {
        let (Some(RecordedRun { run, .. }), Life::Live { task }) = (&work.known.run, &work.life) else { return };
        let (vm, run, generation) = (work.name.clone(), run.clone(), work.known.generation);
        self.step(steps, Effect::TurnOff { vm, run, generation, task: *task });
    }

    pub(super) fn turn_on(&mut self, steps: &mut Steps, work: &Work<'_>, disks: &[RecordedDisk]) {
        let Some(RecordedRun { run, started, .. }) = &work.known.run else { return };
        let paths = disks.iter().map(|disk| disk.path.clone()).collect();
        let is_seeded = started.seeded;
        let started = super::objects::to_json(&Started { disks: paths, ..started.clone() });
        let (vm, run, generation) = (work.name.clone(), run.clone(), work.known.generation);
        let seed = self.seed_disk(work.name, work.vm, work.known.ip, disks).filter(|_| is_seeded);
        let disks = disks.iter().map(run_disk).collect();
        self.step(steps, Effect::TurnOn { vm, run, generation, disks, started, seed });
    }

    pub(super) fn start(
        &mut self,
        steps: &mut Steps,
        name: &VmName,
        vm: &Vm,
        (ip, mac): (Ipv4Addr, Mac),
        disks: &[RecordedDisk],
        supersedes: Option<RunId>,
    ) {
        // Without its group the vm had no address, and was refused.
        let Some(group) = self.inputs.desired.vm_groups.get(&vm.vm_group) else { return };
        let started = super::objects::to_json(&started(vm, group, ip, mac, disks));
        let generation = self.moves.known(name, self.inputs.recorded).map_or(0, |known| known.generation) + 1;
        let run = RunId::new(self.inputs.recorded.site.clone(), self.next_run);
        self.next_run += 1;
        let Inputs { site, desired, recorded, .. } = *self.inputs;
        let seat = Seat { run, generation, ip, mac, disks };
        let mut spec = run_spec(site, desired, recorded, (name, vm, group), &seat);
        // It is in the drive for this run alone, and no reason to start the vm anew once it is gone.
        if let Some(cdrom) = self.inputs.asks.get(name).and_then(|ask| ask.cdrom.clone()) {
            (spec.hardware.cdrom, spec.installs) = (Some(cdrom), true);
        }
        let memory_mib = vm.hardware.host_memory_mib();
        let seed = self.seed_disk(name, vm, ip, disks);
        spec.seed = seed.as_ref().map(|_| site.storage.runs.join(spec.run.to_string()).join(SEED));
        let clock = self.first_clock(name, vm);
        self.step(steps, Effect::Start { spec: Box::new(spec), started, memory_mib, supersedes, clock, seed });
    }
}

/// Whether anything but its disks differs from what a run was started with.
fn needs_another_run(run: &RecordedRun, work: &Work<'_>) -> bool {
    Started { disks: run.started.disks.clone(), ..work.started() } != run.started
}

pub(super) fn started(vm: &Vm, group: &VmGroup, ip: Ipv4Addr, mac: Mac, disks: &[RecordedDisk]) -> Started {
    Started {
        hardware: vm.hardware.clone(),
        isolated: vm.isolated,
        ip,
        mac,
        bridge: group.bridge.clone(),
        disks: disks.iter().map(|disk| disk.path.clone()).collect(),
        seeded: vm.seed.is_some(),
    }
}

/// What is only taken note of.
pub(super) fn news(life: &Life) -> Option<Reason> {
    match life {
        Life::Off { reason, news: true } => Some(Reason::RunEnded { reason: reason.clone() }),
        Life::Lost { task } => Some(Reason::SubmitUnconfirmed { task: *task }),
        _ => None,
    }
}
