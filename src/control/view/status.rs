//! Where a lab stands as a whole.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Moment, View, Vm, VmState};
use crate::control::ControlError;
use crate::model::id::{LabName, VmName};
use crate::state::{FreezeScope, Frozen};

#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub lab: LabName,
    pub serial: u64,
    pub frozen: Option<Freeze>,
    /// How many vms are in each state.
    pub states: BTreeMap<VmState, usize>,
    pub vms: Vec<Vm>,
}

/// Who stopped all reconciling, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Freeze {
    pub scope: FreezeScope,
    pub who: String,
    pub why: String,
    pub since: Moment,
}

impl From<&Frozen> for Freeze {
    fn from(Frozen { who, since, why, scope }: &Frozen) -> Self {
        Self { scope: *scope, who: who.clone(), why: why.clone(), since: (*since).into() }
    }
}

impl View<'_> {
    /// The lab with these vms of it; `None`: with all.
    pub fn status(&self, only: Option<&BTreeSet<VmName>>) -> Result<Status, ControlError> {
        let mut vms = self.vms()?;
        vms.retain(|vm| only.is_none_or(|only| only.contains(&vm.name)));
        let mut states = BTreeMap::new();
        vms.iter().for_each(|vm| *states.entry(vm.state).or_default() += 1);
        Ok(Status {
            lab: self.desired.lab.clone(),
            serial: self.recorded.serial,
            frozen: self.recorded.frozen.as_ref().map(Freeze::from),
            states,
            vms,
        })
    }
}
