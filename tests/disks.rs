//! Disks as files, with the real `qemu-img`; `qemu-img` also judges what came out.

#[path = "disks/life.rs"]
mod life;
#[path = "manifests/rounds.rs"]
mod rounds;
#[path = "disks/volumes.rs"]
mod volumes;
#[path = "disks/web.rs"]
mod web;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use labwright::disks::{
    DiskError, Images, Owner, Tell, clone_full, create_empty, delete, derive, flatten, give_up, inspect, is_unwritten,
    publish, renew, restore, set_aside, sha256,
};

/// Some account that is not ours; the tests run as root.
const OWNER: Owner = Owner { uid: 54_321, gid: 54_322 };
/// Nobody waits for a copy.
const UNTOLD: &Tell<'_> = &|_| ();
const SIZE: u64 = 8 << 20;

fn qemu_img(arguments: &[&str]) -> String {
    let output = Command::new("qemu-img").args(arguments).output().expect("qemu-img is installed");
    assert!(output.status.success(), "qemu-img {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An image with something in it.
fn image(folder: &Path) -> PathBuf {
    let (raw, path) = (folder.join("raw"), folder.join("image.qcow2"));
    let mut bytes = vec![0; SIZE as usize];
    bytes[1 << 20..(1 << 20) + 9].copy_from_slice(b"something");
    fs::write(&raw, bytes).unwrap();
    qemu_img(&["convert", "-O", "qcow2", raw.to_str().unwrap(), path.to_str().unwrap()]);
    path
}

fn targets(folder: &Path, count: usize) -> Vec<PathBuf> {
    (0..count).map(|n| folder.join(format!("vms/lab/vm-{n}/disk-0.qcow2"))).collect()
}

fn all_done(results: Vec<Result<(), DiskError>>) {
    for result in results {
        result.unwrap();
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A small file system of its own, gone with the value.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(folder.path());
        assert!(mount.status().unwrap().success(), "the tests run as root");
        Self(folder)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0.path()).status().unwrap();
    }
}

#[test]
fn derived_disks_show_the_base_and_are_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let base = image(folder.path());
    let targets = targets(folder.path(), 3);
    all_done(derive(&base, &targets, OWNER));
    for target in &targets {
        let found = inspect(target).unwrap();
        assert_eq!((found.virtual_size_bytes, found.backing_file.as_deref()), (SIZE, Some(base.as_path())));
        qemu_img(&["compare", base.to_str().unwrap(), target.to_str().unwrap()]);
        qemu_img(&["check", target.to_str().unwrap()]);
        let file = fs::metadata(target).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (OWNER.uid, OWNER.gid, 0o640));
        let parent = fs::metadata(target.parent().unwrap()).unwrap();
        assert_eq!((parent.uid(), parent.mode() & 0o777), (OWNER.uid, 0o750));
        assert_eq!(names(target.parent().unwrap()), ["disk-0.qcow2"]);
    }
    // What a guest wrote stays, and what an interrupted try left goes.
    let inode = fs::metadata(&targets[0]).unwrap().ino();
    fs::remove_file(&targets[1]).unwrap();
    fs::write(targets[1].with_file_name(".disk-0.qcow2.new"), "half").unwrap();
    all_done(derive(&base, &targets, OWNER));
    assert_eq!(fs::metadata(&targets[0]).unwrap().ino(), inode);
    assert_eq!(names(targets[1].parent().unwrap()), ["disk-0.qcow2"]);
}

#[test]
fn a_disk_that_stands_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let base = image(folder.path());
    let other = folder.path().join("other.qcow2");
    fs::copy(&base, &other).unwrap();
    let targets = targets(folder.path(), 2);
    all_done(derive(&other, &targets[..1], OWNER));
    let before = fs::read(&targets[0]).unwrap();
    let results = derive(&base, &targets, OWNER);
    assert!(matches!(&results[0], Err(DiskError::Taken { .. })), "{results:?}");
    assert!(results[1].is_ok());
    for results in
        [clone_full(&Images::Anywhere, &base, &targets[..1], OWNER, UNTOLD), create_empty(SIZE, &targets[..1], OWNER)]
    {
        assert!(matches!(&results[0], Err(DiskError::Taken { .. })), "{results:?}");
    }
    assert_eq!(fs::read(&targets[0]).unwrap(), before);
}

