//! The scheduler's folder: its files by name, the mutex, the jobs in it. Reads and writes; decides nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::held;
use crate::files::{self, FileError, Flush};
use crate::scheduler::SchedulerError;

const MUTEX: &str = "mutex";
const TURN: &str = "turn";
const COUNTER: &str = "counter";
const JOBS: &str = "jobs";
const JOB: &str = "job.json";

/// A submission as it waits in its folder, with the size of the site it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) name: String,
    pub(super) owner: String,
    pub(super) tasks: u32,
    pub(super) memory_mib: u64,
    pub(super) command: Vec<String>,
    pub(super) log_folder: PathBuf,
    pub(super) site_slots: u32,
    pub(super) site_memory_mib: u64,
}

/// A started task's process: the start time tells it from a later process with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) pid: i32,
    pub(super) start_time: u64,
}

/// The folder, by its absolute path.
#[derive(Debug, Clone)]
pub(super) struct JobStore {
    pub(super) folder: PathBuf,
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SchedulerError + use<> {
    let path = path.to_owned();
    move |source| SchedulerError::Io { action, path, source }
}

impl JobStore {
    /// Makes the folder where it is missing.
    pub(super) fn create(&self) -> Result<(), SchedulerError> {
        let jobs = self.folder.join(JOBS);
        std::fs::create_dir_all(&jobs).map_err(|source| SchedulerError::Folder { path: self.folder.clone(), source })
    }

    /// The mutex, to change the books.
    pub(super) fn mutex(&self) -> Result<Flock<File>, SchedulerError> {
        let path = self.folder.join(MUTEX);
        let file =
            open_lock_file(&path).map_err(|source| SchedulerError::Folder { path: self.folder.clone(), source })?;
        wait_for(file, &path)
    }

    /// The mutex, to read the books; `None` where nothing was ever submitted.
    pub(super) fn mutex_to_look(&self) -> Result<Option<Flock<File>>, SchedulerError> {
        let path = self.folder.join(MUTEX);
        match File::open(&path) {
            Ok(file) => wait_for(file, &path).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SchedulerError::Io { action: "open", path, source }),
        }
    }

    /// Waits until no other dispatcher's tasks are next.
    pub(super) fn turn(&self) -> Result<Flock<File>, SchedulerError> {
        let path = self.folder.join(TURN);
        let file = open_lock_file(&path).map_err(failed("open", &path))?;
        wait_for(file, &path)
    }

    pub(super) fn held(&self) -> Result<File, SchedulerError> {
        held::open(&self.folder).map_err(failed("open", &self.folder.join(held::HELD)))
    }

    /// For errors of calls on `held`.
    pub(super) fn held_failed(&self) -> impl FnOnce(io::Error) -> SchedulerError + use<> {
        failed("lock bytes of", &self.folder.join(held::HELD))
    }

