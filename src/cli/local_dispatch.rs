//! `labwright local-dispatch`, hidden: what the embedded scheduler starts in the background. See `scheduler::local`.

use std::path::PathBuf;

use crate::scheduler::{SchedulerError, local};

/// Starts the tasks of one job of the embedded scheduler, in order, as there is room.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The job's folder.
    job_folder: PathBuf,
    /// Be this task of the job instead.
    #[arg(long)]
    task: Option<u32>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), SchedulerError> {
    match arguments.task {
        None => local::dispatch(&arguments.job_folder),
        Some(task) => local::become_task(&arguments.job_folder, task).map(drop),
    }
}
