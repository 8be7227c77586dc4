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

use super::bases::below;
use super::claims;
use super::objects::{Edits, fields, needs_of};
use super::power::{Decision, news, started};
use super::templates::same_but_for_folders;
use super::{
    Action, ActionId, Change, DiskLoss, Disturbance, Effect, Ground, Planner, Reason, Remark, Touched, Verb, Wish,
};
use crate::model::address::{Address, Kind};
use crate::model::claim::PowerWish;
use crate::model::id::{Mac, VmName};
use crate::model::lab::{Vm, VmGroup, VmSource};
use crate::model::reservation::Reservation;
use crate::observe::Life;
use crate::observe::Phase;
use crate::state::{AsideSet, Entry, RecordedDisk, RecordedVm, Started};

/// Actions of one change, each after the one before it.
#[derive(Default)]
pub(super) struct Steps {
    pub(super) actions: Vec<Action>,
    pub(super) last: Vec<ActionId>,
}

impl Planner<'_> {
    pub(super) fn plan_leavers(&mut self) {
        let (desired, recorded) = (self.inputs.desired, self.inputs.recorded);
        for (name, known) in recorded.vms.iter().filter(|(name, _)| !desired.vms.contains_key(*name)) {
            match self.wish(name) {
                _ if self.moves.leaves_by_name_only(name) || self.is_vm_held(name) => {}
                Some(Wish::Stop) => self.plan_stop(name, name, known),
                _ => self.plan_leaver(name, known),
            }
        }
    }

    pub(super) fn plan_vms(&mut self) {
        for (name, vm) in &self.inputs.desired.vms {
            match self.moves.known(name, self.inputs.recorded) {
                _ if self.is_vm_held(name) => {}
                None => self.plan_new_vm(name, vm),
                Some(known) if self.wish(name) == Some(Wish::Stop) => {
                    let known_as = self.moves.vms.get(name).unwrap_or(name).clone();
                    self.plan_stop(name, &known_as, known);
                }
                Some(known) => self.plan_known_vm(name, vm, known),
            }
        }
    }

    fn plan_leaver(&mut self, name: &VmName, known: &RecordedVm) {
        let address = Address::vm(name);
        if self.waits_for_restore(name) {
            return;
        }
        let mut steps = Steps::default();
        let life = self.life(name, known);
        if let Some((what, until)) = Remark::of_unknown(&life, self.inputs.site, true) {
            self.drift(&address, what);
            self.wait(&address, until);
            return;
        }
        // A lost host is given up, and nothing else is meant.
        if self.inputs.lost_host.is_some() {
            return self.take_note(name, known, &life);
        }
        let disturbance = Disturbance::Leaves { why: self.leaves(), runs: life.is_live() };
        let made = self.made_by_command(name);
        let may_leave = self.may_disturb(name, disturbance) && self.may_end_claim(name) && self.may_lose(name, made);
        if !may_leave {
            return;
        }
        if life.is_off() && self.may_run_unknown(name) {
            return self.take_note(name, known, &life);
        }
        let (missing, _) = self.lost_disks(&address, known);
        if let Some(disk) = missing.first().filter(|_| !self.allowed(&address)) {
            return self.refuse_missing_disk(&address, disk, DiskLoss::Forgotten);
        }
        self.record_news(&mut steps, name, known, &life);
        self.stop(&mut steps, name, known, &life);
        let reservation = self.reservation(name, known.ip, known.mac);
        self.step(&mut steps, Effect::Release { vm: name.clone(), reservation });
        if !known.disks.is_empty() {
            self.set_aside(&mut steps, name, known);
        }
        if self.power_claim(name).is_some() {
            let why = self.gone();
            self.end_claim(&mut steps, name, why);
        }
        if let Some(made) = made {
            let why = "its vm left the lab".to_owned();
            self.step(&mut steps, Entry::EndClaim { vm: name.clone(), id: made.id, why });
        }
        self.end_grants(&mut steps, name);
        self.step(&mut steps, Entry::ForgetVm { name: name.clone() });
        let gone = match (name.owner(), made) {
            (Some(_), None) => Reason::GivenUp,
            _ => Reason::Leaves { why: self.leaves() },
        };
        let base = known.disks.first().and_then(|disk| disk.base.as_deref());
        let keep_days = self.inputs.recorded.keep_days(name.as_str(), base);
        let days = keep_days.unwrap_or(self.inputs.site.retention_days);
        let reasons = vec![gone, Reason::DisksKept { days }];
        let fields = (vm_fields(&known.vm, known.ip), BTreeMap::new());
        let touches = self.touched(&known.vm, Some((known, &life)));
        self.change(address, Verb::SetAside, reasons, fields, Some(touches), steps);
    }

    fn plan_new_vm(&mut self, name: &VmName, vm: &Vm) {
        let address = Address::vm(name);
        if self.wish(name) == Some(Wish::PutBack) {
            return self.refuse(&address, Ground::NothingAside);
        }
        if self.waits_for_restore(name) || self.waits_for_others(name, vm, true) || !self.may_begin_anew(name, vm) {
            return;
        }
        let Some((ip, mac)) = self.new_address(&address, vm) else { return };
        let mut steps = Steps::default();
        let Some((version, new)) = self.new_disks(&address, name, vm, None) else { return };
        let (version, mut disks, new) = self.with_waiting(name, version, new);
        let lost = disks.iter().find(|disk| self.inputs.observed.disks_missing.contains(&disk.path));
        if let Some(disk) = lost.cloned() {
            return self.refuse_missing_disk(&address, &disk, DiskLoss::PutBack);
        }
        let taken_back = !disks.is_empty();
        self.step(&mut steps, Entry::Vm { name: name.clone(), vm: Box::new(vm.clone()), ip, mac, version });
        disks.extend(self.make_disks(&mut steps, name, new));
        disks.sort_by_key(|disk| disk.slot);
        let reservation = self.reservation(name, ip, mac);
        self.step(&mut steps, Effect::Reserve { vm: name.clone(), reservation });
        let mut reasons = vec![Reason::NewVm { from: (&vm.source).into(), owner: vm.owner.clone() }];
        reasons.extend(taken_back.then_some(Reason::TakesBack));
        let (starts, why) = self.first_power(&mut steps, name, vm);
        reasons.extend(why);
        if starts && !self.may_run_unknown(name) {
            self.start(&mut steps, name, vm, (ip, mac), &disks, None);
            reasons.push(Reason::Starts);
        }
        let touches = self.touched(vm, None);
        self.change(address, Verb::Create, reasons, (BTreeMap::new(), vm_fields(vm, ip)), Some(touches), steps);
    }

    /// One known vm, step by step: what ended, what is stopped, what is replaced, what is recorded, what starts.
    fn plan_known_vm(&mut self, name: &VmName, vm: &Vm, known: &RecordedVm) {
        let address = Address::vm(name);
        let is_restored = self.wish(name) != Some(Wish::PutBack) && self.waits_for_restore(name);
        if is_restored || self.waits_for_others(name, vm, false) || !self.may_reimage(name, vm) {
            return;
        }
        let life = self.life(name, known);
        if let Some((what, until)) = Remark::of_unknown(&life, self.inputs.site, false) {
            self.drift(&address, what);
            self.wait(&address, until);
            return;
        }
        let Some(group) = self.inputs.desired.vm_groups.get(&vm.vm_group) else {
            return self.refuse(&address, Ground::NoGroup { group: vm.vm_group.clone() });
        };
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
        let Ok(back) = self.wanted_back(name, known) else { return };
        let asked = self.wants_other_disks(name);
        let replaced = moving || asked || !self.same_source(known, &vm.source);
        let (missing, strange) = self.lost_disks(&address, known);
        if !replaced && !missing.is_empty() && !self.allowed(&address) {
            self.refuse_missing_disk(&address, missing[0], DiskLoss::MadeAnew);
            return;
        }
        if replaced && !moving && !asked && !self.may_replace(name, &known.vm.owner) {
            return;
        }
        // Strange disks are given up only by name, and a vm that is not started may keep them.
        let (given_up, strange) =
            if self.allowed(&address) { ([missing, strange].concat(), Vec::new()) } else { (missing, strange) };
        let claim = self.power_claim(self.moves.vms.get(name).unwrap_or(name));
        let claim_ends = claim.and_then(|claim| claims::end(claim, vm, known, &life));
        let claim = claim.filter(|_| claim_ends.is_none());
        let work =
            Work { name, vm, known, life, group, ip, mac, stays, replaced, back, given_up, strange, claim, claim_ends };
        self.plan_work(&address, &work);
    }

    fn plan_work(&mut self, address: &Address, work: &Work<'_>) {
        let Work { name, vm, known, life, ip, mac, .. } = work;
        let must_be_off = work.must_be_off();
        let moved_from = self.moves.vms.get(*name).cloned();
        // A guest that no record knows has the disks, the address and the name that are recorded.
        let known_as = moved_from.as_ref().unwrap_or(name);
        let keeps_all = !must_be_off && moved_from.is_none();
        if !keeps_all && life.is_off() && self.may_run_unknown(known_as) {
            return self.take_note(known_as, known, life);
        }
        let mut steps = Steps::default();
        let edits = edits(known, vm, *ip);
        let live = life.is_live();
        let stale = self.is_stale(work);
        let decision = self.decide(address, work, live, stale);
        let stays_in_run = self.stays_in_run(work, &decision);
        if (decision.start || stays_in_run) && !self.may_boot(address, work) {
            return;
        }
        if !self.may_disturb_for(work, &decision, live) {
            return;
        }
        self.advise_restart(address, work);
        self.rename(&mut steps, work, moved_from.as_ref());
        let claim_reason = self.claims_of(&mut steps, work, &decision);
        self.record_news(&mut steps, name, known, life);
        if stays_in_run {
            self.turn_off(&mut steps, work);
        } else if live && (decision.stop || must_be_off) {
            self.stop(&mut steps, name, known, life);
            self.end_stop_claim(&mut steps, work);
        }
        if !work.stays && moved_from.is_none() {
            let old = self.reservation(name, known.ip, known.mac);
            self.step(&mut steps, Effect::Release { vm: (*name).clone(), reservation: old });
        }
        let Some(disks) = self.mend_disks(&mut steps, address, work) else { return };
        if !edits.is_empty() || !work.stays || work.replaced || disks.version != known.version {
            let (vm, version) = (Box::new((*vm).clone()), disks.version);
            self.step(&mut steps, Entry::Vm { name: (*name).clone(), vm, ip: *ip, mac: *mac, version });
        }
        if decision.start && !stays_in_run {
            self.make_sure_of(&mut steps, work, &disks.kept);
        }
        let mut all = disks.kept;
        all.extend(self.make_disks(&mut steps, name, disks.new));
        all.sort_by_key(|disk| disk.slot);
        let unreserved = self.reserve(&mut steps, address, work, moved_from.is_some());
        if stays_in_run {
            self.turn_on(&mut steps, work, &all);
        } else if decision.start {
            let supersedes = known.run.as_ref().map(|run| run.run.clone());
            self.start(&mut steps, name, vm, (*ip, *mac), &all, supersedes);
        }
        let told = self.tell(&mut steps, work, &decision);
        if steps.actions.is_empty() {
            self.plan.unchanged.push(address.clone());
            return;
        }
        let only_moved = moved_from.is_some() && edits.is_empty();
        let verb = match verb(work, &decision, live, !edits.is_empty() || unreserved.is_some() || told.is_some()) {
            Verb::Record | Verb::Update if stays_in_run => Verb::Start,
            Verb::Record | Verb::Update if only_moved => Verb::Move,
            verb => verb,
        };
        let was = moved_from.as_ref().map(|from| Reason::Was { address: Address::vm(from) });
        let mut reasons: Vec<Reason> = was.into_iter().collect();
        reasons.extend((stays_in_run && !decision.stop).then_some(Reason::ToldToBeOff));
        reasons.extend(decision.reasons);
        reasons.extend(claim_reason);
        reasons.extend(edits.reasons());
        reasons.extend(news(life).filter(|_| verb == Verb::Record));
        reasons.extend(unreserved);
        reasons.extend(told);
        reasons.extend(work.given_up.iter().map(|disk| Reason::DiskGivenUp { disk: disk.path.clone() }));
        let touches = (verb != Verb::Record).then(|| self.touched(vm, Some((known, life))));
        self.change(address.clone(), verb, reasons, (edits.before, edits.after), touches, steps);
    }

    /// Answers why, where the DHCP server lost what it had.
    fn reserve(&mut self, steps: &mut Steps, address: &Address, work: &Work<'_>, is_moved: bool) -> Option<Reason> {
        let unreserved = self.unreserved(address, work).filter(|_| !is_moved);
        if !work.stays || unreserved.is_some() || is_moved {
            let reservation = self.reservation(work.name, work.ip, work.mac);
            self.step(steps, Effect::Reserve { vm: work.name.clone(), reservation });
        }
        unreserved
    }

    /// Whether its disks are those that are recorded, over what they were made over.
    fn may_boot(&mut self, address: &Address, work: &Work<'_>) -> bool {
        match work.strange.first().filter(|_| !work.replaced) {
            Some(disk) => {
                self.refuse_strange_disk(address, disk);
                false
            }
            None => self.may_lie_over(address, &below(work)),
        }
    }

    fn may_disturb_for(&mut self, work: &Work<'_>, decision: &Decision, live: bool) -> bool {
        let what = work.disturbance(decision);
        match work.must_be_off() {
            true if self.wants_other_disks(work.name) => self.may_disturb_power(work.name, what),
            true => self.may_disturb(work.name, what),
            false => !(live && decision.stop) || self.may_disturb_power(work.name, what),
        }
    }

    /// Why its address is to be reserved, where the DHCP server does not have it.
    fn unreserved(&mut self, address: &Address, work: &Work<'_>) -> Option<Reason> {
        if !self.inputs.observed.reservations_missing.contains(work.name) {
            return None;
        }
        // A vm that never ran may never have had one: an apply was cut short, or its disk was imported.
        if work.known.generation == 0 {
            return Some(Reason::Unreserved);
        }
        self.drift(address, Remark::ReservationGone);
        Some(Reason::ReservationGone)
    }

    /// Only what became of its run; everything else about the vm waits.
    pub(super) fn take_note(&mut self, name: &VmName, known: &RecordedVm, life: &Life) {
        let Some(reason) = news(life) else { return };
        let mut steps = Steps::default();
        self.record_news(&mut steps, name, known, life);
        self.change(Address::vm(name), Verb::Record, vec![reason], (BTreeMap::new(), BTreeMap::new()), None, steps);
    }

    /// A new name: the records move, and the reservation, whose mark carries the name.
    fn rename(&mut self, steps: &mut Steps, work: &Work<'_>, from: Option<&VmName>) {
        let Some(from) = from else { return };
        let old = self.reservation(from, work.known.ip, work.known.mac);
        self.step(steps, Effect::Release { vm: from.clone(), reservation: old });
        self.step(steps, Entry::RenameVm { from: from.clone(), to: work.name.clone() });
    }

    pub(super) fn new_address(&mut self, address: &Address, vm: &Vm) -> Option<(Ipv4Addr, Mac)> {
        let Some(group) = self.inputs.desired.vm_groups.get(&vm.vm_group) else {
            self.refuse(address, Ground::NoGroup { group: vm.vm_group.clone() });
            return None;
        };
        let found = self.addresses.take(&vm.vm_group, group);
        if found.is_some() {
            return found;
        }
        let (range, held) = (&vm.vm_group, self.addresses_of_leavers(group));
        if held > 0 {
            // Refused, the plan could not even let them go.
            self.note(address, Remark::AddressHeld { group: range.clone(), held });
        } else {
            self.refuse(address, Ground::NoAddress { group: range.clone(), addresses: group.range.count() });
        }
        None
    }

    /// How many addresses of a group this plan sets free, which are another vm's only after a confirmed stop.
    fn addresses_of_leavers(&self, group: &VmGroup) -> usize {
        let super::Inputs { desired, recorded, .. } = self.inputs;
        let leavers = recorded
            .vms
            .iter()
            .filter(|(name, _)| !desired.vms.contains_key(*name) && !self.moves.leaves_by_name_only(name));
        leavers.filter(|(_, known)| group.range.contains(known.ip)).count()
    }

    pub(super) fn reservation(&self, name: &VmName, ip: Ipv4Addr, mac: Mac) -> Reservation {
        Reservation::new(&self.inputs.recorded.site, &self.inputs.desired.lab, name, mac, ip)
    }

    pub(super) fn step(&mut self, steps: &mut Steps, effect: impl Into<Effect>) {
        let action = self.action(steps.last.clone(), effect);
        steps.last = vec![action.id];
        steps.actions.push(action);
    }

    pub(super) fn change(
        &mut self,
        address: Address,
        verb: Verb,
        reasons: Vec<Reason>,
        (before, after): (BTreeMap<String, String>, BTreeMap<String, String>),
        touches: Option<Touched>,
        mut steps: Steps,
    ) {
        if let Some(wanted) = self.inputs.desired.vms.get(address.name.as_str()) {
            let pending = needs_of(wanted).into_iter().filter(|thing| thing.kind != Kind::Template);
            let pending: Vec<ActionId> = pending.filter_map(|thing| self.pending.get(&thing).copied()).collect();
            if let Some(first) = steps.actions.iter_mut().find(|action| takes_from_its_lab(&action.effect)) {
                first.needs.extend(pending);
            }
        }
        self.plan.changes.push(Change { address, verb, reasons, before, after, touches, actions: steps.actions });
    }

    /// Who would notice what is done about a vm.
    pub(super) fn touched(&self, vm: &Vm, known: Option<(&RecordedVm, &Life)>) -> Touched {
        let run = known.filter(|(_, life)| life.is_live()).and_then(|(known, _)| known.run.as_ref());
        let report = run.and_then(|run| self.inputs.observed.runs.get(&run.run));
        let in_use = report.is_some_and(|report| report.phase != Phase::Starting);
        Touched { owner: vm.owner.clone(), student: vm.for_each.is_some(), in_use }
    }
}

