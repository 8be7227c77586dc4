//! What can be seen of the image files that a manifest names, without starting a program: whether they exist, and what
//! their qcow2 header says. Facts only; `resolve` judges them.

use std::borrow::Cow;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

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
    /// A file, but not a qcow2 image; `looks_like` where its first bytes tell.
    Other {
        looks_like: Option<Cow<'static, str>>,
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
}

/// Whether a file's checksum is wanted, which means to read all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Skip,
    Compute(Checksums),
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
    let read = std::fs::File::open(path).and_then(|file| read_header(file, metadata.len(), checksum));
    read.unwrap_or_else(|error| ImageFacts::Unreadable { error: error.to_string() })
}

/// The same of a file that is open.
pub fn look_at(file: std::fs::File, is_summed: bool) -> ImageFacts {
    let checksum = if is_summed { Checksum::Compute(Checksums::Small) } else { Checksum::Skip };
    let read = file.metadata().and_then(|metadata| read_header(file, metadata.len(), checksum));
    read.unwrap_or_else(|error| ImageFacts::Unreadable { error: error.to_string() })
}

fn read_header(mut file: std::fs::File, length: u64, checksum: Checksum) -> Result<ImageFacts, std::io::Error> {
    const HEADER_BYTES: u64 = 1024;
    let mut header = Vec::new();
    file.by_ref().take(HEADER_BYTES).read_to_end(&mut header)?;
    let number = |at: usize| {
        let bytes: [u8; 8] = header.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    };
    if !header.starts_with(b"QFI\xfb") {
        return Ok(ImageFacts::Other { looks_like: format_of(&header).map(Cow::Borrowed) });
    }
    // qcow2 header: magic, version, then at byte 8 the offset of the backing file's name and at byte 24 the size.
    let (Some(backing_offset), Some(virtual_bytes)) = (number(8), number(24)) else {
        return Ok(ImageFacts::Other { looks_like: Some("a qcow2 image that was cut off".into()) });
    };
    if let Some(why) = crate::disks::flaw(&header, length) {
        return Ok(ImageFacts::Unusable { why });
    }
    let sha256 = match checksum {
        Checksum::Compute(which) if which.wants(length) => Some(sha256(&header, file)?),
        Checksum::Compute(_) | Checksum::Skip => None,
    };
    Ok(ImageFacts::Qcow2 { virtual_bytes, backing_file: backing_offset != 0, sha256 })
}

fn format_of(header: &[u8]) -> Option<&'static str> {
    let magics: [(&[u8], &str); 7] = [
        (b"", "an empty file"),
        (b"KDMV", "a VMware disk"),
        (b"<<< Oracle VM VirtualBox", "a VirtualBox disk"),
        (b"conectix", "a Virtual PC disk"),
        (b"vhdxfile", "a Hyper-V disk"),
        (b"version https://git-lfs", "a pointer of Git LFS, not the image itself"),
        (b"\x1f\x8b", "a gzip archive"),
    ];
    let by_magic =
        magics.iter().find(|(magic, _)| if magic.is_empty() { header.is_empty() } else { header.starts_with(magic) });
    let boot_sector = || (header.get(510..512) == Some(&[0x55, 0xaa][..])).then_some("a raw disk");
    by_magic.map(|(_, name)| *name).or_else(boot_sector)
}

fn sha256(header: &[u8], mut rest: std::fs::File) -> Result<String, std::io::Error> {
    let mut hash = sha2::Sha256::new();
    hash.update(header);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = rest.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
