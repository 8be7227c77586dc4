//! Exit codes: the whole list, as `labwright --help` prints it.

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// Something failed while acting.
    Failed = 1,
    /// `plan --detailed-exitcode`: there are changes.
    Changes = 2,
    /// The manifest has errors.
    Invalid = 3,
    /// Refused: a guard, a stale plan, a lock, a missing permission.
    Refused = 4,
    /// Not ready yet, when `--wait` ran out of time.
    NotReady = 5,
    /// The command line is wrong (`EX_USAGE` of sysexits.h).
    Usage = 64,
}

/// All codes, for the manual.
pub const CODES: &[(&str, &str)] = &[
    ("0", "Done, or nothing to do."),
    ("1", "Something failed."),
    ("2", "There are changes (plan --detailed-exitcode)."),
    ("3", "The manifest has errors."),
    ("4", "Refused: a guard, a stale plan, a lock, a missing permission."),
    ("5", "Not ready: --wait ran out of time, or a guest that was asked for does not run."),
    ("64", "The command line is wrong."),
];

/// For `--help`.
pub const HELP: &str = "Exit codes: 0 done or no change, 1 failed, 2 changes present (plan --detailed-exitcode), \
3 manifest invalid, 4 refused (guard, stale plan, lock, permission), 5 not ready, 64 usage";

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
