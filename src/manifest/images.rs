//! What can be seen of the image files that a manifest names, without starting a program: whether they exist, what they are, and
//! what their qcow2 header says. Facts only; `resolve` judges them.

use std::borrow::Cow;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disks::{Foreign, Head, digest, flaw, head_of};

/// What is known of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFacts {
    /// Its folder is there, the file is not.
    Missing,
    /// Not even its folder is there: as on a machine that only checks manifests.
    OutOfSight,
    Unreadable {
        error: String,
    },
    NotAFile,
    /// A file of which no disk is made; `looks_like` where its bytes tell, and what helps, with `{file}` for its name.
    Other {
        looks_like: Option<Cow<'static, str>>,
        remedy: Cow<'static, str>,
    },
    /// A qcow2 image that nothing can be made of, and why: a half-sentence.
    Unusable {
        why: String,
    },
    Qcow2 {
        virtual_bytes: u64,
        backing_file: bool,
        sha256: Option<String>,
    },
    /// A raw disk.
    Raw {
        virtual_bytes: u64,
        sha256: Option<String>,
    },
}

/// Whether a file's checksum is wanted, which means to read all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Skip,
    Compute(Checksums),
}

impl Checksum {
    fn wants(self, bytes: u64) -> bool {
        match self {
            Self::Skip => false,
            Self::Compute(which) => which.wants(bytes),
        }
    }
}

/// Of which images checksums are computed, where a manifest states one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// Of those that are read in a moment: a plan must not read gigabytes.
    Small,
    All,
}

impl Checksums {
    const SMALL_BYTES_MAX: u64 = 32 << 20;

    fn wants(self, bytes: u64) -> bool {
        self == Self::All || bytes <= Self::SMALL_BYTES_MAX
    }
}

pub(super) fn look(path: &Path, checksum: Checksum) -> ImageFacts {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            let folder_exists = path.parent().is_some_and(|folder| folder.is_dir());
            return if folder_exists { ImageFacts::Missing } else { ImageFacts::OutOfSight };
        }
        Err(error) => return ImageFacts::Unreadable { error: error.to_string() },
    };
    if !metadata.is_file() {
        return ImageFacts::NotAFile;
    }
    match std::fs::File::open(path) {
        Ok(file) => read_file(file, path, checksum),
        Err(error) => ImageFacts::Unreadable { error: error.to_string() },
    }
}

/// The same of a file that is open.
pub fn look_at(file: File, path: &Path, is_summed: bool) -> ImageFacts {
    let checksum = if is_summed { Checksum::Compute(Checksums::Small) } else { Checksum::Skip };
    read_file(file, path, checksum)
}

fn read_file(file: File, path: &Path, checksum: Checksum) -> ImageFacts {
    let read = match head_of(&file, path) {
        Ok(Head::Foreign(Foreign { what, remedy })) => {
            return ImageFacts::Other { looks_like: what.map(Cow::Borrowed), remedy: Cow::Borrowed(remedy) };
        }
        Ok(Head::Raw { bytes }) => read_raw(bytes, &file, checksum),
        Ok(Head::Qcow2) => read_header(file, checksum),
        Err(error) => return ImageFacts::Unreadable { error: error.to_string() },
    };
    read.unwrap_or_else(|error| ImageFacts::Unreadable { error: error.to_string() })
}

fn read_raw(virtual_bytes: u64, file: &File, checksum: Checksum) -> Result<ImageFacts, std::io::Error> {
    let sha256 = checksum.wants(virtual_bytes).then(|| digest(file)).transpose()?;
    Ok(ImageFacts::Raw { virtual_bytes, sha256 })
}

fn read_header(mut file: File, checksum: Checksum) -> Result<ImageFacts, std::io::Error> {
    const HEADER_BYTES: u64 = 1024;
    let length = file.metadata()?.len();
    let mut header = Vec::new();
    file.by_ref().take(HEADER_BYTES).read_to_end(&mut header)?;
    let number = |at: usize| {
        let bytes: [u8; 8] = header.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    };
    // qcow2 header: magic, version, then at byte 8 the offset of the backing file's name and at byte 24 the size.
    let (Some(backing_offset), Some(virtual_bytes)) = (number(8), number(24)) else {
        return Ok(ImageFacts::Unusable { why: "it ends within its header".to_owned() });
    };
    if let Some(why) = flaw(&header, length) {
        return Ok(ImageFacts::Unusable { why });
    }
    let sha256 = checksum.wants(length).then(|| digest(&file)).transpose()?;
    Ok(ImageFacts::Qcow2 { virtual_bytes, backing_file: backing_offset != 0, sha256 })
}
