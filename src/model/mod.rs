//! The values that every other room speaks of: names and addresses, what a lab is once its names are bound, a site's settings,
//! findings and the rules behind them. Nothing here looks at a file or a clock, and nothing here knows another room.

pub mod accommodation;
pub mod address;
pub mod audit;
pub mod claim;
pub mod diagnostic;
pub mod disk;
pub mod file_pattern;
pub mod id;
pub mod job;
pub mod lab;
pub mod permission;
pub mod reservation;
pub mod rules;
pub mod seed;
pub mod session;
pub mod share;
pub mod site;

/// Bytes in lower-case hexadecimal, as digests are written.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