    /// `None` where nothing was ever locked.
    pub(super) fn held_to_look(&self) -> Result<Option<File>, SchedulerError> {
        match held::open_to_look(&self.folder) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("open", &self.folder.join(held::HELD))(error)),
        }
    }

    pub(super) fn job_folder(&self, job: u64) -> PathBuf {
        self.folder.join(JOBS).join(job.to_string())
    }

    /// Numbers of all job folders, finished ones too.
    fn jobs(&self) -> Result<BTreeSet<u64>, SchedulerError> {
        names(&self.folder.join(JOBS)).map(|names| names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Jobs that somebody still holds a byte of. The folders of the others are removed, if they can be: a reader who may
    /// not write leaves them to the next writer. Call with the mutex.
    pub(super) fn live_jobs(&self, held: &File) -> Result<BTreeSet<u64>, SchedulerError> {
        let mut live = BTreeSet::new();
        for job in self.jobs()? {
            if !held::locked(held, &held::job(job)).map_err(self.held_failed())?.is_empty() {
                live.insert(job);
            } else if let Err(error) = std::fs::remove_dir_all(self.job_folder(job)) {
                tracing::debug!(job, %error, "a finished job's folder stays for now");
            }
        }
        Ok(live)
    }

    /// Counts up and makes the next job's folder. Call with the mutex.
    pub(super) fn create_job_folder(&self) -> Result<u64, SchedulerError> {
        let path = self.folder.join(COUNTER);
        let last: u64 = read_json(&path)?.unwrap_or(0);
        // A counter that was lost must not give out the number of a job that is still there.
        let next = last.max(self.jobs()?.last().copied().unwrap_or(0)) + 1;
        replace(&path, next.to_string().as_bytes())?;
        let folder = self.job_folder(next);
        std::fs::create_dir(&folder).map_err(failed("create", &folder))?;
        Ok(next)
    }
}

/// One job's folder.
impl Job {
    pub(super) fn write(&self, folder: &Path) -> Result<(), SchedulerError> {
        let text = serde_json::to_vec_pretty(self).expect("a job has only string keys and checked paths");
        replace(&folder.join(JOB), &text)
    }

    /// `None` where the folder is no more.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, SchedulerError> {
        read_json(&folder.join(JOB))
    }
}

/// The tasks of a job that are not to run.
pub(super) fn killed(job_folder: &Path) -> Result<BTreeSet<u32>, SchedulerError> {
    let mark = |name: &String| name.strip_prefix("killed.")?.parse().ok();
    names(job_folder).map(|names| names.iter().filter_map(mark).collect())
}

fn killed_path(job_folder: &Path, task: u32) -> PathBuf {
    job_folder.join(format!("killed.{task}"))
}

pub(super) fn is_killed(job_folder: &Path, task: u32) -> Result<bool, SchedulerError> {
    let path = killed_path(job_folder, task);
    path.try_exists().map_err(failed("look for", &path))
}

pub(super) fn mark_killed(job_folder: &Path, task: u32) -> Result<(), SchedulerError> {
    let path = killed_path(job_folder, task);
    File::create(&path).map(drop).map_err(failed("create", &path))
}

pub(super) fn started_path(job_folder: &Path, task: u32) -> PathBuf {
    job_folder.join(format!("task.{task}"))
}

/// Sits where a reader sees all of it or nothing.
pub(super) fn write_started(job_folder: &Path, task: u32, started: Started) -> Result<(), SchedulerError> {
    let text = serde_json::to_vec(&started).expect("two numbers");
    replace(&started_path(job_folder, task), &text)
}

/// `None` where the task has not got as far as to say its pid.
pub(super) fn read_started(job_folder: &Path, task: u32) -> Result<Option<Started>, SchedulerError> {
    read_json(&started_path(job_folder, task))
}

fn open_lock_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

fn wait_for(file: File, path: &Path) -> Result<Flock<File>, SchedulerError> {
    let mut file = file;
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(locked) => return Ok(locked),
            Err((again, nix::errno::Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(failed("lock", path)(errno.into())),
        }
    }
}

/// Names in a folder; none where it is missing.
fn names(folder: &Path) -> Result<Vec<String>, SchedulerError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("read", folder))?.file_name();
        // Every name of ours is plain text; what is not is none of ours.
        names.extend(name.into_string());
    }
    Ok(names)
}

/// Writes a file so that a reader sees the old text or the new one. Not synced: after a power cut no job is left to
/// speak of.
fn replace(path: &Path, text: &[u8]) -> Result<(), SchedulerError> {
    let FileError { action, path, source } = match files::write_atomically(path, text, 0o644, Flush::Later) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    Err(failed(action, &path)(source))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, SchedulerError> {
    let text = files::read_bounded(path, files::BYTES_MAX)
        .map_err(|FileError { action, path, source }| failed(action, &path)(source))?;
    let format = |source| SchedulerError::Format { path: path.to_owned(), source };
    text.map(|text| serde_json::from_slice(&text).map_err(format)).transpose()
}
