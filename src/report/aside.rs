//! Disks that were set aside: what is asked before they come back or are deleted, and what was done.

use std::collections::BTreeSet;

use super::times;
use crate::apply::Cleared;
use crate::control::aside::disks_word;
use crate::control::restore::{Moved, Which};
use crate::model::id::VmName;
use crate::state::AsideDisk;

/// A line for each disk that is to be deleted, and the question.
pub fn deletes(disks: &[AsideDisk]) -> (Vec<String>, String) {
    let line = |disk: &AsideDisk| {
        format!("  {} of {}, set aside {}", disk.path.display(), disk.vm, times::local_text(&disk.since))
    };
    (disks.iter().map(line).collect(), format!("Delete {} for good?", disks_word(disks.len())))
}

/// That none is old enough, of the vms that are named or of all.
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

/// A line for each place that changed.
pub fn restored(moved: &Moved) -> Vec<String> {
    let aside = moved.aside.iter().map(|place| format!("{} has what the vm had until now", place.display()));
    let back = moved.back.iter().map(|place| format!("{} is back in its place", place.display()));
    aside.chain(back).collect()
}