#[test]
fn clones_and_empty_disks_stand_alone() {
    let folder = tempfile::tempdir().unwrap();
    let base = image(folder.path());
    let targets = targets(folder.path(), 4);
    for _ in 0..2 {
        all_done(clone_full(&Images::Anywhere, &base, &targets[..2], OWNER, UNTOLD));
        all_done(create_empty(5 << 20, &targets[2..], OWNER));
    }
    fs::rename(&base, folder.path().join("elsewhere")).unwrap();
    qemu_img(&["compare", folder.path().join("elsewhere").to_str().unwrap(), targets[1].to_str().unwrap()]);
    assert_eq!(inspect(&targets[3]).unwrap().virtual_size_bytes, 5 << 20);
    qemu_img(&["check", targets[3].to_str().unwrap()]);
}

#[test]
fn a_bad_base_is_named_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let base = image(folder.path());
    let targets = targets(folder.path(), 2);
    all_done(derive(&base, &targets[..1], OWNER));
    let missing = folder.path().join("missing.qcow2");
    assert!(matches!(derive(&missing, &targets[1..], OWNER)[0], Err(DiskError::Missing { .. })));
    let note = folder.path().join("note");
    fs::write(&note, "no disk\n".repeat(64)).unwrap();
    let copied = clone_full(&Images::Anywhere, &note, &targets[1..], OWNER, UNTOLD);
    assert!(matches!(copied[0], Err(DiskError::Foreign { .. })), "{copied:?}");
    assert!(matches!(derive(&note, &targets[1..], OWNER)[0], Err(DiskError::NotQcow2 { .. })));
    assert!(matches!(derive(&targets[0], &targets[1..], OWNER)[0], Err(DiskError::Derived { .. })));
    assert!(!targets[1].exists());
    let data = folder.path().join("data-file.qcow2");
    let option = format!("data_file={}", folder.path().join("data").display());
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &option, data.to_str().unwrap(), "1M"]);
    assert!(matches!(inspect(&data), Err(DiskError::NotQcow2 { .. })));
}

#[test]
fn a_published_image_is_read_only_and_known_by_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (image(folder.path()), folder.path().join("templates/gsr/1/disk-0.qcow2"));
    let digest = sha256(&source).unwrap();
    let wrong = publish(&Images::Anywhere, &source, &target, Some(&"0".repeat(64)), OWNER, UNTOLD);
    assert!(matches!(wrong, Err(DiskError::Digest { .. })), "{wrong:?}");
    assert_eq!(names(target.parent().unwrap()), [""; 0]);
    for _ in 0..2 {
        let published = publish(&Images::Anywhere, &source, &target, Some(&digest), OWNER, UNTOLD).unwrap();
        assert_eq!((&published.sha256, published.source_bytes), (&digest, fs::metadata(&source).unwrap().len()));
    }
    let oracle = Command::new("sha256sum").arg(&target).output().unwrap();
    assert!(oracle.stdout.starts_with(digest.as_bytes()));
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o444);
    // Another content never takes its place.
    qemu_img(&["create", "-q", "-f", "qcow2", source.to_str().unwrap(), "1M"]);
    assert!(matches!(publish(&Images::Anywhere, &source, &target, None, OWNER, UNTOLD), Err(DiskError::Taken { .. })));
    assert_eq!(sha256(&target).unwrap(), digest);
}

/// A folder that the guests' account may enter, with an image and a disk of that account over it, on which a guest has written.
fn written_disk() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (base, disk) = (image(folder.path()), targets(folder.path(), 1).remove(0));
    all_done(derive(&base, std::slice::from_ref(&disk), OWNER));
    let write = Command::new("qemu-io").args(["-c", "write -q -P 65 2M 64k"]).arg(&disk).status().unwrap();
    assert!(write.success());
    (folder, base, disk)
}

