//! The part of a lab's plan that is meant, and plans that were kept for later.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::aside::AsideError;
use super::{Context, ControlError, pick};
use crate::disks;
use crate::files;
use crate::model::address::{Address, AddressPattern};
use crate::model::id::VmName;
use crate::model::lab::{Desired, Vm};
use crate::plan::{Ask, Effect, Plan, SavedPlan, Today, Wish, refresh_only, refuse_held, target, unknown_addresses};
use crate::resolve::with_claims;
use crate::run::RunFileError;
use crate::state::Recorded;

/// Which part of a plan is meant, and which guards are.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Only these, and what they need; everything where none is named.
    pub targets: Vec<AddressPattern>,
    /// What a guard refuses and is meant all the same.
    pub allow: Vec<AddressPattern>,
    /// Only what brings the records in line with what is there.
    pub refresh_only: bool,
}

/// What an address was named for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedFor {
    Target,
    Allow,
}

impl Scope {
    pub fn is_everything(&self) -> bool {
        self.targets.is_empty() && self.allow.is_empty() && !self.refresh_only
    }

    /// The part that is meant of the lab's plan as it is now. One that will be kept speaks of one state, so there must be one.
    pub fn fresh(&self, context: &Context, will_be_kept: bool) -> Result<(Desired, Plan), ControlError> {
        let (desired, recorded) = context.desired_and_recorded()?;
        let recorded = match recorded {
            Some(recorded) => recorded,
            None if will_be_kept => context.store()?.recorded(&desired.lab)?,
            None => Recorded::nothing(),
        };
        let plan = self.plan(context, &desired, &recorded)?;
        Ok((desired, plan))
    }

    /// The part of the lab's plan that is meant.
    pub fn plan(&self, context: &Context, desired: &Desired, recorded: &Recorded) -> Result<Plan, ControlError> {
        let mut plan = context.plan(desired, recorded, &self.allow, &BTreeMap::new())?;
        refuse_unknown(NamedFor::Target, &self.targets, desired, recorded, &plan)?;
        refuse_unknown(NamedFor::Allow, &self.allow, desired, recorded, &plan)?;
        if !self.targets.is_empty() {
            plan = refuse_held(target(plan, &self.targets), &recorded.held, &self.targets);
        }
        Ok(if self.refresh_only { refresh_only(plan) } else { plan })
    }

    /// A plan of this part, to be carried out later or not at all.
    pub fn keep(&self, context: &Context, desired: Desired, plan: Plan) -> Result<SavedPlan, ControlError> {
        Ok(SavedPlan {
            version: SavedPlan::VERSION,
            folder: context.lab_folder.clone(),
            desired,
            allow: self.allow.clone(),
            targets: self.targets.clone(),
            refresh_only: self.refresh_only,
            images: digests(images_of(&plan))?,
            plan,
        })
    }
}

/// Keeps a plan in `file`, for people of its group.
pub fn save(file: &Path, saved: &SavedPlan) -> Result<(), ControlError> {
    let text = serde_json::to_vec(saved).expect("a plan has only string keys");
    Ok(files::write_atomically(file, &text, 0o640, files::Flush::Now).map_err(RunFileError::from)?)
}

/// What every format of a kept plan has.
#[derive(serde::Deserialize)]
struct SavedVersion {
    version: u32,
}

/// The plan that a person kept in a file, wherever links lead to it.
pub fn read(file: &Path) -> Result<SavedPlan, ControlError> {
    let read = || {
        let text = files::read_bounded(&file.canonicalize()?, files::BYTES_MAX).map_err(|error| error.source)?;
        text.ok_or_else(|| std::io::ErrorKind::NotFound.into())
    };
    let text = read().map_err(|source| ControlError::PlanUnread { file: file.to_owned(), source })?;
    let not_a_plan = |source| ControlError::NotAPlan { file: file.to_owned(), source };
    let SavedVersion { version } = serde_json::from_slice(&text).map_err(not_a_plan)?;
    if !(SavedPlan::VERSION_MIN..=SavedPlan::VERSION).contains(&version) {
        return Err(ControlError::PlanVersion { file: file.to_owned(), found: version });
    }
    serde_json::from_slice(&text).map_err(not_a_plan)
}

