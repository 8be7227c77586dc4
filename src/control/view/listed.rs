//! Which values of a listing are meant: by name, pattern or family, and by owner.

use std::collections::BTreeSet;

use super::View;
use crate::control::{ControlError, pick};
use crate::model::id::LabName;

/// A value of a listing: what it is picked by.
pub trait Listed {
    /// What its key names, in the singular.
    const KIND: &'static str;
    /// Things of its kind belong to somebody.
    const IS_OWNED: bool = false;

    fn key(&self) -> &str;

    /// `None`: nobody knows whose it is.
    fn owner(&self) -> Option<&str> {
        None
    }
}

/// What is asked for of a listing.
#[derive(Debug, Clone, Default)]
pub struct Only {
    /// Names as people give them; all, where there is none.
    pub names: Vec<String>,
    pub owner: Option<String>,
}

/// The same of values that come without their lab's records: vms are picked by the names that are listed.
pub fn listed<T: Listed>(lab: &LabName, mut all: Vec<T>, only: &Only) -> Result<Vec<T>, ControlError> {
    if !only.names.is_empty() {
        let picked = pick::names(lab, T::KIND, &only.names, all.iter().map(Listed::key))?;
        all.retain(|each| picked.contains(each.key()));
    }
    owned(all, only)
}

fn owned<T: Listed>(mut all: Vec<T>, only: &Only) -> Result<Vec<T>, ControlError> {
    if let Some(owner) = &only.owner {
        if !T::IS_OWNED {
            return Err(ControlError::NotOwned { kind: T::KIND });
        }
        all.retain(|each| each.owner() == Some(owner));
    }
    Ok(all)
}

impl View<'_> {
    /// Those of `all` that are meant.
    pub fn only<T: Listed>(&self, mut all: Vec<T>, only: &Only) -> Result<Vec<T>, ControlError> {
        if !only.names.is_empty() {
            let picked = self.picked(&all, &only.names)?;
            all.retain(|each| picked.contains(each.key()));
        }
        owned(all, only)
    }

    /// What is no vm's is picked among the values; what is, among all vms: one that has nothing to list is no mistake.
    fn picked<T: Listed>(&self, all: &[T], names: &[String]) -> Result<BTreeSet<String>, ControlError> {
        let lab = &self.desired.lab;
        let listed: BTreeSet<&str> = all.iter().map(Listed::key).collect();
        if T::KIND != "vm" {
            return Ok(pick::names(lab, T::KIND, names, listed.iter().copied())?);
        }
        // Disks and jobs of vms that were forgotten are listed, too.
        let mut picked = BTreeSet::new();
        for word in names.iter().map(std::slice::from_ref) {
            match pick::recorded_vms(lab, word, &self.recorded) {
                Ok(vms) => picked.extend(vms.into_iter().map(|vm| vm.to_string())),
                Err(unknown) => {
                    picked.extend(pick::names(lab, T::KIND, word, listed.iter().copied()).map_err(|_| unknown)?);
                }
            }
        }
        Ok(picked)
    }
}
