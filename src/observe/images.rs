//! Images that a manifest names, and what stands where templates' next versions go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{ObserveError, World, stamp};
use crate::disks::{Disks, Stamp};
use crate::model::address::{Address, Kind};
use crate::model::id::TemplateName;
use crate::model::lab::{Desired, DiskSource, VmSource};
use crate::state::{PublishedDisk, Recorded};

/// An image file as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageFact {
    Missing,
    There {
        bytes: u64,
        mtime_ns: i64,
        /// Known where it was read as it is; read where it could be what is recorded.
        sha256: Option<String>,
    },
}

/// The images that the manifest names. One is read only to tell whether it holds what is recorded, and only where its size
/// fits and nobody has read it as it is.
pub(super) fn images(
    disks: &dyn Disks,
    desired: &Desired,
    recorded: &Recorded,
    always_digest: bool,
) -> Result<BTreeMap<PathBuf, ImageFact>, ObserveError> {
    let mut images = BTreeMap::new();
    for (path, compared) in named_images(desired, recorded) {
        let Some(Stamp { bytes, mtime_ns }) = stamp(disks, path)? else {
            images.insert(path.clone(), ImageFact::Missing);
            continue;
        };
        let known = recorded.digests.get(path).filter(|known| (known.bytes, known.mtime_ns) == (bytes, mtime_ns));
        let read = always_digest
            || compared.iter().any(|compared| match compared {
                Compared::WithVersion(disk) => disk.source_bytes == bytes,
                Compared::WithDisk => true,
            });
        let digest = || disks.sha256(path).map_err(|source| ObserveError::File { path: path.clone(), source });
        let sha256 = match known {
            Some(known) => Some(known.sha256.clone()),
            None => read.then(digest).transpose()?,
        };
        images.insert(path.clone(), ImageFact::There { bytes, mtime_ns, sha256 });
    }
    Ok(images)
}

/// What an image's content is compared with.
enum Compared<'a> {
    WithVersion(&'a PublishedDisk),
    /// With what a vm's disk is a copy of.
    WithDisk,
}

fn named_images<'a>(desired: &'a Desired, recorded: &'a Recorded) -> BTreeMap<&'a PathBuf, Vec<Compared<'a>>> {
    let mut images: BTreeMap<&PathBuf, Vec<Compared<'_>>> = BTreeMap::new();
    for (name, template) in &desired.templates {
        let version = recorded.latest_version(desired, name);
        for (slot, source) in template.disks.iter().enumerate() {
            let DiskSource::Image { path, sha256 } = source else { continue };
            let published = version.and_then(|version| version.disks.get(slot));
            // What the manifest says of it is enough.
            let published =
                published.filter(|disk| sha256.as_ref().is_none_or(|sha256| sha256 != disk.source_sha256()));
            images.entry(path).or_default().extend(published.map(Compared::WithVersion));
        }
    }
    for (name, vm) in &desired.vms {
        let VmSource::Disks(sources) = &vm.source else { continue };
        let changed = recorded.vms.get(name).is_some_and(|known| known.vm.source != vm.source);
        for source in sources {
            let DiskSource::Image { path, sha256 } = source else { continue };
            images.entry(path).or_default().extend((changed && sha256.is_none()).then_some(Compared::WithDisk));
        }
    }
    images
}

/// Looks where the next version of each template would go, and where the one after it would, until nothing stands there.
pub(super) fn unrecorded(
    world: &World<'_>,
    desired: &Desired,
    recorded: &Recorded,
) -> Result<BTreeMap<PathBuf, String>, ObserveError> {
    let known: BTreeSet<&PathBuf> =
        recorded.versions.values().flat_map(|version| &version.disks).map(|disk| &disk.path).collect();
    let mut found = BTreeMap::new();
    let at_rest = |name: &TemplateName| !recorded.held.contains_key(&Address::new(Kind::Template, name));
    for (name, template) in desired.templates.iter().filter(|(name, _)| at_rest(name)) {
        for version in recorded.next_version(name).. {
            let path = |slot| world.storage.published_disk(&desired.lab, name, version, slot);
            let mut is_free = true;
            for path in (0..template.disks.len()).map(path) {
                if known.contains(&path) {
                    is_free = false;
                } else if stamp(world.disks, &path)?.is_some() {
                    is_free = false;
                    let digest = world.disks.sha256(&path);
                    let digest = digest.map_err(|source| ObserveError::File { path: path.clone(), source })?;
                    found.insert(path, digest);
                }
            }
            if is_free {
                break;
            }
        }
    }
    Ok(found)
}
