//! What was done: applies, their effects, runs, and disks set aside. And the freeze, which is a note for the future.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rusqlite::{OptionalExtension as _, Row, params};
use serde::Serialize;

use super::{Frozen, RecordedDisk, StateError, Store};
use crate::model::id::LabName;
use crate::run::{BatchId, StopReason};

/// What the journal calls it when a vm's disks are set aside: by this, it is known later who did it.
pub const SET_ASIDE: &str = "set the disks aside";

/// One apply, newest first in listings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastApply {
    pub id: i64,
    pub lab: String,
    pub who: String,
    pub host: String,
    /// As it was typed; `None`: an older program did not keep it.
    pub command: Option<String>,
    pub commit: Option<String>,
    /// The lab's folder had changes that were not committed.
    pub dirty: bool,
    pub summary: String,
    pub began_at: String,
    pub ended_at: Option<String>,
    /// `None`: it never ended; its process was killed.
    pub outcome: Option<String>,
}

/// One effect of one apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastEffect {
    pub apply: i64,
    pub effect: String,
    pub intended_at: String,
    pub outcome: Option<String>,
    pub detail: Option<String>,
}

/// One effect, with what it was done to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AppliedEffect {
    pub address: String,
    pub effect: String,
    pub intended_at: String,
    /// `None`: it was cut short.
    pub outcome: Option<String>,
    pub detail: Option<String>,
}

/// One run of a vm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastRun {
    pub run: String,
    pub vm: String,
    /// Run that names the array it was submitted in.
    pub batch: String,
    pub generation: u64,
    pub job: Option<u64>,
    pub task: u32,
    pub state: String,
    pub reason: Option<String>,
    pub created_at: String,
    pub ended_at: Option<String>,
}

impl PastRun {
    pub fn is_ended(&self) -> bool {
        self.state == "ended"
    }

    /// The array it was submitted in; `None` of a name that nobody of us wrote.
    pub fn batch(&self) -> Option<BatchId> {
        self.batch.parse().ok().map(BatchId)
    }

    /// Why it ended, in words.
    pub fn end(&self) -> Option<String> {
        let written = self.reason.as_deref().filter(|_| self.is_ended());
        let reason = written.and_then(|text| serde_json::from_str::<StopReason>(text).ok());
        self.is_ended().then(|| reason.map_or_else(|| "ended without a word".to_owned(), |reason| reason.to_string()))
    }
}

/// A disk that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AsideDisk {
    pub vm: String,
    pub slot: u32,
    pub path: PathBuf,
    /// Where it came from.
    pub was: PathBuf,
    pub base: Option<PathBuf>,
    pub since: String,
    /// Whose it was; `None` where that was not recorded yet.
    pub owner: Option<String>,
    /// Where it is being put back.
    pub to: Option<PathBuf>,
    /// As it is called by `RecordedDisk`.
    pub instance: Option<String>,
}

impl From<AsideDisk> for RecordedDisk {
    fn from(AsideDisk { slot, path, base, instance, .. }: AsideDisk) -> Self {
        Self { slot, path, base, made: true, moving_to: None, image: None, instance }
    }
}

