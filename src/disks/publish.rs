//! A template's image becomes a version that never changes: copied into the store, read-only, known by its digest.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::flatten::{DRAFT_MODE, convert_raw, make_read_only};
use super::folder::{Absent, Draft, Folder, split};
use super::head::{Head, read_source};
use super::make::copy_sparse;
use super::meter::Tell;
use super::qcow2::read_standalone;
use super::sound::check_sound;
use super::{DiskError, Images, Owner};
use crate::model::hexadecimal;

/// Many disks hang on a published image; nobody writes it, its owner neither.
pub(super) const PUBLISHED_MODE: u32 = 0o444;

/// Bytes read at once for a digest.
const READ_BYTES: usize = 1 << 20;

/// A published image, and what its source looked like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Of what is stored, in hexadecimal.
    pub sha256: String,
    /// Of what it was made of, where that was in another format.
    pub source_sha256: Option<String>,
    pub source_bytes: u64,
    /// Changed since 1970, in nanoseconds: an unchanged source need not be read again.
    pub source_mtime_ns: i64,
}

/// Digest of a file, in hexadecimal.
pub fn sha256(path: &Path) -> std::io::Result<String> {
    digest(&File::open(path)?)
}

/// Copies `image` to `target`; a raw disk becomes a qcow2 image on the way. With another digest than the expected one, or with
/// damage, nothing is stored. A target that stands already with the same content is done.
pub fn publish(
    images: &Images,
    image: &Path,
    target: &Path,
    expected_sha256: Option<&str>,
    owner: Owner,
    tell: &Tell<'_>,
) -> Result<Published, DiskError> {
    let source = images.open(image)?;
    let (head, _) = read_source(&source, image)?;
    let read = |source| DiskError::io("read", image, source);
    let before = source.metadata().map_err(read)?;
    let published = |sha256, source_sha256| Published {
        sha256,
        source_sha256,
        source_bytes: before.len(),
        source_mtime_ns: before.mtime() * 1_000_000_000 + before.mtime_nsec(),
    };
    let (folder, name) = split(target)?;
    let folder = Folder::open(folder, Absent::Create(owner))?;
    let standing = folder.read(name)?;
    if let Some(standing) = standing.as_ref().filter(|_| head == Head::Qcow2) {
        let wanted = digest(&source).map_err(read)?;
        check_digest(image, expected_sha256, &wanted)?;
        check_standing(standing, target, &wanted)?;
        return Ok(published(wanted, None));
    }
    let draft = Draft::create(folder, name, owner, DRAFT_MODE)?;
    let source_sha256 = if matches!(head, Head::Raw { .. }) {
        let sha256 = digest(&source).map_err(read)?;
        check_digest(image, expected_sha256, &sha256)?;
        convert_raw(&source, image, &draft.file)?;
        Some(sha256)
    } else {
        copy_sparse(&source, image, &draft, before.len(), tell)?;
        None
    };
    let after = source.metadata().map_err(read)?;
    let stamp = |m: &std::fs::Metadata| (m.len(), m.mtime(), m.mtime_nsec());
    if stamp(&before) != stamp(&after) {
        return Err(DiskError::Changed { path: image.to_owned() });
    }
    read_standalone(&draft.file, image)?;
    check_sound(&draft.file, image, owner)?;
    // The digest is of what was stored, so that it also tells what a bad disk or cable made of the copy.
    let sha256 = digest(&draft.file).map_err(|source| DiskError::io("read", &draft.path(), source))?;
    match &standing {
        // What a raw disk is converted to is the same each time.
        Some(standing) => {
            check_standing(standing, target, &sha256)?;
            return Ok(published(sha256, source_sha256));
        }
        None if source_sha256.is_none() => check_digest(image, expected_sha256, &sha256)?,
        None => {}
    }
    make_read_only(&draft.file, target)?;
    draft.file.sync_all().map_err(|source| DiskError::write(target, before.len(), source))?;
    draft.place()?.sync()?;
    Ok(published(sha256, source_sha256))
}

/// A file that has the name already is the wanted one, or in the way.
pub(super) fn check_standing(standing: &File, target: &Path, wanted: &str) -> Result<(), DiskError> {
    let found = digest(standing).map_err(|source| DiskError::io("read", target, source))?;
    if found == wanted {
        return Ok(());
    }
    let (found, wanted) = (format!("an image with sha256 {found}"), format!("one with sha256 {wanted}"));
    Err(DiskError::Taken { path: target.to_owned(), found, wanted })
}

fn check_digest(image: &Path, expected: Option<&str>, found: &str) -> Result<(), DiskError> {
    match expected {
        Some(expected) if !expected.eq_ignore_ascii_case(found) => {
            Err(DiskError::Digest { path: image.to_owned(), expected: expected.to_owned(), found: found.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Of an open file from its beginning, in lower-case hexadecimal.
pub fn digest(mut file: &File) -> std::io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hexadecimal(&hasher.finalize()))
}
