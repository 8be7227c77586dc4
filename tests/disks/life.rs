//! Disks whose guest did not end as it should: they are looked through, and those of a lost host become other files.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use labwright::disks::{DiskError, check_disk, derive, renew};

use super::{OWNER, UNTOLD, image, names, qemu_img};

/// A disk over an image, with something written on it.
fn disk(folder: &Path) -> PathBuf {
    let (base, disk) = (image(folder), folder.join("vms/disk-0.qcow2"));
    derive(&base, std::slice::from_ref(&disk), OWNER).remove(0).unwrap();
    write(&disk, "saved", 2);
    disk
}

fn write(disk: &Path, word: &str, mib: u64) {
    let text = fs::canonicalize(disk).unwrap().with_extension("text");
    fs::write(&text, word.repeat(512)).unwrap();
    let line = format!("write -q -s {} {mib}M 2560", text.display());
    let output = std::process::Command::new("qemu-io").args(["-f", "qcow2", "-c", &line]).arg(disk).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::remove_file(text).unwrap();
}

#[test]
fn what_a_lost_host_writes_late_does_not_reach_the_disk_of_now() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk(folder.path());
    let (before, inode) = (fs::read(&disk).unwrap(), disk.metadata().unwrap().ino());
    let late = fs::File::options().write(true).open(&disk).unwrap();

    let aside = folder.path().join("aside/lost-1");
    let kept = renew(std::slice::from_ref(&disk), &aside, OWNER, UNTOLD).unwrap().remove(0);
    late.write_all_at(b"late", 1 << 20).unwrap();

    assert_eq!((kept.metadata().unwrap().ino(), &kept), (inode, &aside.join("disk-0.qcow2")));
    let now = disk.metadata().unwrap();
    assert_ne!(now.ino(), inode);
    assert_eq!((now.uid(), now.gid(), now.mode() & 0o777), (OWNER.uid, OWNER.gid, 0o640));
    assert_eq!(fs::read(&disk).unwrap(), before, "a late write changes the old file alone");
    assert_eq!(&fs::read(&kept).unwrap()[1 << 20..][..4], b"late");
    let text = disk.to_str().unwrap();
    qemu_img(&["check", "-q", text]);
    assert!(qemu_img(&["info", text]).contains("backing file:"), "it lies over what it lay over");

    // Once more is not once more: the guest of now has written.
    write(&disk, "newer", 3);
    let newer = fs::read(&disk).unwrap();
    assert_eq!(renew(std::slice::from_ref(&disk), &aside, OWNER, UNTOLD).unwrap(), [kept]);
    assert_eq!(fs::read(&disk).unwrap(), newer);
    assert_eq!(names(disk.parent().unwrap()), ["disk-0.qcow2"]);
}

/// What a kill leaves at each step: half a copy; the old file with both names.
#[test]
fn a_renewal_that_was_cut_short_goes_on() {
    for both in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(folder.path());
        let (before, inode) = (fs::read(&disk).unwrap(), disk.metadata().unwrap().ino());
        let aside = folder.path().join("aside/lost-1");
        fs::write(disk.with_file_name(".disk-0.qcow2.new"), &before[..1000]).unwrap();
        if both {
            fs::create_dir_all(&aside).unwrap();
            fs::hard_link(&disk, aside.join("disk-0.qcow2")).unwrap();
        }
        let kept = renew(std::slice::from_ref(&disk), &aside, OWNER, UNTOLD).unwrap().remove(0);
        assert_eq!(kept.metadata().unwrap().ino(), inode);
        assert_ne!(disk.metadata().unwrap().ino(), inode);
        assert_eq!(fs::read(&disk).unwrap(), before);
        assert_eq!(names(disk.parent().unwrap()), ["disk-0.qcow2"]);
    }
    let nowhere = PathBuf::from("/nonexistent/disk-0.qcow2");
    let missing = renew(std::slice::from_ref(&nowhere), Path::new("/nonexistent"), OWNER, UNTOLD);
    assert!(matches!(missing, Err(DiskError::Missing { .. })), "{missing:?}");
}

#[test]
fn a_damaged_disk_is_told_from_a_sound_one_without_what_lies_below() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk(folder.path());
    // It is itself that is looked through: what its header names is not opened.
    fs::rename(folder.path().join("image.qcow2"), folder.path().join("elsewhere.qcow2")).unwrap();
    check_disk(&disk, OWNER).unwrap();
    // Nor is what goes in a circle.
    qemu_img(&["rebase", "-u", "-F", "qcow2", "-b", disk.to_str().unwrap(), disk.to_str().unwrap()]);
    check_disk(&disk, OWNER).unwrap();
    // Its first table leads behind its end.
    let file = fs::File::options().read(true).write(true).open(&disk).unwrap();
    let mut l1 = [0; 8];
    file.read_exact_at(&mut l1, 40).unwrap();
    file.write_all_at(&((1_u64 << 63) | (1 << 40)).to_be_bytes(), u64::from_be_bytes(l1)).unwrap();
    let before = fs::read(&disk).unwrap();
    let found = check_disk(&disk, OWNER).unwrap_err();
    assert!(matches!(found, DiskError::Unsound { .. }), "{found}");
    assert_eq!(fs::read(&disk).unwrap(), before, "it is not touched");
}