/// The plan that was kept in `file`, made anew: it is the same, or it is refused. `desired` is what the manifest asks for now.
pub fn again(
    context: &Context,
    file: &Path,
    saved: &SavedPlan,
    desired: &Desired,
    recorded: &Recorded,
) -> Result<Plan, ControlError> {
    let scope = Scope { targets: saved.targets.clone(), allow: saved.allow.clone(), refresh_only: saved.refresh_only };
    // What people need is in no kept plan.
    let meant = Desired { accommodations: desired.accommodations.clone(), ..saved.desired.clone() };
    let fresh = scope.plan(context, &meant, recorded)?;
    let images = digests(saved.images.keys().cloned())?;
    let moved = saved.moved(&Today { desired, plan: &fresh, images: &images });
    if moved.is_empty() { Ok(fresh) } else { Err(ControlError::PlanMoved { file: file.to_owned(), moved }) }
}

/// What is asked of the vms that names, families and patterns mean; one that leaves the manifest can still be stopped.
pub fn asks(
    desired: &Desired,
    recorded: &Recorded,
    words: &[String],
    wish: Wish,
) -> Result<BTreeMap<VmName, Ask>, ControlError> {
    let leaving = recorded.vms.iter().filter(|(name, _)| !desired.vms.contains_key(*name));
    let leaving = leaving.filter(|_| wish == Wish::Stop).map(|(name, known)| (name, &known.vm));
    let known: Vec<(&VmName, &Vm)> = desired.vms.iter().chain(leaving).collect();
    let families = known.iter().map(|(name, vm)| (*name, Some(&vm.family)));
    let meant = pick::vms(&desired.lab, words, families)?;
    let ask = |name: VmName| (name.clone(), Ask::new(wish, pick::is_named(words, &name)));
    Ok(meant.into_iter().map(ask).collect())
}

/// The part of the lab's plan that does what is asked of vms.
pub fn power(
    context: &Context,
    desired: &Desired,
    recorded: &Recorded,
    allow: &[AddressPattern],
    asks: &BTreeMap<VmName, Ask>,
) -> Result<Plan, ControlError> {
    let plan = context.plan(desired, recorded, allow, asks)?;
    refuse_unknown(NamedFor::Allow, allow, desired, recorded, &plan)?;
    let targets: Vec<AddressPattern> = asks.keys().map(|name| Address::vm(name).into()).collect();
    let plan = refuse_held(target(plan, &targets), &recorded.held, &targets);
    refuse_gone(&plan)?;
    Ok(plan)
}

/// Before the disks of now are set aside for them, those that are to come back must be there.
fn refuse_gone(plan: &Plan) -> Result<(), ControlError> {
    let (mut moves, mut going) = (Vec::new(), BTreeSet::new());
    for (_, action) in plan.actions() {
        match &action.effect {
            Effect::PutBack { moves: back, .. } => moves.extend(back),
            Effect::SetAside { disks, .. } => going.extend(disks),
            _ => {}
        }
    }
    // One that an earlier try has moved is there already, and no disk of now stands in its place.
    let is_gone = |(from, to): &&(PathBuf, PathBuf)| !from.exists() && (going.contains(to) || !to.exists());
    match moves.iter().find(|moved| is_gone(moved)) {
        Some((disk, _)) => Err(AsideError::Gone { disk: disk.clone() }.into()),
        None => Ok(()),
    }
}

/// An address that names nothing is a slip, and one that goes unseen looks like peace.
fn refuse_unknown(
    named_for: NamedFor,
    patterns: &[AddressPattern],
    desired: &Desired,
    recorded: &Recorded,
    plan: &Plan,
) -> Result<(), ControlError> {
    // Mostly none is named, and then nobody has to know all that there is.
    if patterns.is_empty() {
        return Ok(());
    }
    let desired = with_claims(desired, &recorded.claims);
    let Some((pattern, near)) = unknown_addresses(patterns, &desired, recorded, plan).into_iter().next() else {
        return Ok(());
    };
    let (pattern, near) = (pattern.to_string(), near.map(|near| near.to_string()));
    Err(ControlError::UnknownAddress { named_for, pattern, lab: desired.lab.clone(), near })
}

/// The images that a plan would publish.
fn images_of(plan: &Plan) -> BTreeSet<PathBuf> {
    let sources = plan.actions().filter_map(|(_, action)| match &action.effect {
        Effect::Publish { disks, .. } => Some(disks),
        _ => None,
    });
    sources.flatten().map(|source| source.image.clone()).collect()
}

/// Digests of images, without those that are not there.
fn digests(images: impl IntoIterator<Item = PathBuf>) -> Result<BTreeMap<PathBuf, String>, ControlError> {
    let mut digests = BTreeMap::new();
    for image in images {
        match disks::sha256(&image) {
            Ok(digest) => drop(digests.insert(image, digest)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(ControlError::Image { image, source }),
        }
    }
    Ok(digests)
}
