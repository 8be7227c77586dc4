//! What a file is by its first and its last bytes: a qcow2 image, a raw disk, or something else, and then what helps. A raw disk
//! has no mark of its own, so it is what nothing speaks against. Nobody else guesses: whoever opens an image is told its format.

use std::fs::File;
use std::path::Path;

use super::qcow2::{MAGIC, read_at_most, read_standalone};
use super::{DiskError, Image};

/// Far enough for the mark of a CD.
const FIRST_BYTES: usize = 34 << 10;
/// What guests read and write at once: a raw disk is a whole number of these.
const SECTOR_BYTES: u64 = 512;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    Qcow2,
    Raw {
        /// All of it, which is what a guest sees.
        bytes: u64,
    },
    Foreign(Foreign),
}

/// Something of which no disk is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    /// `None` where nobody can tell.
    pub what: Option<&'static str>,
    /// What to do, with `{file}` for its name.
    pub remedy: &'static str,
}

struct Mark {
    at: usize,
    bytes: &'static [u8],
    is: Foreign,
}

const fn mark(at: usize, bytes: &'static [u8], what: &'static str, remedy: &'static str) -> Mark {
    Mark { at, bytes, is: Foreign { what: Some(what), remedy } }
}

/// What makes a qcow2 image of another format.
macro_rules! convert {
    ($format:literal) => {
        concat!("convert it: `qemu-img convert -f ", $format, " -O qcow2 {file} NAME.qcow2`")
    };
}

const VMDK: &str = convert!("vmdk");
const VDI: &str = convert!("vdi");
const VPC: &str = convert!("vpc");
const VHDX: &str = convert!("vhdx");
const QED: &str = convert!("qed");
const OVA: &str =
    "take the disk out and convert it: `tar -xf {file}`, then `qemu-img convert -f vmdk -O qcow2 NAME.vmdk NAME.qcow2`";
const QCOW: &str = convert!("qcow");
const CD: &str = "write it as `cdrom:`, and give the template a disk to install on: `disks: [{ size: 10G }]`";
const LUKS: &str = "decrypt it where its key is: no key stands in a manifest";
const RAW_BY_ANOTHER_NAME: &str = "if it is a raw disk, name it so: `NAME.raw`; else copy or download it again";
const OTHER: &str = "name a qcow2 image or a raw disk; `qemu-img convert -f FORMAT -O qcow2 {file} NAME.qcow2` makes one of most others";

