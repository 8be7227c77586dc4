//! What the program runs of itself and no person types: the jobs that it submits, and the processes that these and the daemon put
//! between themselves and others. Only these few commands are parsed here, since a starter stays in memory beside its guest, with
//! all that it has gone through.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand as _};
use nix::unistd::{Gid, Pid, Uid};

use crate::client::of_site;
use crate::control::{ControlError, exam, upload};
use crate::disks::{self, DiskError};
use crate::exit::Exit;
use crate::host::run::confine::{self, ConfineError, Confinement};
use crate::host::run::sealed;
use crate::host::signals::Interrupt;
use crate::report::{self, Failure, Ui, log};
use crate::run::StopReason;
use crate::scheduler::{SchedulerError, local};
use crate::starter::{self, Options};
use crate::trial::{Onlooker, Order};
use crate::volumes;

#[derive(Debug, Parser)]
#[command(name = "labwright", no_binary_name = true, disable_help_subcommand = true)]
enum Job {
    Starter(StarterArguments),
    Confine(ConfineArguments),
    Understand(UnderstandArguments),
    ReadDisk(ReadDiskArguments),
    HostTrial(HostTrialArguments),
    LocalDispatch(LocalDispatchArguments),
}

/// Carries out a job; nothing where the words of the command line are a person's.
pub fn main() -> Option<Exit> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if !words.first().and_then(|word| word.to_str()).is_some_and(Job::has_subcommand) {
        return None;
    }
    let job = match Job::try_parse_from(words) {
        Ok(job) => job,
        Err(error) => return Some(report::usage(&error)),
    };
    let log = match &job {
        Job::Starter(_) => log::start_of_job(),
        _ => {
            log::start();
            None
        }
    };
    let mut ui = Ui::default();
    let exit = ui.ended(job.run(&ui));
    if let Some(log) = log {
        log.end();
    }
    Some(exit)
}

impl Job {
    fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        match self {
            Self::Starter(arguments) => ended(arguments.run()),
            Self::Confine(arguments) => ended(arguments.run()),
            Self::Understand(arguments) => ended(arguments.run()),
            Self::ReadDisk(arguments) => ended(arguments.run()),
            Self::HostTrial(arguments) => arguments.run(ui),
            Self::LocalDispatch(arguments) => ended(arguments.run()),
        }
    }
}

/// Their errors carry all there is to say.
fn ended<T, E: std::error::Error>(result: Result<T, E>) -> Result<Exit, Failure> {
    result.map(|_| Exit::Done).map_err(|error| Failure::from_error(Exit::Failed, &error))
}

/// Carry out one run on this host. The scheduler calls this; by hand it needs root and `--run`.
#[derive(Debug, Args)]
struct StarterArguments {
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
    fn run(self) -> Result<StopReason, starter::TaskError> {
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
struct ConfineArguments {
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
    fn run(self) -> Result<Infallible, ConfineError> {
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
struct UnderstandArguments {
    #[arg(long)]
    uid: u32,
    #[arg(long)]
    gid: u32,
}

#[derive(Debug, thiserror::Error)]
enum UnderstandError {
    #[error("cannot give up all rights; nothing was read")]
    Seal(#[source] ConfineError),
    #[error("cannot tell what the lab's files mean")]
    Pipe(#[source] std::io::Error),
}

impl UnderstandArguments {
    fn run(self) -> Result<(), UnderstandError> {
        sealed::seal(Uid::from_raw(self.uid), Gid::from_raw(self.gid), sealed::UNDERSTAND)
            .map_err(UnderstandError::Seal)?;
        let (mut from, mut to) = report::pipes();
        upload::understand(&mut from, &mut to, &report::diagnostics::human).map_err(UnderstandError::Pipe)
    }
}

/// Read files out of a guest's disk, without any rights. Part of `vm collect`.
#[derive(Debug, Args)]
struct ReadDiskArguments {
    #[arg(long)]
    uid: u32,
    #[arg(long)]
    gid: u32,
    /// The guest's own first, each over the next; they alone are opened.
    #[arg(long, required = true)]
    file: Vec<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum ReadDiskError {
    #[error(transparent)]
    Open(#[from] DiskError),
    #[error("cannot give up all rights; nothing was read")]
    Seal(#[source] ConfineError),
    #[error("cannot tell what is on the disk")]
    Pipe(#[source] std::io::Error),
}

impl ReadDiskArguments {
    fn run(self) -> Result<(), ReadDiskError> {
        let files = self.file.iter().map(|file| disks::open_disk(file)).collect::<Result<_, _>>()?;
        sealed::seal(Uid::from_raw(self.uid), Gid::from_raw(self.gid), sealed::READ_DISK)
            .map_err(ReadDiskError::Seal)?;
        let (mut from, mut to) = report::pipes();
        volumes::read_out(files, &mut from, &mut to).map_err(ReadDiskError::Pipe)
    }
}

/// Starts the tasks of one job of the embedded scheduler, in order, as there is room.
#[derive(Debug, Args)]
struct LocalDispatchArguments {
    /// The job's folder.
    job_folder: PathBuf,
    /// Be this task of the job instead.
    #[arg(long)]
    task: Option<u32>,
}

impl LocalDispatchArguments {
    fn run(&self) -> Result<(), SchedulerError> {
        match self.task {
            None => local::dispatch(&self.job_folder),
            Some(task) => local::become_task(&self.job_folder, task).map(drop),
        }
    }
}

/// Try this host, as an order says; the batch system calls this.
#[derive(Debug, Args)]
struct HostTrialArguments {
    /// Where the order is, and the answer goes.
    folder: PathBuf,
    /// Number of the job's only task.
    task: u32,
}

impl HostTrialArguments {
    fn run(&self, ui: &Ui) -> Result<Exit, Failure> {
        let onlooker = Looker::new(ui)?;
        let order = Order::read(&self.folder).map_err(ControlError::from)?;
        let context = of_site(order.site.clone())?;
        exam::carry_out(&order, &context, &self.folder, &onlooker)?;
        Ok(Exit::Done)
    }
}

/// Hears how a trial goes, and may have enough of it: a person at a terminal, or the signals of a job.
pub struct Looker<'a> {
    ui: &'a Ui,
    interrupt: Interrupt,
}

impl<'a> Looker<'a> {
    pub fn new(ui: &'a Ui) -> Result<Self, Failure> {
        let interrupt = Interrupt::hold_back().map_err(|error| {
            Failure::from_error(Exit::Failed, &error).within("cannot hold signals back for a trial")
        })?;
        Ok(Self { ui, interrupt })
    }
}

impl Onlooker for Looker<'_> {
    fn hears(&self, line: &str) {
        self.ui.say(line);
    }

    fn wants_end(&self) -> bool {
        self.interrupt.has_come()
    }
}
