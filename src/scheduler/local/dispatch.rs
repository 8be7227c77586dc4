//! What runs detached: the dispatcher of one array, and the short life of a task's process before it becomes the task's
//! program. In comes a job's folder; out go processes. Nothing here waits for a task to end.

use std::convert::Infallible;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::held::{self, MEMORY_UNIT_MIB};
use super::jobs::{self, Job, JobStore, Started, failed};
use crate::scheduler::SchedulerError;

/// How often the dispatcher whose turn it is looks for a free place. Only one looks at a time, and a look costs about a
/// tenth of a millisecond; a guest takes seconds to boot.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// This very program, also after its file was replaced by an upgrade.
const OURSELVES: &str = "/proc/self/exe";

/// One array's folder and number, from the path that `submit` gave us.
struct Place {
    books: JobStore,
    number: u64,
}

fn place(job_folder: &Path) -> Result<Place, SchedulerError> {
    let number = job_folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    let folder = job_folder.parent().and_then(Path::parent);
    match (number, folder) {
        (Some(number), Some(folder)) => Ok(Place { books: JobStore { folder: folder.to_owned() }, number }),
        _ => Err(SchedulerError::NotAJob { path: job_folder.to_owned() }),
    }
}

fn read_job(job_folder: &Path) -> Result<Job, SchedulerError> {
    Job::read(job_folder)?.ok_or_else(|| SchedulerError::NotAJob { path: job_folder.to_owned() })
}

/// Starts the tasks of one array in order, each when there is room, and returns after the last start. Standard input is
/// the file description that holds the pending bytes, as `submit` locked them.
///
/// A task that cannot be started does not keep the others from starting; the first such error is returned.
pub fn dispatch(job_folder: &Path) -> Result<(), SchedulerError> {
    let Place { books, number } = place(job_folder)?;
    let job = read_job(job_folder)?;
    let pending = held::pending(number);
    let ours = held::locked(books.held()?, &pending).map_err(books.held_failed())?;
    if ours.is_empty() {
        return Err(SchedulerError::NotAJob { path: job_folder.to_owned() });
    }
    let _turn = books.turn()?;
    let mut first_error = Ok(());
    for task in 1..=job.tasks {
        let started = start_when_there_is_room(&books, number, &job, task);
        first_error = first_error.and(started);
        held::unlock(std::io::stdin(), &held::task(&pending, task)).map_err(books.held_failed())?;
    }
    first_error
}

fn start_when_there_is_room(books: &JobStore, number: u64, job: &Job, task: u32) -> Result<(), SchedulerError> {
    let job_folder = books.job_folder(number);
    loop {
        reap();
        if jobs::is_killed(&job_folder, task)? {
            return Ok(());
        }
        if let Some(place) = take_place(books, number, job, task)? {
            return start(&job_folder, number, job, task, place);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Locks a slot, the memory and the task's running byte, all or none, in a file description of their own.
fn take_place(books: &JobStore, number: u64, job: &Job, task: u32) -> Result<Option<File>, SchedulerError> {
    let _mutex = books.mutex()?;
    let held = books.held()?;
    let free = |range: std::ops::Range<u64>, count: u64| {
        held::locked(&held, &range).map(|locked| held::choose_free(&range, &locked, count))
    };
    let slot = free(held::slots(job.site_slots), 1).map_err(books.held_failed())?;
    let memory = free(held::memory(job.site_memory_mib), job.memory_mib.div_ceil(MEMORY_UNIT_MIB))
        .map_err(books.held_failed())?;
    let (Some(slot), Some(memory)) = (slot, memory) else { return Ok(None) };
    let running = held::task(&held::running(number), task);
    for range in slot.iter().chain(&memory).chain([&running]) {
        if !held::lock(&held, range).map_err(books.held_failed())? {
            // Somebody locks without the mutex. Dropping `held` gives back what we got.
            return Ok(None);
        }
    }
    Ok(Some(held))
}

/// Hands `place` to a new process and forgets it: from here on only the task holds it.
fn start(job_folder: &Path, number: u64, job: &Job, task: u32, place: File) -> Result<(), SchedulerError> {
    let path = job.log_folder.join(format!("{number}.{task}.log"));
    let log = File::options().create(true).append(true).open(&path).map_err(failed("create", &path))?;
    let also_log = log.try_clone().map_err(failed("open", &path))?;
    // This process has one thread, so no other child can start meanwhile and inherit the place.
    fcntl(&place, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|errno| failed("hand on", job_folder)(errno.into()))?;
    Command::new(OURSELVES)
        .arg0("labwright")
        .arg("local-dispatch")
        .arg(job_folder)
        .arg(format!("--task={task}"))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(also_log)
        .spawn()
        .map(drop)
        .map_err(failed("start", Path::new(OURSELVES)))
}

/// Takes note of tasks that ended, so that none stays a zombie while we wait for room. Their places are free already.
fn reap() {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => unreachable!("waitpid knows no other error than ECHILD and EINTR: {errno}"),
        }
    }
}

/// Turns this process into a task: a session of its own, its pid written down, then the task's program.
///
/// The pid is written before the mark is looked for, and `kill` does it the other way round, so one of both sees the
/// other: a task killed at any instant is signalled or never starts.
pub fn become_task(job_folder: &Path, task: u32) -> Result<Option<Infallible>, SchedulerError> {
    let job = read_job(job_folder)?;
    nix::unistd::setsid().map_err(|errno| failed("make a session for", job_folder)(errno.into()))?;
    let pid = nix::unistd::getpid().as_raw();
    let start_time = start_time(pid).map_err(failed("read", Path::new("/proc/self/stat")))?;
    jobs::write_started(job_folder, task, Started { pid, start_time })?;
    if jobs::is_killed(job_folder, task)? {
        return Ok(None);
    }
    let (program, arguments) =
        job.command.split_first().ok_or_else(|| SchedulerError::NotAJob { path: job_folder.to_owned() })?;
    let error = Command::new(program).args(arguments).arg(task.to_string()).exec();
    Err(failed("start", Path::new(program))(error))
}

/// When a process started, in ticks since boot: field 22 of `/proc/<pid>/stat`, counted behind the program's name, which
/// may hold anything.
pub(super) fn start_time(pid: i32) -> std::io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| std::io::Error::other(format!("/proc/{pid}/stat has no start time")))
}
