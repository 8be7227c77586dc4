//! Disks that were set aside, whichever way: who has them back, and who keeps them from every purge.

use std::collections::BTreeSet;

use super::{Ended, OfLab, Way, looks};
use crate::control::hold;
use crate::control::pick;
use crate::control::restore::{self, Moved, Wanted, Which};
use crate::control::restore_as;
use crate::daemon::messages::{Hold, Restore};
use crate::exit::Exit;
use crate::model::address::Address;
use crate::model::id::VmName;
use crate::report::{Failure, Ui, aside};

impl Way {
    /// Puts disks back, of several vms once that is agreed to.
    pub fn restore(&self, wanted: &Wanted, yes: bool, ui: &Ui) -> Ended {
        let names = match self {
            Self::Here(lab) if !yes => restore::meant(&lab.0, &lab.1, wanted)?,
            Self::Here(_) => BTreeSet::new(),
            Self::Daemon(lab) => picked(lab, &wanted.vms)?,
        };
        // One vm that is named is meant; of several a person may not have thought of all.
        if names.len() > 1 && !yes {
            let (vms, question) = aside::restores(&names, &wanted.which);
            ui.say(&vms);
            ui.confirmed(question, "changed")?;
        }
        let told = &mut |moved: &Moved| aside::restored(moved).iter().for_each(|line| ui.say(line));
        match self {
            Self::Here(lab) => {
                let vms = match names.is_empty() {
                    true => wanted.vms.clone(),
                    false => names.iter().map(|name| Address::vm(name).to_string()).collect(),
                };
                restore::restore(&lab.0, &lab.1, &Wanted { vms, which: wanted.which.clone() }, told)?;
                ui.say("next: `labwright apply` takes it from here");
            }
            Self::Daemon(lab) => {
                let (set, undo) = match &wanted.which {
                    Which::Undo => (None, true),
                    Which::Only => (None, false),
                    Which::Set(set) => (Some(set.clone()), false),
                };
                for name in &names {
                    lab.restore(name, &Restore { set: set.clone(), undo })?.iter().for_each(&mut *told);
                }
                ui.say("next: the daemon takes it from here; of a vm that has left, the next `labwright apply`");
            }
        }
        Ok(Exit::Done)
    }

    /// The same as another vm, to look into.
    pub fn restore_as(&self, wanted: &restore_as::Wanted, ui: &Ui) -> Ended {
        let Self::Here(lab) = self else {
            let set = wanted.set.as_ref().map(|set| format!(" --set {set}")).unwrap_or_default();
            let what = "the daemon copies no disks that were set aside; nothing was done";
            let line = format!("sudo labwright restore {}{set} --as {} --lab FOLDER", wanted.vm, wanted.name);
            return Err(Failure::new(Exit::Refused, what).hint(format!("root does: `{line}`")));
        };
        ui.say(&aside::copied(&restore_as::restore_as(&lab.0, &lab.1, wanted)?));
        Ok(Exit::Done)
    }

    /// Keeps disks from every purge, or lets them go.
    pub fn hold(&self, words: &[String], wanted: &Hold, ui: &Ui) -> Ended {
        let vms = match self {
            Self::Here(lab) => hold::hold(&lab.0, &lab.1, words, &wanted.clone().into())?,
            Self::Daemon(lab) => {
                let vms = picked(lab, words)?;
                vms.iter().try_for_each(|vm| lab.hold(vm, wanted))?;
                vms
            }
        };
        ui.say(&aside::hold_words(&vms, &wanted.clone().into()));
        Ok(Exit::Done)
    }
}

/// The vms that somebody means, of those that they may know of and those that have left disks of theirs. A name alone is taken as
/// it is: what is wrong with it, the daemon says best.
fn picked(lab: &OfLab, words: &[String]) -> Result<BTreeSet<VmName>, Failure> {
    let left: Vec<VmName> = lab.aside()?.into_iter().filter_map(|disk| VmName::new(disk.vm).ok()).collect();
    let mut picked = BTreeSet::new();
    for word in words {
        let word = std::slice::from_ref(word);
        match looks::picked(lab, word)
            .map_err(|failure| (failure, pick::vms(&lab.name, word, left.iter().map(|name| (name, None)))))
        {
            Ok(known) => picked.extend(known),
            Err((_, Ok(gone))) => picked.extend(gone),
            Err((failure, Err(_))) => return Err(failure),
        }
    }
    Ok(picked)
}