/// Whether an effect gives a vm something of its lab, so that its user and vm group must be recorded before.
fn takes_from_its_lab(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Record(Entry::Vm { .. }) | Effect::MakeDisk { .. } | Effect::Reserve { .. } | Effect::Start { .. }
    )
}

/// A known vm, with all that was found out about it.
pub(super) struct Work<'a> {
    pub(super) name: &'a VmName,
    pub(super) vm: &'a Vm,
    pub(super) known: &'a RecordedVm,
    pub(super) life: Life,
    group: &'a VmGroup,
    ip: Ipv4Addr,
    mac: Mac,
    /// It keeps its address.
    pub(super) stays: bool,
    /// It gets other disks.
    pub(super) replaced: bool,
    /// It gets these, which it had before.
    pub(super) back: Option<&'a AsideSet>,
    /// Disks that are not there or are others than recorded, and which the user gives up.
    pub(super) given_up: Vec<&'a RecordedDisk>,
    /// Disks that are others than recorded, and are not given up.
    pub(super) strange: Vec<&'a RecordedDisk>,
    /// What somebody wants of its power, as long as that counts.
    pub(super) claim: Option<&'a PowerWish>,
    /// Why a claim on its power counts no more.
    pub(super) claim_ends: Option<&'static str>,
}

impl Work<'_> {
    /// Its disks or its address change, which cannot be done under a running guest.
    pub(super) fn must_be_off(&self) -> bool {
        self.replaced || !self.stays || !self.given_up.is_empty()
    }

    /// What its owner would notice, for a guard that speaks of it.
    fn disturbance(&self, decision: &Decision) -> Disturbance {
        if self.replaced || !self.given_up.is_empty() {
            Disturbance::Rebuilt
        } else if !self.stays {
            Disturbance::Readdressed
        } else if decision.start {
            Disturbance::Restarted
        } else {
            Disturbance::Stopped
        }
    }

    pub(super) fn started(&self) -> Started {
        started(self.vm, self.group, self.ip, self.mac, &self.known.disks)
    }
}

