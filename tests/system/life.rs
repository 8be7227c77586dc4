//! The life of a vm's disks, on real guests: new ones, and those of before.

use std::process::Command;

use crate::lab::Lab;
use crate::world::{text, wait_until};

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

    fn aside(&self) -> Vec<serde_json::Value> {
        serde_json::from_str(&self.vm("get aside -o json")).unwrap()
    }
}

#[test]
fn new_disks_and_the_old_ones_again() {
    let lab = Lab::new();
    lab.must(&["host", "setup", "--lab", &text(&lab.folder)]);
    lab.apply();
    let before = lab.mapping("alice-tiny");
    lab.write("alice-tiny", "mine");

    a_reset_keeps_run_and_disk(&lab);

    let said = lab.vm("vm reimage alice-tiny --yes --wait");
    assert!(said.contains("new disks are asked for; the old ones are kept"), "{said}");
    let after = lab.mapping("alice-tiny");
    assert_eq!((&after["ip"], &after["mac"]), (&before["ip"], &before["mac"]), "it keeps its address");
    assert_eq!(lab.written("alice-tiny"), "", "its disk is new");
    let aside = lab.aside();
    assert_eq!((aside.len(), &aside[0]["vm"]), (1, &"alice-tiny".into()));
    lab.write("alice-tiny", "anew");

    // Of one that is off, disks change hands without a start.
    lab.vm("vm stop alice-tiny --yes");
    lab.vm("vm reimage alice-tiny --undo --yes");
    assert_eq!(lab.vm_state("alice-tiny"), "off");
    lab.vm("vm start alice-tiny --yes --wait");
    assert_eq!(lab.written("alice-tiny"), "mine");
    lab.vm("vm reimage alice-tiny --undo --yes --wait");
    assert_eq!(lab.written("alice-tiny"), "anew", "an undo can be undone");
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
    assert_eq!((&after["run"], &after["pid"]), (&before["run"], &before["pid"]), "the same run, and the same qemu");
}
