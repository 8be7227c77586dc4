//! The lock of a site: one decision at a time. A kernel lock on a file beside the state, so it ends with its process,
//! and a note in that file says who holds it.

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{StateError, operations};

/// How often a lock that somebody has is tried.
const LOOK: Duration = Duration::from_millis(10);
/// A note is one line.
const HOLDER_BYTES_MAX: u64 = 64 << 10;

/// Who holds the lock, as they wrote it down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub who: String,
    pub host: String,
    pub pid: u32,
    pub since: jiff::Timestamp,
    /// The command, such as `apply lan-exam`.
    pub doing: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} (process {}), `{}`, since {:.0}", self.who, self.host, self.pid, self.doing, self.since)
    }
}

/// Held until dropped, or until the process is gone.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock of the state at `state`, or says who has had it for all of `patience`.
    pub fn take(state: &Path, holder: &Holder, patience: Duration) -> Result<Self, StateError> {
        let path = operations::lock_path(state);
        let io = |action, source| StateError::Io { action, path: path.clone(), source };
        let began = Instant::now();
        let mut file = operations::open(state)?;
        let mut file = loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => break file,
                Err((file, nix::errno::Errno::EWOULDBLOCK)) if began.elapsed() < patience => file,
                Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                    return Err(StateError::Locked { holder: read_holder(file), path });
                }
                Err((_, errno)) => return Err(io("lock", errno.into())),
            };
            std::thread::sleep(LOOK);
        };
        let note = serde_json::to_string(holder).expect("a holder has only string keys");
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(note.as_bytes()))
            .map_err(|source| io("write", source))?;
        Ok(Self { _file: file })
    }
}

/// The note may be half written while its holder starts: an unreadable one names nobody.
fn read_holder(file: File) -> Holder {
    let mut text = String::new();
    let read = file.take(HOLDER_BYTES_MAX).read_to_string(&mut text).ok();
    let unknown = || Holder {
        who: "another labwright".into(),
        host: "an unknown host".into(),
        pid: 0,
        since: jiff::Timestamp::UNIX_EPOCH,
        doing: "unknown".into(),
    };
    read.and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_else(unknown)
}
