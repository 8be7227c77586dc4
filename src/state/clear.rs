//! What is over for so long that the site does not remember it any more: which runs that are, and what of the history. Read and
//! removed in pieces, oldest first, so that no command takes long over it.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension as _, Row, params};

use super::{StateError, Store};
use crate::model::id::{LabName, RunId};
use crate::model::job::JobId;
use crate::run::BatchId;

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldRun {
    pub run: RunId,
    pub vm: String,
    pub batch: BatchId,
    pub task: u32,
    pub job: Option<JobId>,
}

impl Store {
    /// Runs that ended before `before`, oldest first, at most `most`, without those that `is_needed` keeps, the latest of each
    /// vm, and those of a vm whose disks are set aside.
    pub fn old_runs(
        &self,
        lab: &LabName,
        before: jiff::Timestamp,
        most: usize,
        is_needed: &dyn Fn(&OldRun) -> bool,
    ) -> Result<Vec<OldRun>, StateError> {
        let failed = |source| self.sql("look for runs that are over", source);
        let mut query = self
            .connection
            .prepare(
                "SELECT run, vm, batch, task, job FROM runs INDEXED BY runs_over
                 WHERE lab = ?1 AND state = 'ended' AND ended_at < ?2
                 AND NOT EXISTS (SELECT 1 FROM vms WHERE vms.lab = runs.lab AND vms.name = runs.vm AND vms.run = runs.run)
                 AND NOT EXISTS (SELECT 1 FROM disks WHERE disks.lab = runs.lab AND disks.vm = runs.vm AND aside IS NOT NULL)
                 ORDER BY ended_at",
            )
            .map_err(failed)?;
        let mut rows = query.query(params![lab.as_str(), before.to_string()]).map_err(failed)?;
        let mut old = Vec::new();
        while let Some(row) = rows.next().map_err(failed)?.filter(|_| old.len() < most) {
            let run = self.old_run(row)?;
            if !is_needed(&run) {
                old.push(run);
            }
        }
        Ok(old)
    }

    pub(super) fn old_run(&self, row: &Row<'_>) -> Result<OldRun, StateError> {
        let failed = |source| self.sql("read a run that is over", source);
        let run = |column| -> Result<RunId, StateError> {
            let text: String = row.get(column).map_err(failed)?;
            text.parse().map_err(|_| self.damaged(format!("{text:?} is not a run")))
        };
        Ok(OldRun {
            run: run(0)?,
            vm: row.get(1).map_err(failed)?,
            batch: BatchId(run(2)?),
            task: row.get(3).map_err(failed)?,
            job: row.get::<_, Option<u64>>(4).map_err(failed)?.map(JobId),
        })
    }

    /// Batches of which nothing is left when these runs are forgotten.
    pub fn batches_without(&self, lab: &LabName, runs: &[OldRun]) -> Result<BTreeSet<BatchId>, StateError> {
        let failed = |source| self.sql("count the runs of a batch", source);
        let mut going: BTreeMap<&BatchId, usize> = BTreeMap::new();
        for run in runs {
            *going.entry(&run.batch).or_default() += 1;
        }
        let mut count =
            self.connection.prepare("SELECT COUNT(*) FROM runs WHERE lab = ?1 AND batch = ?2").map_err(failed)?;
        let mut gone = BTreeSet::new();
        for (batch, number) in going {
            let all: usize =
                count.query_row(params![lab.as_str(), batch.to_string()], |row| row.get(0)).map_err(failed)?;
            if all == number {
                gone.insert(batch.clone());
            }
        }
        Ok(gone)
    }

    /// Forgets runs whose folders are gone.
    pub fn forget_runs(&mut self, runs: &[OldRun]) -> Result<(), StateError> {
        self.transact("forget runs that are over", |transaction| {
            let mut delete = transaction.prepare("DELETE FROM runs WHERE run = ?1 AND state = 'ended'")?;
            runs.iter().try_for_each(|run| delete.execute([run.run.to_string()]).map(|_| ()))
        })
    }

    /// Forgets what was done before `before`: at most `most` effects of applies, oldest first, applies of which no effect is
    /// left, and claims that ended. The latest apply stays, and so does one that runs or was cut short. Answers how many
    /// effects that were.
    pub fn forget_history(&mut self, lab: &LabName, before: jiff::Timestamp, most: usize) -> Result<usize, StateError> {
        let (lab, before) = (lab.as_str(), before.to_string());
        self.transact("forget what was done long ago", |transaction| {
            transaction.execute("DELETE FROM claims WHERE lab = ?1 AND ended_at < ?2", params![lab, before])?;
            let mut forgotten = 0;
            while forgotten < most {
                let oldest: Option<i64> = transaction
                    .prepare_cached(
                        "SELECT id FROM applies INDEXED BY applies_of_lab WHERE lab = ?1 AND began_at < ?2
                         AND (ended_at IS NOT NULL OR id IN (SELECT apply FROM overtaken))
                         AND id < (SELECT MAX(id) FROM applies WHERE lab = ?1 AND NOT beside) ORDER BY id LIMIT 1",
                    )?
                    .query_row(params![lab, before], |row| row.get(0))
                    .optional()?;
                let Some(apply) = oldest else { break };
                forgotten += transaction
                    .prepare_cached(
                        "DELETE FROM journal WHERE id IN (SELECT id FROM journal WHERE apply = ?1 ORDER BY id LIMIT ?2)",
                    )?
                    .execute(params![apply, most - forgotten])?;
                if forgotten < most {
                    transaction.prepare_cached("DELETE FROM applies WHERE id = ?1")?.execute([apply])?;
                }
            }
            Ok(forgotten)
        })
    }
}
