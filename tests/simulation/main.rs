//! The reconciler's promises, in a simulated world where everything breaks.
//!
//! ```text
//! world/       queue, hosts, starters, storage, DHCP server: all that is not the product
//! lab.rs       one lab in that world: a manifest on disk, a real SQLite state, the product's pipeline between them
//! daemon.rs    the daemon's loop in it, and what people ask of a daemon
//! manifest.rs  what a teacher may make of the manifest
//! promises.rs  what must hold at every moment, and what when everything is mended
//! term.rs      one seed: edits, faults, kills, and in the end rest
//! terms.rs     many seeds: what CI and the campaign run
//! exams.rs     one seed: an exam, its people, and what becomes of their time
//! kills.rs     a kill at every single call that an apply makes
//! rivals.rs    two controllers, stale plans
//! ```

mod daemon;
mod dice;
mod exams;
mod kills;
#[expect(dead_code, reason = "the plans of tests/core look at more of a lab than the simulation needs")]
mod lab;
mod manifest;
mod promises;
mod rivals;
mod term;
mod terms;
#[expect(dead_code, reason = "the plans of tests/core do by name what the simulation does by chance")]
mod world;
