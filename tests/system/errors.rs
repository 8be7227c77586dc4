//! Starts that cannot be: each says what is missing and what to do, in the report and on standard error.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use labwright::model::site::Accel;
use labwright::run::{self, Event, RunSpec, StopReason};

use crate::world::{World, tool};

/// Every case with what it says; the golden text shows them all.
#[derive(Default)]
struct Transcript(String);

impl Transcript {
    fn add(&mut self, world: &World, case: &str, said: &str) {
        let root = world.folder.path().display().to_string();
        writeln!(self.0, "== {case}\n{}\n", said.trim().replace(&root, "ROOT")).unwrap();
    }

    /// Carries out a run that must fail, and notes what its report says.
    fn failure(&mut self, world: &mut World, case: &str, change: impl FnOnce(&mut RunSpec)) {
        let mut spec = world.spec(2);
        change(&mut spec);
        let folder = world.write(&spec);
        let output = world.starter(&folder).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{case}: {}", String::from_utf8_lossy(&output.stderr));
        let last = run::read_report(&folder).unwrap().pop().map(|record| record.event);
        let Some(Event::Stopped { reason: StopReason::Failed { message }, .. }) = last else {
            panic!("{case}: {last:?}")
        };
        assert!(!tool("ip", &["-o", "link"]).contains("lwt3st"), "{case}: a tap stays behind");
        assert!(!tool("nft", &["list", "tables"]).contains("lw_t3st"), "{case}: a filter stays behind");
        self.add(world, case, &message);
    }

    /// Notes what a failing starter says on standard error.
    fn refusal(&mut self, world: &World, case: &str, folder: &Path) {
        let output = world.starter(folder).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{case}");
        self.add(world, case, &String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn what_a_host_may_lack() {
    let mut world = World::bare();
    let mut said = Transcript::default();
    said.failure(&mut world, "no bridge", |_| {});
    tool("ip", &["link", "add", "vbr0", "type", "bridge"]);
    said.failure(&mut world, "nobody has looked for KVM", |_| {});
    said.failure(&mut world, "a bridge that is down", |spec| spec.qemu.accel = Accel::Tcg);
    tool("ip", &["addr", "add", "192.168.100.1/24", "dev", "vbr0"]);
    said.failure(&mut world, "no table of the host", |spec| spec.qemu.accel = Accel::Tcg);
    tool("nft", &["add", "table", "bridge", "labwright"]);
    said.failure(&mut world, "another table of that name", |spec| spec.qemu.accel = Accel::Tcg);
    // Over /dev/net, in this test's mount namespace alone.
    tool("mount", &["-t", "tmpfs", "none", "/dev/net"]);
    said.failure(&mut world, "no /dev/net/tun", |_| {});
    tool("umount", &["/dev/net"]);
    insta::assert_snapshot!(said.0);
}

#[test]
fn what_a_run_may_ask_for_in_vain() {
    let mut world = World::new();
    let mut said = Transcript::default();
    said.failure(&mut world, "no qemu", |spec| spec.qemu.binary = "/usr/bin/qemu-system-none".into());
    said.failure(&mut world, "no service user", |spec| spec.service_user = "lw-nobody".to_owned());
    said.failure(&mut world, "no disk", |spec| std::fs::remove_file(&spec.disks[0].path).unwrap());
    said.failure(&mut world, "an empty disk", |spec| std::fs::write(&spec.disks[0].path, "").unwrap());
    said.failure(&mut world, "a disk that is no qcow2", |spec| {
        std::fs::write(&spec.disks[0].path, "#!/bin/sh\n").unwrap();
    });
    said.failure(&mut world, "no template", |spec| spec.disks[0].backing = vec!["/nonexistent/disk-0.qcow2".into()]);
    said.failure(&mut world, "a device that qemu does not know", |spec| {
        spec.qemu.extra_args = vec!["-device".to_owned(), "no-such-device".to_owned()];
    });
    insta::assert_snapshot!(said.0);
}

/// Here the report cannot say it, or must not: standard error does.
#[test]
fn what_a_starter_cannot_report() {
    let mut world = World::new();
    let mut said = Transcript::default();
    said.refusal(&world, "no folder", &world.folder.path().join("runs/t3st-1"));

    let spec = world.spec(2);
    let begun = world.write(&spec);
    std::fs::write(begun.join(run::REPORT), "").unwrap();
    said.refusal(&world, "begun by another", &begun);
    assert_eq!(std::fs::read_to_string(begun.join(run::REPORT)).unwrap(), "");

    let spec = world.spec(2);
    let closed = world.write(&spec);
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o555)).unwrap();
    said.refusal(&world, "a folder that its owner cannot write", &closed);

    let spec = world.spec(2);
    let folder = world.write(&spec);
    let program = world.program_in_reach();
    let mut starter = Command::new(&program);
    starter.arg("starter").arg("--run").arg(&folder).env("LABWRIGHT_RUN_ROOT", world.run_root());
    let output = starter.uid(65534).gid(65534).output().unwrap();
    said.add(&world, "not root", &String::from_utf8_lossy(&output.stderr));
    insta::assert_snapshot!(said.0);
}
