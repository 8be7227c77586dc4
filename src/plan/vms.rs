//! Vms: address, disks, reservation and run, each kept until there is a reason to change it.
//!
//! ```text
//!            new                      edited: hardware, isolation, network
//!  (none) ─────────▶ off ──start──▶ queued ──▶ up ──restart──▶ off ──▶ queued …
//!                     ▲                │        │
//!                     └────── stop ────┴────────┤ guest powers off: stays off unless `restart: always`
//!                                               │ dies: started again
//!                                               ▼
//!  left the manifest: stop ─▶ release ─▶ set disks aside ─▶ forget
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::life::{Life, life};
use super::objects::fields;
use super::templates::CurrentVersion;
use super::{Action, ActionId, Change, Effect, Inputs, Planner, Verb};
use crate::address::Address;
use crate::disks::DiskOrigin;
use crate::host::dhcp::Reservation;
use crate::id::{Mac, RunId, TemplateName, VmName};
use crate::observe::Phase;
use crate::resolve::{DiskSource, Hardware, Origin, PowerState, RestartPolicy, Template, Vm, VmGroup, VmSource};
use crate::run::{RunDisk, RunNetwork, RunSpec, StopReason};
use crate::scheduler::TaskState;
use crate::state::{RecordedDisk, RecordedRun, RecordedVm};

/// Memory that a run takes beside its guest's: qemu itself (35 to 60 MiB) and the starter (under 8 MiB).
const OVERHEAD_MIB: u64 = 64;

/// What a guest is started with; when this differs from what is wanted, it must be restarted to take effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub hardware: Hardware,
    pub isolated: bool,
    pub ip: Ipv4Addr,
    pub mac: Mac,
    pub bridge: String,
    pub disks: Vec<PathBuf>,
}

/// Actions of one change, each after the one before it.
struct Steps {
    actions: Vec<Action>,
    last: Vec<ActionId>,
}