impl AsideDisk {
    pub(super) const QUERY: &str = "SELECT vm, slot, path, aside, base, aside_at, owner, moving_to, instance FROM disks
                     WHERE lab = ?1 AND aside IS NOT NULL ORDER BY aside_at, path";

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            vm: row.get(0)?,
            slot: row.get(1)?,
            path: PathBuf::from(row.get::<_, String>(2)?),
            was: PathBuf::from(row.get::<_, String>(3)?),
            base: row.get::<_, Option<String>>(4)?.map(PathBuf::from),
            since: row.get(5)?,
            owner: row.get(6)?,
            to: row.get::<_, Option<String>>(7)?.map(PathBuf::from),
            instance: row.get(8)?,
        })
    }

    /// The set that it went in: the last word of its folder.
    pub fn set(&self) -> String {
        let folder = self.path.parent().and_then(std::path::Path::file_name);
        folder.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

impl Store {
    /// The latest applies of a lab.
    pub fn history(&self, lab: &LabName, most: u32) -> Result<Vec<PastApply>, StateError> {
        self.past_applies("WHERE lab = ?1 ORDER BY id DESC LIMIT ?2", params![lab.as_str(), most])
    }

    /// One apply of a lab; `None` where it has none of this number.
    pub fn past_apply(&self, lab: &LabName, id: i64) -> Result<Option<PastApply>, StateError> {
        Ok(self.past_applies("WHERE lab = ?1 AND id = ?2", params![lab.as_str(), id])?.pop())
    }

    fn past_applies(&self, which: &str, parameters: impl rusqlite::Params) -> Result<Vec<PastApply>, StateError> {
        let query = format!(
            "SELECT id, lab, who, host, \"commit\", summary, began_at, ended_at, outcome, command FROM applies {which}"
        );
        self.list("read the history", &query, parameters, |row| {
            Ok(PastApply {
                id: row.get(0)?,
                lab: row.get(1)?,
                who: row.get(2)?,
                host: row.get(3)?,
                dirty: row.get::<_, Option<String>>(4)?.is_some_and(|commit| commit.ends_with('+')),
                commit: row.get::<_, Option<String>>(4)?.map(|commit| commit.trim_end_matches('+').to_owned()),
                summary: row.get(5)?,
                began_at: row.get(6)?,
                ended_at: row.get(7)?,
                outcome: row.get(8)?,
                command: row.get(9)?,
            })
        })
    }

    /// All that one apply did, in its order.
    pub fn effects_of(&self, lab: &LabName, apply: i64) -> Result<Vec<AppliedEffect>, StateError> {
        let query = "SELECT j.address, j.effect, j.intended_at, j.outcome, j.detail FROM journal j JOIN applies a ON a.id = j.apply
                     WHERE a.lab = ?1 AND a.id = ?2 ORDER BY j.id";
        self.list("read the journal", query, params![lab.as_str(), apply], |row| {
            Ok(AppliedEffect {
                address: row.get(0)?,
                effect: row.get(1)?,
                intended_at: row.get(2)?,
                outcome: row.get(3)?,
                detail: row.get(4)?,
            })
        })
    }

    /// What was done to one thing, newest first.
    pub fn effects(&self, lab: &LabName, address: &str, most: u32) -> Result<Vec<PastEffect>, StateError> {
        let query = "SELECT j.apply, j.effect, j.intended_at, j.outcome, j.detail FROM journal j JOIN applies a ON a.id = j.apply
                     WHERE a.lab = ?1 AND j.address = ?2 ORDER BY j.id DESC LIMIT ?3";
        self.list("read the journal", query, params![lab.as_str(), address, most], |row| {
            Ok(PastEffect {
                apply: row.get(0)?,
                effect: row.get(1)?,
                intended_at: row.get(2)?,
                outcome: row.get(3)?,
                detail: row.get(4)?,
            })
        })
    }

    /// The runs of a vm, newest first.
    pub fn runs(&self, lab: &LabName, vm: &str, most: u32) -> Result<Vec<PastRun>, StateError> {
        let which = "WHERE lab = ?1 AND vm = ?2 ORDER BY generation DESC LIMIT ?3";
        self.past_runs(which, params![lab.as_str(), vm, most])
    }

    /// Every run that a lab ever had, by vm and age.
    pub fn all_runs(&self, lab: &LabName) -> Result<Vec<PastRun>, StateError> {
        self.past_runs("WHERE lab = ?1 ORDER BY vm, generation", [lab.as_str()])
    }

    fn past_runs(&self, which: &str, parameters: impl rusqlite::Params) -> Result<Vec<PastRun>, StateError> {
        let query = format!(
            "SELECT run, vm, batch, generation, job, task, state, reason, created_at, ended_at FROM runs {which}"
        );
        self.list("read the runs", &query, parameters, |row| {
            Ok(PastRun {
                run: row.get(0)?,
                vm: row.get(1)?,
                batch: row.get(2)?,
                generation: row.get(3)?,
                job: row.get(4)?,
                task: row.get(5)?,
                state: row.get(6)?,
                reason: row.get(7)?,
                created_at: row.get(8)?,
                ended_at: row.get(9)?,
            })
        })
    }

    /// When each version of a template was published.
    pub fn published(&self, lab: &LabName) -> Result<BTreeMap<(String, u32), String>, StateError> {
        let query = "SELECT template, version, published_at FROM versions WHERE lab = ?1";
        let rows =
            self.list("list the versions", query, [lab.as_str()], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
        Ok(rows.into_iter().collect())
    }

    /// Disks set aside, oldest first.
    pub fn aside(&self, lab: &LabName) -> Result<Vec<AsideDisk>, StateError> {
        self.list("list the disks set aside", AsideDisk::QUERY, [lab.as_str()], AsideDisk::read)
    }

    /// Who set each of these disks aside, and by which command, where the history goes back so far: an effect and what it
    /// changes are written in one transaction, with one time.
    pub fn causes_of_aside(&self, lab: &LabName) -> Result<BTreeMap<PathBuf, (String, Option<String>)>, StateError> {
        let query = "SELECT d.path, a.who, a.command FROM disks d
             JOIN journal j ON j.address = 'vm/' || d.vm AND j.effect = ?2 AND j.ended_at = d.aside_at
             JOIN applies a ON a.id = j.apply AND a.lab = d.lab
             WHERE d.lab = ?1 AND d.aside IS NOT NULL";
        let row = |row: &Row<'_>| Ok((PathBuf::from(row.get::<_, String>(0)?), (row.get(1)?, row.get(2)?)));
        Ok(self.list("read who set disks aside", query, [lab.as_str(), SET_ASIDE], row)?.into_iter().collect())
    }

    /// Stops all reconciling of a lab, or of the whole site; `None` lets it go on.
    pub fn freeze(&mut self, lab: Option<&LabName>, frozen: Option<&Frozen>) -> Result<(), StateError> {
        self.refuse_replaced()?;
        let note = frozen.map(|frozen| serde_json::to_string(frozen).expect("a freeze has only string keys"));
        let written = match lab {
            Some(lab) => self.connection.execute(
                "INSERT INTO labs (lab, serial, folder, frozen) VALUES (?1, 0, '', ?2) ON CONFLICT (lab) DO UPDATE SET frozen = ?2",
                params![lab.as_str(), note],
            ),
            None => self.connection.execute("UPDATE site SET frozen = ?1", [note]),
        };
        written.map(|_| ()).map_err(|source| self.sql("write the freeze", source))
    }

    /// The latest apply that touched one thing, if any did.
    pub fn last_apply_of(&self, lab: &LabName, address: &str) -> Result<Option<i64>, StateError> {
        self.connection
            .query_row(
                "SELECT MAX(j.apply) FROM journal j JOIN applies a ON a.id = j.apply
                 WHERE a.lab = ?1 AND j.address = ?2 AND NOT a.beside",
                params![lab.as_str(), address],
                |row| row.get::<_, Option<i64>>(0),
            )
            .optional()
            .map(Option::flatten)
            .map_err(|source| self.sql("read the journal", source))
    }

    pub(super) fn list<T>(
        &self,
        action: &'static str,
        query: &str,
        parameters: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StateError> {
        self.connection
            .prepare(query)
            .and_then(|mut statement| statement.query_map(parameters, read)?.collect())
            .map_err(|source| self.sql(action, source))
    }
}
