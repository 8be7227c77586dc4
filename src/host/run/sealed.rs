//! A process of our own that may do nothing but think: what strangers send is understood there. It has two pipes, no account, no
//! file, no network, and bounded memory and time; a mistake in what reads strangers' texts is then worth nothing to them.
//!
//! ```text
//! start ─▶ labwright understand | read-disk ─▶ seal: network ─▶ ids ─▶ death signal ─▶ sockets ─▶ bounds ─▶ Landlock ─▶ read
//! ```

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use landlock::{
    Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, Scope,
};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid};

use super::confine::{ConfineError, NEWEST};
use crate::host::sys;

/// What such a process may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    cpu_seconds: u64,
    memory_bytes: u64,
}

/// The largest lab takes some 5 s and 300 MiB.
pub const UNDERSTAND: Bounds = Bounds { cpu_seconds: 30, memory_bytes: 1 << 30 };
/// A disk takes milliseconds and 3 MiB besides the largest file that is read; a file system that was broken on purpose took 40 s
/// and 7 GB.
pub const READ_DISK: Bounds = Bounds { cpu_seconds: 30, memory_bytes: 512 << 20 };
const OPEN_FILES: u64 = 32;
/// It may sleep, which costs no time of the processor.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time zones, which manifests name.
const READ: &str = "/usr/share/zoneinfo";

/// Such a process, seen from outside. It ends with this.
pub struct Sealed {
    pub to: Option<ChildStdin>,
    pub from: ChildStdout,
    /// Dropped when it is no longer waited for.
    _watched: Sender<()>,
}

impl Sealed {
    /// Starts our own program with one of its jobs, which is to call `seal` before it reads anything that strangers wrote.
    pub fn start(program: &Path, job: &[&OsStr], account: (u32, u32), stderr: Stdio) -> std::io::Result<Self> {
        let mut command = Command::new(program);
        command.args(job).args(["--uid", &account.0.to_string(), "--gid", &account.1.to_string()]);
        command.env_clear().current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn()?;
        let (to, from) = (child.stdin.take(), child.stdout.take().expect("it was asked for"));
        let (watched, watch) = channel::<()>();
        std::thread::spawn(move || {
            // Nothing is ever sent: it ends when the other end goes, or with its patience.
            if watch.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                tracing::warn!("a sealed process takes too long");
            }
            end(child);
        });
        Ok(Self { to, from, _watched: watched })
    }
}

fn end(mut child: Child) {
    if let Err(error) = child.kill().and_then(|()| child.wait()) {
        tracing::warn!(%error, "a sealed process cannot be ended");
    }
}

/// Gives up all rights, for good. `uid` and `gid` are whom it becomes; root alone can become somebody.
pub fn seal(uid: Uid, gid: Gid, bounds: Bounds) -> Result<(), ConfineError> {
    let system = |action| move |source| ConfineError::System { action, source };
    if Uid::effective().is_root() {
        match unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC) {
            // A service that was hardened may make none; that it may open no socket keeps it from the network, too.
            Ok(()) | Err(Errno::EPERM) => {}
            Err(source) => return Err(ConfineError::System { action: "give up the network", source }),
        }
        nix::unistd::setgroups(&[]).map_err(system("give up the groups"))?;
        nix::unistd::setresgid(gid, gid, gid).map_err(system("give up the group"))?;
        nix::unistd::setresuid(uid, uid, uid).map_err(system("give up the account"))?;
    }
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(system("tie this to who started it"))?;
    nix::sys::prctl::set_no_new_privs().map_err(system("rule out new privileges"))?;
    sys::refuse_sockets().map_err(system("rule out sockets"))?;
    nix::sys::prctl::set_dumpable(false).map_err(system("rule out looks into memory"))?;
    let bounds = [
        (Resource::RLIMIT_CPU, bounds.cpu_seconds),
        (Resource::RLIMIT_AS, bounds.memory_bytes),
        (Resource::RLIMIT_NOFILE, OPEN_FILES),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NPROC, 0),
    ];
    for (resource, bound) in bounds {
        setrlimit(resource, bound, bound).map_err(system("bound what it takes"))?;
    }
    no_files().map_err(ConfineError::Landlock)
}

/// A kernel that knows less of it does what it can: the account and the bounds hold without it.
fn no_files() -> Result<(), RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    if let Ok(folder) = PathFd::new(READ) {
        rules = rules.add_rule(PathBeneath::new(folder, AccessFs::from_read(NEWEST)))?;
    }
    rules.restrict_self().map(drop)
}
