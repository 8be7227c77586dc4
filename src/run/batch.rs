//! `batches/<batch>.json`: which run each task of one submitted array carries out. Written before the submit, never
//! changed: a run is never derived from a task's number, since a finished task cannot be submitted again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{RunFileError, parse_json};
use crate::files::{self, Flush};
use crate::model::id::{LabName, RunId, SiteTag};

/// One submit. Numbered by the site's state from the same counter as runs: the number of its first run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BatchId(pub RunId);

impl BatchId {
    /// The mark as a job name: `lw.k3f9.lan-exam.104`. Site, lab and first run.
    pub fn job_name(&self, lab: &LabName) -> String {
        format!("{}{}", Self::job_names(self.0.site(), lab), self.0.number())
    }

    /// What the names of all of a lab's jobs begin with; a lab whose own name goes on with a dot begins so too.
    pub fn job_names(site: &SiteTag, lab: &LabName) -> String {
        format!("{}.{lab}.", job_name_prefix(site))
    }

    /// The batch that a job name of this site speaks of; `None` for every other name.
    pub fn from_job_name(name: &str, site: &SiteTag) -> Option<(LabName, Self)> {
        let rest = name.strip_prefix("lw.")?.strip_prefix(site.as_str())?.strip_prefix('.')?;
        let (lab, number) = rest.rsplit_once('.')?;
        let run = RunId::from_str(&format!("{site}-{number}")).ok()?;
        Some((LabName::new(lab).ok()?, Self(run)))
    }
}

fn job_name_prefix(site: &SiteTag) -> String {
    format!("lw.{site}")
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The index of an array: which of its tasks is which run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    pub version: u32,
    pub id: BatchId,
    pub lab: LabName,
    /// Task 1 carries out `runs[0]`.
    pub runs: Vec<RunId>,
}

impl Batch {
    pub const VERSION: u32 = 1;

    /// Where the index of batch `id` is, below the site's `runs` folder.
    pub fn path(runs: &Path, id: &BatchId) -> PathBuf {
        runs.join("batches").join(format!("{id}.json"))
    }

    pub fn write(&self, runs: &Path) -> Result<(), RunFileError> {
        let text = serde_json::to_vec(self).expect("a batch has only string keys");
        Ok(files::write_atomically(&Self::path(runs, &self.id), &text, 0o640, Flush::Now)?)
    }

    pub fn read(path: &Path) -> Result<Option<Self>, RunFileError> {
        let text = files::read_bounded(path, files::BYTES_MAX)?;
        let batch: Option<Self> = text.map(|text| parse_json(&text, path)).transpose()?;
        match batch {
            Some(batch) if batch.version != Self::VERSION => {
                Err(RunFileError::Version { path: path.to_owned(), found: batch.version, known: Self::VERSION })
            }
            batch => Ok(batch),
        }
    }

    /// The run of task `task`, counted from 1.
    pub fn run(&self, task: u32) -> Option<&RunId> {
        self.runs.get(usize::try_from(task).ok()?.checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_name_is_ours_only_with_our_sites_mark() {
        let site = SiteTag::new("k3f9").unwrap();
        let lab = LabName::new("lan-exam.2027").unwrap();
        let batch = BatchId(RunId::new(site.clone(), 104));
        let name = batch.job_name(&lab);
        assert_eq!(name, "lw.k3f9.lan-exam.2027.104");
        assert_eq!(BatchId::from_job_name(&name, &site), Some((lab, batch)));
        let other = SiteTag::new("aaaa").unwrap();
        assert_eq!(BatchId::from_job_name(&name, &other), None);
        for foreign in ["lw.k3f9", "lw.k3f9.104", "lw.k3f9x.lab.104", "lw.k3f9.lab.x", "lw.k3f9.lab.0104", "sleep"] {
            assert_eq!(BatchId::from_job_name(foreign, &site), None, "{foreign}");
        }
    }
}