#[test]
fn a_disk_becomes_an_image_that_stands_alone_whatever_its_header_says() {
    let (folder, base, disk) = written_disk();
    let plain = folder.path().join("plain.qcow2");
    qemu_img(&["convert", "-O", "qcow2", disk.to_str().unwrap(), plain.to_str().unwrap()]);
    // What is below it is told by the records: a guest that broke out of qemu writes any name into its header.
    qemu_img(&["rebase", "-u", "-F", "raw", "-b", "/etc/shadow", disk.to_str().unwrap()]);
    let target = folder.path().join("templates/x/v1/disk-0.qcow2");
    let stored = flatten(&disk, Some(&base), &target, OWNER).unwrap();
    qemu_img(&["compare", plain.to_str().unwrap(), target.to_str().unwrap()]);
    let found = inspect(&target).unwrap();
    assert_eq!((found.virtual_size_bytes, found.backing_file), (SIZE, None));
    assert_eq!(stored.sha256, sha256(&target).unwrap());
    let file = fs::metadata(&target).unwrap();
    assert_eq!((file.mode() & 0o777, file.uid(), file.len()), (0o444, OWNER.uid, stored.source_bytes));
    let again = flatten(&disk, Some(&base), &target, OWNER).unwrap_err().to_string();
    assert!(again.contains("stands already and is another file"), "{again}");
}

#[test]
fn what_cannot_be_an_image_is_refused_and_leaves_nothing() {
    let (folder, base, disk) = written_disk();
    let target = folder.path().join("templates/x/v1/disk-0.qcow2");
    let refused = |disk: &Path, base: Option<&Path>| {
        let error = flatten(disk, base, &target, OWNER).unwrap_err().to_string();
        let left = target.parent().filter(|folder| folder.exists()).map(names).unwrap_or_default();
        assert_eq!(left, Vec::<String>::new(), "{error}");
        error
    };
    let patch = |name: &str, at: u64, bytes: &[u8]| {
        use std::os::unix::fs::FileExt as _;
        let path = folder.path().join(name);
        fs::copy(&disk, &path).unwrap();
        fs::File::options().write(true).open(&path).unwrap().write_all_at(bytes, at).unwrap();
        path
    };
    // (where its header is changed, how, and what is said)
    let table: [(u64, &[u8], &str); 5] = [
        (72, &4_u64.to_be_bytes(), "its data is in another file"),
        (32, &1_u32.to_be_bytes(), "it is encrypted"),
        (24, &(1_u64 << 60).to_be_bytes(), "does not fit its tables"),
        (60, &u32::MAX.to_be_bytes(), "snapshots inside"),
        (0, b"conectix", "is not a usable qcow2 image"),
    ];
    for (number, (at, bytes, said)) in table.into_iter().enumerate() {
        let error = refused(&patch(&format!("{number}.qcow2"), at, bytes), Some(&base));
        assert!(error.contains(said), "{said}: {error}");
    }
    assert!(refused(&folder.path().join("none"), None).contains("does not exist"));
    assert!(refused(&disk, Some(&folder.path().join("none"))).contains("No such file"));
    symlink("/etc/shadow", folder.path().join("link")).unwrap();
    assert!(refused(&folder.path().join("link"), None).contains("symbolic link"));
    // A guest uses it: once it answers, it holds the lock.
    let mut guest = Command::new("qemu-io");
    let guest = guest.arg(&disk).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut guest = guest.spawn().unwrap();
    guest.stdin.as_mut().unwrap().write_all(b"length\n").unwrap();
    let mut answer = String::new();
    BufReader::new(guest.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
    assert!(answer.contains("MiB"), "{answer}");
    let error = flatten(&disk, Some(&base), &target, OWNER).unwrap_err().to_string();
    assert!(error.contains("lock"), "{error}");
    drop(guest.stdin.take());
    guest.wait().unwrap();
}

#[test]
fn disks_set_aside_come_back_and_both_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let vm = folder.path().join("vms/lab/vm");
    let disks = [vm.join("disk-0.qcow2"), vm.join("disk-1.qcow2")];
    all_done(create_empty(1 << 20, &disks, OWNER));
    let aside = folder.path().join("aside/lab/vm/now");
    // A crash between the two steps of the first move: both names, one file.
    fs::create_dir_all(&aside).unwrap();
    fs::hard_link(&disks[0], aside.join("disk-0.qcow2")).unwrap();
    for _ in 0..2 {
        let moved = set_aside(&disks, &aside, OWNER).unwrap();
        assert_eq!(moved, [aside.join("disk-0.qcow2"), aside.join("disk-1.qcow2")]);
        assert_eq!((names(&vm).len(), names(&aside).len()), (0, 2));
    }
    all_done(create_empty(1 << 20, &disks[..1], OWNER));
    assert!(matches!(set_aside(&disks, &aside, OWNER), Err(DiskError::Taken { .. })));
    let back = [(aside.join("disk-1.qcow2"), disks[1].clone())];
    restore(&back, OWNER).unwrap();
    restore(&back, OWNER).unwrap();
    assert_eq!((names(&vm).len(), names(&aside).len()), (2, 1));
    let nowhere = [folder.path().join("vms/lab/other/disk-0.qcow2")];
    assert!(matches!(set_aside(&nowhere, &aside.join("x"), OWNER), Err(DiskError::Missing { .. })));
    // What a try left that was killed goes when its disk is given up, and nothing else does.
    let draft = vm.join(".disk-7.qcow2.new");
    fs::write(&draft, "half of it").unwrap();
    for _ in 0..2 {
        give_up(&vm.join("disk-7.qcow2")).unwrap();
        assert_eq!((draft.exists(), names(&vm).len()), (false, 2));
    }
    give_up(&nowhere[0]).unwrap();
    let tmpfs = Tmpfs::new("1m");
    let apart = set_aside(&disks, tmpfs.0.path(), OWNER);
    assert!(matches!(apart, Err(DiskError::OtherFileSystem { .. })), "{apart:?}");
    assert_eq!(names(&vm).len(), 2);
}

