//! Disks that were set aside: what is asked before they come back or are deleted, and what was done.

use std::collections::{BTreeMap, BTreeSet};

use super::times;
use crate::apply::Cleared;
use crate::control::aside::disks_word;
use crate::control::changes::Changes;
use crate::control::hold::Wanted;
use crate::control::restore::{Moved, Which};
use crate::control::restore_as::Made;
use crate::model::claim::HoldClaim;
use crate::model::id::VmName;
use crate::state::AsideDisk;

/// A line for each disk that is to be deleted, and the question.
pub fn deletes(disks: &[AsideDisk]) -> (Vec<String>, String) {
    let line = |disk: &AsideDisk| {
        format!("  {} of {}, set aside {}", disk.path.display(), disk.vm, times::local_text(&disk.since))
    };
    (disks.iter().map(line).collect(), format!("Delete {} for good?", disks_word(disks.len())))
}

/// A line for each vm whose disks are old enough, and are held.
pub fn held(held: &BTreeMap<String, (usize, HoldClaim)>) -> Vec<String> {
    let line = |(vm, (count, hold)): (&String, &(usize, HoldClaim))| {
        let stays = if *count == 1 { "stays" } else { "stay" };
        format!("{} of {vm} {stays}: {hold}", disks_word(*count))
    };
    held.iter().map(line).collect()
}

/// What became of a wish to hold disks.
pub fn hold_words(vms: &BTreeSet<VmName>, wanted: &Wanted) -> String {
    let names = vms.iter().map(|vm| format!("vm/{vm}")).collect::<Vec<_>>().join(", ");
    match wanted {
        Wanted::Hold { until: Some(until), .. } => format!("no purge deletes a disk of {names} before {until} is over"),
        Wanted::Hold { until: None, .. } => {
            format!("no purge deletes a disk of {names} before `labwright hold --release`")
        }
        Wanted::Release => format!("disks of {names} are held no more"),
    }
}

/// That none is old enough, of the vms that are named or of all.
/// What a purge leaves because a template says so.
pub fn kept(disks: usize) -> Option<String> {
    let stay = if disks == 1 {
        "stays as long as its template's `keep` says"
    } else {
        "stay as long as their templates' `keep` says"
    };
    (disks > 0).then(|| format!("{} {stay}", disks_word(disks)))
}

pub fn none_old(are_named: bool, days: u32) -> String {
    let whose = if are_named { " of these vms" } else { "" };
    let days = if days == 1 { "1 day".to_owned() } else { format!("{days} days") };
    format!("no disk{whose} was set aside more than {days} ago")
}

pub fn deleted(number: usize) -> String {
    format!("{} deleted", disks_word(number))
}

/// What the site does not remember any more; none where that is nothing.
pub fn forgotten(Cleared { runs, effects, acts: _ }: Cleared, days: u32) -> Option<String> {
    let words =
        || format!("forgotten, since they ended more than {days} days ago: {runs} runs, {effects} effects of applies");
    ((runs, effects) != (0, 0)).then(words)
}

/// The vms that a wish is about, and the question.
pub fn restores(vms: &BTreeSet<VmName>, which: &Which) -> (String, &'static str) {
    let names: Vec<&str> = vms.iter().map(VmName::as_str).collect();
    let question = if *which == Which::Undo { "Set their disks aside again?" } else { "Put their disks back?" };
    (format!("{} vms: {}", names.len(), names.join(", ")), question)
}

/// What has a copy, and what comes next.
pub fn copied(Made { vm, set }: &Made) -> String {
    let set = set.words();
    format!(
        "vm/{vm} has a copy of {set}, which stays where it is\nnext: `labwright vm start {vm}` starts it, isolated; \
         `labwright vm delete {vm}` gives it up"
    )
}

/// A line for each place that changed.
pub fn restored(moved: &Moved) -> Vec<String> {
    let aside = moved.aside.iter().map(|place| format!("{} has what the vm had until now", place.display()));
    let back = moved.back.iter().map(|place| format!("{} is back in its place", place.display()));
    aside.chain(back).collect()
}

/// What to know of a list of changed files besides.
pub fn changes(found: &Changes) -> Vec<String> {
    const UNSEEN_SHOWN_MAX: usize = 20;
    let look = "the vm runs: what it saved in the last minute may be missing".to_owned();
    let mut lines: Vec<String> = found.is_look.then_some(look).into_iter().collect();
    lines.extend(found.unseen.iter().take(UNSEEN_SHOWN_MAX).map(|what| format!("not compared: {what}")));
    let more = found.unseen.len().saturating_sub(UNSEEN_SHOWN_MAX);
    lines.extend((more > 0).then(|| format!("and {more} more were not compared")));
    if found.files.is_empty() && found.unseen.is_empty() {
        lines.push("no file differs in size or time from what the vm was made of".to_owned());
    }
    lines
}
