//! The controller's side: submit, list, kill, capacity. Each call is one look at the books under the mutex.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::dispatch::start_time;
use super::held::{self, MEMORY_UNIT_MIB, TASKS_MAX};
use super::jobs::{self, Job, JobStore, failed};
use crate::host::sys::Process;
use crate::model::job::{JobId, Task, TaskId, TaskState};
use crate::scheduler::{Ended, Host, HostUsage, Scheduler, SchedulerError, Submission};

/// The embedded scheduler's queue below one folder.
#[derive(Debug, Clone)]
pub struct Local {
    books: JobStore,
    slots: u32,
    memory_mib: u64,
    /// The `labwright` program, which dispatchers run.
    program: PathBuf,
}

impl Local {
    /// `folder` is made with the first submit. `slots` and `memory_mib` are what the tasks of this folder share.
    pub fn new(folder: PathBuf, slots: u32, memory_mib: u64, program: PathBuf) -> Self {
        Self { books: JobStore { folder }, slots, memory_mib, program }
    }

    fn job_of(&self, submission: &Submission) -> Result<Job, SchedulerError> {
        if let Some(host) = submission.host.as_ref().filter(|host| **host != host_name()) {
            let detail = format!("the local scheduler runs jobs on {} alone, not on {host}", host_name());
            return Err(SchedulerError::Refused { request: format!("submit {}", submission.name), detail });
        }
        let site_mib = self.memory_mib - self.memory_mib % MEMORY_UNIT_MIB;
        let wanted_mib = submission.memory_mib.next_multiple_of(MEMORY_UNIT_MIB);
        if wanted_mib > site_mib {
            return Err(SchedulerError::NeverFits { wanted_mib, site_mib });
        }
        if self.slots == 0 {
            return Err(SchedulerError::NoSlots);
        }
        if !(1..=TASKS_MAX).contains(&submission.tasks) {
            return Err(SchedulerError::Tasks { tasks: submission.tasks, max: TASKS_MAX });
        }
        Ok(Job {
            name: submission.name.clone(),
            owner: account(),
            tasks: submission.tasks,
            memory_mib: submission.memory_mib,
            command: submission.command.iter().map(|word| plain(word)).collect::<Result<_, _>>()?,
            log_folder: PathBuf::from(plain(absolute(&submission.log_folder)?.as_os_str())?),
            site_slots: self.slots,
            site_memory_mib: self.memory_mib,
        })
    }

    /// A dispatcher belongs to no terminal's foreground group, so neither ^C nor a closed terminal reaches it; it has
    /// nothing of our environment but the search path and how much its starters are to say.
    fn start_dispatcher(&self, number: u64, job: &Job, held: File) -> Result<(), SchedulerError> {
        let path = job.log_folder.join(format!("{number}.log"));
        let log = File::options().create(true).append(true).open(&path).map_err(failed("create", &path))?;
        let also_log = log.try_clone().map_err(failed("open", &path))?;
        let mut command = Command::new(&self.program);
        command.arg("local-dispatch").arg(absolute(&self.books.job_folder(number))?).env_clear();
        for name in ["PATH", "LABWRIGHT_LOG"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.current_dir("/").process_group(0).stdin(Stdio::from(held)).stdout(log).stderr(also_log);
        let mut child = command.spawn().map_err(failed("start", &self.program))?;
        // Whoever lives longer than the dispatcher must take note of its end, or it stays a zombie.
        std::thread::spawn(move || child.wait().map(drop));
        Ok(())
    }
}

impl Scheduler for Local {
    fn submit(&self, submission: &Submission) -> Result<JobId, SchedulerError> {
        let job = self.job_of(submission)?;
        self.books.create()?;
        let mutex = self.books.mutex()?;
        let held = self.books.held()?;
        self.books.live_jobs(&held)?;
        let number = self.books.create_job_folder()?;
        let pending = held::pending(number);
        let tasks = held::task(&pending, 1).start..held::task(&pending, job.tasks).end;
        if !held::lock(&held, &tasks).map_err(self.books.held_failed())? {
            return Err(SchedulerError::NotAJob { path: self.books.job_folder(number) });
        }
        job.write(&self.books.job_folder(number))?;
        drop(mutex);
        self.start_dispatcher(number, &job, held)?;
        Ok(JobId(number))
    }

