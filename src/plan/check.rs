//! A checker of plans: what every plan must keep, whatever it was made from. It runs on each plan; a flaw it
//! finds is our bug, never the user's, and refuses the whole plan. It reads the plan alone and trusts nothing that the planner found
//! out on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};

use super::guards::{open_sessions, strays};
use super::{Action, ActionId, Effect, Inputs, Plan};
use crate::model::address::Address;
use crate::model::disk::DiskOrigin;
use crate::model::id::{Mac, RunId, VmName};
use crate::model::job::TaskId;
use crate::observe::{Life, life};
use crate::run::RunDisk;
use crate::state::{Entry, RecordedDisk, RecordedVm};

/// A rule that a plan broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Two vms would have this address.
    #[error("{} and {} would both have the address {ip}", vms[0], vms[1])]
    AddressTwice { ip: String, vms: [String; 2] },
    #[error("{} and {} would both have the hardware address {mac}", vms[0], vms[1])]
    MacTwice { mac: String, vms: [String; 2] },
    /// An action comes before one it needs, or needs one that does not exist.
    #[error("action {action} comes before action {needs}, which it needs")]
    Order { action: u32, needs: u32 },
    /// Two effects on one vm could happen in the wrong order, since the later one does not need the earlier one.
    #[error("of {vm}, `{then}` does not wait for `{first}`")]
    Unordered { vm: String, first: &'static str, then: &'static str },
    #[error("run {run} is given twice")]
    RunTwice { run: String },
    /// A start while an earlier run of the vm may live.
    #[error("{vm} would be started while its run {run} may live")]
    SecondRun { vm: String, run: String },
    /// The disks, the address or the name of a vm would change while its guest may live.
    #[error("`{effect}` would be done under the guest of {vm}")]
    UnderGuest { vm: String, effect: &'static str },
    /// A run is stopped, fenced off or taken for over that is not the recorded one of its vm.
    #[error("{run} is not the recorded run of {vm}")]
    UnknownRun { vm: String, run: String },
    /// A job that is not ours would be killed or adopted.
    #[error("job {job} is not known to be one of {vm}")]
    ForeignJob { vm: String, job: String },
    /// A reservation without our mark would be touched.
    #[error("the reservation {mark} is not one of this lab")]
    ForeignReservation { mark: String },
    /// A start of a vm that has no disks.
    #[error("{vm} would be started without a disk")]
    NoDisk { vm: String },
    /// A start with a disk that is not there and is not made before.
    #[error("{vm} would be started with {path}, which is not there")]
    DiskNotThere { vm: String, path: String },
    /// A disk would be set aside that is not recorded for the vm.
    #[error("{path} is not recorded as a disk of {vm}")]
    ForeignDisk { vm: String, path: String },
    /// A file would be made or moved outside the site's folders.
    #[error("{path} is outside of the site's folders")]
    OutsideStorage { path: String },
    /// A vm of an open session would be disturbed without having been named.
    #[error("`{effect}` would disturb {vm} in an open session, and nobody named it")]
    DuringSession { vm: String, effect: &'static str },
}

/// All rules that `plan` breaks; none, if we made no mistake.
pub fn check(plan: &Plan, inputs: &Inputs<'_>) -> Vec<Flaw> {
    let checker = Checker::new(plan, inputs);
    let mut flaws = Vec::new();
    checker.order(&mut flaws);
    checker.order_within_vms(&mut flaws);
    checker.addresses(&mut flaws);
    checker.runs(&mut flaws);
    checker.under_guests(&mut flaws);
    checker.jobs(&mut flaws);
    checker.disks(&mut flaws);
    checker.storage(&mut flaws);
    checker.sessions(&mut flaws);
    flaws
}

struct Checker<'a> {
    inputs: &'a Inputs<'a>,
    plan: &'a Plan,
    actions: BTreeMap<ActionId, &'a Action>,
    /// The actions of each vm, under its new name.
    by_vm: BTreeMap<&'a VmName, Vec<&'a Action>>,
    /// New names of vms, each with the old one.
    renamed: BTreeMap<&'a VmName, &'a VmName>,
    /// There are jobs that may be any vm's.
    has_strays: bool,
}

