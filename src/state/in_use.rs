//! Who has the state open. Everybody shares it with everybody, as SQLite sees to; but whoever puts another file in its place, or
//! changes its tables, must be alone: what others have read of it would be of another file. So each that has it open has a byte of
//! the lock's file locked together with the others, and who must be alone has it alone. The kernel frees it with the process.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::StateError;
use super::operations::{lock_path, open};
use crate::files::ranges;

const BYTE: Range<u64> = 0..1;
/// How long others are waited for: most commands take less.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(10);

/// Kept as long as the state is open.
#[derive(Debug)]
pub(super) struct InUse(File);

impl InUse {
    /// Together with all others. `None`: who may not so much as look at the lock can do no harm, and takes what there is.
    pub(super) fn with_others(state: &Path) -> Result<Option<Self>, StateError> {
        let path = lock_path(state);
        let opened = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => open(state).ok(),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
            Err(source) => return Err(StateError::Io { action: "open the lock", path, source }),
            Ok(file) => Some(file),
        };
        let Some(file) = opened else { return Ok(None) };
        let failed = |source| StateError::Io { action: "lock", path: path.clone(), source };
        match wait_for(|| ranges::lock_shared(&file, &BYTE)).map_err(failed)? {
            true => Ok(Some(Self(file))),
            false => Err(StateError::InUse { path: state.to_owned(), by: users(&path) }),
        }
    }

    /// Without any other.
    pub(super) fn alone(state: &Path) -> Result<Self, StateError> {
        let (path, file) = (lock_path(state), open(state)?);
        let failed = |source| StateError::Io { action: "lock", path: path.clone(), source };
        match wait_for(|| ranges::lock(&file, &BYTE)).map_err(failed)? {
            true => Ok(Self(file)),
            false => Err(StateError::InUse { path: state.to_owned(), by: users(&path) }),
        }
    }

    /// Lets others in again.
    pub(super) fn shared(self, state: &Path) -> Result<Self, StateError> {
        let failed = |source| StateError::Io { action: "lock", path: lock_path(state), source };
        // Nobody else can have it, so there is nothing to wait for.
        ranges::lock_shared(&self.0, &BYTE).map_err(failed)?;
        Ok(self)
    }
}

fn wait_for(lock: impl Fn() -> std::io::Result<bool>) -> std::io::Result<bool> {
    let began = Instant::now();
    while !lock()? {
        if began.elapsed() >= PATIENCE {
            return Ok(false);
        }
        std::thread::sleep(LOOK);
    }
    Ok(true)
}

/// The commands of the other processes that have the lock's file open.
pub(super) fn users(lock: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pids = pids.filter(|pid| *pid != std::process::id());
    let has_it = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.into_iter().any(|file| file.path().read_link().is_ok_and(|to| to == lock))
    };
    let words = |pid: u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
        format!("process {pid} (`{command}`)")
    };
    pids.filter(has_it).map(words).collect()
}

/// Which file a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self { device: found.dev(), inode: found.ino() })
    }
}
