//! The life of a vm's disks, on real guests: new ones, and those of before.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::lab::Lab;
use crate::world::{BINARY, template, text, tool, wait_until};

impl Lab {
    /// The command, about this lab.
    fn vm(&self, line: &str) -> String {
        let folder = text(&self.folder);
        let words: Vec<&str> = line.split_whitespace().chain(["--lab", &folder]).collect();
        self.must(&words)
    }

    /// The guest writes a word on its disk, where the template has nothing.
    fn write(&self, vm: &str, word: &str) {
        let line = format!("printf {word} | dd of=/dev/vda bs=512 seek=100 conv=notrunc,fsync 2>/dev/null");
        assert_eq!(self.console(vm).run(&line).0, 0);
    }

    /// What the guest finds there.
    fn written(&self, vm: &str) -> String {
        let line = "dd if=/dev/vda bs=512 skip=100 count=1 2>/dev/null | tr -d '\\0'; echo";
        self.console(vm).run(line).1.trim().to_owned()
    }

    /// The guest writes into a file on its disk.
    fn answer(&self, vm: &str, at: usize, digit: char) {
        let line = format!("printf {digit} | dd of=/dev/vda bs=1 seek={at} conv=notrunc,fsync 2>/dev/null");
        assert_eq!(self.console(vm).run(&line).0, 0);
    }

    fn answered(&self, vm: &str, at: usize) -> String {
        let line = format!("dd if=/dev/vda bs=1 skip={at} count=1 2>/dev/null; echo");
        self.console(vm).run(&line).1.trim().to_owned()
    }

    /// What of it is in the file, as alice submits it.
    fn submitted(&self, folder: &str) -> char {
        let folder = self.world.folder.path().join(folder);
        self.vm(&format!("vm collect alice-tiny --path s*.cfg --path S*.CFG -o {}", text(&folder)));
        let files = std::fs::read_dir(folder.join("alice/alice-tiny/files")).unwrap();
        let file = std::fs::read_to_string(files.last().unwrap().unwrap().path()).unwrap();
        file.split_once("\nTIMEOUT ").unwrap().1.chars().next().unwrap()
    }

