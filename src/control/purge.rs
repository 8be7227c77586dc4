//! Disks that were set aside long ago are deleted for good, but those that are held, and what the site does not remember any more goes with them.

use std::collections::{BTreeMap, BTreeSet};

use super::aside::{AsideError, among, disks_word, refuse_frozen};
use super::journal::{Decides, Lab, Order, Step};
use super::{Context, ControlError, clear, hold};
use crate::apply::{Cleared, passwords};
use crate::disks;
use crate::error::chain;
use crate::model::address::Address;
use crate::model::claim::HoldClaim;
use crate::model::id::{LabName, VmName};
use crate::model::lab::Desired;
use crate::state::{AsideDisk, Change, Recorded};

/// Disks that were set aside long ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Old {
    /// Oldest first.
    pub disks: Vec<AsideDisk>,
    /// How many disks of which vms are held, and why.
    pub held: BTreeMap<String, (usize, HoldClaim)>,
    /// How many more there would be, but for what their templates say.
    pub kept: usize,
}

/// The disks of the vms that are named, of all where none is, that were set aside more than so many days ago: as long as their
/// template says at least, as the site says where nobody says anything. They are shown to whoever asks, who may say no.
pub fn meant(
    context: &Context,
    desired: &Desired,
    words: &[String],
    older_than: Option<u32>,
) -> Result<Old, ControlError> {
    let recorded = context.known_store()?.recorded(&desired.lab)?;
    refuse_frozen(&recorded)?;
    let vms = vms(words, desired, &recorded)?;
    let held = hold::counting(&recorded);
    let days = older_than.unwrap_or(context.site.retention_days);
    let days_of = |disk: &AsideDisk| match recorded.keep_days(&disk.vm, disk.base.as_deref()) {
        Some(keep) => older_than.map_or(keep, |older_than| older_than.max(keep)),
        None => days,
    };
    let old_by_now = old(&recorded, vms.as_ref(), days_of);
    let is_kept = |disk: &&AsideDisk| !old_by_now.contains(disk);
    let kept_by_template = old(&recorded, vms.as_ref(), |_| days).iter().filter(is_kept).count();
    let (kept, disks): (Vec<_>, Vec<_>) = old_by_now.into_iter().partition(|disk| held.contains_key(&disk.vm));
    let mut of_vms: BTreeMap<String, (usize, HoldClaim)> = BTreeMap::new();
    for disk in kept {
        let hold = held[&disk.vm].clone();
        of_vms.entry(disk.vm).or_insert((0, hold)).0 += 1;
    }
    Ok(Old { disks, held: of_vms, kept: kept_by_template })
}

/// The vms that are named; `None` where none is.
fn vms(words: &[String], desired: &Desired, recorded: &Recorded) -> Result<Option<BTreeSet<VmName>>, AsideError> {
    if words.is_empty() {
        return Ok(None);
    }
    let vms = among(recorded.aside.keys(), words, desired, recorded)?;
    match vms.iter().find(|name| !recorded.aside.contains_key(*name)) {
        Some(name) => Err(AsideError::None { vm: name.to_string() }),
        None => Ok(Some(vms)),
    }
}

/// What was set aside that long ago. What is being put back is in use, whatever its age.
fn old(recorded: &Recorded, vms: Option<&BTreeSet<VmName>>, days: impl Fn(&AsideDisk) -> u32) -> Vec<AsideDisk> {
    let now = jiff::Timestamp::now().as_second();
    let is_old = |disk: &&AsideDisk| {
        let limit = now - i64::from(days(disk)) * 24 * 60 * 60;
        disk.to.is_none() && disk.since.parse::<jiff::Timestamp>().is_ok_and(|since| since.as_second() <= limit)
    };
    let of_meant = recorded.aside.iter().filter(|(name, _)| vms.is_none_or(|vms| vms.contains(*name)));
    let mut old: Vec<AsideDisk> =
        of_meant.flat_map(|(_, sets)| sets).flat_map(|set| &set.disks).filter(is_old).cloned().collect();
    old.sort_by(|one, other| (&one.since, &one.path).cmp(&(&other.since, &other.path)));
    old
}

/// Deletes these disks for good, and answers how many that were. One that came back into use meanwhile, or is held by now, is
/// let be.
pub fn delete(context: &Context, desired: &Desired, meant: &[AsideDisk]) -> Result<usize, ControlError> {
    context.audited(Some(&desired.lab), delete_each(context, desired, meant))
}

fn delete_each(context: &Context, desired: &Desired, meant: &[AsideDisk]) -> Result<usize, ControlError> {
    let mut store = context.known_store()?;
    let decides = Decides::begin(context, "purge".into())?;
    let recorded = store.recorded(&desired.lab)?;
    refuse_frozen(&recorded)?;
    let standing: Vec<&AsideDisk> = recorded.aside.values().flatten().flat_map(|set| &set.disks).collect();
    let held = hold::counting(&recorded);
    let is_free = |disk: &&AsideDisk| standing.contains(disk) && !held.contains_key(&disk.vm);
    let disks: Vec<&AsideDisk> = meant.iter().filter(is_free).collect();
    let step = |disk: &&'_ AsideDisk| {
        let (disk, path): (AsideDisk, _) = ((**disk).clone(), disk.path.clone());
        Step {
            address: Address::vm(&disk.vm),
            effect: "delete the disk for good",
            before: Vec::new(),
            after: vec![Change::Purged { path: path.clone() }],
            act: Box::new(move || {
                disks::delete(&path)?;
                forget_password(context, &desired.lab, &disk);
                Ok(())
            }),
        }
    };
    let lab = Lab { name: &desired.lab, after: recorded.latest, doing: "purged" };
    let summary = format!("{} to delete", disks_word(disks.len()));
    let failed = lab.carry_out(&mut store, decides, &summary, Order::Any, disks.iter().map(step).collect())?;
    match failed.len() {
        0 => Ok(disks.len()),
        _ => Err(AsideError::NotDeleted { asked: disks.len(), failed }.into()),
    }
}

/// One that stays opens nothing any more.
fn forget_password(context: &Context, lab: &LabName, disk: &AsideDisk) {
    let forgotten = disk.instance.as_ref().map(|instance| passwords::forget(&context.site.state, lab, instance));
    if let Some(Err(error)) = forgotten {
        tracing::warn!(error = chain(&error), "the password of a deleted disk stays behind");
    }
}

/// Forgets all runs that are over for longer than the site remembers.
pub fn forget_old_runs(context: &Context, desired: &Desired) -> Result<Cleared, ControlError> {
    let mut store = context.known_store()?;
    clear::everything(context, &desired.lab, &mut store)
}
