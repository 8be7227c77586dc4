//! Things as people name them: by name, with or without the kind before it, or by a pattern in which `*`
//! stands for anything; vms by the name of their family, too.

use std::collections::BTreeSet;

use super::{Code, ControlError};
use crate::model::address::{Address, InvalidAddress, glob};
use crate::model::id::{FamilyName, LabName, VmName};
use crate::state::Recorded;

/// Below this, two names have nothing to do with each other.
const LIKENESS_MIN: f64 = 0.7;

/// Why a word names nothing that can be meant.
#[derive(Debug, thiserror::Error)]
pub enum PickError {
    #[error("no {kind} of lab `{lab}` fits `{pattern}`")]
    NothingFits { lab: LabName, kind: &'static str, pattern: String },
    #[error("lab `{lab}` has no {kind} `{name}`")]
    Unknown { lab: LabName, kind: &'static str, name: String, others: Others },
    #[error("`{word}` means {} vms, and this is for one", vms.len())]
    Several { word: String, vms: Vec<VmName> },
}

/// What there is in the place of a thing that is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Others {
    /// Nothing of its kind.
    None,
    Unlike,
    /// This is most likely what was meant.
    Near(String),
}

impl PickError {
    pub fn code(&self) -> Code {
        match self {
            Self::NothingFits { .. } | Self::Unknown { .. } => Code::Failed,
            Self::Several { .. } => Code::Usage,
        }
    }
}

/// An address as it is typed; a name alone is a vm's.
pub fn address(word: &str) -> Result<Address, InvalidAddress> {
    if word.contains('/') || word.is_empty() { word.parse() } else { Ok(Address::vm(word)) }
}

/// The known names that `typed` means; a word that means none is an error.
pub fn names<'a>(
    lab: &LabName,
    kind: &'static str,
    typed: &[String],
    known: impl Iterator<Item = &'a str> + Clone,
) -> Result<BTreeSet<String>, PickError> {
    let mut picked = BTreeSet::new();
    for word in typed {
        let bare = bare(kind, word);
        let before = picked.len();
        let fitting = known.clone().filter(|name| glob(bare, name));
        picked.extend(fitting.map(str::to_owned));
        if picked.len() == before && !picked.iter().any(|name| glob(bare, name)) {
            return Err(nothing_fits(lab, kind, bare, known));
        }
    }
    Ok(picked)
}

/// Whether a vm itself was named, not its family or a pattern that it fits.
pub fn is_named(typed: &[String], vm: &VmName) -> bool {
    typed.iter().any(|word| bare("vm", word) == vm.as_str())
}

/// The known vms that `typed` means. A vm's own name comes before that of a family.
pub fn vms<'a>(
    lab: &LabName,
    typed: &[String],
    known: impl Iterator<Item = (&'a VmName, Option<&'a FamilyName>)> + Clone,
) -> Result<BTreeSet<VmName>, PickError> {
    let mut picked = BTreeSet::new();
    for word in typed {
        let bare = bare("vm", word);
        let named = known.clone().filter(|(name, _)| glob(bare, name.as_str()));
        let mut fitting: Vec<&VmName> = named.map(|(name, _)| name).collect();
        if fitting.is_empty() {
            let is_family = |family: &FamilyName| family.as_str() == bare;
            fitting = known.clone().filter(|(_, family)| family.is_some_and(is_family)).map(|(name, _)| name).collect();
        }
        if fitting.is_empty() {
            let names = known.clone().map(|(name, _)| name.as_str());
            return Err(nothing_fits(
                lab,
                "vm",
                bare,
                names.chain(known.filter_map(|(_, family)| Some(family?.as_str()))),
            ));
        }
        picked.extend(fitting.into_iter().cloned());
    }
    Ok(picked)
}

/// The recorded vms that `typed` means.
pub fn recorded_vms(lab: &LabName, typed: &[String], recorded: &Recorded) -> Result<BTreeSet<VmName>, PickError> {
    vms(lab, typed, recorded.vms.iter().map(|(name, known)| (name, Some(&known.vm.family))))
}

/// The recorded vm that `typed` means, where only one can be meant.
pub fn one(lab: &LabName, typed: &str, recorded: &Recorded) -> Result<VmName, PickError> {
    only(typed, recorded_vms(lab, &[typed.to_owned()], recorded)?)
}

/// The only one of those that a word means.
pub fn only(word: &str, mut meant: BTreeSet<VmName>) -> Result<VmName, PickError> {
    match meant.pop_first() {
        Some(vm) if meant.is_empty() => Ok(vm),
        first => Err(PickError::Several { word: word.to_owned(), vms: first.into_iter().chain(meant).collect() }),
    }
}

/// Does the same for several vms, one after the other; one for which it fails keeps nobody else from it.
pub(super) fn each(
    vms: &BTreeSet<VmName>,
    failing: &'static str,
    mut act: impl FnMut(&VmName) -> Result<(), ControlError>,
) -> Result<(), ControlError> {
    let failed = vms.iter().filter_map(|vm| act(vm).err().map(|error| (vm.clone(), error)));
    let mut failed: Vec<(VmName, ControlError)> = failed.collect();
    match failed.len() {
        0 => Ok(()),
        1 if vms.len() == 1 => Err(failed.remove(0).1),
        _ => Err(ControlError::OfVms { failing, asked: vms.len(), failed }),
    }
}

/// `vm/alice-gsr` is the same as `alice-gsr`.
fn bare<'a>(kind: &'static str, word: &'a str) -> &'a str {
    word.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/')).filter(|name| !name.is_empty()).unwrap_or(word)
}

pub fn nothing_fits<'a>(
    lab: &LabName,
    kind: &'static str,
    word: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> PickError {
    let lab = lab.clone();
    if word.contains('*') {
        return PickError::NothingFits { lab, kind, pattern: word.to_owned() };
    }
    let likeness = |name: &&str| strsim::jaro_winkler(name, word);
    let near = known.max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    let others = match near {
        Some(near) if likeness(&near) >= LIKENESS_MIN => Others::Near(near.to_owned()),
        Some(_) => Others::Unlike,
        None => Others::None,
    };
    PickError::Unknown { lab, kind, name: word.to_owned(), others }
}
