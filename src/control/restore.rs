//! Disks that were set aside come back, and those of now go aside in their place. Journalled like an apply: after a kill at any
//! moment each disk is recorded where it is or where it was going, and the same request goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::aside::{AsideError, among, disks_word, refuse_frozen};
use super::journal::{Decides, Lab, Order, Step};
use super::permissions::Rights;
use super::pick::each;
use super::{Context, ControlError};
use crate::disks::{self, Owner};
use crate::model::address::Address;
use crate::model::id::{LabName, VmName};
use crate::model::lab::Desired;
use crate::observe::Observed;
use crate::observe::life;
use crate::plan::place_back;
use crate::resolve::with_claims;
use crate::state::{AsideDisk, AsideSet, Change, Entry, Recorded, RecordedDisk, RecordedVm, SET_ASIDE};

/// What is to come back.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Names of vms, families and patterns.
    pub vms: Vec<String>,
    pub which: Which,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The only set that there is.
    Only,
    /// The set of this name, or of a date that begins with this.
    Set(String),
    /// None: what was put back and waits for its vm is set aside again.
    Undo,
}

/// What became of one vm's disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moved {
    /// Where the disks are that the vm had until now.
    pub aside: Vec<PathBuf>,
    /// Where those are that it has again.
    pub back: Vec<PathBuf>,
}

/// The vms whose disks would come back. All of them can, or it is an error.
pub fn meant(context: &Context, desired: &Desired, wanted: &Wanted) -> Result<BTreeSet<VmName>, ControlError> {
    let recorded = context.known_store()?.recorded(&desired.lab)?;
    Restore::look(context, desired, &recorded, &wanted.which)?.check(&recorded, &wanted.vms)
}

/// Puts the disks back, vm by vm. None moves unless all can; `told` hears of each vm that is done.
pub fn restore(
    context: &Context,
    desired: &Desired,
    wanted: &Wanted,
    told: &mut dyn FnMut(&Moved),
) -> Result<(), ControlError> {
    context.audited(Some(&desired.lab), put_back(context, desired, wanted, told))
}

fn put_back(
    context: &Context,
    desired: &Desired,
    wanted: &Wanted,
    told: &mut dyn FnMut(&Moved),
) -> Result<(), ControlError> {
    let mut store = context.known_store()?;
    let owner = context.owner()?;
    let decides = Decides::begin(context, format!("restore {}", wanted.vms.join(" ")))?;
    let recorded = store.recorded(&desired.lab)?;
    let restore = Restore::look(context, desired, &recorded, &wanted.which)?;
    let names = restore.check(&recorded, &wanted.vms)?;
    names.iter().try_for_each(|name| recorded.refuse_held(&Address::vm(name)))?;
    let mut taken = BTreeSet::new();
    let swaps = names.iter().map(|name| Ok((name, restore.swap(&recorded, name, &mut taken)?)));
    let swaps: BTreeMap<&VmName, Swap> = swaps.collect::<Result<_, AsideError>>()?;
    let summary = summary(&swaps);
    let mut steps: BTreeMap<&VmName, Vec<Step<'_>>> =
        swaps.iter().map(|(name, swap)| (*name, swap.steps(owner))).collect();
    let lab = Lab { name: &desired.lab, after: recorded.latest, doing: "restored" };
    let mut work = lab.begin(&mut store, decides, &summary, &steps.values().flatten().collect::<Vec<_>>())?;
    let done = each(&names, "were not restored", |name| {
        if let Some(error) = work.carry_out(Order::Chain, steps.remove(name).unwrap_or_default())?.pop() {
            return Err(error);
        }
        told(&swaps[name].moved());
        Ok(())
    });
    work.end()?;
    done
}

/// For the history.
fn summary(swaps: &BTreeMap<&VmName, Swap>) -> String {
    let (back, away) =
        swaps.values().fold((0, 0), |(back, away), swap| (back + swap.back.len(), away + swap.away.len()));
    let (disks, word) = (disks_word(back.max(away)), if back == 0 { "set aside again" } else { "put back" });
    match swaps.keys().next() {
        Some(name) if swaps.len() == 1 => format!("vm/{name}: {disks} {word}"),
        _ => format!("{disks} of {} vms {word}", swaps.len()),
    }
}

/// What is the same for all vms that are named.
struct Restore<'a> {
    context: &'a Context,
    desired: &'a Desired,
    observed: Observed,
    which: &'a Which,
}

