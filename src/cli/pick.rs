//! Things as they are named on the command line: by name, with or without the kind before it, or by a pattern in which `*`
//! stands for anything; vms by the name of their family, too.

use std::collections::BTreeSet;

use crate::exit::Exit;
use crate::model::address::{Address, InvalidAddress, glob};
use crate::model::id::{FamilyName, LabName, VmName};
use crate::report::Failure;
use crate::state::Recorded;

/// Below this, two names have nothing to do with each other.
const LIKENESS_MIN: f64 = 0.7;

/// An address, for clap; a name alone is a vm's.
pub(super) fn address(word: &str) -> Result<Address, InvalidAddress> {
    if word.contains('/') || word.is_empty() { word.parse() } else { Ok(Address::vm(word)) }
}

/// The known names that `typed` means; a word that means none is an error.
pub(super) fn names<'a>(
    lab: &LabName,
    kind: &str,
    typed: &[String],
    known: impl Iterator<Item = &'a str> + Clone,
) -> Result<BTreeSet<String>, Failure> {
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

/// The known vms that `typed` means. A vm's own name comes before that of a family.
pub(super) fn vms<'a>(
    lab: &LabName,
    typed: &[String],
    known: impl Iterator<Item = (&'a VmName, Option<&'a FamilyName>)> + Clone,
) -> Result<BTreeSet<VmName>, Failure> {
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
pub(super) fn recorded_vms(lab: &LabName, typed: &[String], recorded: &Recorded) -> Result<BTreeSet<VmName>, Failure> {
    vms(lab, typed, recorded.vms.iter().map(|(name, known)| (name, Some(&known.vm.family))))
}

/// The recorded vm that `typed` means, where only one can be meant.
pub(super) fn one(lab: &LabName, typed: &str, recorded: &Recorded) -> Result<VmName, Failure> {
    let mut meant = recorded_vms(lab, &[typed.to_owned()], recorded)?;
    match meant.pop_first() {
        Some(vm) if meant.is_empty() => Ok(vm),
        first => {
            let names: Vec<&str> = first.iter().chain(&meant).map(VmName::as_str).collect();
            Err(Failure::new(Exit::Usage, format!("`{typed}` means {} vms, and this is for one", names.len()))
                .hint(format!("name one of {}", names.join(", "))))
        }
    }
}

/// Does the same for several vms, one after the other; one for which it fails keeps nobody else from it.
pub(super) fn each(
    vms: &BTreeSet<VmName>,
    failing: &str,
    mut act: impl FnMut(&VmName) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut failures: Vec<(&VmName, Failure)> =
        vms.iter().filter_map(|vm| act(vm).err().map(|failure| (vm, failure))).collect();
    match failures.len() {
        0 => Ok(()),
        1 if vms.len() == 1 => Err(failures.remove(0).1),
        number => {
            let mut failure = Failure::new(failures[0].1.exit, format!("{number} of {} vms {failing}", vms.len()));
            failure.causes = failures.iter().map(|(vm, failure)| format!("{vm}: {}", in_one_line(failure))).collect();
            Err(failure)
        }
    }
}

fn in_one_line(failure: &Failure) -> String {
    let mut words = failure.message.clone();
    failure.causes.iter().for_each(|cause| words.extend([": ", cause]));
    failure.hint.iter().for_each(|hint| words.extend(["; ", hint]));
    words
}

/// `vm/alice-gsr` is the same as `alice-gsr`.
fn bare<'a>(kind: &str, word: &'a str) -> &'a str {
    word.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/')).filter(|name| !name.is_empty()).unwrap_or(word)
}

pub(super) fn nothing_fits<'a>(
    lab: &LabName,
    kind: &str,
    word: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Failure {
    let all = format!("labwright get {kind}s");
    if word.contains('*') {
        return Failure::new(Exit::Failed, format!("no {kind} of lab `{lab}` fits `{word}`"))
            .hint(format!("`{all}` lists all"));
    }
    let failure = Failure::new(Exit::Failed, format!("lab `{lab}` has no {kind} `{word}`"));
    let likeness = |name: &&str| strsim::jaro_winkler(name, word);
    let near = known.clone().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    failure.hint(match near {
        Some(near) if likeness(&near) >= LIKENESS_MIN => format!("did you mean `{near}`? `{all}` lists all"),
        Some(_) => format!("`{all}` lists all"),
        None => format!("there is no {kind} yet: `labwright apply` makes what the manifest asks for"),
    })
}
