//! Which jobs were ever recorded. A lab has had thousands of runs and has a few in the queue: the books are asked for those
//! that are seen there and are no vm's latest, instead of being read with each plan.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rusqlite::params;

use super::{StateError, Store};
use crate::model::id::LabName;
use crate::run::BatchId;

/// A state that is opened when it is asked, if it ever is.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// The state's file.
    pub state: PathBuf,
}

impl Ledger {
    /// Those of `tasks` whose run was recorded at any time.
    pub fn known(
        &self,
        lab: &LabName,
        tasks: BTreeSet<(BatchId, u32)>,
    ) -> Result<BTreeSet<(BatchId, u32)>, StateError> {
        if tasks.is_empty() { Ok(tasks) } else { Store::open_to_read(&self.state)?.known(lab, tasks) }
    }
}

impl Store {
    fn known(
        &self,
        lab: &LabName,
        mut tasks: BTreeSet<(BatchId, u32)>,
    ) -> Result<BTreeSet<(BatchId, u32)>, StateError> {
        let failed = |source| self.sql("look up runs", source);
        let mut query = self
            .connection
            .prepare("SELECT EXISTS (SELECT 1 FROM runs WHERE lab = ?1 AND batch = ?2 AND task = ?3)")
            .map_err(failed)?;
        let mut found = Ok(());
        tasks.retain(|(batch, task)| {
            let known = query.query_row(params![lab.as_str(), batch.to_string(), task], |row| row.get::<_, bool>(0));
            known.unwrap_or_else(|source| {
                found = Err(failed(source));
                false
            })
        });
        found.map(|()| tasks)
    }
}