#[test]
fn a_full_file_system_keeps_what_stands_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let base = image(folder.path());
    let tmpfs = Tmpfs::new("512k");
    let targets = targets(tmpfs.0.path(), 100);
    let results = derive(&base, &targets, OWNER);
    let done = results.iter().filter(|result| result.is_ok()).count();
    assert!((1..100).contains(&done), "{done}");
    for (result, target) in results.iter().zip(&targets) {
        match result {
            Ok(()) => assert!(inspect(target).is_ok()),
            Err(error) => {
                assert!(matches!(error, DiskError::Full { .. }), "{error}");
                assert!(!target.exists() && !target.with_file_name(".disk-0.qcow2.new").exists());
            }
        }
    }
    let published = publish(&Images::Anywhere, &base, &tmpfs.0.path().join("t/disk-0.qcow2"), None, OWNER, UNTOLD);
    assert!(matches!(published, Err(DiskError::Full { .. })), "{published:?}");
    let copy = tmpfs.0.path().join("copy/disk-0.qcow2");
    let copied = clone_full(&Images::Anywhere, &base, std::slice::from_ref(&copy), OWNER, UNTOLD).remove(0);
    let renewed = renew(std::slice::from_ref(&targets[0]), &tmpfs.0.path().join("aside"), OWNER, UNTOLD).map(drop);
    for (result, folder) in [(copied, copy.parent().unwrap()), (renewed, targets[0].parent().unwrap())] {
        let Err(DiskError::Full { needed_bytes, free_bytes, .. }) = result else { panic!("{result:?}") };
        assert!(needed_bytes > free_bytes, "{needed_bytes} of {free_bytes}");
        assert!(names(folder).iter().all(|name| name == "disk-0.qcow2"), "{:?}", names(folder));
    }
    assert!(inspect(&targets[0]).is_ok(), "what was there is there");
}

#[test]
fn links_of_others_lead_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let base = image(folder.path());
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::create_dir_all(folder.path().join("vms")).unwrap();
    let link = folder.path().join("vms/lab");
    symlink(&elsewhere, &link).unwrap();
    let targets = targets(folder.path(), 1);
    all_done(derive(&base, &targets, OWNER));
    assert!(elsewhere.join("vm-0/disk-0.qcow2").exists(), "a link of the administrator is fine");
    std::os::unix::fs::lchown(&link, Some(OWNER.uid), None).unwrap();
    let results = derive(&base, &targets, OWNER);
    assert!(matches!(results[0], Err(DiskError::Symlink { .. })), "{results:?}");
    let disk = elsewhere.join("vm-0/disk-1.qcow2");
    symlink("/etc/passwd", &disk).unwrap();
    assert!(matches!(derive(&base, &[disk], OWNER)[0], Err(DiskError::Symlink { .. })));
}

#[test]
fn three_hundred_disks_are_made_in_one_call() {
    let folder = tempfile::tempdir().unwrap();
    let base = image(folder.path());
    let targets = targets(folder.path(), 300);
    all_done(derive(&base, &targets, OWNER));
    assert!(targets.iter().all(|target| target.exists()));
}

