//! Things as they are named on the command line: by name, with or without the kind before it, or by a pattern in which `*`
//! stands for anything; vms by the name of their family, too.

use std::collections::BTreeSet;

use crate::exit::Exit;
use crate::model::address::{Address, InvalidAddress, glob};
use crate::model::id::{FamilyName, LabName, VmName};
use crate::report::Failure;
use crate::state::Recorded;

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
    known: impl Iterator<Item = (&'a VmName, &'a FamilyName)> + Clone,
) -> Result<BTreeSet<VmName>, Failure> {
    let mut picked = BTreeSet::new();
    for word in typed {
        let bare = bare("vm", word);
        let named = known.clone().filter(|(name, _)| glob(bare, name.as_str()));
        let mut fitting: Vec<&VmName> = named.map(|(name, _)| name).collect();
        if fitting.is_empty() {
            fitting = known.clone().filter(|(_, family)| family.as_str() == bare).map(|(name, _)| name).collect();
        }
        if fitting.is_empty() {
            let names = known.clone().map(|(name, _)| name.as_str());
            return Err(nothing_fits(lab, "vm", bare, names.chain(known.map(|(_, family)| family.as_str()))));
        }
        picked.extend(fitting.into_iter().cloned());
    }
    Ok(picked)
}

/// The recorded vms that `typed` means.
pub(super) fn recorded_vms(lab: &LabName, typed: &[String], recorded: &Recorded) -> Result<BTreeSet<VmName>, Failure> {
    vms(lab, typed, recorded.vms.iter().map(|(name, known)| (name, &known.vm.family)))
}

/// `vm/alice-gsr` is the same as `alice-gsr`.
fn bare<'a>(kind: &str, word: &'a str) -> &'a str {
    word.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/')).filter(|name| !name.is_empty()).unwrap_or(word)
}

fn nothing_fits<'a>(lab: &LabName, kind: &str, word: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let all = format!("labwright get {kind}s");
    if word.contains('*') {
        return Failure::new(Exit::Failed, format!("no {kind} of lab `{lab}` fits `{word}`"))
            .hint(format!("`{all}` lists all"));
    }
    let failure = Failure::new(Exit::Failed, format!("lab `{lab}` has no {kind} `{word}`"));
    let likeness = |name: &&str| strsim::jaro_winkler(name, word);
    match known.max_by(|one, other| likeness(one).total_cmp(&likeness(other))) {
        Some(near) => failure.hint(format!("did you mean `{near}`? `{all}` lists all")),
        None => failure.hint(format!("there is no {kind} yet: `labwright apply` makes what the manifest asks for")),
    }
}
