//! A plan in a file, with all that is needed to make it again. It is carried out only if the same plan comes out and what
//! it was made from still holds: the lab, the state's lineage and serial, the images, the jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::objects::{fields, to_json, wanted_things};
use super::{Change, Held, Plan, Reason, Refusal};
use crate::model::address::{Address, AddressPattern, Kind};
use crate::model::lab::Desired;

/// Most things that one line names.
const NAMES_MAX: usize = 5;

/// A plan that is carried out later, or not at all, with what it was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPlan {
    pub version: u32,
    /// The lab's folder.
    pub folder: PathBuf,
    pub desired: Desired,
    pub allow: Vec<AddressPattern>,
    /// The part of the lab's plan that is meant; all of it where none is named.
    pub targets: Vec<AddressPattern>,
    pub refresh_only: bool,
    /// Digests of the images that the plan would publish.
    pub images: BTreeMap<PathBuf, String>,
    pub plan: Plan,
}

/// What a saved plan is held against.
pub struct Today<'a> {
    pub desired: &'a Desired,
    /// The same part of the plan that would be made now.
    pub plan: &'a Plan,
    /// Digests of the saved plan's images; one that is not there is missing here.
    pub images: &'a BTreeMap<PathBuf, String>,
}

impl SavedPlan {
    /// 2: the reasons of changes have codes, where 1 had half-sentences.
    pub const VERSION: u32 = 2;
    /// The oldest that is still read.
    pub const VERSION_MIN: u32 = 1;

    /// What moved since the plan was made, in the user's words; nothing if it still holds.
    pub fn moved(&self, today: &Today<'_>) -> Vec<String> {
        let mut moved: Vec<String> = self.moved_lab(today.desired).into_iter().collect();
        moved.extend(self.moved_state(today.plan));
        moved.extend(self.moved_images(today.images));
        moved.extend(self.moved_changes(today.plan));
        let refused = today.plan.refusals.iter().filter(|refusal| !self.is_refused_already(refusal));
        moved.extend(refused.map(|refusal| format!("{}: {}", refusal.address, refusal.why)));
        if moved.is_empty() && !self.plan.changes.iter().map(in_words).eq(today.plan.changes.iter().map(in_words)) {
            moved.push(
                "what would be done differs in its details, such as an address or a published version".to_owned(),
            );
        }
        moved
    }

    /// Whether the kept plan held the same things back for the same reason.
    fn is_refused_already(&self, refusal: &Refusal) -> bool {
        let same = |then: &Refusal| (&then.address, &then.holds) == (&refusal.address, &refusal.holds);
        refusal.holds != Held::Everything && self.plan.refusals.iter().any(same)
    }

    fn moved_lab(&self, now: &Desired) -> Option<String> {
        if self.desired.lab != now.lab {
            return Some(format!("the lab: it was `{}` and is `{}` now", self.desired.lab, now.lab));
        }
        let (then, now) = (everything(&self.desired), everything(now));
        let addresses: BTreeSet<&Address> = then.keys().chain(now.keys()).collect();
        let differing: Vec<String> = addresses
            .into_iter()
            .filter(|address| then.get(*address) != now.get(*address))
            .map(ToString::to_string)
            .collect();
        if differing.is_empty() {
            return None;
        }
        let more = if differing.len() > NAMES_MAX { ", …" } else { "" };
        let named = differing[..differing.len().min(NAMES_MAX)].join(", ");
        Some(format!("the lab: its manifest was edited, which changes {named}{more}"))
    }

    fn moved_state(&self, now: &Plan) -> Option<String> {
        if self.plan.lineage != now.lineage {
            Some("the state: it is another one, made anew or restored from elsewhere".to_owned())
        } else if self.plan.serial != now.serial {
            Some(format!("the state: it had serial {} and has {} now", self.plan.serial, now.serial))
        } else {
            None
        }
    }

    fn moved_images(&self, now: &BTreeMap<PathBuf, String>) -> Vec<String> {
        let moved = self.images.iter().filter_map(|(image, then)| match now.get(image) {
            Some(now) if now == then => None,
            Some(now) => Some(format!("the image {}: its sha256 was {then} and is {now} now", image.display())),
            None => Some(format!("the image {}: it is gone", image.display())),
        });
        moved.collect()
    }

    /// Changes that are no longer due, others, or new, mostly since a job or a report moved.
    fn moved_changes(&self, now: &Plan) -> Vec<String> {
        let (then, now) = (by_address(&self.plan), by_address(now));
        let mut moved: Vec<String> = then
            .iter()
            .filter_map(|(address, change)| moved_change(address, change, now.get(address).copied()))
            .collect();
        let new = now.iter().filter(|(address, _)| !then.contains_key(*address));
        moved.extend(
            new.map(|(address, change)| format!("{address}: {} now ({})", change.verb.as_str(), change.reason())),
        );
        moved
    }
}

/// A change as people read it, whichever version kept it.
fn in_words(change: &Change) -> Change {
    Change { reasons: vec![Reason::Other { text: change.reason() }], ..change.clone() }
}

fn by_address(plan: &Plan) -> BTreeMap<&Address, &Change> {
    plan.changes.iter().map(|change| (&change.address, change)).collect()
}

fn moved_change(address: &Address, then: &Change, now: Option<&Change>) -> Option<String> {
    let Some(now) = now else { return Some(format!("{address}: nothing is left to {}", then.verb.as_str())) };
    let in_use = |change: &Change| change.touches.as_ref().is_some_and(|touched| touched.in_use);
    if (then.verb, then.reason()) != (now.verb, now.reason()) {
        let words = |change: &Change| format!("{} ({})", change.verb.as_str(), change.reason());
        return Some(format!("{address}: {} then, {} now", words(then), words(now)));
    }
    match (in_use(then), in_use(now)) {
        (false, true) => Some(format!("{address}: its guest runs now, and did not then")),
        (true, false) => Some(format!("{address}: its guest ran then, and does not now")),
        _ => None,
    }
}

/// All that a lab wants, each thing by its fields; where it stands in the manifest is not among them.
fn everything(desired: &Desired) -> BTreeMap<Address, BTreeMap<String, String>> {
    let templates =
        desired.templates.iter().map(|(name, template)| (Address::new(Kind::Template, name), to_json(template)));
    let vms = desired.vms.iter().map(|(name, vm)| (Address::vm(name), to_json(vm)));
    let all =
        wanted_things(desired).into_iter().map(|(address, thing)| (address, thing.body())).chain(templates).chain(vms);
    all.map(|(address, body)| (address, fields(&body))).collect()
}