impl Planner<'_> {
    pub(super) fn plan_leavers(&mut self) {
        let (desired, recorded) = (self.inputs.desired, self.inputs.recorded);
        for (name, known) in recorded.vms.iter().filter(|(name, _)| !desired.vms.contains_key(*name)) {
            if !self.moves.leaves_by_name_only(name) {
                self.plan_leaver(name, known);
            }
        }
    }

    pub(super) fn plan_vms(&mut self) {
        for (name, vm) in &self.inputs.desired.vms {
            match self.moves.known(name, self.inputs.recorded) {
                None => self.plan_new_vm(name, vm),
                Some(known) => self.plan_known_vm(name, vm, known),
            }
        }
    }

    fn plan_leaver(&mut self, name: &VmName, known: &RecordedVm) {
        let address = Address::vm(name);
        let mut steps = Steps { actions: Vec::new(), last: Vec::new() };
        let life = self.life(name, known);
        if let Life::Unknown { host, .. } = &life {
            self.note(
                &address,
                format!(
                    "left the manifest; its host {host} does not answer, so it is left as it is until it does, or until `labwright host forget {host}`"
                ),
            );
            return;
        }
        self.record_news(&mut steps, name, known, &life);
        self.stop(&mut steps, name, known, &life);
        let reservation = self.reservation(name, known.ip, known.mac);
        self.step(&mut steps, Effect::Release { vm: name.clone(), reservation });
        if !known.disks.is_empty() {
            self.set_aside(&mut steps, name, known);
        }
        self.step(&mut steps, Effect::ForgetVm { name: name.clone() });
        let reason = format!("left the manifest; its disks are kept for {} days", self.inputs.site.retention_days);
        let before = vm_fields(&known.vm, known.ip);
        self.change(address, Verb::SetAside, reason, before, BTreeMap::new(), steps);
    }

    fn plan_new_vm(&mut self, name: &VmName, vm: &Vm) {
        let address = Address::vm(name);
        let Some((ip, mac)) = self.new_address(&address, vm) else { return };
        let mut steps = Steps { actions: Vec::new(), last: Vec::new() };
        let Some((version, disks)) = self.new_disks(&address, name, vm, None) else { return };
        self.step(&mut steps, Effect::RecordVm { name: name.clone(), vm: Box::new(vm.clone()), ip, mac, version });
        let disks = self.make_disks(&mut steps, name, disks);
        let reservation = self.reservation(name, ip, mac);
        self.step(&mut steps, Effect::Reserve { vm: name.clone(), reservation });
        let mut reason = format!("new: {}", origin_words(vm));
        if vm.state == PowerState::Running {
            self.start(&mut steps, name, vm, (ip, mac), &disks, None);
            reason.push_str("; starts");
        }
        self.change(address, Verb::Create, reason, BTreeMap::new(), vm_fields(vm, ip), steps);
    }

    /// One known vm, step by step: what ended, what is stopped, what is replaced, what is recorded, what starts.
    fn plan_known_vm(&mut self, name: &VmName, vm: &Vm, known: &RecordedVm) {
        let address = Address::vm(name);
        let life = self.life(name, known);
        if let Life::Unknown { host, .. } = &life {
            self.note(
                &address,
                format!(
                    "its host {host} does not answer: nothing is done about it until it does, or until `labwright host forget {host}`"
                ),
            );
            return;
        }
        let Some(group) = self.inputs.desired.vm_groups.get(&vm.vm_group) else { return };
        let stays = self.moves.same_group(&known.vm.vm_group, &vm.vm_group)
            && group.range.contains(known.ip)
            && group.mac(known.ip) == known.mac;
        let (ip, mac) = if stays {
            (known.ip, known.mac)
        } else {
            let Some(new) = self.new_address(&address, vm) else { return };
            new
        };
        let moving = known.disks.iter().any(|disk| disk.moving_to.is_some());
        let replaced = moving || !self.moves.same_source(&known.vm.source, &vm.source);
        let missing: Vec<&RecordedDisk> = known
            .disks
            .iter()
            .filter(|disk| {
                disk.made && disk.moving_to.is_none() && self.inputs.observed.disks_missing.contains(&disk.path)
            })
            .collect();
        for disk in &missing {
            self.drift(&address, format!("its disk {} is gone", disk.path.display()));
        }
        if !replaced && !missing.is_empty() && !self.allowed(&address) {
            self.refuse_missing_disk(&address, missing[0]);
            return;
        }
        if replaced && !moving && !self.may_replace(name, &known.vm.owner) {
            return;
        }
        let work = Work { name, vm, known, life, group, ip, mac, stays, replaced, missing };
        self.plan_work(&address, &work);
    }

    fn refuse_missing_disk(&mut self, address: &Address, disk: &RecordedDisk) {
        let text = format!(
            "its disk {} is gone; a new one would start from the template, without what was on it",
            disk.path.display()
        );
        let hint = format!("put the file back (is the storage mounted?), or give it up with `--allow {address}`");
        self.refuse(address, text, hint);
    }

    fn plan_work(&mut self, address: &Address, work: &Work<'_>) {
        let Work { name, vm, known, life, ip, mac, .. } = work;
        let mut steps = Steps { actions: Vec::new(), last: Vec::new() };
        let edits = edits(known, vm, *ip);
        let live = matches!(life, Life::Live { .. } | Life::Lost { .. });
        let started = work.started();
        let stale = known.run.as_ref().is_some_and(|run| run.started != started);
        let decision = self.decide(address, work, live, stale);
        let must_be_off = work.must_be_off();
        let disturbs = (live && decision.stop) || must_be_off;
        if disturbs && !self.may_disturb(name, "it would be stopped, rebuilt or re-addressed") {
            return;
        }
        let moved_from = self.moves.vms.get(*name).cloned();
        self.rename(&mut steps, work, moved_from.as_ref());
        self.record_news(&mut steps, name, known, life);
        if live && (decision.stop || must_be_off) {
            self.stop(&mut steps, name, known, life);
        }
        if !work.stays && moved_from.is_none() {
            let old = self.reservation(name, known.ip, known.mac);
            self.step(&mut steps, Effect::Release { vm: (*name).clone(), reservation: old });
        }
        let Some(disks) = self.mend_disks(&mut steps, address, work) else { return };
        if !edits.is_empty() || !work.stays || work.replaced || disks.version != known.version {
            let (vm, version) = (Box::new((*vm).clone()), disks.version);
            self.step(&mut steps, Effect::RecordVm { name: (*name).clone(), vm, ip: *ip, mac: *mac, version });
        }
        let mut all = disks.kept;
        all.extend(self.make_disks(&mut steps, name, disks.new));
        all.sort_by_key(|disk| disk.slot);
        let unreserved = moved_from.is_none() && self.inputs.observed.reservations_missing.contains(*name);
        if unreserved {
            self.drift(address, "its DHCP reservation is gone");
        }
        if !work.stays || unreserved || moved_from.is_some() {
            let reservation = self.reservation(name, *ip, *mac);
            self.step(&mut steps, Effect::Reserve { vm: (*name).clone(), reservation });
        }
        if decision.start {
            let supersedes = known.run.as_ref().map(|run| run.run.clone());
            self.start(&mut steps, name, vm, (*ip, *mac), &all, supersedes);
        }
        if steps.actions.is_empty() {
            self.plan.unchanged += 1;
            return;
        }
        let only_moved = moved_from.is_some() && edits.is_empty();
        let verb = match verb(work, &decision, live, !edits.is_empty() || unreserved) {
            Verb::Record | Verb::Update if only_moved => Verb::Move,
            verb => verb,
        };
        let mut reasons: Vec<String> = moved_from.iter().map(|from| format!("was {}", Address::vm(from))).collect();
        reasons.extend(decision.reasons);
        reasons.extend(edits.iter().map(|(field, before, after)| format!("{field} {before} -> {after}")));
        reasons.extend(news(life).filter(|_| verb == Verb::Record));
        reasons.extend(unreserved.then(|| "its DHCP reservation is missing".to_owned()));
        reasons.extend(work.missing.iter().map(|disk| format!("{} is given up and made anew", disk.path.display())));
        let (before, after) =
            edits.into_iter().map(|(field, before, after)| ((field.clone(), before), (field, after))).unzip();
        self.change(address.clone(), verb, reasons.join("; "), before, after, steps);
    }

    /// A new name: the records move, and the reservation, whose mark carries the name.
    fn rename(&mut self, steps: &mut Steps, work: &Work<'_>, from: Option<&VmName>) {
        let Some(from) = from else { return };
        let old = self.reservation(from, work.known.ip, work.known.mac);
        self.step(steps, Effect::Release { vm: from.clone(), reservation: old });
        self.step(steps, Effect::RenameVm { from: from.clone(), to: work.name.clone() });
    }

    /// What the user asks of this one vm now goes before what the manifest says.
    fn wanted_power(&self, work: &Work<'_>) -> PowerState {
        self.inputs.power.get(work.name).copied().unwrap_or(work.vm.state)
    }

    /// Whether the vm is stopped and whether it is started, and why.
    fn decide(&mut self, address: &Address, work: &Work<'_>, live: bool, stale: bool) -> Decision {
        let reasons = Vec::new();
        match (self.wanted_power(work), live) {
            (PowerState::Running, true) if stale => Decision { stop: true, start: true, reasons },
            (PowerState::Running, true) => {
                self.note_on_queue(address, work);
                Decision { stop: false, start: work.must_be_off(), reasons }
            }
            (PowerState::Running, false) => self.decide_off(address, work, stale),
            (PowerState::Stopped, true) => {
                Decision { stop: true, start: false, reasons: vec!["wanted: stopped".into()] }
            }
            (PowerState::OnDemand, true) if stale => {
                self.note(address, "runs with its old settings; the new ones take effect at its next start");
                Decision { stop: false, start: false, reasons }
            }
            (PowerState::Stopped, false) | (PowerState::OnDemand, _) => Decision { stop: false, start: false, reasons },
        }
    }

    fn decide_off(&mut self, address: &Address, work: &Work<'_>, stale: bool) -> Decision {
        let Life::Off { reason, .. } = &work.life else { unreachable!("decide_off is for vms that are off") };
        let powered_off = matches!(reason, Some(StopReason::Guest));
        let asked_for = self.inputs.power.contains_key(work.name);
        if powered_off && !asked_for && work.vm.restart == RestartPolicy::OnFailure && !stale {
            self.note(
                address,
                format!("its guest powered itself off, so it stays off; `labwright vm start {}` starts it", work.name),
            );
            return Decision { stop: false, start: false, reasons: Vec::new() };
        }
        let why = match (&work.known.run, reason) {
            (None, _) => "wanted: running".to_owned(),
            (Some(_), None) => "its run ended without a word".to_owned(),
            (Some(_), Some(reason)) => format!("its run ended: {reason}"),
        };
        Decision { stop: false, start: true, reasons: vec![why] }
    }

    fn note_on_queue(&mut self, address: &Address, work: &Work<'_>) {
        let Some(run) = &work.known.run else { return };
        let task = self.inputs.observed.tasks.get(&(run.batch.clone(), run.task));
        match task.map(|task| &task.state) {
            Some(TaskState::Pending { reason }) => {
                let why = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
                self.note(address, format!("waits in the queue{why}"));
            }
            Some(TaskState::Held) => self.note(address, "is held in the queue"),
            Some(TaskState::Suspended) => self.note(address, "its job is suspended"),
            Some(TaskState::Error { reason }) => {
                let why = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
                self.note(address, format!("its job is in error and needs an admin{why}"));
            }
            _ => {}
        }
        if let Some(Phase::Paused { reason }) = self.inputs.observed.runs.get(&run.run).map(|report| &report.phase) {
            self.note(address, format!("is paused: {reason}"));
        }
    }

    /// Where a vm stands; one on the host that is given up for lost is off, if that may be done.
    fn life(&mut self, name: &VmName, known: &RecordedVm) -> Life {
        let Inputs { observed, site, now, lost_host, .. } = *self.inputs;
        let life = life(known, observed, site, now);
        match (&life, lost_host) {
            (Life::Unknown { host, silent_seconds }, Some(lost))
                if lost.is(host) && self.may_give_up(name, host, *silent_seconds) =>
            {
                Life::Off { reason: Some(StopReason::HostLost { host: host.clone() }), news: true }
            }
            _ => life,
        }
    }

    fn record_news(&mut self, steps: &mut Steps, name: &VmName, known: &RecordedVm, life: &Life) {
        let Some(run) = &known.run else { return };
        let address = Address::vm(name);
        match life {
            Life::Off { reason, news: true } => {
                let how = reason.as_ref().map_or_else(|| "without a word".to_owned(), |reason| format!("({reason})"));
                self.drift(&address, format!("its run {} ended {how}", run.run));
                let task = self.inputs.observed.tasks.get(&(run.batch.clone(), run.task)).map(|task| task.id);
                let (vm, run, reason) = (name.clone(), run.run.clone(), reason.clone());
                if matches!(reason, None | Some(StopReason::HostLost { .. })) {
                    let generation = known.generation + 1;
                    self.step(steps, Effect::Fence { vm: vm.clone(), run: run.clone(), generation, task });
                }
                self.step(steps, Effect::RecordEnd { vm, run, reason });
            }
            Life::Lost { task } => {
                self.drift(
                    &address,
                    format!(
                        "its run {} is in the queue as job {task}, although its submit was never confirmed",
                        run.run
                    ),
                );
                let (vm, run, task) = (name.clone(), run.run.clone(), *task);
                self.step(steps, Effect::Adopt { vm, run, task });
            }
            _ => {}
        }
    }

    fn stop(&mut self, steps: &mut Steps, name: &VmName, known: &RecordedVm, life: &Life) {
        let (Some(RecordedRun { run, .. }), Life::Live { .. } | Life::Lost { .. }) = (&known.run, life) else { return };
        let task = match life {
            Life::Live { task } => *task,
            Life::Lost { task } => Some(*task),
            Life::Off { .. } | Life::Unknown { .. } => None,
        };
        let effect = Effect::Stop { vm: name.clone(), run: run.clone(), generation: known.generation, task };
        self.step(steps, effect);
    }

    fn set_aside(&mut self, steps: &mut Steps, name: &VmName, known: &RecordedVm) {
        let site = &self.inputs.site.storage.aside;
        let fresh = || {
            site.join(self.inputs.desired.lab.as_str())
                .join(name.as_str())
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
    fn mend_disks(&mut self, steps: &mut Steps, address: &Address, work: &Work<'_>) -> Option<NewDisks> {
        let Work { name, vm, known, .. } = work;
        if work.replaced || !work.missing.is_empty() {
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

    /// Path and origin of each disk that a vm starts its life with.
    fn new_disks(
        &mut self,
        address: &Address,
        name: &VmName,
        vm: &Vm,
        version: Option<u32>,
    ) -> Option<(Option<u32>, Vec<NewDisk>)> {
        let folder = self.inputs.site.storage.vms.join(self.inputs.desired.lab.as_str()).join(name.as_str());
        let path = |slot: u32| folder.join(format!("disk-{slot}.qcow2"));
        let (VmSource::Derive(template) | VmSource::Clone(template)) = &vm.source else {
            let VmSource::Disks(sources) = &vm.source else { unreachable!("the other sources are matched above") };
            let disks = (0..).zip(sources).map(|(slot, source)| NewDisk {
                disk: RecordedDisk { slot, path: path(slot), base: None, moving_to: None, made: false },
                origin: match source {
                    DiskSource::Image { path, .. } => DiskOrigin::Copy { image: path.clone() },
                    DiskSource::Empty { size_bytes } => DiskOrigin::Empty { size_bytes: *size_bytes },
                },
                needs: None,
            });
            return Some((None, disks.collect()));
        };
        let Some(current) = self.version_of(template, version) else {
            if self.inputs.desired.templates.get(template).is_some_and(is_to_be_installed) {
                self.note(address, format!("waits until template `{template}` is installed and published"));
                return None;
            }
            let (text, hint) =
                (format!("template `{template}` has no version to derive from"), "see what is said of the template");
            self.refuse(address, text, hint);
            return None;
        };
        let derive = matches!(vm.source, VmSource::Derive(_));
        let disks = (0..).zip(&current.disks).map(|(slot, image)| NewDisk {
            disk: RecordedDisk {
                slot,
                path: path(slot),
                base: derive.then(|| image.clone()),
                moving_to: None,
                made: false,
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

    /// Actions that make the disks, side by side; answers what they will be.
    fn make_disks(&mut self, steps: &mut Steps, name: &VmName, disks: Vec<NewDisk>) -> Vec<RecordedDisk> {
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

    fn start(
        &mut self,
        steps: &mut Steps,
        name: &VmName,
        vm: &Vm,
        (ip, mac): (Ipv4Addr, Mac),
        disks: &[RecordedDisk],
        supersedes: Option<RunId>,
    ) {
        let Some(group) = self.inputs.desired.vm_groups.get(&vm.vm_group) else { return };
        let started = started(vm, group, ip, mac, disks);
        let generation = self.moves.known(name, self.inputs.recorded).map_or(0, |known| known.generation) + 1;
        let run = RunId::new(self.inputs.recorded.site.clone(), self.next_run);
        self.next_run += 1;
        let spec = RunSpec {
            version: RunSpec::VERSION,
            run,
            lab: self.inputs.desired.lab.clone(),
            vm: name.clone(),
            owner: vm.owner.clone(),
            generation,
            hardware: vm.hardware.clone(),
            disks: disks.iter().map(run_disk).collect(),
            network: self.run_network(vm, group, ip, mac),
            qemu: self.inputs.site.qemu.clone(),
            service_user: self.inputs.site.service_user.clone(),
            timing: self.inputs.site.timing,
        };
        let memory_mib = u64::from(vm.hardware.memory_mib) + OVERHEAD_MIB;
        self.step(steps, Effect::Start { spec: Box::new(spec), started, memory_mib, supersedes });
    }

    fn run_network(&self, vm: &Vm, group: &VmGroup, ip: Ipv4Addr, mac: Mac) -> RunNetwork {
        let groups = || {
            self.inputs
                .desired
                .vm_groups
                .values()
                .chain(self.inputs.recorded.other_groups.iter().map(|(.., group)| group))
        };
        let mut lab_mac_prefixes: Vec<_> = groups().map(|group| group.mac_prefix.clone()).collect();
        lab_mac_prefixes.sort();
        lab_mac_prefixes.dedup();
        RunNetwork {
            bridge: group.bridge.clone(),
            ip,
            mac,
            subnet: group.subnet,
            gateway: group.gateway,
            dns: group.dns.clone(),
            isolated: vm.isolated,
            lab_ranges: groups().map(|group| (group.range.first, group.range.last)).collect(),
            lab_mac_prefixes,
            egress: Vec::new(),
            dhcp_control_port: self.inputs.site.network.dhcp.control_port(),
        }
    }

    fn new_address(&mut self, address: &Address, vm: &Vm) -> Option<(Ipv4Addr, Mac)> {
        let group = self.inputs.desired.vm_groups.get(&vm.vm_group)?;
        let found = self.addresses.take(&vm.vm_group, group);
        if found.is_none() {
            let text =
                format!("no address of vm group `{}` is free: it has {}, all in use", vm.vm_group, group.range.count());
            self.refuse(address, text, "widen the group's `ip_range`");
        }
        found
    }

    fn reservation(&self, name: &VmName, ip: Ipv4Addr, mac: Mac) -> Reservation {
        Reservation::new(&self.inputs.recorded.site, &self.inputs.desired.lab, name, mac, ip)
    }

    fn step(&mut self, steps: &mut Steps, effect: Effect) {
        let action = self.action(steps.last.clone(), effect);
        steps.last = vec![action.id];
        steps.actions.push(action);
    }

    fn change(
        &mut self,
        address: Address,
        verb: Verb,
        reason: String,
        before: BTreeMap<String, String>,
        after: BTreeMap<String, String>,
        steps: Steps,
    ) {
        self.plan.changes.push(Change { address, verb, reason, before, after, actions: steps.actions });
    }
}

/// A known vm, with all that was found out about it.
struct Work<'a> {
    name: &'a VmName,
    vm: &'a Vm,
    known: &'a RecordedVm,
    life: Life,
    group: &'a VmGroup,
    ip: Ipv4Addr,
    mac: Mac,
    /// It keeps its address.
    stays: bool,
    /// It gets other disks.
    replaced: bool,
    missing: Vec<&'a RecordedDisk>,
}

impl Work<'_> {
    /// Its disks or its address change, which cannot be done under a running guest.
    fn must_be_off(&self) -> bool {
        self.replaced || !self.stays || !self.missing.is_empty()
    }

    fn started(&self) -> String {
        started(self.vm, self.group, self.ip, self.mac, &self.known.disks)
    }
}

struct Decision {
    stop: bool,
    start: bool,
    reasons: Vec<String>,
}

struct NewDisks {
    version: Option<u32>,
    kept: Vec<RecordedDisk>,
    new: Vec<NewDisk>,
}

struct NewDisk {
    disk: RecordedDisk,
    origin: DiskOrigin,
    /// The action that publishes what it derives from.
    needs: Option<ActionId>,
}

/// A template with an empty disk has no version until somebody has installed it.
fn is_to_be_installed(template: &Template) -> bool {
    template.disks.iter().any(|disk| matches!(disk, DiskSource::Empty { .. }))
}

/// A published image has nothing below it, so a chain has two links at the most.
fn run_disk(disk: &RecordedDisk) -> RunDisk {
    RunDisk { path: disk.path.clone(), backing: disk.base.iter().cloned().collect() }
}

fn started(vm: &Vm, group: &VmGroup, ip: Ipv4Addr, mac: Mac, disks: &[RecordedDisk]) -> String {
    let started = Started {
        hardware: vm.hardware.clone(),
        isolated: vm.isolated,
        ip,
        mac,
        bridge: group.bridge.clone(),
        disks: disks.iter().map(|disk| disk.path.clone()).collect(),
    };
    super::objects::to_json(&started)
}

/// What is only taken note of.
fn news(life: &Life) -> Option<String> {
    match life {
        Life::Off { reason: Some(reason), news: true } => Some(format!("its run ended: {reason}")),
        Life::Off { reason: None, news: true } => Some("its run ended without a word".into()),
        Life::Lost { task } => Some(format!("its submit was never confirmed and is job {task}")),
        _ => None,
    }
}

fn verb(work: &Work<'_>, decision: &Decision, live: bool, edited: bool) -> Verb {
    match decision {
        _ if work.replaced || !work.missing.is_empty() => Verb::Replace,
        Decision { start: true, .. } if live => Verb::Restart,
        Decision { start: true, .. } => Verb::Start,
        Decision { stop: true, .. } => Verb::Stop,
        _ if edited || !work.stays => Verb::Update,
        _ => Verb::Record,
    }
}

fn origin_words(vm: &Vm) -> String {
    match &vm.source {
        VmSource::Derive(template) => format!("derived from `{template}` for {}", vm.owner),
        VmSource::Clone(template) => format!("cloned from `{template}` for {}", vm.owner),
        VmSource::Disks(_) => format!("with disks of its own for {}", vm.owner),
    }
}

/// The fields of a vm as a user knows them.
fn vm_fields(vm: &Vm, ip: Ipv4Addr) -> BTreeMap<String, String> {
    let flat = Vm { origin: Origin::default(), ..vm.clone() };
    let mut all = fields(&super::objects::to_json(&flat));
    let hardware = all.remove("hardware").map(|hardware| fields(&hardware)).unwrap_or_default();
    all.extend(hardware);
    all.remove("origin");
    if let Some(mib) = all.remove("memory_mib") {
        all.insert("memory".into(), format!("{mib} MiB"));
    }
    all.insert("ip".into(), ip.to_string());
    all
}

/// What differs between the recorded vm and the wanted one: field, before, after.
fn edits(known: &RecordedVm, vm: &Vm, ip: Ipv4Addr) -> Vec<(String, String, String)> {
    if same_but_for_its_line(&known.vm, vm) && known.ip == ip {
        return Vec::new();
    }
    let (before, after) = (vm_fields(&known.vm, known.ip), vm_fields(vm, ip));
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let none = || "none".to_owned();
    names
        .into_iter()
        .map(|name| {
            (
                name.clone(),
                before.get(name).cloned().unwrap_or_else(none),
                after.get(name).cloned().unwrap_or_else(none),
            )
        })
        .filter(|(_, before, after)| before != after)
        .collect()
}

/// Where a vm stands in the manifest is shown by `explain`; a line that moves is no change.
fn same_but_for_its_line(one: &Vm, other: &Vm) -> bool {
    let Vm { owner, vm_group, description, family, source, hardware, isolated, state, restart, origin: _ } = one;
    *owner == other.owner
        && *vm_group == other.vm_group
        && *description == other.description
        && *family == other.family
        && *source == other.source
        && *hardware == other.hardware
        && *isolated == other.isolated
        && *state == other.state
        && *restart == other.restart
}
