//! How many vms each person runs, in all labs of the site together. A plan counts them by what it sees; here they are counted
//! once more at the moment when starts are promised, so that two plans at once cannot both find room.

use std::collections::BTreeSet;

use rusqlite::{Transaction, params};

use super::recorded::{Reader, RecordedRun};
use super::write::Broken;
use super::{Ledger, StateError, Store};
use crate::model::id::{LabName, RunId, UserName, VmName};

/// What somebody may run at once whose vms a plan starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    pub owner: UserName,
    pub limit: u32,
    /// Runs that count no more although no end is recorded: the plan has seen it, or brings it about.
    pub over: BTreeSet<RunId>,
}

/// A vm that somebody is starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Starting {
    pub owner: UserName,
    pub lab: LabName,
    pub vm: VmName,
}

/// A vm whose run's end is not recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRun {
    pub owner: UserName,
    pub lab: LabName,
    pub vm: VmName,
    pub run: RecordedRun,
}

impl Ledger {
    /// The vms of these people in other labs than this one that run, by the records; where there never was a state, none do.
    pub fn running_elsewhere(&self, lab: &LabName, owners: &BTreeSet<UserName>) -> Result<Vec<OpenRun>, StateError> {
        match Store::open_to_read(&self.state) {
            Err(StateError::Missing { .. }) => Ok(Vec::new()),
            opened => opened?.running_elsewhere(lab, owners),
        }
    }
}

impl Store {
    fn running_elsewhere(&mut self, lab: &LabName, owners: &BTreeSet<UserName>) -> Result<Vec<OpenRun>, StateError> {
        let reader = Reader::new(lab, &self.path);
        let transaction = self.connection.transaction().map_err(|source| reader.sql(source))?;
        let mut open = Vec::new();
        for owner in owners {
            open.extend(reader.running_elsewhere(&transaction, owner)?);
        }
        Ok(open)
    }
}

/// Refuses where somebody whose vms are to be started would run more of them than they may. What is promised already counts, and
/// what this apply has just been promised.
pub(super) fn refuse_too_many(transaction: &Transaction<'_>, quotas: &[Quota]) -> Result<(), Broken> {
    let mut recorded = transaction.prepare_cached(
        "SELECT v.lab, v.name, r.run FROM vms v JOIN runs r ON r.run = v.run
         WHERE json_extract(v.body, '$.owner') = ?1 AND r.state <> 'ended'",
    )?;
    let mut promised =
        transaction.prepare_cached("SELECT lab, substr(address, length('vm/') + 1) FROM holds WHERE owner = ?1")?;
    for Quota { owner, limit, over } in quotas {
        let over: BTreeSet<String> = over.iter().map(ToString::to_string).collect();
        let mut running: BTreeSet<(String, String)> = BTreeSet::new();
        for row in recorded.query_map([owner.as_str()], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))? {
            let (vm, run): (_, String) = row?;
            running.extend((!over.contains(&run)).then_some(vm));
        }
        for row in promised.query_map(params![owner.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))? {
            running.insert(row?);
        }
        if running.len() > *limit as usize {
            return Err(StateError::OverQuota { owner: owner.clone(), limit: *limit }.into());
        }
    }
    Ok(())
}
