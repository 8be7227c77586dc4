//! A person's being forgotten, in words: why not yet, and what is left when it is done.

use super::times;
use std::fmt::Write as _;

use crate::control::privacy::{Erased, Kept};
use crate::model::id::UserName;
use crate::state::Left;

/// What is kept, and until when.
pub(super) fn kept(kept: &Kept) -> String {
    match kept {
        Kept::InLab { lab, what } => format!("lab `{lab}` has {what}"),
        Kept::Running { lab, vm } => format!("vm `{vm}` of lab `{lab}` runs, or is about to"),
        Kept::Worked { lab, vm } => format!("somebody works on vm `{vm}` of lab `{lab}`"),
        Kept::Session { lab, session, until } => {
            format!("session `{session}` of lab `{lab}` is not over until {}", times::local(*until))
        }
        Kept::Aside { lab, vm, until } => {
            format!("disks of vm `{vm}` of lab `{lab}` were set aside, and are kept until {until:.0}")
        }
        Kept::Waiting { lab, vm } => format!("disks were put back for vm `{vm}` of lab `{lab}`, which is not there"),
    }
}

/// What to do about the first thing that is kept.
pub(super) fn way_out(kept: &Kept, user: &UserName) -> String {
    match kept {
        Kept::InLab { .. } => format!("take {user} out of the lab's manifests, and apply"),
        Kept::Running { vm, .. } => {
            format!("`labwright vm stop {vm}`, take {user} out of the lab's manifests, and apply")
        }
        Kept::Worked { .. } => "try again when that is done".to_owned(),
        Kept::Session { .. } => "wait until it is over".to_owned(),
        Kept::Aside { vm, .. } => format!("`labwright purge '{vm}'` deletes them from then on"),
        Kept::Waiting { vm, .. } => format!("`labwright restore vm/{vm} --undo` sets them aside again"),
    }
}

pub fn erased(user: &UserName, erased: &Erased) -> String {
    let mut text = format!("{user} is forgotten, with {} runs; what was done stays, under no name", erased.runs);
    if erased.left == Left::InLog {
        text.push_str(
            "\nwarning: somebody has the state open, and its log still names them: erase again when they are done",
        );
    }
    if !erased.copies.is_empty() {
        text.push_str("\nwarning: copies of the state may still name them; delete those that nobody needs:");
        erased.copies.iter().for_each(|copy| {
            write!(text, "\n  {}", copy.display()).expect("a string takes all");
        });
    }
    text
}
