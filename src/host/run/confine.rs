//! Turns the process that is to become qemu into one that can do little, and whose life is tied to the starter's. It is
//! a step of its own program (`labwright confine`), run between the starter's fork and qemu, because the order matters
//! and Rust has no safe way to run code there:
//!
//! ```text
//! drop ids ─▶ PR_SET_PDEATHSIG ─▶ parent still there? ─▶ Landlock ─▶ exec qemu
//! ```
//!
//! A later change of ids would clear the death signal, so that the ids go first. The starter could have died before the
//! signal was asked for, so that the parent is looked at after. Supplementary groups stay, but root's: Grid Engine
//! knows the processes of a job by one.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Pid, Uid};

/// What is left to qemu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// The starter, whose death is qemu's.
    pub parent: Pid,
    pub uid: Uid,
    pub gid: Gid,
    /// Groups that qemu needs besides those of the starter, such as `/dev/kvm`'s.
    pub extra_groups: Vec<Gid>,
    pub read: Vec<PathBuf>,
    pub write: Vec<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    #[error("cannot {action}")]
    System { action: &'static str, source: nix::Error },
    #[error("the starter is gone")]
    Orphan,
    #[error("cannot confine qemu to its files")]
    Landlock(#[from] RulesetError),
    #[error("this kernel has Landlock and did not confine qemu with it")]
    NotConfined,
    #[error("an argument contains a zero byte")]
    Argument,
    #[error("cannot run {program}")]
    Exec { program: String, source: nix::Error },
}

/// Gives up rights, then becomes `command`.
pub fn exec(confinement: &Confinement, command: &[OsString]) -> Result<Infallible, ConfineError> {
    let system = |action| move |source| ConfineError::System { action, source };
    drop_ids(confinement)?;
    // What qemu makes, such as sockets, is its own account's alone.
    nix::sys::stat::umask(Mode::from_bits_truncate(0o177));
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(system("tie qemu to its starter"))?;
    if nix::unistd::getppid() != confinement.parent {
        return Err(ConfineError::Orphan);
    }
    nix::sys::prctl::set_no_new_privs().map_err(system("rule out new privileges"))?;
    restrict(confinement)?;
    let arguments = command
        .iter()
        .map(|argument| CString::new(argument.as_bytes()).map_err(|_| ConfineError::Argument))
        .collect::<Result<Vec<_>, _>>()?;
    let program = arguments.first().ok_or(ConfineError::Argument)?;
    nix::unistd::execv(program, &arguments)
        .map_err(|source| ConfineError::Exec { program: program.to_string_lossy().into_owned(), source })
}

fn drop_ids(confinement: &Confinement) -> Result<(), ConfineError> {
    let system = |action| move |source| ConfineError::System { action, source };
    let Confinement { uid, gid, .. } = *confinement;
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let mut groups = nix::unistd::getgroups().map_err(system("read the groups"))?;
    groups.retain(|group| group.as_raw() != 0);
    groups.extend(&confinement.extra_groups);
    nix::unistd::setgroups(&groups).map_err(system("set the groups"))?;
    nix::unistd::setresgid(gid, gid, gid).map_err(system("become the service user's group"))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(system("become the service user"))
}

/// Paths that qemu and the dynamic linker read in every run.
const READ_ALWAYS: [&str; 7] = ["/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/urandom", "/proc", "/sys"];
/// Devices that qemu writes to; a missing one is left out.
const WRITE_ALWAYS: [&str; 2] = ["/dev/null", "/dev/kvm"];

/// What we know of Landlock: device controls since its fifth version, signals and abstract sockets since its sixth. A
/// kernel with less does what it can.
pub(super) const NEWEST: ABI = ABI::V6;

/// All guests share an account, so that without the scopes one that was broken out of could kill every other guest of its
/// host. What it may still signal is itself: qemu never signals anything else. A kernel without Landlock is no error: one
/// service account and the sandbox hold without it, and `host check` tells.
fn restrict(confinement: &Confinement) -> Result<(), ConfineError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let read = READ_ALWAYS.iter().map(PathBuf::from).chain(confinement.read.iter().cloned());
    let write = WRITE_ALWAYS.iter().map(PathBuf::from).chain(confinement.write.iter().cloned());
    let allowed = read
        .map(|path| (path, AccessFs::from_read(NEWEST)))
        .chain(write.map(|path| (path, AccessFs::from_all(NEWEST))));
    for (path, access) in allowed {
        // A path that is not there needs no rule.
        let Ok(fd) = PathFd::new(&path) else { continue };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
        rules = rules.add_rule(PathBeneath::new(fd, access))?;
    }
    let status = rules.restrict_self()?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::Available { .. }) => Err(ConfineError::NotConfined),
        _ => Ok(()),
    }
}

/// How far this kernel confines a qemu that was broken out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host) enum Reach {
    /// Whatever the service account may do.
    Account,
    /// Its own files; it can still signal what runs under the account.
    Files,
    /// Its own files, and no other process.
    FilesAndSignals,
}

/// Asks the kernel; nothing of it stays.
pub(in crate::host) fn reach() -> Reach {
    let asked = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let stands = |rules: Result<Ruleset, RulesetError>| rules.and_then(Ruleset::create).is_ok();
    if stands(asked().scope(Scope::from_all(NEWEST))) {
        Reach::FilesAndSignals
    } else if stands(asked().handle_access(AccessFs::from_read(ABI::V1))) {
        Reach::Files
    } else {
        Reach::Account
    }
}