fn verb(work: &Work<'_>, decision: &Decision, live: bool, edited: bool) -> Verb {
    match decision {
        _ if work.replaced || !work.given_up.is_empty() => Verb::Replace,
        Decision { start: true, .. } if live => Verb::Restart,
        Decision { start: true, .. } => Verb::Start,
        Decision { stop: true, .. } => Verb::Stop,
        _ if edited || !work.stays => Verb::Update,
        _ => Verb::Record,
    }
}

/// The fields of a vm as a user knows them.
fn vm_fields(vm: &Vm, ip: Ipv4Addr) -> BTreeMap<String, String> {
    let mut all = fields(&super::objects::to_json(vm));
    all.insert("ip".into(), ip.to_string());
    all
}

/// What differs between the recorded vm and the wanted one.
fn edits(known: &RecordedVm, vm: &Vm, ip: Ipv4Addr) -> Edits {
    if same_but_for_its_line(&known.vm, vm) && known.ip == ip {
        return Edits::default();
    }
    Edits::new(vm_fields(&known.vm, known.ip), vm_fields(vm, ip))
}

/// Disks of another checkout differ in their folders only; whether in content too was asked before.
fn same_words(one: &VmSource, other: &VmSource) -> bool {
    match (one, other) {
        (VmSource::Disks(one), VmSource::Disks(other)) => same_but_for_folders(one, other),
        (one, other) => one == other,
    }
}

/// Where a vm stands in the manifest is shown by `explain`; a line that moves is no change. All else is, whatever keys there will be.
fn same_but_for_its_line(one: &Vm, other: &Vm) -> bool {
    let moved = || {
        let Vm { for_each, source, origin, .. } = other.clone();
        same_words(&one.source, &other.source) && Vm { for_each, source, origin, ..one.clone() } == *other
    };
    one == other || moved()
}
