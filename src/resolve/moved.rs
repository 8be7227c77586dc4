//! Renames: each leads from a name that is gone to one that exists.

use std::collections::BTreeMap;

use super::Resolver;
use crate::manifest::{At, MovedDecl, Spanned};
use crate::model::address::{Address, Kind};
use crate::model::lab::{Desired, Moved};
use crate::model::rules::Rule;

/// Most renames of a lab.
const MOVED_MAX: usize = 2000;

impl Resolver<'_> {
    pub(super) fn moved(&mut self, desired: &mut Desired) {
        let manifest = self.manifest;
        let mut from: BTreeMap<&Address, &Spanned<MovedDecl>> = BTreeMap::new();
        let mut to: BTreeMap<&Address, At> = BTreeMap::new();
        let moved = self.at_most(&manifest.moved, MOVED_MAX, "renames", |decl| decl.at);
        for decl in moved {
            if decl.from.kind != decl.to.kind {
                let message = format!("a {} cannot become a {}", decl.from.kind, decl.to.kind);
                self.note(
                    Rule::MovedKinds,
                    decl.to.at,
                    message,
                    format!("write `to: {}/{}`", decl.from.kind, decl.to.name),
                );
                continue;
            }
            if let Some(first) = from.get(&decl.from.value) {
                let (first, message) = (first.from.at, format!("`{}` is renamed twice", decl.from.value));
                self.note_both(
                    Rule::MovedTwice,
                    (decl.from.at, &message),
                    (first, "the first time"),
                    "keep one of the two",
                );
                continue;
            }
            if let Some(first) = to.get(&decl.to.value) {
                let (first, message) = (*first, format!("two things are renamed to `{}`", decl.to.value));
                self.note_both(
                    Rule::MovedTwice,
                    (decl.to.at, &message),
                    (first, "the first one"),
                    "keep one of the two",
                );
                continue;
            }
            from.insert(&decl.from.value, decl);
            to.insert(&decl.to.value, decl.to.at);
        }
        let mut circles = Vec::new();
        for (start, decl) in &from {
            if leads_back(start, &from) {
                circles.push((*start, *decl));
            }
        }
        // One finding per circle would need to know its smallest member; each of its lines is wrong anyway.
        for (start, decl) in &circles {
            let message = format!("these renames lead from `{start}` back to itself");
            self.note(
                Rule::MovedCircle,
                decl.from.at,
                message,
                "remove one of them; to swap two names, rename in two steps",
            );
        }
        for (start, decl) in &from {
            if circles.iter().any(|(circle, _)| circle == start) {
                continue;
            }
            self.ends(decl, desired, from.contains_key(&decl.to.value));
            desired.moved.push(Moved { from: decl.from.value.clone(), to: decl.to.value.clone() });
        }
    }

    fn ends(&mut self, decl: &Spanned<MovedDecl>, desired: &Desired, goes_on: bool) {
        if exists(&decl.from.value, desired) {
            let message = format!("`{}` is still defined, so it was not renamed", decl.from.value);
            self.note(Rule::MovedUnknown, decl.from.at, message, "remove this rename, or the old definition");
        }
        let may_exist = self.vms_missing && decl.to.kind == Kind::Vm;
        if !goes_on && !may_exist && !exists(&decl.to.value, desired) {
            let names = names(decl.to.kind, desired);
            let hint = match self.suggest(&decl.to.name, names.iter().copied()) {
                Some(near) => format!("did you mean `{}/{near}`?", decl.to.kind),
                None => "define it, or remove this rename".to_owned(),
            };
            self.note(Rule::MovedUnknown, decl.to.at, format!("there is no `{}`", decl.to.value), hint);
        }
    }
}

fn leads_back(start: &Address, from: &BTreeMap<&Address, &Spanned<MovedDecl>>) -> bool {
    let mut at = start;
    for _ in 0..from.len() {
        match from.get(at) {
            Some(decl) => at = &decl.to.value,
            None => return false,
        }
        if at == start {
            return true;
        }
    }
    false
}

fn exists(address: &Address, desired: &Desired) -> bool {
    let name = address.name.as_str();
    match address.kind {
        Kind::UserGroup => desired.user_groups.contains_key(name),
        Kind::User => desired.users.contains_key(name),
        Kind::VmGroup => desired.vm_groups.contains_key(name),
        Kind::Template => desired.templates.contains_key(name),
        // A family is renamed as a whole.
        Kind::Vm => desired.vms.contains_key(name) || desired.vms.values().any(|vm| vm.family.as_str() == name),
        Kind::Permission | Kind::Job | Kind::Lab | Kind::Site => false,
        Kind::Session => desired.sessions.contains_key(name),
    }
}

fn names(kind: Kind, desired: &Desired) -> Vec<&str> {
    match kind {
        Kind::UserGroup => desired.user_groups.keys().map(AsRef::as_ref).collect(),
        Kind::User => desired.users.keys().map(AsRef::as_ref).collect(),
        Kind::VmGroup => desired.vm_groups.keys().map(AsRef::as_ref).collect(),
        Kind::Template => desired.templates.keys().map(AsRef::as_ref).collect(),
        Kind::Vm => desired.vms.keys().map(AsRef::as_ref).collect(),
        Kind::Permission | Kind::Job | Kind::Lab | Kind::Site => Vec::new(),
        Kind::Session => desired.sessions.keys().map(AsRef::as_ref).collect(),
    }
}
