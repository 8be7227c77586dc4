//! Manifest in, `Desired` out, or all diagnostics at once. Pure: no file, clock, process, environment or database.

mod desired;

pub use desired::*;
