//! `moved`: what is recorded under an old name belongs to the new one, so that a rename rebuilds nothing.

use std::collections::BTreeMap;

use crate::model::address::Kind;
use crate::model::id::{TemplateName, UserName, VmGroupName, VmName};
use crate::model::lab::{Desired, VmSource};
use crate::state::{Recorded, RecordedVm};

/// The renames that this plan carries out: new name to old.
#[derive(Debug, Default)]
pub(super) struct Moves {
    pub(super) vms: BTreeMap<VmName, VmName>,
    pub(super) templates: BTreeMap<TemplateName, TemplateName>,
    vm_groups: BTreeMap<VmGroupName, VmGroupName>,
}

impl Moves {
    /// Only a rename whose old name is recorded and whose new one is not is still to be done; one that was done before
    /// may stay in the manifest.
    pub(super) fn new(desired: &Desired, recorded: &Recorded) -> Self {
        let mut moves = Self::default();
        for moved in &desired.moved {
            let (from, to) = (&moved.from.name, &moved.to.name);
            match moved.from.kind {
                Kind::Vm if recorded.vms.contains_key(from.as_str()) && !recorded.vms.contains_key(to.as_str()) => {
                    insert(&mut moves.vms, to, from);
                }
                Kind::Template
                    if recorded.versions.keys().any(|(name, _)| name.as_str() == from)
                        && !recorded.versions.keys().any(|(name, _)| name.as_str() == to) =>
                {
                    insert(&mut moves.templates, to, from);
                }
                Kind::Vm => moves.family((from, to), desired, recorded),
                Kind::VmGroup => insert(&mut moves.vm_groups, to, from),
                _ => {}
            }
        }
        moves
    }

    /// A family that has another key: each vm of it that has another name now is its owner's vm of the new family, the first
    /// of them where an owner has several.
    fn family(&mut self, (from, to): (&str, &str), desired: &Desired, recorded: &Recorded) {
        let mut old: BTreeMap<&UserName, Vec<&VmName>> = BTreeMap::new();
        for (name, known) in &recorded.vms {
            if known.vm.family.as_str() == from && !desired.vms.contains_key(name) {
                old.entry(&known.vm.owner).or_default().push(name);
            }
        }
        let mut new: BTreeMap<&UserName, Vec<&VmName>> = BTreeMap::new();
        for (name, vm) in &desired.vms {
            if vm.family.as_str() == to && !recorded.vms.contains_key(name) {
                new.entry(&vm.owner).or_default().push(name);
            }
        }
        // As numbers go: `a-2` before `a-10`.
        let in_order = |mut names: Vec<&VmName>| {
            names.sort_by_key(|name| (name.as_str().len(), name.as_str().to_owned()));
            names.into_iter().cloned().collect::<Vec<_>>()
        };
        for (owner, names) in new {
            let old = in_order(old.remove(owner).unwrap_or_default());
            self.vms.extend(in_order(names).into_iter().zip(old));
        }
    }

    /// What is recorded of a vm, under its new name or its old one.
    pub(super) fn known<'a>(&self, name: &VmName, recorded: &'a Recorded) -> Option<&'a RecordedVm> {
        recorded.vms.get(name).or_else(|| recorded.vms.get(self.vms.get(name)?))
    }

    pub(super) fn leaves_by_name_only(&self, name: &VmName) -> bool {
        self.vms.values().any(|from| from == name)
    }

    /// Whether two sources are one, renames of templates taken into account.
    pub(super) fn same_source(&self, recorded: &VmSource, wanted: &VmSource) -> bool {
        let renamed = |new: &TemplateName, old: &TemplateName| new == old || self.templates.get(new) == Some(old);
        match (recorded, wanted) {
            (VmSource::Derive(old), VmSource::Derive(new)) | (VmSource::Clone(old), VmSource::Clone(new)) => {
                renamed(new, old)
            }
            (recorded, wanted) => recorded == wanted,
        }
    }

    pub(super) fn same_group(&self, recorded: &VmGroupName, wanted: &VmGroupName) -> bool {
        recorded == wanted || self.vm_groups.get(wanted) == Some(recorded)
    }
}

/// The manifest's rules have checked both names; one that slipped through moves nothing.
fn insert<N: Ord + std::str::FromStr>(moves: &mut BTreeMap<N, N>, to: &str, from: &str) {
    if let (Ok(to), Ok(from)) = (to.parse(), from.parse()) {
        moves.insert(to, from);
    }
}
