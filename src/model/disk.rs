//! What a disk is made of, and how much it holds.

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

/// How large a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSize {
    /// What the guest sees.
    pub virtual_bytes: u64,
    /// What its file takes of the storage.
    pub allocated_bytes: u64,
}

impl DiskSize {
    /// What it takes of its owner's limit, as in the paper: a disk that was made or copied in full its size, one over a
    /// template's what is written on it.
    pub fn stored_bytes(self, is_overlay: bool) -> u64 {
        if is_overlay { self.allocated_bytes } else { self.virtual_bytes }
    }
}

/// Bytes as the manifest writes them: `13G`, `512M`.
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("G", 30), ("M", 20), ("K", 10)];
    let unit = UNITS.iter().find(|(_, shift)| bytes >= 1 << shift);
    let Some((unit, shift)) = unit else { return bytes.to_string() };
    let tenths = bytes.saturating_mul(10) >> shift;
    if tenths.is_multiple_of(10) || tenths >= 1000 {
        format!("{}{unit}", tenths / 10)
    } else {
        format!("{}.{}{unit}", tenths / 10, tenths % 10)
    }
}

/// What is wrong with a published image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spoilt {
    Missing,
    OtherBytes,
}
