//! What this machine does for guests. `run` is for the starter of one run, `machine` for who sets a host up and looks after it.
//!
//! ```text
//! process    who and what this process is
//! signals    signals read as data
//! whence     who sits at the command line, and how they came
//! command    runs a program, and says what it was when it fails
//! sys        the system calls that Rust has no safe word for
//! ```
//!
//! Nothing here knows the manifest, the state or the scheduler.

pub mod command;
pub mod machine;
pub mod process;
pub mod run;
pub mod signals;
pub mod sys;
pub mod whence;

/// Host-local files of all runs: one folder each, and what `host setup` found out. On a tmpfs, so that a reboot, which
/// ends every run, clears it.
pub const RUN_ROOT: &str = "/run/labwright";