impl<'a> Checker<'a> {
    fn new(plan: &'a Plan, inputs: &'a Inputs<'a>) -> Self {
        let mut by_vm: BTreeMap<&VmName, Vec<&Action>> = BTreeMap::new();
        let mut renamed = BTreeMap::new();
        for (_, action) in plan.actions() {
            if let Some(vm) = action.effect.vm() {
                by_vm.entry(vm).or_default().push(action);
            }
            if let Effect::Record(Entry::RenameVm { from, to }) = &action.effect {
                renamed.insert(to, from);
            }
        }
        let actions = plan.actions().map(|(_, action)| (action.id, action)).collect();
        Self { inputs, plan, actions, by_vm, renamed, has_strays: !strays(inputs).is_empty() }
    }

    fn effects(&self) -> impl Iterator<Item = &'a Effect> {
        self.plan.actions().map(|(_, action)| &action.effect)
    }

    /// What is recorded of a vm, under its new name or its old one.
    fn known(&self, vm: &VmName) -> Option<&'a RecordedVm> {
        let recorded = &self.inputs.recorded.vms;
        recorded.get(vm).or_else(|| recorded.get(*self.renamed.get(vm)?))
    }

    fn order(&self, flaws: &mut Vec<Flaw>) {
        let mut seen = BTreeSet::new();
        for (_, Action { id, needs, .. }) in self.plan.actions() {
            let early = needs.iter().filter(|need: &&ActionId| !seen.contains(*need));
            flaws.extend(early.map(|need| Flaw::Order { action: id.0, needs: need.0 }));
            seen.insert(*id);
        }
    }

    /// Whether `later` waits for `earlier`, if only through others.
    fn follows(&self, later: &Action, earlier: ActionId) -> bool {
        let mut to_look_at = later.needs.clone();
        let mut seen = BTreeSet::new();
        while let Some(id) = to_look_at.pop() {
            if id == earlier {
                return true;
            }
            if seen.insert(id) {
                to_look_at.extend(self.actions.get(&id).iter().flat_map(|action| &action.needs));
            }
        }
        false
    }

    fn order_within_vms(&self, flaws: &mut Vec<Flaw>) {
        for (vm, actions) in &self.by_vm {
            for later in actions {
                for earlier in actions.iter().filter(|earlier| must_follow(&later.effect, &earlier.effect)) {
                    if !self.follows(later, earlier.id) {
                        let (first, then) = (earlier.effect.name(), later.effect.name());
                        flaws.push(Flaw::Unordered { vm: vm.to_string(), first, then });
                    }
                }
            }
        }
        self.order_after_publishing(flaws);
    }

    fn order_after_publishing(&self, flaws: &mut Vec<Flaw>) {
        let mut published: BTreeMap<&Path, ActionId> = BTreeMap::new();
        for (_, action) in self.plan.actions() {
            if let Effect::Publish { disks, .. } = &action.effect {
                published.extend(disks.iter().map(|disk| (disk.path.as_path(), action.id)));
            }
        }
        for (_, action) in self.plan.actions() {
            let Effect::MakeDisk { vm, origin, .. } = &action.effect else { continue };
            let (DiskOrigin::Derive { base: from } | DiskOrigin::Copy { image: from }) = origin else { continue };
            if published.get(from.as_path()).is_some_and(|publish| !self.follows(action, *publish)) {
                let (first, then) = ("publish the image", action.effect.name());
                flaws.push(Flaw::Unordered { vm: vm.to_string(), first, then });
            }
        }
    }

    fn addresses(&self, flaws: &mut Vec<Flaw>) {
        let readdressed: BTreeSet<&VmName> = self
            .effects()
            .filter_map(|effect| match effect {
                Effect::Record(Entry::Vm { name, .. }) => Some(name),
                _ => None,
            })
            .collect();
        if readdressed.is_empty() {
            return;
        }
        let mut by_ip: BTreeMap<Ipv4Addr, &VmName> = BTreeMap::new();
        let mut by_mac: BTreeMap<Mac, &VmName> = BTreeMap::new();
        let new_names: BTreeMap<&VmName, &VmName> = self.renamed.iter().map(|(to, from)| (*from, *to)).collect();
        for (ip, holder) in &self.inputs.recorded.taken {
            let name = new_names.get(&holder.vm).copied().unwrap_or(&holder.vm);
            if holder.lab != self.plan.lab || !readdressed.contains(name) {
                by_ip.insert(*ip, &holder.vm);
                by_mac.insert(holder.mac, &holder.vm);
            }
        }
        for effect in self.effects() {
            let Effect::Record(Entry::Vm { name, ip, mac, .. }) = effect else { continue };
            let vms = |other: &VmName| [other.to_string(), name.to_string()];
            if let Some(other) = by_ip.insert(*ip, name) {
                flaws.push(Flaw::AddressTwice { ip: ip.to_string(), vms: vms(other) });
            }
            if let Some(other) = by_mac.insert(*mac, name) {
                flaws.push(Flaw::MacTwice { mac: mac.to_string(), vms: vms(other) });
            }
        }
    }

    fn runs(&self, flaws: &mut Vec<Flaw>) {
        let recorded = self.inputs.recorded.vms.values().filter_map(|vm| vm.run.as_ref());
        let mut runs: BTreeSet<&RunId> = recorded.map(|run| &run.run).collect();
        for effect in self.effects() {
            match effect {
                Effect::Start { spec, .. } => {
                    if !runs.insert(&spec.run) {
                        flaws.push(Flaw::RunTwice { run: spec.run.to_string() });
                    }
                    self.earlier_run(&spec.vm, flaws);
                }
                Effect::Stop { vm, run, .. }
                | Effect::TurnOff { vm, run, .. }
                | Effect::TurnOn { vm, run, .. }
                | Effect::Tell { vm, run, .. }
                | Effect::Fence { vm, run, .. }
                | Effect::RecordEnd { vm, run, .. }
                | Effect::Adopt { vm, run, .. }
                    if self.recorded_run(vm) != Some(run) =>
                {
                    flaws.push(Flaw::UnknownRun { vm: vm.to_string(), run: run.to_string() });
                }
                _ => {}
            }
        }
    }

    fn recorded_run(&self, vm: &VmName) -> Option<&'a RunId> {
        self.known(vm)?.run.as_ref().map(|run| &run.run)
    }

    /// A start of `vm` must come after the end of the run that it has now; that it follows the stop is another rule.
    fn earlier_run(&self, vm: &VmName, flaws: &mut Vec<Flaw>) {
        if self.may_live(vm) {
            let run = self.recorded_run(vm).map(ToString::to_string).unwrap_or_default();
            flaws.push(Flaw::SecondRun { vm: vm.to_string(), run });
        }
    }

    /// What a guest has to itself is left to it for as long as it may live.
    fn under_guests(&self, flaws: &mut Vec<Flaw>) {
        for (vm, actions) in &self.by_vm {
            let takes = |action: &&&Action| match &action.effect {
                Effect::SetAside { .. }
                | Effect::PutBack { .. }
                | Effect::Renew { .. }
                | Effect::Record(Entry::ForgetVm { .. }) => true,
                Effect::Record(Entry::Vm { ip, .. }) => self.known(vm).is_some_and(|known| known.ip != *ip),
                // A guest that is known to live does not notice its new name; one that nobody knows is found by the old one.
                Effect::Record(Entry::RenameVm { .. }) => !self.life(vm).is_live(),
                _ => false,
            };
            let is_off = actions.iter().any(|action| matches!(action.effect, Effect::TurnOff { .. }));
            if let Some(action) = actions.iter().find(takes).filter(|_| !is_off && self.may_live(vm)) {
                flaws.push(Flaw::UnderGuest { vm: vm.to_string(), effect: action.effect.name() });
            }
        }
    }

    fn life(&self, vm: &VmName) -> Life {
        let Inputs { observed, site, .. } = *self.inputs;
        self.known(vm).map_or(Life::Off { reason: None, news: false }, |known| life(known, observed, site))
    }

    /// Whether a vm may have a guest after what this plan does about its run: as a job that no record knows, too.
    fn may_live(&self, vm: &VmName) -> bool {
        if self.life(vm).is_off() {
            return self.has_strays;
        }
        let ends = |action: &&Action| matches!(action.effect, Effect::Stop { .. } | Effect::RecordEnd { .. });
        !self.by_vm.get(vm).is_some_and(|actions| actions.iter().any(ends))
    }

    /// Only tasks that were seen to be ours, for this very run, are killed or adopted; and only reservations with our mark
    /// are touched.
    fn jobs(&self, flaws: &mut Vec<Flaw>) {
        let mark = format!("lw-{}-{}-", self.inputs.recorded.site, self.plan.lab);
        for effect in self.effects() {
            match effect {
                Effect::Stop { vm, task: Some(task), .. }
                | Effect::TurnOff { vm, task: Some(task), .. }
                | Effect::Fence { vm, task: Some(task), .. }
                | Effect::Adopt { vm, task, .. }
                    if self.task_of(vm) != Some(*task) =>
                {
                    flaws.push(Flaw::ForeignJob { vm: vm.to_string(), job: task.to_string() });
                }
                Effect::Reserve { reservation, .. } | Effect::Release { reservation, .. }
                    if !reservation.mark.starts_with(&mark) =>
                {
                    flaws.push(Flaw::ForeignReservation { mark: reservation.mark.clone() });
                }
                _ => {}
            }
        }
    }

    /// The task that was seen under the mark of the vm's recorded run.
    fn task_of(&self, vm: &VmName) -> Option<TaskId> {
        let run = self.known(vm)?.run.as_ref()?;
        self.inputs.observed.tasks.get(&(run.batch.clone(), run.task)).map(|task| task.id)
    }

    fn disks(&self, flaws: &mut Vec<Flaw>) {
        for effect in self.effects() {
            match effect {
                Effect::Start { spec, .. } => self.begins_with(&spec.vm, &spec.disks, flaws),
                Effect::TurnOn { vm, disks, .. } => self.begins_with(vm, disks, flaws),
                Effect::SetAside { vm, disks, lost, .. } => {
                    let foreign = disks.iter().chain(lost).filter(|path| self.recorded_disk(vm, path).is_none());
                    flaws.extend(foreign.map(|path| Flaw::ForeignDisk { vm: vm.to_string(), path: shown(path) }));
                }
                Effect::Renew { vm, disks, .. } => {
                    let foreign = disks.iter().filter(|disk| self.recorded_disk(vm, &disk.path).is_none());
                    flaws.extend(foreign.map(|disk| Flaw::ForeignDisk { vm: vm.to_string(), path: shown(&disk.path) }));
                }
                Effect::PutBack { vm, moves } => {
                    let foreign = moves.iter().filter(|(from, _)| !self.is_aside(vm, from));
                    flaws.extend(foreign.map(|(path, _)| Flaw::ForeignDisk { vm: vm.to_string(), path: shown(path) }));
                }
                _ => {}
            }
        }
    }

    fn begins_with(&self, vm: &VmName, disks: &[RunDisk], flaws: &mut Vec<Flaw>) {
        if disks.is_empty() {
            flaws.push(Flaw::NoDisk { vm: vm.to_string() });
        }
        let absent = disks.iter().filter(|disk| !self.will_be_there(vm, &disk.path));
        flaws.extend(absent.map(|disk| Flaw::DiskNotThere { vm: vm.to_string(), path: shown(&disk.path) }));
    }

    /// Whether a disk stands where a start looks for it: made by this plan, or recorded, seen, and left alone.
    fn will_be_there(&self, vm: &VmName, path: &Path) -> bool {
        let actions = self.by_vm.get(vm).map(Vec::as_slice).unwrap_or_default();
        let made = actions.iter().any(|action| match &action.effect {
            Effect::MakeDisk { disk, .. } => disk.path == path,
            Effect::PutBack { moves, .. } => moves.iter().any(|(_, to)| to == path),
            _ => false,
        });
        let moved = actions.iter().any(|action| match &action.effect {
            Effect::SetAside { disks, lost, .. } => disks.iter().chain(lost).any(|disk| disk == path),
            _ => false,
        });
        let stands = self.recorded_disk(vm, path).is_some_and(|disk| disk.made)
            && !self.inputs.observed.disks_missing.contains(path);
        made || (stands && !moved)
    }

    fn is_aside(&self, vm: &VmName, path: &Path) -> bool {
        let sets = self.inputs.recorded.aside.get(vm).map(Vec::as_slice).unwrap_or_default();
        sets.iter().flat_map(|set| &set.disks).any(|disk| disk.path == path)
    }

    fn recorded_disk(&self, vm: &VmName, path: &Path) -> Option<&'a RecordedDisk> {
        let waiting = self.inputs.recorded.waiting.get(vm).map(|waiting| waiting.disks.as_slice());
        let disks = self.known(vm).map(|known| known.disks.as_slice()).or(waiting)?;
        disks.iter().find(|disk| disk.path == path)
    }

    fn storage(&self, flaws: &mut Vec<Flaw>) {
        let storage = &self.inputs.site.storage;
        let lab = self.plan.lab.as_str();
        let (vms, templates, aside) = (storage.vms.join(lab), storage.templates.join(lab), storage.aside.join(lab));
        let mut judge = |path: &PathBuf, folder: &Path| {
            let climbs = path.components().any(|part| part == Component::ParentDir);
            if climbs || !path.starts_with(folder) {
                flaws.push(Flaw::OutsideStorage { path: shown(path) });
            }
        };
        for effect in self.effects() {
            match effect {
                // One that was begun is made where it was begun.
                Effect::MakeDisk { vm, disk, .. } if self.recorded_disk(vm, &disk.path).is_none() => {
                    judge(&disk.path, &vms);
                }
                Effect::Publish { disks, .. } => disks.iter().for_each(|disk| judge(&disk.path, &templates)),
                Effect::Renew { folder, .. } => judge(folder, &aside),
                // A move that was cut short goes on to where it was going.
                Effect::SetAside { vm, folder, .. } if !self.was_moving_to(vm, folder) => judge(folder, &aside),
                _ => {}
            }
        }
    }

    fn was_moving_to(&self, vm: &VmName, folder: &Path) -> bool {
        let disks = self.known(vm).map(|known| known.disks.as_slice()).unwrap_or_default();
        disks.iter().any(|disk| disk.moving_to.as_deref().and_then(Path::parent) == Some(folder))
    }

    fn sessions(&self, flaws: &mut Vec<Flaw>) {
        let Inputs { desired, recorded, now, allow, asks, .. } = *self.inputs;
        let open = open_sessions(desired, recorded, now);
        for (vm, actions) in &self.by_vm {
            let named = allow.iter().any(|pattern| pattern.matches(&Address::vm(vm)));
            if named || !open.iter().any(|session| session.holds(vm)) {
                continue;
            }
            let asked = asks.get(*vm).is_some_and(|ask| ask.by_name);
            let disturbing = actions.iter().filter(|action| match &action.effect {
                Effect::Stop { .. } | Effect::TurnOff { .. } => !asked,
                // Who asks for other disks by the vm's name means it, as with a stop.
                Effect::SetAside { .. } if asked => !asks.get(*vm).is_some_and(|ask| ask.wish.is_about_disks()),
                Effect::SetAside { .. } | Effect::Record(Entry::ForgetVm { .. }) => true,
                Effect::Record(Entry::Vm { ip, .. }) => self.known(vm).is_some_and(|known| known.ip != *ip),
                _ => false,
            });
            flaws.extend(
                disturbing.map(|action| Flaw::DuringSession { vm: vm.to_string(), effect: action.effect.name() }),
            );
        }
    }
}

