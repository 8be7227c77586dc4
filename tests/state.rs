//! SQLite's promises, kept by the real program on file systems that misbehave: what is recorded is what was before or what
//! is after, or the program says clearly that it cannot tell and changes nothing. Kills are in `tests/kills.rs`. The tests
//! mount small file systems, so they run as root.

#[path = "cli/sandbox.rs"]
mod sandbox;

use std::path::PathBuf;
use std::process::Command;

use rusqlite::{Connection, OpenFlags};
use sandbox::Sandbox;

const MANY: &str = "user\nada\nbea\ncid\ndan\neve\nfay\ngil\nhal\nida\njon\n";

/// A sandbox whose state is on a file system of its own, as large as `size` says.
struct Small(Sandbox);

impl Small {
    fn new(size: &str) -> Self {
        let small = Self(Sandbox::new("/dev/shm", None));
        small.run("mkdir ../small && sed -i s:site/state.db:small/state.db: ../site.yaml");
        small.run(&format!("mount -t tmpfs -o size={size} labwright-test ../small"));
        small.run("labwright --site ../site.yaml state init");
        small
    }

    /// Runs a line of shell that must work.
    fn run(&self, line: &str) -> String {
        let (code, said) = self.ask(line);
        assert_eq!(code, Some(0), "{line}\n{said}");
        said
    }

    /// The exit code of a line of shell, and all that it printed.
    fn ask(&self, line: &str) -> (Option<i32>, String) {
        let output = self.0.shell(line);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// What is recorded of the lab, after SQLite's own check of the file.
    fn recorded(&self) -> Vec<String> {
        let path = self.0.path("small/state.db");
        let state = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        let verdict: String = state.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
        let mut query = state.prepare("SELECT name || ' ' || ip || ' ' || body FROM vms ORDER BY name").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    /// Leaves this much room on the file system.
    fn fill(&self, room_bytes: u64) {
        self.run("dd if=/dev/zero of=../small/filler bs=4k status=none 2>/dev/null; test -s ../small/filler");
        self.run(&format!("truncate -s -{room_bytes} ../small/filler"));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Without the unmount the folder could not be removed; a test that fails here has failed before.
        drop(Command::new("umount").arg(self.0.path("small")).status());
    }
}

#[test]
fn a_full_disk_keeps_what_was_and_says_so() {
    let mut refused = 0;
    for room_bytes in [0, 4 << 10, 16 << 10, 36 << 10, 64 << 10, 100 << 10] {
        let small = Small::new("512k");
        small.run("labwright --site ../site.yaml apply --yes");
        let before = small.recorded();
        small.fill(room_bytes);
        std::fs::write(small.0.path("lab/students.csv"), MANY).unwrap();
        let (code, said) = small.ask("labwright --site ../site.yaml apply --yes");
        small.run("rm ../small/filler");
        if code == Some(0) {
            assert_eq!(small.recorded().len(), 10, "{said}");
        } else {
            refused += 1;
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains("hint: the disk is full; nothing was lost"), "with {room_bytes} bytes free:\n{said}");
            let now = small.recorded();
            assert!(now.starts_with(&before), "{before:?}\n{now:?}");
        }
        small.run("labwright --site ../site.yaml apply --yes");
        small.run("labwright --site ../site.yaml plan --detailed-exitcode");
        assert_eq!(small.recorded().len(), 10);
    }
    assert!(refused > 0, "no disk was full");
}

#[test]
fn a_read_only_state_is_refused_and_stays() {
    let small = Small::new("4m");
    small.run("labwright --site ../site.yaml apply --yes");
    small.run("mount -o remount,ro ../small");
    std::fs::write(small.0.path("lab/students.csv"), MANY).unwrap();
    for command in ["plan", "apply --yes", "get vms", "destroy --yes", "freeze"] {
        let (code, said) = small.ask(&format!("labwright --site ../site.yaml {command}"));
        assert_eq!(code, Some(1), "{command}: {said}");
        assert!(said.contains("hint: the state or its folder is not writable for you"), "{command}: {said}");
    }
    assert_eq!(small.run("find ../site -name 'disk-*' | wc -l").trim(), "3", "the template's and two students'");
    small.run("mount -o remount,rw ../small");
    assert_eq!(small.recorded().len(), 2);
    small.run("labwright --site ../site.yaml apply --yes");
    small.run("labwright --site ../site.yaml plan --detailed-exitcode");
}

/// Each page of the file in turn is half zeros, as after a write that power cut short.
#[test]
fn a_torn_page_is_harmless_or_refused() {
    let small = Small::new("4m");
    small.run("labwright --site ../site.yaml apply --yes");
    small.run("sed -i 's/256M/512M/' lab.yaml");
    let whole = small.ask("labwright --site ../site.yaml plan --detailed-exitcode");
    assert_eq!(whole.0, Some(2), "{}", whole.1);
    let path: PathBuf = small.0.path("small/state.db");
    let sound = std::fs::read(&path).unwrap();
    let page_bytes = usize::from(u16::from_be_bytes([sound[16], sound[17]]));
    let mut refused = 0;
    for start in (0..sound.len()).step_by(page_bytes) {
        let mut torn = sound.clone();
        torn[start + page_bytes / 2..start + page_bytes].fill(0);
        if torn == sound {
            continue;
        }
        std::fs::write(&path, &torn).unwrap();
        let found = small.ask("labwright --site ../site.yaml plan --detailed-exitcode");
        let page = start / page_bytes + 1;
        if found != whole {
            refused += 1;
            assert_eq!(found.0, Some(1), "page {page}: {}", found.1);
            assert!(found.1.contains("state.db is damaged") && found.1.contains("hint: "), "page {page}: {}", found.1);
            assert!(std::fs::read(&path).unwrap() == torn, "page {page} was refused, and the file is another now");
        }
    }
    assert!(refused > 5, "only {refused} torn pages were noticed");
    std::fs::write(&path, &sound).unwrap();
    assert_eq!(small.ask("labwright --site ../site.yaml plan --detailed-exitcode"), whole);
}

/// A copy does not know of runs that began after it was made; their numbers must not be given again.
#[test]
fn a_restored_copy_gives_no_run_number_twice() {
    let small = Small::new("4m");
    small.run("labwright --site ../site.yaml state backup ../copy.db");
    let path = small.0.path("small/state.db");
    let tag: String = Connection::open(&path).unwrap().query_row("SELECT tag FROM site", [], |row| row.get(0)).unwrap();
    small.run(&format!(
        "mkdir -p ../site/storage/runs/batches ../site/storage/runs/{tag}-41 ../site/storage/runs/{tag}-7"
    ));
    small.run("labwright --site ../site.yaml state restore ../copy.db");
    let next = |path: &PathBuf| -> u64 {
        Connection::open(path).unwrap().query_row("SELECT next_run FROM site", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(next(&path), 42);
    small.run("labwright --site ../site.yaml apply --yes");
    small.run("labwright --site ../site.yaml plan --detailed-exitcode");
}
