//! The parts of a disk, by its partition table: GPT or MBR, read by hand and bounded, since crates for them were found to panic
//! on tables that somebody had broken on purpose.

use super::part::Part;

/// What both kinds of table count in.
const SECTOR_BYTES: u64 = 512;
/// As many as a GPT has; a larger one is read so far.
const GPT_ENTRIES_MAX: u32 = 128;
const GPT_ENTRY_BYTES: std::ops::RangeInclusive<u32> = 128..=4096;
/// Partitions within an extended one hang together as a chain.
const LOGICAL_MAX: usize = 64;
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// The type of the partition that GRUB keeps itself in, as it stands on the disk.
const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";

/// A part of a disk that may hold files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) number: usize,
    pub(super) start: u64,
    pub(super) bytes: u64,
}

/// The partitions of a disk; none where it has no table.
pub(super) fn find(disk: &Part) -> Vec<Region> {
    let mut sector = [0; SECTOR_BYTES as usize];
    if disk.read_at(0, &mut sector).is_err() || sector[510..] != [0x55, 0xaa] {
        return Vec::new();
    }
    gpt(disk).unwrap_or_else(|| mbr(disk, &sector))
}

fn gpt(disk: &Part) -> Option<Vec<Region>> {
    let mut header = [0; 92];
    disk.read_at(SECTOR_BYTES, &mut header).ok()?;
    if !header.starts_with(b"EFI PART") {
        return None;
    }
    let (at, count, size) = (u64_at(&header, 72), u32_at(&header, 80).min(GPT_ENTRIES_MAX), u32_at(&header, 84));
    if !GPT_ENTRY_BYTES.contains(&size) {
        return Some(Vec::new());
    }
    let mut regions = Vec::new();
    for index in 0..count {
        let mut entry = [0; 128];
        let offset = at.saturating_mul(SECTOR_BYTES).saturating_add(u64::from(index) * u64::from(size));
        if disk.read_at(offset, &mut entry).is_err() {
            break;
        }
        let (first, last) = (u64_at(&entry, 32), u64_at(&entry, 40));
        if entry[..16] != [0; 16] && entry[..16] != BIOS_BOOT && first <= last {
            let sectors = (last - first).saturating_add(1);
            regions.push(region(index as usize + 1, first, sectors));
        }
    }
    Some(regions)
}

fn mbr(disk: &Part, sector: &[u8; 512]) -> Vec<Region> {
    let mut regions = Vec::new();
    for number in 1..=4 {
        let (kind, first, sectors) = mbr_entry(sector, number - 1);
        match kind {
            0 => {}
            kind if EXTENDED.contains(&kind) => logical(disk, first, &mut regions),
            _ => regions.push(region(number, first, sectors)),
        }
    }
    regions
}

/// The partitions within an extended one, which begins at `base`.
fn logical(disk: &Part, base: u64, regions: &mut Vec<Region>) {
    let mut at = base;
    for number in 5..5 + LOGICAL_MAX {
        let mut sector = [0; SECTOR_BYTES as usize];
        if disk.read_at(at.saturating_mul(SECTOR_BYTES), &mut sector).is_err() || sector[510..] != [0x55, 0xaa] {
            return;
        }
        let (kind, first, sectors) = mbr_entry(&sector, 0);
        if kind != 0 {
            regions.push(region(number, at.saturating_add(first), sectors));
        }
        let (kind, next, _) = mbr_entry(&sector, 1);
        if !EXTENDED.contains(&kind) {
            return;
        }
        at = base.saturating_add(next);
    }
}

/// Type, first sector and number of sectors.
fn mbr_entry(sector: &[u8; 512], index: usize) -> (u8, u64, u64) {
    let entry = &sector[446 + 16 * index..][..16];
    (entry[4], u64::from(u32_at(entry, 8)), u64::from(u32_at(entry, 12)))
}

fn region(number: usize, first: u64, sectors: u64) -> Region {
    Region { number, start: first.saturating_mul(SECTOR_BYTES), bytes: sectors.saturating_mul(SECTOR_BYTES) }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
