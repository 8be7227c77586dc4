//! The cgroup around a guest's qemu: in the kernel's own hierarchy, which has no memory controller on every machine, and in
//! plain files that show what is written.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use labwright::host::run::sweep;
use labwright::run::{Event, StopReason};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{BINARY, Run, World, processes, text, tool, wait_until};

/// qemu is alone in its run's cgroup, which goes with the run; a killed starter's goes with a sweep, a living one's stays.
#[test]
fn each_qemu_has_a_cgroup_that_goes_with_its_run() {
    let mut world = World::new();
    tool("mount", &["-t", "cgroup2", "none", "/sys/fs/cgroup"]);
    let name = format!("labwright-test-{}", std::process::id());
    let parent = Path::new("/sys/fs/cgroup").join(&name);
    std::fs::create_dir(&parent).unwrap();
    std::os::unix::fs::symlink(&parent, world.run_root().join("cgroup")).unwrap();
    std::fs::create_dir(parent.join("not-a-run")).unwrap();

    let (dead, alive) = (world.spec(15), world.spec(16));
    let (mut dead, mut alive) = (world.start(dead), world.start(alive));
    for run in [&dead, &alive] {
        run.wait_for("running", |event| matches!(event, Event::Running { .. }));
        let of = |process: i32| std::fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
        let own = format!("0::/{name}/{}", run.spec.run);
        assert!(of(qemu(run)).lines().any(|line| line == own), "{}", of(qemu(run)));
        let within = std::fs::read_to_string(parent.join(run.spec.run.to_string()).join("cgroup.procs")).unwrap();
        assert_eq!(within, format!("{}\n", qemu(run)));
    }

    dead.signal(Signal::SIGKILL);
    dead.end();
    wait_until("nothing is left of it", || dead.leftovers().is_empty());
    let swept = sweep::sweep(&world.run_root());
    assert_eq!(swept.removed, [format!("cgroup of run {}", dead.spec.run)]);
    assert!(swept.errors.is_empty(), "{:?}", swept.errors);
    let groups = || parent.read_dir().unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()).count();
    assert_eq!(groups(), 2, "what is not a run's stays, and so does a living one's");

    alive.signal(Signal::SIGTERM);
    assert!(alive.end().success());
    assert_eq!(groups(), 1);
    std::fs::remove_dir(parent.join("not-a-run")).unwrap();
    drop(world);
    assert!(!parent.exists(), "a teardown takes the folder");
}

/// Where the kernel would bound a guest, its files say by how much; and when the kernel ends qemu for its memory, the report
/// says so.
#[test]
fn a_guest_that_took_too_much_memory_is_told_as_such() {
    let mut world = World::new();
    let mut spec = world.spec(17);
    spec.timing.start_attempts_max = 1;
    let group = world.run_root().join("cgroup").join(spec.run.to_string());
    std::fs::create_dir_all(&group).unwrap();
    for (file, content) in [("memory.max", ""), ("cgroup.procs", ""), ("memory.events", "low 0\noom 0\noom_kill 0\n")] {
        std::fs::write(group.join(file), content).unwrap();
    }
    let mut run = world.start(spec);
    let running = run.wait_for("running", |event| matches!(event, Event::Running { .. }));
    let Event::Running { unbounded: Some(lacking), .. } = running else { panic!("{running:?}") };
    assert!(lacking.contains("cpu.max: No such file") && !lacking.contains("memory.max"), "{lacking}");
    let written = |file: &str| std::fs::read_to_string(group.join(file)).unwrap();
    assert_eq!(written("memory.max"), (274_u64 << 20).to_string());
    assert_eq!(written("cgroup.procs"), qemu(&run).to_string());

    std::fs::write(group.join("memory.events"), "low 0\noom 1\noom_kill 1\n").unwrap();
    kill(Pid::from_raw(qemu(&run)), Signal::SIGKILL).unwrap();
    assert!(run.end().success());
    let exit = "killed by signal 9: the kernel ended qemu, which took more than its bound of 274 MiB";
    let last = Event::Stopped { reason: StopReason::Crashed, exit: Some(exit.to_owned()) };
    assert_eq!(run.events().last(), Some(&last));
    assert_eq!(run.leftovers(), [] as [&str; 0]);
}

/// What `host check` says of a qemu that was broken out of is true: all guests have one account, and only the kernel keeps
/// one from ending the others.
#[test]
fn a_confined_process_ends_others_only_where_check_says_so() {
    let world = World::bare();
    let storage = labwright::model::site::Storage::below(world.folder.path());
    let lines = labwright::host::machine::check::check(&world.wanted(), &storage);
    let found = lines.into_iter().find(|line| line.what == "landlock").unwrap().found;
    let user = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    let mut other = Command::new("sleep").arg("600").uid(uid).gid(gid).spawn().unwrap();
    let killed = Command::new(BINARY)
        .args(["confine", "--parent", &std::process::id().to_string()])
        .args(["--uid", &uid.to_string(), "--gid", &gid.to_string(), "--", "/bin/sh", "-c"])
        .arg(format!("kill -0 $$ && kill -9 {}", other.id()))
        .status()
        .unwrap();
    assert_eq!(killed.success(), !found.contains("ends no other guest"), "{found}");
    other.kill().unwrap();
    other.wait().unwrap();
}

fn qemu(run: &Run) -> i32 {
    let disk = text(&run.spec.disks[0].path);
    processes().into_iter().find(|(_, command)| command.contains(&disk)).expect("qemu runs").0
}
