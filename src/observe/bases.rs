//! The images that vms' disks lie over: each must hold what was published, or guests would read a mixture of two disks. A look at
//! size and mtime each; one is read only where these differ from what was recorded, and once for each time that they do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{ObserveError, stamp};
use crate::disks::{Disks, Stamp};
use crate::model::disk::Spoilt;
use crate::state::{ImageDigest, PublishedDisk, Recorded};

/// What was found of published images that are not as they were recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bases {
    pub spoilt: BTreeMap<PathBuf, Spoilt>,
    /// What those hold that were read.
    pub(super) read: BTreeMap<PathBuf, ImageDigest>,
}

/// Looks at all images that disks lie over, or that new ones would.
pub(super) fn bases(disks: &dyn Disks, recorded: &Recorded) -> Result<Bases, ObserveError> {
    let mut bases = Bases::default();
    for disk in in_use(recorded) {
        let Some(Stamp { bytes, mtime_ns }) = stamp(disks, &disk.path)? else {
            bases.spoilt.insert(disk.path.clone(), Spoilt::Missing);
            continue;
        };
        if disk.stored().is_none_or(|stored| stored == (bytes, mtime_ns)) {
            continue;
        }
        let known = recorded.digests.get(&disk.path);
        let known = known.filter(|known| (known.bytes, known.mtime_ns) == (bytes, mtime_ns)).cloned();
        let read = || -> Result<ImageDigest, ObserveError> {
            let failed = |source| ObserveError::File { path: disk.path.clone(), source };
            Ok(ImageDigest { bytes, mtime_ns, sha256: disks.published_sha256(&disk.path).map_err(failed)? })
        };
        let digest = known.map_or_else(read, Ok)?;
        if digest.sha256 != disk.sha256 {
            bases.spoilt.insert(disk.path.clone(), Spoilt::OtherBytes);
        }
        bases.read.insert(disk.path.clone(), digest);
    }
    Ok(bases)
}

/// Of each template the latest version, and those that vms have disks over.
fn in_use(recorded: &Recorded) -> impl Iterator<Item = &PublishedDisk> {
    let over: BTreeSet<&PathBuf> =
        recorded.vms.values().flat_map(|vm| &vm.disks).filter_map(|disk| disk.base.as_ref()).collect();
    let is_latest = |template, number: u32| recorded.next_version(template) == number + 1;
    let of_versions = recorded.versions.iter().flat_map(move |((template, number), version)| {
        let is_latest = is_latest(template, *number);
        version.disks.iter().map(move |disk| (is_latest, disk))
    });
    of_versions.filter(move |(is_latest, disk)| *is_latest || over.contains(&disk.path)).map(|(_, disk)| disk)
}
