//! All disks of a site, behind a trait: what `observe` and `apply` do with them. `OnStorage` is the real one; the
//! simulation has one in memory that can vanish and fill up.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::publish::digest;
use super::qcow2::open_image;
use super::{
    DiskError, Head, Images, LOOKS_AT_ONCE, Owner, Published, Source, Tell, check_disk, clone_full, create_empty,
    derive, fetch, give_up, head_of, inspect, is_unwritten, publish, renew, restore, set_aside,
};
use crate::model::disk::{DiskOrigin, DiskSize};

/// What `st_blocks` counts in, whatever the file system's own blocks are (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// Size and time stamp of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub bytes: u64,
    pub mtime_ns: i64,
}

/// What stands where a disk should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Nothing,
    /// A qcow2 disk over `base`, or whole by itself.
    Disk {
        base: Option<PathBuf>,
    },
    /// Something that is no usable disk, with the reason as a half-sentence.
    Other {
        why: String,
    },
}

/// What is done with disks and images. None of it ever replaces or deletes a disk.
pub trait Disks: Send + Sync {
    /// Size and time of a file, `None` where there is none.
    fn stamp(&self, path: &Path) -> std::io::Result<Option<Stamp>>;

    /// What stands at a disk's path, by its first bytes.
    fn standing(&self, path: &Path) -> Result<Standing, DiskError>;

    /// Whether nothing was ever written to a disk.
    fn is_unwritten(&self, path: &Path) -> Result<bool, DiskError>;

    /// How large a disk or image is; `None` where there is none that could be used.
    fn size(&self, _path: &Path) -> Result<Option<DiskSize>, DiskError> {
        Ok(None)
    }

    /// How many files are best looked at side by side.
    fn at_once(&self) -> usize {
        1
    }

    /// Digest of an image, in hexadecimal.
    fn sha256(&self, path: &Path) -> std::io::Result<String>;

    /// The same of one that was published.
    fn published_sha256(&self, path: &Path) -> std::io::Result<String> {
        self.sha256(path)
    }

    /// Copies a template's image to where it never changes again.
    fn publish(
        &self,
        image: &Path,
        target: &Path,
        expected_sha256: Option<&str>,
        tell: &Tell<'_>,
    ) -> Result<Published, DiskError>;