/// A crash can fall between the making of a folder and its hand-over to the guests' account.
#[test]
fn a_folder_of_a_cut_short_try_is_nobodys_trap() {
    let folder = tempfile::tempdir().unwrap();
    let base = image(folder.path());
    let target = &targets(folder.path(), 1)[0];
    let vm = target.parent().unwrap();
    fs::create_dir_all(vm.with_file_name(".vm-0.new")).unwrap();
    all_done(derive(&base, std::slice::from_ref(target), OWNER));
    let made = fs::metadata(vm).unwrap();
    assert_eq!((made.uid(), made.mode() & 0o777), (OWNER.uid, 0o750));
    assert_eq!(names(vm.parent().unwrap()), ["vm-0"]);
}

/// As strace shows it: at no moment does a folder have its name and not yet its owner.
#[test]
fn a_folder_gets_its_owner_before_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let base = image(folder.path());
    let target = folder.path().join("vm/disk-0.qcow2");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut wrong = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                wrong += u32::from(fs::metadata(folder.path().join("vm")).is_ok_and(|found| found.uid() != OWNER.uid));
            }
            wrong
        });
        for _ in 0..20 {
            all_done(derive(&base, std::slice::from_ref(&target), OWNER));
            fs::remove_dir_all(folder.path().join("vm")).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(watch.join().unwrap(), 0, "looks that saw it as root's");
    });
}

#[test]
fn deleting_follows_no_link_of_the_guests_account() {
    let folder = tempfile::tempdir().unwrap();
    let precious = image(folder.path());
    symlink(folder.path(), folder.path().join("link")).unwrap();
    std::os::unix::fs::lchown(folder.path().join("link"), Some(OWNER.uid), None).unwrap();
    let error = delete(&folder.path().join("link/image.qcow2")).unwrap_err();
    assert!(matches!(error, DiskError::Symlink { uid, .. } if uid == OWNER.uid), "{error}");
    delete(&folder.path().join("not/there.qcow2")).unwrap();
    assert!(precious.exists());
    delete(&precious).unwrap();
    assert!(!precious.exists());
}

/// Damage to an image's bytes, and what is said of it.
type Case<'a> = (&'a dyn Fn(&mut Vec<u8>), &'a str);

/// What a download or a disk can do to an image, and what of it the header alone shows.
#[test]
fn a_damaged_image_is_neither_published_nor_copied() {
    let folder = tempfile::tempdir().unwrap();
    let full = folder.path().join("full.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", full.to_str().unwrap(), "8M"]);
    let write = Command::new("qemu-io").args(["-f", "qcow2", "-c", "write -P 65 0 6M"]).arg(&full).output().unwrap();
    assert!(write.status.success());
    let sound = fs::read(&full).unwrap();
    let damaged = |damage: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = sound.clone();
        damage(&mut bytes);
        let image = folder.path().join("damaged.qcow2");
        fs::write(&image, bytes).unwrap();
        let target = folder.path().join("published/disk-0.qcow2");
        let published = publish(&Images::Anywhere, &image, &target, None, OWNER, UNTOLD).map(|_| String::new());
        let copied = clone_full(&Images::Anywhere, &image, &targets(folder.path(), 1), OWNER, UNTOLD).remove(0);
        assert!(!target.exists() && !targets(folder.path(), 1)[0].exists(), "{published:?} {copied:?}");
        let (published, copied) = (published.unwrap_err().to_string(), copied.unwrap_err().to_string());
        assert_eq!(published, copied);
        published
    };
    let set = |at: usize, byte: u8| move |bytes: &mut Vec<u8>| bytes[at] = byte;
    // Whatever tables say only `qemu-img check` finds.
    let cases: [Case<'_>; 11] = [
        (&|bytes| bytes.truncate(3_000_000), "is damaged, says `qemu-img check`"),
        (&|bytes| bytes[0x30000..0x50000].fill(0xa7), "is damaged, says `qemu-img check`"),
        (&|bytes| bytes[0x40000..0x40100].fill(0xff), "is damaged, says `qemu-img check`"),
        (&|bytes| bytes.truncate(100_000), "the copy or the download was cut short"),
        (&|bytes| bytes.truncate(60), "it ends within its header"),
        (&set(79, 2), "it is marked as corrupt"),
        (&set(79, 4), "its data is in another file"),
        (&set(78, 1), "it needs features that qemu does not know"),
        (&set(35, 1), "it is encrypted"),
        (&|bytes| bytes[60..64].fill(1), "snapshots inside"),
        (&|bytes| bytes[24..32].copy_from_slice(&(8_u64 << 20 | 17).to_be_bytes()), "is not a multiple of 512"),
    ];
    for (damage, said) in cases {
        let found = damaged(damage);
        assert!(found.contains(said), "{said}: {found}");
    }
    publish(&Images::Anywhere, &full, &folder.path().join("published/disk-0.qcow2"), None, OWNER, UNTOLD).unwrap();
}

