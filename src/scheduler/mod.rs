//! The batch system, behind one narrow trait: submit an array, list what there is, kill single tasks, say what fits.
//! It knows jobs and tasks, never vms. `grid_engine` is for a cluster, `local` is the embedded default; `fake` keeps a queue in memory and fails on
//! demand, for the simulation.

mod counted;
pub mod fake;
pub mod grid_engine;
pub mod local;
mod seen;
mod submit;

pub use counted::Calls;
pub use seen::Seen;
pub use submit::submit_or_adopt;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::diagnostic::Severity;
use crate::model::job::{JobId, Task, TaskId};
use crate::model::site::{SchedulerSettings, Timing};

/// Everything the controller asks of a batch system. Every call is one conversation with it, whatever the number of
/// jobs.
pub trait Scheduler: Send + Sync {
    /// Submits one array job. An error leaves it open whether the job exists: look its name up before trying again.
    fn submit(&self, submission: &Submission) -> Result<JobId, SchedulerError>;

    /// The account that our jobs belong to.
    fn account(&self) -> Result<String, SchedulerError>;

    /// All jobs that are not finished, one entry per task: those of the submitting account, and those of others as far as
    /// the batch system shows them.
    fn list(&self) -> Result<Vec<Task>, SchedulerError>;

    /// Ends single tasks: signals a running one to stop, takes a pending one from the queue. A task that is no more is
    /// no error.
    fn kill(&self, tasks: &[TaskId]) -> Result<(), SchedulerError>;

    /// What the hosts have and what is in use.
    fn capacity(&self) -> Result<Vec<Host>, SchedulerError>;

    /// Tasks that are over, of jobs whose names begin so, from the batch system's books; nothing where it keeps none. The
    /// books may be gigabytes: what is planned never depends on them, and a look at them is bounded in time.
    fn ended(&self, name_prefix: &str) -> Result<Vec<Ended>, SchedulerError>;

    /// What of its configuration is not as labs need it. `None`: there is nothing about it that somebody could set up wrongly.
    fn check(&self, _: &Timing) -> Result<Option<Vec<Finding>>, SchedulerError> {
        Ok(None)
    }

    /// The same of this machine, as one of its execution hosts.
    fn check_here(&self, _: &ThisHost<'_>) -> Option<Vec<Finding>> {
        None
    }
}

/// The same, with each conversation counted.
pub fn open_counted(settings: &SchedulerSettings, program: &Path, calls: Arc<Calls>) -> Box<dyn Scheduler> {
    Box::new(counted::Counted { of: open(settings, program), calls })
}

/// The batch system of a site's settings; `program` is what jobs run.
pub fn open(settings: &SchedulerSettings, program: &Path) -> Box<dyn Scheduler> {
    match settings {
        SchedulerSettings::Local { folder, slots, memory_mib } => {
            Box::new(local::Local::new(folder.clone(), *slots, *memory_mib, program.to_owned()))
        }
        SchedulerSettings::GridEngine(settings) => Box::new(grid_engine::GridEngine::new(settings.clone())),
    }
}

/// One thing that is not as labs need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// An error: jobs are refused, or guests come to harm. A warning: all goes on, but worse than it could.
    pub severity: Severity,
    /// What is wrong and what it leads to.
    pub message: String,
    /// What an administrator of the cluster does about it: a command line, or a line to write in its editor.
    pub mend: String,
}

/// What a look at this machine needs to know.
#[derive(Debug, Clone, Copy)]
pub struct ThisHost<'a> {
    /// The site's `runs` folder.
    pub runs: &'a Path,
    /// Account that owns disks and run folders.
    pub service_user: &'a str,
    /// What jobs run, at the same path on every host.
    pub program: &'a Path,
}

/// A task that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub id: TaskId,
    pub name: String,
    pub host: String,
    /// How long it ran.
    pub seconds: u64,
    /// Memory that it had asked for.
    pub memory_mib: Option<u64>,
    /// How it ended, in words, unless it ended by itself and well.
    pub wrong: Option<String>,
}

/// One array job to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Our mark, see `run::BatchId::job_name`.
    pub name: String,
    /// Tasks 1 to `tasks`.
    pub tasks: u32,
    /// Memory that each task takes, guest and overhead.
    pub memory_mib: u64,
    /// The one host that it may run on, as `capacity` names it; any where none is named.
    pub host: Option<String>,
    /// Program and arguments; the scheduler adds the task's number as the last argument.
    pub command: Vec<OsString>,
    /// Existing folder for what the tasks print.
    pub log_folder: PathBuf,
    /// What people read who look at the job with the batch system's own tools. Never read back.
    pub context: Vec<(&'static str, String)>,
}

/// One execution host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    /// `None`: the host does not answer.
    pub usage: Option<HostUsage>,
    /// Why it takes no new job until a person says otherwise; `None` where it does.
    pub closed: Option<Closed>,
}

/// Why a host that answers takes no job, and how a person opens it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub why: String,
    pub mend: String,
}

/// What a host has for jobs, and what of it is in use; memory in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostUsage {
    pub slots: u32,
    pub slots_used: u32,
    pub memory_mib: u64,
    pub memory_used_mib: u64,
}

/// A conversation with the batch system that did not go well.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} is not what labwright's scheduler writes there")]
    Format { path: PathBuf, source: serde_json::Error },
    #[error(
        "the scheduler's folder {path} cannot be written: make it writable for this account, or name another one under `scheduler:` in site.yaml"
    )]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("the site has no slots: nothing could ever run; give it some under `scheduler:` in site.yaml")]
    NoSlots,
    #[error("a job has 1 to {max} tasks, not {tasks}")]
    Tasks { tasks: u32, max: u32 },
    #[error("`{word}` is not UTF-8 text: a job's program, arguments and folders must be; rename the folder")]
    NotText { word: String },
    #[error("{path} is not a job that waits: only a submit starts what runs it")]
    NotAJob { path: PathBuf },
    #[error("a task wants {wanted_mib} MiB, the site has {site_mib} MiB in all: it would wait forever")]
    NeverFits { wanted_mib: u64, site_mib: u64 },
    /// The batch system said no; nothing happened.
    #[error("the batch system refused to {request}: {detail}")]
    Refused { request: String, detail: String },
    /// The answer never came; the effect may have happened.
    #[error("no answer to `{request}`: {detail}")]
    Doubtful { request: String, detail: String },
}

impl SchedulerError {
    /// Whether a request may have had its effect all the same.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Doubtful { .. } | Self::Io { .. } | Self::Format { .. })
    }
}
