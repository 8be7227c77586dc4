//! The snapshots inside a qcow2 file, read without a process and while a guest uses it. Good to show; the guest's qemu
//! wrote them.
//!
//! ```text
//! header   60 number of snapshots   64 offset of the table
//! entry     0 level 1 table   12 length of the number   14 length of the name   16 seconds since 1970
//!          32 bytes of memory, if they fit   36 length of what follows this head: 40 bytes of memory
//!          then number and name, and a gap up to a multiple of 8
//! ```

use std::fs::File;
use std::path::Path;

use super::DiskError;
use super::qcow2::{SNAPSHOTS_MAX, open_image, read_at_most, read_header, u32_at, u64_at};

/// A state that a vm can go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub name: String,
    pub taken: jiff::Timestamp,
    /// What the guest's memory takes in the disk; 0 on all disks but the first.
    pub memory_bytes: u64,
}

const ENTRY_BYTES: usize = 40;

/// The snapshots in the image at `path`, oldest first.
pub fn snapshots(path: &Path) -> Result<Vec<Snapshot>, DiskError> {
    let file = open_image(path)?;
    read_header(&file, path)?;
    let head: [u8; 12] = read(&file, path, 60)?;
    let (count, mut at) = (u32_at(&head, 0).min(SNAPSHOTS_MAX), u64_at(&head, 4));
    let mut snapshots = Vec::new();
    for _ in 0..count {
        let (snapshot, length) = entry(&file, path, at)?;
        snapshots.push(snapshot);
        at = at.saturating_add(length);
    }
    Ok(snapshots)
}

/// One entry of the table, and its length.
fn entry(file: &File, path: &Path, at: u64) -> Result<(Snapshot, u64), DiskError> {
    let head: [u8; ENTRY_BYTES] = read(file, path, at)?;
    let length = |at: usize| u64::from(u16::from_be_bytes([head[at], head[at + 1]]));
    let (number, name, more) = (length(12), length(14), u64::from(u32_at(&head, 36)));
    let memory_bytes = if more >= 8 {
        u64_at(&read::<8>(file, path, at.saturating_add(ENTRY_BYTES as u64))?, 0)
    } else {
        u32_at(&head, 32).into()
    };
    let mut text = vec![0; usize::try_from(name).unwrap_or(0)];
    let begin = at.saturating_add(ENTRY_BYTES as u64 + more + number);
    fill(file, path, &mut text, begin)?;
    let taken = jiff::Timestamp::from_second(u32_at(&head, 16).into()).unwrap_or_default();
    let snapshot = Snapshot { name: String::from_utf8_lossy(&text).into_owned(), taken, memory_bytes };
    Ok((snapshot, (ENTRY_BYTES as u64 + more + number + name).next_multiple_of(8)))
}

fn read<const BYTES: usize>(file: &File, path: &Path, at: u64) -> Result<[u8; BYTES], DiskError> {
    let mut bytes = [0; BYTES];
    fill(file, path, &mut bytes, at)?;
    Ok(bytes)
}

fn fill(file: &File, path: &Path, bytes: &mut [u8], at: u64) -> Result<(), DiskError> {
    let length = read_at_most(file, bytes, at).map_err(|source| DiskError::io("read", path, source))?;
    if length < bytes.len() {
        let why = "it ends within its list of snapshots".to_owned();
        return Err(DiskError::NotQcow2 { path: path.to_owned(), why });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qemu_img(arguments: &[&str]) {
        assert!(std::process::Command::new("qemu-img").args(arguments).status().unwrap().success());
    }

    #[test]
    fn what_qemu_wrote_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.qcow2");
        let text = path.to_str().unwrap();
        qemu_img(&["create", "-q", "-f", "qcow2", text, "4M"]);
        assert_eq!(snapshots(&path).unwrap(), []);
        for name in ["a", "before-the-exam", "c"] {
            qemu_img(&["snapshot", "-c", name, text]);
        }
        qemu_img(&["snapshot", "-d", "a", text]);
        let found = snapshots(&path).unwrap();
        assert_eq!(found.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["before-the-exam", "c"]);
        let age = jiff::Timestamp::now().duration_since(found[0].taken);
        assert!((0..60).contains(&age.as_secs()), "{age}");
    }

    /// A guest that broke out of qemu can write any header.
    #[test]
    fn a_forged_table_is_refused() {
        use std::os::unix::fs::FileExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.qcow2");
        qemu_img(&["create", "-q", "-f", "qcow2", path.to_str().unwrap(), "4M"]);
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&u32::MAX.to_be_bytes(), 60).unwrap();
        file.write_all_at(&(1_u64 << 40).to_be_bytes(), 64).unwrap();
        let error = snapshots(&path).unwrap_err().to_string();
        assert!(error.contains("it ends within its list of snapshots"), "{error}");
        // Every entry is the same one: the list is bounded.
        file.write_all_at(&0_u64.to_be_bytes(), 64).unwrap();
        assert!(snapshots(&path).map_or(0, |list| list.len()) <= SNAPSHOTS_MAX as usize);
    }
}
