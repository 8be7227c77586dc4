//! How many vms each person runs, and how much they store, in all labs of the site together. A plan counts by what it sees; here
//! it is counted once more at the moment when starts and disks are promised, so that two plans at once cannot both find room.
//! How large disks are only the storage knows: the plan brings what it saw, and a disk that came since makes it stale.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rusqlite::{Transaction, params};

use super::read::Reader;
use super::recorded::RecordedRun;
use super::write::Broken;
use super::{Ledger, StateError, Store};
use crate::model::address::Address;
use crate::model::id::{LabName, RunId, UserName, VmName};

/// What somebody may run at once whose vms a plan starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    pub owner: UserName,
    pub limit: u32,
    /// Runs that count no more although no end is recorded: the plan has seen it, or brings it about.
    pub over: BTreeSet<RunId>,
}

/// What somebody may store who gets disks by a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageQuota {
    pub owner: UserName,
    pub limit_bytes: u64,
    /// Their disks as the plan saw them, in all labs; one that it sets aside counts nothing.
    pub seen: BTreeMap<PathBuf, u64>,
    /// What all disks of those vms come to that get some.
    pub vms: BTreeMap<Address, u64>,
}

/// A vm for which somebody is making disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storing {
    pub owner: UserName,
    pub lab: LabName,
    pub vm: VmName,
    /// What all of its disks come to then.
    pub bytes: u64,
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
        self.store()?.map_or(Ok(Vec::new()), |mut store| store.running_elsewhere(lab, owners))
    }

    /// The disks of these people in other labs than this one. Those of vms are not among them to which another apply has promised
    /// what they will have.
    pub fn disks_elsewhere(&self, lab: &LabName, owners: &[&UserName]) -> Result<Vec<StoredDisk>, StateError> {
        let Some(store) = self.store()? else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for owner in owners {
            all.extend(store.disks_elsewhere(lab, owner)?);
        }
        Ok(all)
    }

    fn store(&self) -> Result<Option<Store>, StateError> {
        match Store::open_to_read(&self.state) {
            Err(StateError::Missing { .. }) => Ok(None),
            opened => opened.map(Some),
        }
    }
}

/// A disk of somebody's vm.
pub struct StoredDisk {
    pub owner: UserName,
    pub path: PathBuf,
    /// It lies over another.
    pub is_overlay: bool,
}

/// Made, in use, and of this owner.
const DISKS: &str =
    "SELECT d.path, d.lab, d.vm, d.base IS NOT NULL FROM disks d JOIN vms v ON v.lab = d.lab AND v.name = d.vm
     WHERE json_extract(v.body, '$.owner') = ?1 AND d.made AND d.aside IS NULL";

impl Store {
    fn disks_elsewhere(&self, lab: &LabName, owner: &UserName) -> Result<Vec<StoredDisk>, StateError> {
        let promised =
            "SELECT 1 FROM holds h WHERE h.lab = d.lab AND h.address = 'vm/' || d.vm AND h.bytes IS NOT NULL";
        let query = format!("{DISKS} AND d.lab <> ?2 AND NOT EXISTS ({promised})");
        self.list("read the disks", &query, params![owner.as_str(), lab.as_str()], |row| {
            let path = PathBuf::from(row.get::<_, String>(0)?);
            Ok(StoredDisk { owner: owner.clone(), path, is_overlay: row.get(3)? })
        })
    }

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
    let mut promised = transaction.prepare_cached(
        "SELECT lab, substr(address, length('vm/') + 1) FROM holds WHERE owner = ?1 AND run IS NOT NULL",
    )?;
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

/// Refuses where somebody who is to get disks would store more than they may.
pub(super) fn refuse_too_much(transaction: &Transaction<'_>, quotas: &[StorageQuota]) -> Result<(), Broken> {
    let mut promised = transaction.prepare_cached(
        "SELECT lab, substr(address, length('vm/') + 1), bytes FROM holds WHERE owner = ?1 AND bytes IS NOT NULL",
    )?;
    let mut made = transaction.prepare_cached(DISKS)?;
    for StorageQuota { owner, limit_bytes, seen, .. } in quotas {
        let read = |row: &rusqlite::Row<'_>| Ok(((row.get(0)?, row.get(1)?), row.get(2)?));
        let promised = promised.query_map([owner.as_str()], read)?;
        let promised: BTreeMap<(String, String), u64> = promised.collect::<Result<_, _>>()?;
        let mut bytes = Some(promised.values().copied().fold(0, u64::saturating_add));
        for row in made.query_map([owner.as_str()], |row| Ok((row.get::<_, String>(0)?, (row.get(1)?, row.get(2)?))))? {
            let (path, vm): (_, (String, String)) = row?;
            if !promised.contains_key(&vm) {
                bytes = bytes.zip(seen.get(&PathBuf::from(path))).map(|(sum, more)| sum.saturating_add(*more));
            }
        }
        if bytes.is_none_or(|bytes| bytes > *limit_bytes) {
            return Err(StateError::OverStorage { owner: owner.clone(), limit_bytes: *limit_bytes }.into());
        }
    }
    Ok(())
}
