//! Labwright turns a git folder of YAML into a running computer lab. The modules are the stages of one pipeline, in the
//! order in which data flows through them; README.md has the picture, the words and the invariants.

pub mod error;
pub mod exit;
pub mod files;
pub mod model;

pub mod apply;
pub mod manifest;
pub mod observe;
pub mod plan;
pub mod resolve;
pub mod state;

pub mod dhcp;
pub mod disks;
pub mod host;
pub mod run;
pub mod scheduler;
pub mod starter;

pub mod cli;
pub mod report;