const MARKS: [Mark; 20] = [
    mark(0, b"KDMV", "a VMware disk", VMDK),
    mark(0, b"COWD", "a VMware disk", VMDK),
    mark(0, b"# Disk DescriptorFile", "the description of a VMware disk", VMDK),
    mark(0, b"<<< ", "a VirtualBox disk", VDI),
    mark(0x40, b"\x7f\x10\xda\xbe", "a VirtualBox disk", VDI),
    mark(0, b"conectix", "a Virtual PC disk", VPC),
    mark(0, b"vhdxfile", "a Hyper-V disk", VHDX),
    mark(0, b"QED\0", "a QED disk", QED),
    mark(0, b"QFI\xfb\0\0\0\x01", "a qcow disk of the first version", QCOW),
    mark(257, b"ustar", "a tar archive, as an OVA is", OVA),
    mark(0, b"LUKS\xba\xbe", "an encrypted disk", LUKS),
    mark(0x8001, b"CD001", "an image of a CD", CD),
    mark(
        0,
        b"version https://git-lfs",
        "a pointer of Git LFS, not the image itself",
        "fetch the image: `git lfs pull`",
    ),
    mark(0, b"\x1f\x8b", "a gzip archive", "unpack it: `gunzip -k {file}`"),
    mark(0, b"\xfd7zXZ\0", "an xz archive", "unpack it: `unxz -k {file}`"),
    mark(0, b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it: `unzstd {file}`"),
    mark(0, b"BZh", "a bzip2 archive", "unpack it: `bunzip2 -k {file}`"),
    mark(0, b"PK\x03\x04", "a zip archive", "unpack it: `unzip {file}`"),
    mark(0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it: `7z x {file}`"),
    mark(0, b"\x7fELF", "a program", OTHER),
];

/// Tells what an open file is; `path` is for its name, and for messages.
pub fn head_of(file: &File, path: &Path) -> Result<Head, DiskError> {
    let read = |source| DiskError::io("read", path, source);
    let length = file.metadata().map_err(read)?.len();
    let mut first = vec![0; FIRST_BYTES];
    let found = read_at_most(file, &mut first, 0).map_err(read)?;
    first.truncate(found);
    let mut last = [0; SECTOR_BYTES as usize];
    let from = length.saturating_sub(SECTOR_BYTES);
    let found = read_at_most(file, &mut last, from).map_err(read)?;
    Ok(head(path, &first, &last[..found], length))
}

/// What an open image that disks are made of holds, and whether it is raw. What cannot stand alone is refused.
pub(super) fn read_source(file: &File, path: &Path) -> Result<(Head, Image), DiskError> {
    let head = head_of(file, path)?;
    let image = match head {
        Head::Qcow2 => read_standalone(file, path)?,
        Head::Raw { bytes } => Image { virtual_size_bytes: bytes, backing_file: None },
        Head::Foreign(Foreign { what, remedy }) => {
            let what = what.unwrap_or("no image that is known").to_owned();
            let remedy = remedy.replace("{file}", &path.display().to_string());
            return Err(DiskError::Foreign { path: path.to_owned(), what, remedy });
        }
    };
    Ok((head, image))
}

/// The same of its first bytes, its last ones and its length.
fn head(path: &Path, first: &[u8], last: &[u8], length: u64) -> Head {
    let at = |mark: &&Mark| first.get(mark.at..).is_some_and(|rest| rest.starts_with(mark.bytes));
    if let Some(mark) = MARKS.iter().find(at) {
        return Head::Foreign(mark.is);
    }
    if first.starts_with(MAGIC) {
        return Head::Qcow2;
    }
    // Of a fixed Virtual PC disk and of a Macintosh one, the mark is at the end.
    let is_vpc = last.starts_with(b"conectix");
    let is_text = first.iter().take(64).all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    let foreign = |what, remedy| Head::Foreign(Foreign { what, remedy });
    match length {
        0 => foreign(Some("an empty file"), OTHER),
        _ if is_vpc => foreign(Some("a Virtual PC disk"), VPC),
        _ if last.starts_with(b"koly") => foreign(Some("a Macintosh disk"), OTHER),
        _ if is_text => foreign(None, OTHER),
        _ if path.extension().is_some_and(|name| name == "qcow2") => foreign(raw_by_sector(first), RAW_BY_ANOTHER_NAME),
        _ if !length.is_multiple_of(SECTOR_BYTES) => foreign(None, OTHER),
        _ => Head::Raw { bytes: length },
    }
}

fn raw_by_sector(first: &[u8]) -> Option<&'static str> {
    (first.get(510..512) == Some(&[0x55, 0xaa][..])).then_some("a raw disk")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, first: &[u8], last: &[u8], length: u64) -> Head {
        head(Path::new(name), first, last, length)
    }

    #[test]
    fn what_has_a_mark_is_never_taken_for_a_raw_disk() {
        for Mark { at, bytes, is } in &MARKS {
            let mut first = vec![0; FIRST_BYTES];
            first[*at..at + bytes.len()].copy_from_slice(bytes);
            first[510..512].copy_from_slice(&[0x55, 0xaa]);
            assert_eq!(of("a.raw", &first, &[0; 512], 1 << 20), Head::Foreign(*is), "{:?}", is.what);
        }
        let mut qcow2 = vec![0; FIRST_BYTES];
        qcow2[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        assert_eq!(of("a.raw", &qcow2, &[0; 512], 1 << 20), Head::Qcow2);
        let zeros = [0; FIRST_BYTES];
        let mut footer = [0; 512];
        footer[..8].copy_from_slice(b"conectix");
        assert!(matches!(of("a.img", &zeros, &footer, 1 << 20), Head::Foreign(Foreign { remedy: VPC, .. })));
        assert_eq!(of("a.img", &zeros, &[0; 512], 1 << 20), Head::Raw { bytes: 1 << 20 });
        assert!(matches!(of("a.qcow2", &zeros, &[0; 512], 1 << 20), Head::Foreign(_)));
        assert!(matches!(of("a.img", &zeros[..100], &zeros[..100], 100), Head::Foreign(_)));
        let page = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>".repeat(128);
        assert!(matches!(of("a.img", &page, &page[..512], 8 << 10), Head::Foreign(_)));
    }
}