    /// Puts what is at an address of the web where it stays, if its digest is this one; what is there already is done.
    fn fetch(&self, url: &str, sha256: &str, target: &Path, tell: &Tell<'_>) -> Result<(), DiskError>;

    /// Makes disks of one origin, each where there is none; one that is there already with this origin is taken as it is.
    fn make(&self, origin: &DiskOrigin, targets: &[PathBuf], tell: &Tell<'_>) -> Vec<Result<(), DiskError>>;

    /// Moves disks into `folder`; answers where each is then. Safe to repeat.
    fn set_aside(&self, disks: &[PathBuf], folder: &Path) -> Result<Vec<PathBuf>, DiskError>;

    /// Moves each first path to the second. Safe to repeat.
    fn put_back(&self, moves: &[(PathBuf, PathBuf)]) -> Result<(), DiskError>;

    /// Puts a copy in the place of each disk; answers where in `folder` the files of before are then. Safe to repeat.
    fn renew(&self, disks: &[PathBuf], folder: &Path, tell: &Tell<'_>) -> Result<Vec<PathBuf>, DiskError>;

    /// Refuses a disk that is damaged.
    fn check(&self, _disk: &Path) -> Result<(), DiskError> {
        Ok(())
    }

    /// Removes what a killed try left of a disk that is not there, and that nobody will make any more.
    fn give_up(&self, disk: &Path) -> Result<(), DiskError>;
}

/// Disks on storage that controller and hosts share.
#[derive(Debug, Clone)]
pub struct OnStorage {
    pub owner: Owner,
    /// Where images that are published or copied come from.
    pub images: Images,
    /// Certificates that are trusted where they are fetched, in place of the system's.
    pub authorities: Option<PathBuf>,
}

impl Disks for OnStorage {
    fn stamp(&self, path: &Path) -> std::io::Result<Option<Stamp>> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => std::fs::metadata(path).map(|found| Some(stamp_of(&found))),
            Ok(found) => Ok(Some(stamp_of(&found))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn standing(&self, path: &Path) -> Result<Standing, DiskError> {
        match inspect(path) {
            Ok(image) => Ok(Standing::Disk { base: image.backing_file }),
            Err(DiskError::Missing { .. }) => Ok(Standing::Nothing),
            Err(DiskError::NotQcow2 { why, .. }) => {
                Ok(Standing::Other { why: format!("is not a usable qcow2: {why}") })
            }
            Err(DiskError::NotAFile { found, .. }) => Ok(Standing::Other { why: format!("is {found}") }),
            Err(error) => Err(error),
        }
    }

    fn is_unwritten(&self, path: &Path) -> Result<bool, DiskError> {
        is_unwritten(path)
    }

    fn size(&self, path: &Path) -> Result<Option<DiskSize>, DiskError> {
        let virtual_bytes = match inspect(path) {
            Ok(image) => Some(image.virtual_size_bytes),
            Err(DiskError::NotQcow2 { .. }) => raw_bytes(path)?,
            Err(DiskError::Missing { .. } | DiskError::NotAFile { .. }) => None,
            Err(error) => return Err(error),
        };
        let Some(virtual_bytes) = virtual_bytes else { return Ok(None) };
        let found = std::fs::metadata(path).map_err(|source| DiskError::io("look at", path, source))?;
        let allocated_bytes = found.blocks().saturating_mul(BLOCK_BYTES);
        Ok(Some(DiskSize { virtual_bytes, allocated_bytes }))
    }

    fn at_once(&self) -> usize {
        LOOKS_AT_ONCE
    }

    fn sha256(&self, path: &Path) -> std::io::Result<String> {
        digest(&self.images.open(path).map_err(std::io::Error::other)?)
    }

    fn published_sha256(&self, path: &Path) -> std::io::Result<String> {
        digest(&open_image(path).map_err(std::io::Error::other)?)
    }

    fn publish(
        &self,
        image: &Path,
        target: &Path,
        expected_sha256: Option<&str>,
        tell: &Tell<'_>,
    ) -> Result<Published, DiskError> {
        publish(&self.images, image, target, expected_sha256, self.owner, tell)
    }

    fn fetch(&self, url: &str, sha256: &str, target: &Path, tell: &Tell<'_>) -> Result<(), DiskError> {
        fetch(&Source { url, sha256, authorities: self.authorities.as_deref() }, target, self.owner, tell)
    }

    fn make(&self, origin: &DiskOrigin, targets: &[PathBuf], tell: &Tell<'_>) -> Vec<Result<(), DiskError>> {
        match origin {
            DiskOrigin::Derive { base } => derive(base, targets, self.owner),
            DiskOrigin::Copy { image } => clone_full(&self.images, image, targets, self.owner, tell),
            DiskOrigin::Empty { size_bytes } => create_empty(*size_bytes, targets, self.owner),
        }
    }

    fn set_aside(&self, disks: &[PathBuf], folder: &Path) -> Result<Vec<PathBuf>, DiskError> {
        set_aside(disks, folder, self.owner)
    }

    fn put_back(&self, moves: &[(PathBuf, PathBuf)]) -> Result<(), DiskError> {
        restore(moves, self.owner)
    }

    fn renew(&self, disks: &[PathBuf], folder: &Path, tell: &Tell<'_>) -> Result<Vec<PathBuf>, DiskError> {
        renew(disks, folder, self.owner, tell)
    }

    fn check(&self, disk: &Path) -> Result<(), DiskError> {
        check_disk(disk, self.owner)
    }

    fn give_up(&self, disk: &Path) -> Result<(), DiskError> {
        give_up(disk)
    }
}

/// What a guest sees of a raw disk; `None` of what is none.
fn raw_bytes(path: &Path) -> Result<Option<u64>, DiskError> {
    Ok(match head_of(&open_image(path)?, path)? {
        Head::Raw { bytes } => Some(bytes),
        Head::Qcow2 | Head::Foreign(_) => None,
    })
}

fn stamp_of(found: &std::fs::Metadata) -> Stamp {
    Stamp { bytes: found.len(), mtime_ns: found.mtime() * 1_000_000_000 + found.mtime_nsec() }
}