impl<'a> Restore<'a> {
    fn look(
        context: &'a Context,
        desired: &'a Desired,
        recorded: &Recorded,
        which: &'a Which,
    ) -> Result<Self, ControlError> {
        refuse_frozen(recorded)?;
        Ok(Self { context, desired, observed: context.observe(desired, recorded)?, which })
    }

    /// The vms that are named, if it can be done for all.
    fn check(&self, recorded: &Recorded, words: &[String]) -> Result<BTreeSet<VmName>, ControlError> {
        let names = match self.which {
            Which::Undo => among(recorded.waiting.keys(), words, self.desired, recorded)?,
            Which::Only | Which::Set(_) => among(recorded.aside.keys(), words, self.desired, recorded)?,
        };
        self.refuse_others(recorded, &names)?;
        let mut taken = BTreeSet::new();
        each(&names, "cannot be restored; nothing was changed", |name| {
            Ok(self.swap(recorded, name, &mut taken).map(drop)?)
        })?;
        Ok(names)
    }

    /// Who does not own the lab has back what was set aside of a vm whose disks they may replace.
    fn refuse_others(&self, recorded: &Recorded, names: &BTreeSet<VmName>) -> Result<(), ControlError> {
        let lab = with_claims(self.desired, &recorded.claims);
        let rights = Rights::of(self.context, &lab, recorded);
        if rights.are_all() {
            return Ok(());
        }
        names.iter().try_for_each(|name| rights.require_reimage(name))
    }

    /// What is to be done for one vm, if it can be done. The places that its disks get are taken then.
    fn swap(&self, recorded: &Recorded, name: &VmName, taken: &mut BTreeSet<PathBuf>) -> Result<Swap, AsideError> {
        let vm = recorded.vms.get(name);
        let set = match self.which {
            Which::Undo => None,
            Which::Only => Some(chosen(recorded, name, None)?),
            Which::Set(wanted) => Some(chosen(recorded, name, Some(wanted))?),
        };
        if let (Some(set), Some(vm)) = (set, vm) {
            refuse_stranger(set, vm)?;
        }
        refuse_running(self.context, recorded, &self.observed, name)?;
        let swap = Swap::new(self.context, &self.desired.lab, recorded, name, set, taken)?;
        if swap.back.is_empty() && swap.away.is_empty() {
            return Err(AsideError::NothingWaits { vm: name.clone() });
        }
        Ok(swap)
    }
}

/// The set that is meant: one that is on its way already, the one that was named, or the only one.
pub(super) fn chosen<'a>(
    recorded: &'a Recorded,
    name: &VmName,
    wanted: Option<&str>,
) -> Result<&'a AsideSet, AsideError> {
    let sets = recorded.aside.get(name).map(Vec::as_slice).unwrap_or_default();
    let is_meant = |set: &&AsideSet| wanted.is_none_or(|wanted| set.name == wanted || set.since.starts_with(wanted));
    let meant: Vec<&AsideSet> = sets.iter().filter(is_meant).collect();
    let vm = name.clone();
    if let Some(returning) = sets.iter().find(|set| set.is_returning()) {
        let refused = || AsideError::Returning { vm, set: Box::new(returning.clone()) };
        return is_meant(&returning).then_some(returning).ok_or_else(refused);
    }
    match &meant[..] {
        [set] => Ok(set),
        [] if sets.is_empty() => Err(AsideError::None { vm: name.to_string() }),
        [] => Err(AsideError::NoSet { vm, wanted: wanted.unwrap_or_default().to_owned(), sets: sets.to_vec() }),
        several => Err(AsideError::Sets { vm, sets: several.iter().map(|set| (*set).clone()).collect() }),
    }
}

fn refuse_stranger(set: &AsideSet, vm: &RecordedVm) -> Result<(), AsideError> {
    let owner = vm.vm.owner.to_string();
    if set.may_belong_to(&owner) {
        return Ok(());
    }
    Err(AsideError::Stranger { set: Box::new(set.clone()), was: set.owner.clone().unwrap_or_default(), owner })
}

/// Disks change hands under no guest, known or not.
pub(super) fn refuse_running(
    context: &Context,
    recorded: &Recorded,
    observed: &Observed,
    name: &VmName,
) -> Result<(), AsideError> {
    if recorded.vms.get(name).is_some_and(|vm| !life(vm, observed, &context.site).is_off()) {
        return Err(AsideError::NotOff { vm: name.clone() });
    }
    match observed.unknown_tasks.iter().find_map(|task| observed.tasks.get(task)) {
        Some(task) => Err(AsideError::UnknownJob { job: task.id }),
        None => Ok(()),
    }
}

