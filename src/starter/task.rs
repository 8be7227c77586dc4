//! Which run a task of a batch carries out: a run's number is never derived from a task's.

use std::path::PathBuf;

use super::StartError;
use crate::run::{Batch, RunFileError};

/// Why a task came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error("cannot find out which run to carry out")]
    Batch(#[source] RunFileError),
    #[error("the batch {path} does not exist")]
    NoBatch { path: PathBuf },
    #[error("the batch {path} has no task {task}")]
    NoTask { path: PathBuf, task: u32 },
    #[error("the run could not be carried out")]
    Start(#[from] StartError),
}

/// `<runs>/batches/<batch>.json` and a task's number to `<runs>/<run>`.
pub fn run_of_task(path: PathBuf, task: u32) -> Result<PathBuf, TaskError> {
    let batch = Batch::read(&path).map_err(TaskError::Batch)?;
    let batch = batch.ok_or_else(|| TaskError::NoBatch { path: path.clone() })?;
    let run = batch.run(task).ok_or_else(|| TaskError::NoTask { path: path.clone(), task })?;
    let runs = path.parent().and_then(|batches| batches.parent()).unwrap_or(&path);
    Ok(runs.join(run.to_string()))
}
