//! Disks whose bytes a student has turned over, given to the process that reads submissions out of them: whatever is in them,
//! it answers within its bounds and its answer makes sense, or it ends. A short walk in every run of the tests;
//! `tests/run campaign fuzz SECONDS disks` goes on for as long. A finding names the seed that repeats it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use labwright::host::run::sealed::Sealed;
use labwright::model::file_pattern::FilePattern;
use labwright::volumes::{DISK_BYTES_MAX, HearError, Order, Record, hear};

use super::rounds::{self, Random, say};
use super::{OWNER, qemu_img};

/// Files of a seed: what fits both patterns is taken once; those of ext have 60 small ones more.
const WHOLE: [usize; 2] = [2, 62];
const ROUNDS_SHORT: u64 = 60;

/// How the reading of a disk ended.
enum Read {
    /// With so many files.
    Whole(usize),
    /// The process ended before it had said all.
    Cut,
}

fn shell(folder: &Path, script: &str) {
    let output = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Small disks of every kind that is read, each with two files that are wanted, as qcow2.
fn seeds(folder: &Path) -> Vec<Vec<u8>> {
    shell(
        folder,
        "mkdir -p t/home/ada/deep/deeper
         echo one >t/home/ada/answer; seq 9000 >t/home/ada/deep/answer
         for n in $(seq 60); do echo $n >t/home/ada/deep/deeper/$n; done; ln -s /etc/shadow t/home/ada/link
         mke2fs -q -t ext2 -d t ext2 1M
         mke2fs -q -t ext4 -O ^has_journal -d t ext4 1M
         mke2fs -q -t ext4 -d t journal 4M
         for kind in '12 8' '16 1'; do set -- $kind; bits=$1
           truncate -s 8M fat$bits; mkfs.vfat -F $bits -s $2 fat$bits >/dev/null
           mmd -i fat$bits ::home ::home/ada ::home/ada/deep
           mcopy -i fat$bits t/home/ada/answer ::home/ada/answer
           mcopy -i fat$bits t/home/ada/deep/answer '::home/ada/deep/answer'
         done
         for label in gpt dos; do
           truncate -s 2M $label; printf \"label: $label\\nstart=128,size=2048\\n\" | sfdisk -q --no-tell-kernel $label 2>/dev/null
           dd if=ext4 of=$label bs=1k seek=64 conv=notrunc status=none
         done",
    );
    let kinds = ["ext2", "ext4", "journal", "fat12", "fat16", "gpt", "dos"];
    let made = kinds.map(|kind| {
        let disk = folder.join(format!("{kind}.qcow2"));
        qemu_img(&["convert", "-f", "raw", "-O", "qcow2", folder.join(kind).to_str().unwrap(), disk.to_str().unwrap()]);
        fs::read(disk).unwrap()
    });
    made.to_vec()
}

/// Reads the disk as `vm collect` does.
fn read(disk: &Path) -> Read {
    let job = ["read-disk".as_ref(), "--file".as_ref(), disk.as_os_str()];
    let program = Path::new(env!("CARGO_BIN_EXE_labwright"));
    let mut sealed = Sealed::start(program, &job, (OWNER.uid, OWNER.gid), Stdio::null()).unwrap();
    let patterns = ["home/*/answer*", "home/ada/deep"].map(|pattern| pattern.parse::<FilePattern>().unwrap());
    let order = serde_json::to_vec(&Order { patterns: patterns.to_vec(), lists: false }).unwrap();
    sealed.to.take().unwrap().write_all(&order).unwrap();
    let (mut files, mut bytes) = (0, 0);
    let heard = hear::<HearError>(&mut sealed.from, &mut |record, content| {
        if let Record::File { .. } = record {
            files += 1;
            bytes += std::io::copy(content, &mut std::io::sink())?;
        }
        Ok(())
    });
    assert!(bytes <= DISK_BYTES_MAX, "{bytes} bytes");
    match heard {
        Ok(()) => Read::Whole(files),
        Err(HearError::CutShort) => Read::Cut,
        Err(error) => panic!("{error}"),
    }
}

/// Numbers that mean something to what counts blocks, lengths or entries.
fn number(random: &mut Random) -> Vec<u8> {
    let some = random.next();
    let value = *random.pick(&[0, 1, 2, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, u64::MAX, u64::MAX >> 1, 1 << 20, some]);
    let bytes = if random.below(2) == 0 { value.to_le_bytes() } else { value.to_be_bytes() };
    let width = *random.pick(&[1, 2, 4, 8]);
    if random.below(2) == 0 { bytes[..width].to_vec() } else { bytes[8 - width..].to_vec() }
}

/// Changes what is written: a place that is empty says nothing to whoever reads it.
fn mutate(random: &mut Random, seed: &[u8]) -> Vec<u8> {
    let mut disk = seed.to_vec();
    for _ in 0..=random.below(4) {
        let start = random.below(disk.len());
        let Some(at) = (start..disk.len()).find(|at| disk[*at] != 0) else { continue };
        let piece = match random.below(4) {
            0 => {
                let (from, length) = (random.below(disk.len()), random.below(1 << 12));
                disk[from..(from + length).min(disk.len())].to_vec()
            }
            1 => vec![disk[at] ^ 1 << random.below(8)],
            _ => number(random),
        };
        let end = (at + piece.len()).min(disk.len());
        disk[at..end].copy_from_slice(&piece[..end - at]);
    }
    if random.below(16) == 0 {
        disk.truncate(random.below(disk.len()));
    }
    disk
}

fn kept(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("disk.qcow2");
    fs::write(&path, bytes).unwrap();
    chown(&path, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
    path
}

#[test]
fn fuzz_disks() {
    let folder = tempfile::tempdir().unwrap();
    let seeds = seeds(folder.path());
    for seed in &seeds {
        assert!(matches!(read(&kept(folder.path(), seed)), Read::Whole(files) if WHOLE.contains(&files)));
    }
    let (mut cut, mut fewer) = (0, 0);
    let rounds = rounds::campaign("disks", ROUNDS_SHORT, |_, random| {
        let seed = random.pick(&seeds);
        match read(&kept(folder.path(), &mutate(random, seed))) {
            Read::Cut => cut += 1,
            Read::Whole(files) => fewer += u64::from(!WHOLE.contains(&files)),
        }
    });
    let rest = format!("{fewer} of them with fewer files, {cut} cut short");
    rounds.iter().for_each(|rounds| say(&format!("disks: {rounds} rounds without a finding, {rest}")));
}