/// What goes away and what comes back.
struct Swap {
    name: VmName,
    away: Vec<(PathBuf, PathBuf)>,
    lost: Vec<PathBuf>,
    back: Vec<(PathBuf, PathBuf)>,
    /// The vm with the version that the disks of then are of.
    vm: Option<Entry>,
}

impl Swap {
    fn new(
        context: &Context,
        lab: &LabName,
        recorded: &Recorded,
        name: &VmName,
        set: Option<&AsideSet>,
        taken: &mut BTreeSet<PathBuf>,
    ) -> Result<Self, AsideError> {
        let known = recorded.vms.get(name);
        if known.is_some() && set.is_none() {
            return Err(AsideError::InUse { vm: name.clone() });
        }
        let waiting = recorded.waiting.get(name).map(|waiting| &waiting.disks);
        let present: &[RecordedDisk] = known.map(|vm| &vm.disks).or(waiting).map_or(&[], Vec::as_slice);
        let folder = context.site.storage.aside.join(lab.as_str()).join(name.file_name());
        let moves = present.iter().map(|disk| away(disk, &folder, recorded.serial));
        // A disk of now that is nowhere holds nothing that could be lost.
        let (away, lost): (Vec<_>, Vec<_>) = moves.partition(|(from, to)| from.exists() || to.exists());
        let gone = |disk: &&AsideDisk| !disk.path.exists() && !disk.to.as_ref().is_some_and(|to| to.exists());
        let disks: &[AsideDisk] = set.map_or(&[], |set| &set.disks);
        if let Some(disk) = disks.iter().find(gone) {
            return Err(AsideError::Gone { disk: disk.path.clone() });
        }
        let vm = known.map(|known| Entry::Vm {
            name: name.clone(),
            vm: Box::new(known.vm.clone()),
            ip: known.ip,
            mac: known.mac,
            version: recorded.version_below(&disks.iter().cloned().map(RecordedDisk::from).collect::<Vec<_>>()),
        });
        let back: Vec<_> =
            disks.iter().map(|disk| (disk.path.clone(), place_back(disk, recorded, name, taken))).collect();
        taken.extend(back.iter().map(|(_, to)| to.clone()));
        Ok(Self { name: name.clone(), away, lost: lost.into_iter().map(|(from, _)| from).collect(), back, vm })
    }

    /// Both moves are written down before the first.
    fn steps(&self, owner: Owner) -> Vec<Step<'static>> {
        let Self { name, away, lost, back, vm } = self;
        let moves = |effect, moves: &[(PathBuf, PathBuf)], before, after| {
            let (moves, vm) = (moves.to_vec(), name.clone());
            let act = move || match disks::restore(&moves, owner) {
                Ok(()) => Ok(()),
                Err(source) => Err(AsideError::Move { vm: vm.clone(), source }.into()),
            };
            Step { address: Address::vm(name), effect, before, act: Box::new(act), after }
        };
        let pairs = |moves: &[(PathBuf, PathBuf)], change: fn(PathBuf, PathBuf) -> Change| -> Vec<Change> {
            moves.iter().cloned().map(|(from, to)| change(from, to)).collect()
        };
        let before = pairs(away, |path, to| Change::Asiding { path, to });
        let mut after = pairs(away, |path, aside| Change::Aside { path, aside });
        after.extend(lost.iter().map(|path| Change::DropDisk { path: path.clone() }));
        let first = moves(SET_ASIDE, away, before, after);
        let before = pairs(back, |path, to| Change::Returning { path, to });
        let mut after = pairs(back, |path, to| Change::Returned { path, to });
        after.extend(vm.clone().map(Change::Entry));
        vec![first, moves("put the disks back", back, before, after)]
    }

    fn moved(&self) -> Moved {
        let places = |moves: &[(PathBuf, PathBuf)]| moves.iter().map(|(_, to)| to.clone()).collect();
        Moved { aside: places(&self.away), back: places(&self.back) }
    }
}

/// Where a disk of now goes; a move that was cut short goes on to where it was going.
fn away(disk: &RecordedDisk, lab: &Path, serial: u64) -> (PathBuf, PathBuf) {
    let file = disk.path.file_name().unwrap_or_default();
    let to = disk.moving_to.clone().unwrap_or_else(|| lab.join(serial.to_string()).join(file));
    (disk.path.clone(), to)
}
