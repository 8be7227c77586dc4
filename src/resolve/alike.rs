//! Names that people take for one: equal but for capitals and punctuation.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::Resolver;
use super::people::People;
use crate::manifest::At;
use crate::model::id::{UserName, VmName};
use crate::model::lab::Vm;
use crate::model::rules::Rule;

/// A name without capitals and punctuation; `1-11` and `11-1` stay apart, since numbers are told apart by it.
fn folded(name: &str) -> String {
    let is_mark = |c: char| matches!(c, '.' | '_' | '-');
    let mut folded = String::with_capacity(name.len());
    let mut marked = false;
    for c in name.chars() {
        if is_mark(c) {
            marked = true;
            continue;
        }
        if marked && c.is_ascii_digit() && folded.ends_with(|last: char| last.is_ascii_digit()) {
            folded.push('-');
        }
        marked = false;
        folded.push(c.to_ascii_lowercase());
    }
    folded
}

impl Resolver<'_> {
    pub(super) fn users_alike(&mut self, people: &People) {
        let mut first: BTreeMap<String, (&UserName, At)> = BTreeMap::new();
        for (name, at) in people.places() {
            let (other, other_at) = match first.entry(folded(name.as_str())) {
                Entry::Vacant(free) => {
                    free.insert((name, at));
                    continue;
                }
                Entry::Occupied(taken) => *taken.get(),
            };
            let message = format!("the users `{name}` and `{other}` differ only in capitals or punctuation");
            let hint = "if they are one person, write the login name in the same way everywhere";
            self.note_both(Rule::NamesAlike, (at, &message), (other_at, "the other one"), hint);
        }
    }

    /// Vms of users who look alike were told with the users, vms equal but for capitals as doubles.
    pub(super) fn vms_alike(&mut self, vms: &BTreeMap<VmName, Vm>, places: &BTreeMap<VmName, At>) {
        let mut first: BTreeMap<String, &VmName> = BTreeMap::new();
        for (name, vm) in vms {
            let other = match first.entry(folded(name.as_str())) {
                Entry::Vacant(free) => {
                    free.insert(name);
                    continue;
                }
                Entry::Occupied(taken) => *taken.get(),
            };
            let owner = &vms[other].owner;
            let said = name.as_str().eq_ignore_ascii_case(other.as_str());
            if said || (*owner != vm.owner && folded(owner.as_str()) == folded(vm.owner.as_str())) {
                continue;
            }
            let message = format!("the vms `{name}` and `{other}` differ only in punctuation");
            let hint = "if both are meant, give one of them a name that people do not mix up";
            self.note_both(Rule::NamesAlike, (places[name], &message), (places[other], "the other one"), hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::folded;

    #[test]
    fn numbers_are_told_apart_by_marks_and_words_are_not() {
        assert_eq!(folded("Ana.Pop"), folded("anapop"));
        assert_eq!(folded("web_1"), folded("Web-1"));
        assert_ne!(folded("pc-1-11"), folded("pc-11-1"));
        assert_ne!(folded("u1-router-1"), folded("u11-router"));
    }
}
