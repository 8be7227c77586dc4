//! YAML and CSV text in, documents as written out, each value with its place. Looks no names up: `resolve` does.
//!
//! ```text
//! files ─▶ tree ─▶ decode (language, values, times, words) ─▶ compose ─▶ rosters, image facts ─▶ Manifest
//! ```
//!
//! Every mistake becomes a diagnostic and reading goes on; only a folder or file that cannot be read is an error.

mod accommodations;
mod columns;
mod compose;
mod containers;
mod csv;
mod decode;
mod files;
mod foreign;
mod gathered;
mod ignore;
mod images;
mod language;
mod record;
mod room;
mod roster;
mod scalar;
pub mod schema;
mod secrets;
mod seeds;
mod shares;
pub mod site;
mod slips;
mod stations;
mod syntax;
mod times;
mod tree;
mod values;
mod words;

pub use accommodations::Accommodations;
pub use compose::{Loaded, Manifest, load, load_memory, load_with};
pub use containers::{Entry, Named};
pub use decode::{At, Spanned, nearest};
pub use files::{LoadError, ManifestFile, is_manifest, lab_folder};
pub use gathered::{Gathered, gather};
pub use images::{Checksums, ImageFacts, look_at};
pub use language::*;
pub use roster::{Roster, RosterRow};
pub use seeds::{SeedDecl, SeedKeys};
pub use shares::LabShareDecl;
pub use stations::{EgressDecl, GatewayDecl, ServerDecl};
pub use times::Moment;
pub use values::{Duration, Excluded, IpRange, Percent, Size, Text};
pub use words::{Domain, FilePath, ImagePlace, InterfaceName, NamePattern, PatternPart, Sha256};
