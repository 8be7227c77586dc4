//! Files out of the disks of real guests, once they are off.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::lab::Lab;
use crate::world::{template, text, tool};

/// Where the template's partition ends, and so many bytes behind it for students' files.
const SECTOR_BYTES: u64 = 512;
const FILES_BYTES: u64 = 8 << 20;

/// How many students; `tests/run campaign submissions` has more.
fn students() -> Vec<String> {
    let number = std::env::var("LABWRIGHT_SUBMISSIONS").map_or(2, |number| number.parse().unwrap());
    (1..=number).map(|student: u32| format!("student{student}")).collect()
}

/// The quickstart's lab with a second partition in its template, ext4, where students keep their files.
pub(crate) fn lab(students: &[String], edit: impl FnOnce(String) -> String) -> Lab {
    Lab::prepared("", |folder| {
        let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("labs/quickstart");
        std::fs::create_dir_all(folder.join("images")).unwrap();
        std::fs::create_dir_all(folder.join("top/home/student")).unwrap();
        let manifest = std::fs::read_to_string(quickstart.join("lab.yaml")).unwrap();
        let manifest =
            manifest.replace("    isolated: true\n", "    isolated: true\n    collect: [\"home/*/answer*\"]\n");
        std::fs::write(folder.join("lab.yaml"), edit(manifest.replace("100.20", "100.99"))).unwrap();
        std::fs::write(folder.join("students.csv"), format!("user\n{}\n", students.join("\n"))).unwrap();
        let at = |name: &str| text(&folder.join(name));
        tool("qemu-img", &["convert", "-O", "raw", &text(template()), &at("raw")]);
        tool("mke2fs", &["-q", "-t", "ext4", "-d", &at("top"), &at("files"), "8M"]);
        let raw = std::fs::File::options().write(true).open(folder.join("raw")).unwrap();
        let end = raw.metadata().unwrap().len();
        raw.write_all_at(&std::fs::read(folder.join("files")).unwrap(), end).unwrap();
        let part = format!("start={},size={},type=83", end / SECTOR_BYTES, FILES_BYTES / SECTOR_BYTES);
        tool("sh", &["-c", &format!("echo {part} | sfdisk -q --no-tell-kernel --append {}", at("raw"))]);
        tool("qemu-img", &["convert", "-O", "qcow2", &at("raw"), &at("images/tiny.qcow2")]);
    })
}

#[test]
fn what_was_saved_right_before_an_orderly_stop_is_in_the_submission() {
    let students = students();
    let lab = lab(&students, |manifest| manifest);
    let (folder, into) = (text(&lab.folder), text(&lab.folder.join("got")));
    lab.must(&["host", "setup", "--lab", &folder]);
    // Twenty guests without KVM boot for long.
    lab.must(&["apply", &folder, "--yes", "--wait", "--timeout", "3600"]);
    let collect = ["vm", "collect", "exam", "-o", &into, "--lab", &folder];
    let refused = lab.labwright(&collect);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("what it saved last may not be on its disk"), "{said}");

    for student in &students {
        let mut console = lab.console(&format!("{student}-tiny"));
        let save =
            format!("mkdir -p /mnt; mount -t ext4 /dev/vda2 /mnt && echo {student} >/mnt/home/student/answer.txt");
        assert_eq!(console.run(&save), (0, String::new()));
    }
    // What it finds is anybody's guess; that it is no submission is not.
    lab.labwright(&[&collect[..], &["--look"]].concat());
    lab.must(&["vm", "stop", "exam", "--yes", "--allow", "vm/*", "--lab", &folder]);
    lab.must(&collect);
    for student in &students {
        let place = lab.folder.join("got").join(student);
        let answer = place.join(format!("{student}-tiny/files/home/student/answer.txt"));
        assert_eq!(std::fs::read_to_string(answer).unwrap(), format!("{student}\n"));
        let look = std::fs::read_to_string(place.join(format!("{student}-tiny.look/receipt.txt"))).unwrap();
        assert!(look.starts_with("Not a submission"), "{look}");
    }
}
