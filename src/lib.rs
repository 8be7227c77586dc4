//! Labwright turns a git folder of YAML into a running computer lab. The modules are the rooms of one house, from the ground
//! up: a room knows those below it, as far as `tests/tidy.rs` lets it, and none above. `docs/architecture.md` has the picture.

// What all speak of, and what they stand on.
pub mod error;
pub mod exit;
pub mod files;
pub mod model;

// What is touched outside: disks and what is in them, reservations, the folders of runs, a host, the batch system.
pub mod dhcp;
pub mod disks;
pub mod host;
pub mod run;
pub mod scheduler;
pub mod volumes;

// Who may do what.
pub mod access;

// The pipeline, in the order in which data flows through it.
pub mod apply;
pub mod manifest;
pub mod observe;
pub mod plan;
pub mod resolve;
pub mod state;

// The process beside each guest, and a trial of a host with a guest of its own.
pub mod starter;
pub mod trial;

// What one can ask of a site, and who asks.
pub mod cli;
pub mod client;
pub mod control;
pub mod daemon;
pub mod jobs;
pub mod report;
pub mod schemas;
