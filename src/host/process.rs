//! Who and what this process is: the account it runs as, its machine, its program.

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User, geteuid, gethostname, getuid};

/// Whether this process may do all that root may.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// The login name of the account whose rights this process has; `None` of one that no account has.
pub fn account() -> Option<String> {
    login(geteuid())
}

/// The login name of an account.
pub fn login(uid: Uid) -> Option<String> {
    User::from_uid(uid).ok().flatten().map(|user| user.name)
}

/// Who started this process, for people who read it.
pub fn who() -> String {
    let uid = getuid();
    login(uid).unwrap_or_else(|| format!("uid {uid}"))
}

/// This machine's name, for people who read it.
pub fn host_name() -> String {
    gethostname().map_or_else(|_| "unknown".into(), |name| name.to_string_lossy().into_owned())
}

/// This program as it is installed, for the jobs that it submits.
pub fn program() -> io::Result<PathBuf> {
    let running = std::env::current_exe()?;
    Ok(installed(&running).unwrap_or(running))
}

/// Once an upgrade has put another file in its place, what runs has a name that leads nowhere; jobs run what is there now.
fn installed(running: &Path) -> Option<PathBuf> {
    let place = running.to_str()?.strip_suffix(" (deleted)")?;
    (!running.exists()).then(|| place.into())
}