/// A disk that nobody wrote to holds nobody's work: by this a vm that comes back is known to have nothing to choose.
#[test]
fn a_disk_is_unwritten_until_a_guest_writes_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let base = image(folder.path());
    let paths = targets(folder.path(), 2);
    all_done(derive(&base, &paths, OWNER));
    assert!(is_unwritten(&paths[0]).unwrap());
    assert!(!is_unwritten(&base).unwrap(), "an image with content");
    let written = Command::new("qemu-io").args(["-c", "write -q -z 0 64k"]).arg(&paths[0]).status().unwrap();
    assert!(written.success());
    assert!(!is_unwritten(&paths[0]).unwrap(), "zeros are written, too");
    qemu_img(&["snapshot", "-c", "kept", paths[1].to_str().unwrap()]);
    assert!(!is_unwritten(&paths[1]).unwrap(), "a snapshot is kept in it");
    fs::write(&paths[0], "no image").unwrap();
    assert!(is_unwritten(&paths[0]).is_err());
}

#[test]
fn a_raw_disk_becomes_a_qcow2_image_whoever_may_read_it() {
    let folder = tempfile::tempdir().unwrap();
    image(folder.path());
    let raw = folder.path().join("raw");
    fs::set_permissions(&raw, fs::Permissions::from_mode(0o600)).unwrap();
    let digest = sha256(&raw).unwrap();
    let at = |name: &str| folder.path().join(name);
    let wrong = publish(&Images::Anywhere, &raw, &at("t/disk-0.qcow2"), Some(&"0".repeat(64)), OWNER, UNTOLD);
    assert!(matches!(wrong, Err(DiskError::Digest { .. })), "{wrong:?}");
    assert!(names(&at("t")).is_empty());
    let published = publish(&Images::Anywhere, &raw, &at("t/disk-0.qcow2"), Some(&digest), OWNER, UNTOLD).unwrap();
    assert_eq!(published.source_sha256.as_ref(), Some(&digest));
    assert_eq!(published.sha256, sha256(&at("t/disk-0.qcow2")).unwrap());
    let again = publish(&Images::Anywhere, &raw, &at("t/disk-0.qcow2"), Some(&digest), OWNER, UNTOLD);
    assert_eq!(again.unwrap().sha256, published.sha256, "what is there already is done");
    let copies = targets(folder.path(), 2);
    all_done(clone_full(&Images::Anywhere, &raw, &copies, OWNER, UNTOLD));
    all_done(clone_full(&Images::Anywhere, &raw, &copies, OWNER, UNTOLD));
    for made in copies.iter().chain([&at("t/disk-0.qcow2")]) {
        qemu_img(&["compare", "-f", "raw", "-F", "qcow2", raw.to_str().unwrap(), made.to_str().unwrap()]);
    }
    // What a guest could have written into its raw disk is never taken for a header by somebody who guesses.
    let derived = at("d/disk-0.qcow2");
    all_done(derive(&at("t/disk-0.qcow2"), std::slice::from_ref(&derived), OWNER));
    assert!(qemu_img(&["info", derived.to_str().unwrap()]).contains("backing file format: qcow2"));
    fs::write(at("other.raw"), "KDMV".repeat(1 << 18)).unwrap();
    let foreign = publish(&Images::Anywhere, &at("other.raw"), &at("o/disk-0.qcow2"), None, OWNER, UNTOLD);
    let said = foreign.unwrap_err().to_string();
    assert!(said.contains("a VMware disk") && said.contains("qemu-img convert -f vmdk -O qcow2"), "{said}");
    assert!(!at("o").exists());
}
