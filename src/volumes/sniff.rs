//! What a part of a disk holds, by its magic numbers.

use super::part::Part;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Ext,
    Fat,
    /// Nobody keeps files there.
    Idle(&'static str),
    /// Known, and not read here.
    Other(&'static str),
    Unknown,
}

/// What cannot be read here, by where its magic stands.
const OTHERS: [(u64, &[u8], &str); 10] = [
    (0, b"LUKS\xba\xbe", "encrypted (LUKS)"),
    (0, b"XFSB", "XFS"),
    (0x1_0040, b"_BHRfS_M", "btrfs"),
    (512, b"LABELONE", "LVM"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (3, b"-FVE-FS-", "encrypted (BitLocker)"),
    (0, b"hsqs", "squashfs"),
    (1024, b"\x10\x20\xf5\xf2", "F2FS"),
    (4096, b"\xfc\x4e\x2b\xa9", "RAID"),
];

pub(super) fn sniff(part: &Part) -> Content {
    let has = |at: u64, magic: &[u8]| {
        let mut found = vec![0; magic.len()];
        part.read_at(at, &mut found).is_ok() && found == magic
    };
    if has(1024 + 56, &[0x53, 0xef]) {
        return Content::Ext;
    }
    if let Some((.., name)) = OTHERS.iter().find(|(at, magic, _)| has(*at, magic)) {
        return Content::Other(name);
    }
    if is_fat(part) {
        Content::Fat
    } else if has(4086, b"SWAPSPACE2") {
        Content::Idle("swap")
    } else {
        Content::Unknown
    }
}

/// A boot sector with figures that only FAT has: a disk's own first sector ends with the same two bytes.
fn is_fat(part: &Part) -> bool {
    let mut sector = [0; 512];
    if part.read_at(0, &mut sector).is_err() || sector[510..] != [0x55, 0xaa] {
        return false;
    }
    let (sector_bytes, cluster, fats) = (u16::from_le_bytes([sector[11], sector[12]]), sector[13], sector[16]);
    matches!(sector_bytes, 512 | 1024 | 2048 | 4096) && cluster.is_power_of_two() && matches!(fats, 1 | 2)
}