    /// What the command says that is not done.
    fn refused(&self, line: &str) -> String {
        let folder = text(&self.folder);
        let words: Vec<&str> = line.split_whitespace().chain(["--lab", &folder]).collect();
        let output = self.labwright(&words);
        assert!(!output.status.success(), "{line}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn versions(&self) -> Vec<serde_json::Value> {
        serde_json::from_str(&self.vm("template versions -o json")).unwrap()
    }

    fn aside(&self) -> Vec<serde_json::Value> {
        serde_json::from_str(&self.vm("get aside -o json")).unwrap()
    }
}

#[test]
fn new_disks_and_the_old_ones_again() {
    let lab = Lab::new().seeded();
    lab.must(&["host", "setup", "--lab", &text(&lab.folder)]);
    lab.apply();
    let instance = lab.instance("alice-tiny", "alice");
    assert_ne!(lab.instance("bob-tiny", "bob"), instance);
    lab.write("alice-tiny", "mine");

    a_restart_may_be_enough(&lab);
    let before = lab.mapping("alice-tiny");
    a_reset_keeps_run_and_disk(&lab);

    let said = lab.vm("vm reimage alice-tiny --yes --wait");
    assert!(said.contains("new disks are asked for; the old ones are kept"), "{said}");
    let after = lab.mapping("alice-tiny");
    for stays in ["ip", "mac", "tap", "host"] {
        assert_eq!(after[stays], before[stays], "it stays in its run, after which its tap is called");
    }
    assert_ne!(after["pid"], before["pid"], "it is another qemu");
    assert_eq!(lab.written("alice-tiny"), "", "its disk is new");
    assert_ne!(lab.instance("alice-tiny", "alice"), instance, "and so is the guest, as it is told");
    let aside = lab.aside();
    assert_eq!((aside.len(), &aside[0]["vm"]), (1, &"alice-tiny".into()));
    lab.write("alice-tiny", "anew");

    // Of one that is off, disks change hands without a start.
    lab.vm("vm stop alice-tiny --yes");
    lab.vm("vm reimage alice-tiny --undo --yes");
    assert_eq!(lab.vm_state("alice-tiny"), "off");
    lab.vm("vm start alice-tiny --yes --wait");
    assert_eq!(lab.written("alice-tiny"), "mine");
    assert_eq!(lab.instance("alice-tiny", "alice"), instance, "it is the guest of before");
    let run = lab.run("alice-tiny");
    lab.vm("vm reimage alice-tiny --undo --yes --wait");
    assert_eq!(lab.written("alice-tiny"), "anew", "an undo can be undone");
    assert_eq!(lab.run("alice-tiny"), run);
}

/// Somebody at a terminal is asked first, and takes the restart.
fn a_restart_may_be_enough(lab: &Lab) {
    let before = lab.mapping("alice-tiny");
    let (site, folder) = (text(&lab.site), text(&lab.folder));
    let line = format!("{BINARY} --site {site} vm reimage alice-tiny --wait --lab {folder}");
    let mut script = Command::new("script");
    script.args(["-qefc", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut script = script.spawn().unwrap();
    script.stdin.take().unwrap().write_all(b"yes\n").unwrap();
    let output = script.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let question = "`alice-tiny` was never restarted, which keeps its disk and may be enough. Restart first?";
    assert!(output.status.success() && said.contains(question), "{said}");
    assert!(said.contains("no disk was touched"), "{said}");
    assert_ne!(lab.mapping("alice-tiny")["tap"], before["tap"]);
    assert_eq!((lab.written("alice-tiny"), lab.aside().len()), ("mine".to_owned(), 0));
}

/// What a guest has not written to its disk is lost, and nothing else.
fn a_reset_keeps_run_and_disk(lab: &Lab) {
    let before = lab.mapping("alice-tiny");
    lab.console("alice-tiny").run("touch /tmp/mark");
    lab.vm("vm restart alice-tiny --hard");
    let answers =
        || Command::new("ping").args(["-q", "-c1", "-W1", "192.168.100.2"]).output().unwrap().status.success();
    assert!(!answers(), "a guest that was reset is silent");
    wait_until("it has booted again", answers);
    assert_ne!(lab.console("alice-tiny").run("ls /tmp/mark").0, 0, "what was in memory is gone");
    assert_eq!(lab.written("alice-tiny"), "mine");
    let after = lab.mapping("alice-tiny");
    assert_eq!((&after["tap"], &after["pid"]), (&before["tap"], &before["pid"]), "the same run, and the same qemu");
}

/// A CD that boots what the template's disk boots, as a hard disk that it stands for (El Torito): the guest runs from memory, and
/// has an empty disk before it.
pub(crate) fn cd(lab: &Lab) -> std::path::PathBuf {
    const SECTOR: usize = 2048;
    let (raw, cd) = (lab.world.folder.path().join("boot.raw"), lab.world.folder.path().join("boot.iso"));
    tool("qemu-img", &["convert", "-O", "raw", &text(template()), &text(&raw)]);
    let mut boot = std::fs::read(&raw).unwrap();
    // Where its partition ends, which tells the firmware the disk's shape: 255 heads, 63 sectors.
    boot[446 + 5..446 + 8].copy_from_slice(&[0xfe, 0x3f, 0x06]);
    let mut sectors = vec![0; 20 * SECTOR];
    for (number, kind) in [(16, 1), (17, 0), (18, 255)] {
        let at = number * SECTOR;
        sectors[at..at + 7].copy_from_slice(&[kind, b'C', b'D', b'0', b'0', b'1', 1]);
    }
    let (torito, catalog) = (17 * SECTOR, 19 * SECTOR);
    sectors[torito + 7..torito + 30].copy_from_slice(b"EL TORITO SPECIFICATION");
    sectors[torito + 0x47] = 19;
    // The first entry says nothing and has a checksum; the second: bootable, a hard disk with FAT, one sector, from the 20th on.
    sectors[catalog] = 1;
    sectors[catalog + 28..catalog + 32].copy_from_slice(&[0xaa, 0x55, 0x55, 0xaa]);
    sectors[catalog + 32..catalog + 41].copy_from_slice(&[0x88, 4, 0, 0, 6, 0, 1, 0, 20]);
    std::fs::write(&cd, [sectors, boot].concat()).unwrap();
    cd
}

/// A whole life: from a CD to a template, from that to vms; somebody's work on one of them through a reimage and its undo to a
/// submission, the next version and the vms of that, and to a second vm to look into.
#[test]
fn installed_published_derived_reimaged_submitted_and_restored() {
    let lab = Lab::new();
    lab.must(&["host", "setup", "--lab", &text(&lab.folder)]);
    lab.edit("image: images/tiny.qcow2", "size: 64M");
    lab.apply();
    let cd = cd(&lab);
    let said = lab.vm(&format!("template install tiny --cdrom {}", cd.display()));
    assert!(said.contains("vm/teacher/tiny"), "{said}");
    wait_until("it has booted from the CD", || lab.vm_state("teacher/tiny") == "ready");
    install(&lab);
    let running = lab.refused("template publish teacher/tiny --as tiny");
    assert!(running.contains("vm `teacher/tiny` is not off; nothing was changed"), "{running}");
    lab.vm("vm stop teacher/tiny --yes");
    lab.vm("template publish teacher/tiny --as tiny --note fresh");
    let version = lab.versions().remove(0);
    assert_eq!((&version["version"], &version["by"], &version["note"]), (&1.into(), &"root".into(), &"fresh".into()));

    lab.apply();
    let answer = answer_at(&lab);
    lab.answer("alice-tiny", answer, '7');
    lab.vm("vm stop alice-tiny --yes");
    lab.vm("vm reimage alice-tiny --yes");
    assert_eq!((lab.submitted("new"), lab.aside().len()), ('0', 1), "its disk is new, and the old one is kept");
    lab.vm("vm reimage alice-tiny --undo --yes");
    assert_eq!(lab.submitted("handed-in"), '7');

    lab.vm("template publish alice-tiny --as tiny");
    lab.vm("vm reimage bob-tiny --yes --wait");
    assert_eq!(lab.answered("bob-tiny", answer), "7", "it has the new version");
    lab.vm("vm reimage alice-tiny --yes");
    let old = lab.aside().into_iter().rfind(|disk| disk["vm"] == "alice-tiny").unwrap();
    lab.vm(&format!("restore alice-tiny --set {} --as then", old["set"].as_str().unwrap()));
    lab.vm("vm start alice/then --yes --wait");
    assert_eq!(lab.answered("alice/then", answer), "7", "what she had is there to look into");
    assert!(std::path::Path::new(old["path"].as_str().unwrap()).exists(), "and stays where it is");
    let versions = lab.versions();
    let on = |version: usize| versions[version]["vms"].clone();
    assert_eq!((on(0), on(1)), (serde_json::json!([]), serde_json::json!(["alice-tiny", "bob-tiny"])));
    for version in &versions {
        stands_alone(version);
    }
}

/// Where on the disk of the template a digit stands in a file of its file system that no boot reads.
fn answer_at(lab: &Lab) -> usize {
    const BEFORE: &[u8] = b"\nTIMEOUT ";
    let disk = std::fs::read(lab.world.folder.path().join("boot.raw")).unwrap();
    disk.windows(BEFORE.len()).position(|bytes| bytes == BEFORE).unwrap() + BEFORE.len()
}

/// The guest writes what its disk is to hold, which it gets from us.
fn install(lab: &Lab) {
    let listener = std::net::TcpListener::bind(("192.168.100.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let image = lab.world.folder.path().join("boot.raw");
    let sends = std::thread::spawn(move || {
        std::io::copy(&mut std::fs::File::open(image).unwrap(), &mut listener.accept().unwrap().0).unwrap()
    });
    let mut guest = lab.console("teacher/tiny");
    let line = format!("while ! [ -s /tmp/address ]; do sleep 0.2; done; nc 192.168.100.1 {port} >/dev/vda && sync");
    assert_eq!(guest.run(&line).0, 0);
    assert!(sends.join().unwrap() > 1 << 20);
}

/// Nobody writes it, and it is what its record says.
fn stands_alone(version: &serde_json::Value) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = version["disks"][0].as_str().unwrap();
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o444);
    let info: serde_json::Value = serde_json::from_str(&tool("qemu-img", &["info", "--output=json", path])).unwrap();
    assert_eq!(info.get("backing-filename"), None);
    let digest = tool("sha256sum", &[path]);
    assert_eq!(digest.split(' ').next(), version["sha256"][0].as_str());
}
