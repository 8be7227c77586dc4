//! What an admin does with a host: make it fit for guests, look whether it is, help where nothing else works.
//!
//! ```text
//! account    what the service account can get to
//! embedded   where a site without a `site.yaml` keeps what that account must get to
//! readiness  what a start needs of this host, for `check`, and before anything is done
//! bridge     what guests join, and its way out of this host
//! screens    who may connect to guests' screens over the network
//! by_hand    a run's start as a shell script, for when nothing else works (pure)
//! setup      makes this machine fit for guests
//! check      says whether it is
//! wire       who is on the guests' wire, for `check`
//! obstacles  what others have set up in the guests' way, for `check`
//! neighbour  a guest's port without a guest, for `check --exam`: what does a neighbour hear of an isolated guest?
//! vnc        whether a vnc server answers and asks for a password
//! ```

pub mod account;
pub mod break_glass;
pub mod bridge;
pub mod check;
mod conflicts;
pub mod embedded;
pub mod probe;
pub mod readiness;
mod screens;
pub mod setup;
pub mod vnc;
pub mod wire;
