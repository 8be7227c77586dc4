//! What this host does for a run: tap and bridge port, packet filter, qemu and its monitor, the host-local folder.
//! `setup`, `check` and `sweep` prepare the machine.
//!
//! ```text
//! command    runs a program, and says what it was when it fails
//! sys        the three system calls that Rust has no safe word for
//! account    what the service account can get to
//! embedded   where a site without a `site.yaml` keeps what that account must get to
//! readiness  what a start needs of this host, for `check`, and before anything is done
//! bridge     what guests join, and its way out of this host
//! screens    who may connect to guests' screens over the network
//! by_hand    the same as a shell script, for when nothing else works (pure)
//! setup      makes this machine fit for guests
//! check      says whether it is
//! wire       who is on the guests' wire, for `check`
//! obstacles  what others have set up in the guests' way, for `check`
//! neighbour  a guest's port without a guest, for `check --exam`: what does a neighbour hear of an isolated guest?
//! vnc        whether a vnc server answers and asks for a password
//! ```
//!
//! Nothing here knows the manifest, the state or the scheduler.

pub mod account;
pub mod bridge;
pub mod by_hand;
pub mod check;
pub mod command;
pub mod embedded;
pub mod neighbour;
mod obstacles;
pub mod readiness;
pub mod run;
mod screens;
pub mod setup;
pub mod sys;
pub mod vnc;
pub mod wire;

/// Host-local files of all runs: one folder each, and what `host setup` found out. On a tmpfs, so that a reboot, which
/// ends every run, clears it.
pub const RUN_ROOT: &str = "/run/labwright";
