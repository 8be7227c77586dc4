//! What a disk is made of.

use std::path::PathBuf;

/// Where a new disk's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskOrigin {
    /// Copy-on-write over `base`, which never changes.
    Derive {
        base: PathBuf,
    },
    Copy {
        image: PathBuf,
    },
    Empty {
        size_bytes: u64,
    },
}