    /// Whoever owns the folder: every job in it was put there by the account that may write to it.
    fn account(&self) -> Result<String, SchedulerError> {
        use std::os::unix::fs::MetadataExt as _;
        match std::fs::metadata(&self.books.folder) {
            Ok(folder) => Ok(login_name(nix::unistd::Uid::from_raw(folder.uid()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(account()),
            Err(source) => Err(SchedulerError::Io { action: "look at", path: self.books.folder.clone(), source }),
        }
    }

    fn list(&self) -> Result<Vec<Task>, SchedulerError> {
        let Some(_mutex) = self.books.mutex_to_look()? else { return Ok(Vec::new()) };
        let Some(held) = self.books.held_to_look()? else { return Ok(Vec::new()) };
        let host = host_name();
        let mut tasks = Vec::new();
        for number in self.books.live_jobs(&held)? {
            let folder = self.books.job_folder(number);
            let Some(job) = Job::read(&folder)? else { continue };
            for (task, state) in self.states(&held, number)? {
                let running = !matches!(state, TaskState::Pending { .. });
                tasks.push(Task {
                    id: TaskId { job: JobId(number), task },
                    name: job.name.clone(),
                    owner: job.owner.clone(),
                    state,
                    host: running.then(|| host.clone()),
                });
            }
        }
        Ok(tasks)
    }

    fn kill(&self, tasks: &[TaskId]) -> Result<(), SchedulerError> {
        let Some(_mutex) = self.books.mutex_to_look()? else { return Ok(()) };
        let Some(held) = self.books.held_to_look()? else { return Ok(()) };
        let mut by_job: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for id in tasks {
            by_job.entry(id.job.0).or_default().push(id.task);
        }
        let mut first_error = Ok(());
        for (number, tasks) in by_job {
            let states = self.states(&held, number)?;
            for task in tasks.into_iter().filter(|task| states.contains_key(task)) {
                first_error = first_error.and(stop(&self.books.job_folder(number), task));
            }
        }
        first_error
    }

    fn capacity(&self) -> Result<Vec<Host>, SchedulerError> {
        let held = self.books.held_to_look()?;
        let used = |range: Range<u64>| -> Result<u64, SchedulerError> {
            let Some(held) = &held else { return Ok(0) };
            let locked = held::locked(held, &range).map_err(self.books.held_failed())?;
            Ok(locked.iter().map(|part| part.end - part.start).sum())
        };
        let slots_used = used(held::all_slots())?;
        let usage = HostUsage {
            slots: self.slots,
            slots_used: u32::try_from(slots_used).unwrap_or(u32::MAX),
            memory_mib: self.memory_mib,
            memory_used_mib: used(held::all_memory())? * MEMORY_UNIT_MIB,
        };
        Ok(vec![Host { name: host_name(), usage: Some(usage), closed: None }])
    }

    /// Nobody keeps books here: a task's starter reports how it ended.
    fn ended(&self, _: &str) -> Result<Vec<Ended>, SchedulerError> {
        Ok(Vec::new())
    }
}

impl Local {
    /// The tasks of a job that are not over. Pending bytes are read first: a task that starts in between has its running
    /// byte before it gives up the pending one, so it is never seen as gone.
    fn states(&self, held: &File, number: u64) -> Result<BTreeMap<u32, TaskState>, SchedulerError> {
        let pending = locked_tasks(held, &held::pending(number)).map_err(self.books.held_failed())?;
        let running = locked_tasks(held, &held::running(number)).map_err(self.books.held_failed())?;
        let killed = jobs::killed(&self.books.job_folder(number))?;
        let waiting =
            pending.filter(|task| !killed.contains(task)).map(|task| (task, TaskState::Pending { reason: None }));
        let mut states: BTreeMap<u32, TaskState> = waiting.collect();
        states.extend(
            running.map(|task| (task, if killed.contains(&task) { TaskState::Deleting } else { TaskState::Running })),
        );
        Ok(states)
    }
}

fn locked_tasks(held: &File, range: &Range<u64>) -> std::io::Result<impl Iterator<Item = u32> + use<>> {
    let start = range.start;
    let locked = held::locked(held, range)?;
    Ok(locked.into_iter().flatten().map(move |byte| u32::try_from(byte - start).expect("a job's range is 2^20 wide")))
}

/// Marks a task as not wanted; one that has become a process already is signalled.
fn stop(job_folder: &Path, task: u32) -> Result<(), SchedulerError> {
    jobs::mark_killed(job_folder, task)?;
    let Some(started) = jobs::read_started(job_folder, task)? else { return Ok(()) };
    let signalled = Process::open(Pid::from_raw(started.pid)).and_then(|process| match start_time(started.pid) {
        Ok(found) if found == started.start_time => process.signal(Signal::SIGTERM),
        // The process is over, or it is another's by now.
        _ => Ok(()),
    });
    match signalled {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(failed("signal the process in", &jobs::started_path(job_folder, task))(errno.into())),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, SchedulerError> {
    std::path::absolute(path).map_err(failed("find", path))
}

/// A job's file is JSON, which has no words for other bytes.
fn plain(word: &std::ffi::OsStr) -> Result<String, SchedulerError> {
    word.to_str()
        .map(str::to_owned)
        .ok_or_else(|| SchedulerError::NotText { word: word.to_string_lossy().into_owned() })
}

/// Login name of this process's account, its number where it has none.
fn account() -> String {
    login_name(nix::unistd::geteuid())
}

fn login_name(uid: nix::unistd::Uid) -> String {
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => uid.to_string(),
    }
}

fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned())
}