/// Whether `later` must not begin before `earlier` is done, both of one vm.
fn must_follow(later: &Effect, earlier: &Effect) -> bool {
    match later {
        Effect::Start { .. } => matches!(
            earlier,
            Effect::Stop { .. }
                | Effect::SetAside { .. }
                | Effect::PutBack { .. }
                | Effect::Renew { .. }
                | Effect::CheckDisks { .. }
                | Effect::MakeDisk { .. }
                | Effect::Reserve { .. }
                | Effect::Record(Entry::Vm { .. })
                | Effect::RecordEnd { .. }
                | Effect::Fence { .. }
        ),
        // It stands aside for nothing else, so that all that is done about its vm is done when it is on again.
        Effect::TurnOn { .. } => !matches!(earlier, Effect::TurnOn { .. }),
        Effect::CheckDisks { .. } => matches!(earlier, Effect::Renew { .. }),
        Effect::SetAside { .. } | Effect::Renew { .. } | Effect::Release { .. } => matches!(
            earlier,
            Effect::Stop { .. } | Effect::TurnOff { .. } | Effect::RecordEnd { .. } | Effect::Fence { .. }
        ),
        Effect::PutBack { .. } => matches!(
            earlier,
            Effect::Stop { .. }
                | Effect::TurnOff { .. }
                | Effect::RecordEnd { .. }
                | Effect::Fence { .. }
                | Effect::SetAside { .. }
                | Effect::Record(Entry::WantBack { .. })
        ),
        Effect::MakeDisk { .. } => matches!(earlier, Effect::SetAside { .. } | Effect::Record(Entry::Vm { .. })),
        Effect::Record(Entry::ForgetVm { .. }) => !matches!(earlier, Effect::Record(Entry::ForgetVm { .. })),
        _ => false,
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
