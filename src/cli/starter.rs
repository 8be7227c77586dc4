//! `labwright starter`: what a job runs. `labwright confine`: the step between it and qemu. `labwright understand`: what the
//! daemon lets read strangers' files.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use nix::unistd::{Gid, Pid, Uid};

use crate::control::upload;
use crate::host::run::confine::{self, ConfineError, Confinement};
use crate::host::run::sealed;
use crate::report;
use crate::run::StopReason;
use crate::starter::{self, Options};

/// Carry out one run on this host. The scheduler calls this; by hand it needs root and `--run`.
#[derive(Debug, Args)]
pub(super) struct StarterArguments {
    /// Index of the submitted batch, which says which run a task carries out
    #[arg(long, value_name = "FILE", required_unless_present = "run", requires = "task")]
    batch: Option<PathBuf>,
    /// Folder of the run, instead of a batch and a task
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["batch", "task"])]
    run: Option<PathBuf>,
    /// Where this host keeps what belongs to running guests
    #[arg(long, value_name = "FOLDER", env = "LABWRIGHT_RUN_ROOT", default_value = crate::host::RUN_ROOT, hide = true)]
    run_root: PathBuf,
    /// Number of the task within its batch; Grid Engine says it in its environment
    #[arg(env = "SGE_TASK_ID")]
    task: Option<u32>,
}

impl StarterArguments {
    pub(super) fn run(self) -> Result<StopReason, starter::TaskError> {
        let folder = match (self.run, self.batch, self.task) {
            (Some(folder), ..) => folder,
            (None, Some(batch), Some(task)) => starter::run_of_task(batch, task)?,
            (None, ..) => unreachable!("clap demands a run, or a batch and a task"),
        };
        Ok(starter::carry_out(&Options { folder, run_root: self.run_root })?)
    }
}

/// Give up rights, then become qemu. Part of the starter.
#[derive(Debug, Args)]
pub(super) struct ConfineArguments {
    #[arg(long)]
    parent: i32,
    #[arg(long)]
    uid: u32,
    #[arg(long)]
    gid: u32,
    #[arg(long)]
    group: Vec<u32>,
    #[arg(long)]
    read: Vec<PathBuf>,
    #[arg(long)]
    write: Vec<PathBuf>,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl ConfineArguments {
    pub(super) fn run(self) -> Result<Infallible, ConfineError> {
        let confinement = Confinement {
            parent: Pid::from_raw(self.parent),
            uid: Uid::from_raw(self.uid),
            gid: Gid::from_raw(self.gid),
            extra_groups: self.group.into_iter().map(Gid::from_raw).collect(),
            read: self.read,
            write: self.write,
        };
        confine::exec(&confinement, &self.command)
    }
}

/// Understand a lab that somebody sent, without any rights. Part of the daemon.
#[derive(Debug, Args)]
pub(super) struct UnderstandArguments {
    #[arg(long)]
    uid: u32,
    #[arg(long)]
    gid: u32,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum UnderstandError {
    #[error("cannot give up all rights; nothing was read")]
    Seal(#[source] ConfineError),
    #[error("cannot tell what the lab's files mean")]
    Pipe(#[source] std::io::Error),
}

impl UnderstandArguments {
    pub(super) fn run(self) -> Result<(), UnderstandError> {
        sealed::seal(Uid::from_raw(self.uid), Gid::from_raw(self.gid)).map_err(UnderstandError::Seal)?;
        let (mut from, mut to) = report::pipes();
        upload::understand(&mut from, &mut to, &report::diagnostics::human).map_err(UnderstandError::Pipe)
    }
}
