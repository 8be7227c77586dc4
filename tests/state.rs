//! SQLite's promises, kept by the real program on file systems that misbehave: what is recorded is what was before or what
//! is after, or the program says clearly that it cannot tell and changes nothing. Kills at random moments are in
//! `tests/kills.rs`; here every single write is one. The tests
//! mount small file systems, so they run as root.

#[path = "state/people.rs"]
mod people;
#[path = "state/record.rs"]
mod record;
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
        must(&self.0, line)
    }

    /// The exit code of a line of shell, and all that it printed.
    fn ask(&self, line: &str) -> (Option<i32>, String) {
        ask(&self.0, line)
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
fn a_read_only_state_is_shown_and_stays() {
    let small = Small::new("4m");
    small.run("labwright --site ../site.yaml apply --yes");
    small.run("mount -o remount,ro ../small");
    std::fs::write(small.0.path("lab/students.csv"), MANY).unwrap();
    for command in ["apply --yes", "destroy --yes", "freeze", "restore vm/ada-work"] {
        let (code, said) = small.ask(&format!("labwright --site ../site.yaml {command}"));
        assert_eq!(code, Some(1), "{command}: {said}");
        assert!(said.contains("hint: the state or its folder is not writable for you"), "{command}: {said}");
    }
    assert_eq!(small.ask("labwright --site ../site.yaml plan --detailed-exitcode").0, Some(2));
    assert_eq!(small.run("labwright --site ../site.yaml get vms -o csv | wc -l").trim(), "3", "a heading and two vms");
    assert_eq!(small.run("find ../site -name 'disk-*' | wc -l").trim(), "3", "the template's and two students'");
    small.run("mount -o remount,rw ../small");
    assert_eq!(small.recorded().len(), 2);
    small.run("labwright --site ../site.yaml apply --yes");
    small.run("labwright --site ../site.yaml plan --detailed-exitcode");
}

/// Root applies, everybody looks: also while the write-ahead log is there, and never by writing.
#[test]
fn who_may_not_write_may_look() {
    const READERS: [&str; 6] =
        ["plan --detailed-exitcode", "status", "get vms", "get disks", "explain vm/ada-work", "history"];
    let sandbox = Sandbox::new("/dev/shm", None);
    assert_eq!(
        ask(&sandbox, "labwright --site ../site.yaml state init && labwright --site ../site.yaml apply --yes").0,
        Some(0)
    );
    let as_nobody = |command: &str| {
        let nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups";
        ask(&sandbox, &format!("{nobody} labwright --site ../site.yaml {command}"))
    };
    const FILES: &str = "state.db\nstate.db.checked\nstate.db.lock\nstorage\n";
    let files = |when: &str| assert_eq!(ask(&sandbox, "ls ../site").1, FILES, "{when}");
    for command in READERS {
        let (code, said) = as_nobody(command);
        assert_eq!(code, Some(0), "{command}: {said}");
        files(command);
    }
    let (code, said) = as_nobody("freeze");
    assert!(code == Some(1) && said.contains("`sudo` may be what is missing"), "{said}");
    // A writer who is at it: what it has committed is seen, what it has not is not.
    let writer = Connection::open(sandbox.path("site/state.db")).unwrap();
    writer
        .execute_batch("UPDATE applies SET who = 'committed'; BEGIN IMMEDIATE; UPDATE applies SET who = 'open'")
        .unwrap();
    for command in READERS {
        let (code, said) = as_nobody(command);
        assert_eq!(code, Some(0), "{command}, with a writer: {said}");
    }
    let (_, said) = as_nobody("history");
    assert!(said.contains("committed") && !said.contains("open"), "{said}");
    drop(writer);
    // Neither the state nor the guests' folders are everybody's.
    let stranger = "setpriv --reuid=54321 --regid=54321 --clear-groups labwright --site ../site.yaml";
    let (code, said) = ask(&sandbox, &format!("{stranger} history"));
    assert!(code == Some(1) && said.contains("run it with `sudo`"), "{said}");
    let (code, said) = ask(&sandbox, &format!("{stranger} plan"));
    assert!(code == Some(1) && said.contains("run it with `sudo`"), "{said}");
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

/// A lab that was never applied, and a state that was just made.
const ANEW: &str = "test -d ../fresh || { labwright --site ../site.yaml state init && mv ../site ../fresh; }; \
                    rm -rf ../site && cp -r ../fresh ../site";

/// Runs a command that is killed before the n-th call of one kind that its main thread makes, the one that talks to the state;
/// `None` where it never made so many.
fn killed_at(sandbox: &Sandbox, call: &str, n: u32, command: &str) -> Option<String> {
    let traced = format!(
        "strace -qq -o /dev/null -e trace={call} -e inject={call}:signal=KILL:when={n} labwright --site ../site.yaml {command}"
    );
    let output = sandbox.shell(&traced);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    match output.status.code() {
        Some(0) => None,
        Some(137) => Some(said),
        other => panic!("killed before {call} number {n}, `{command}` ended with {other:?}:\n{said}"),
    }
}

fn ask(sandbox: &Sandbox, line: &str) -> (Option<i32>, String) {
    let output = sandbox.shell(line);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// What a line of shell that succeeds says.
#[track_caller]
fn must(sandbox: &Sandbox, line: &str) -> String {
    let (code, said) = ask(sandbox, line);
    assert_eq!(code, Some(0), "{line}\n{said}");
    said
}

/// Every write to the state and every flush of it is the moment of a kill, one after the other.
#[test]
fn a_kill_at_each_write_leaves_what_was_before_or_after() {
    let sandbox = Sandbox::new("/dev/shm", None);
    for (call, at_least) in [("pwrite64", 20), ("fsync", 6)] {
        let mut kills = 0;
        loop {
            assert_eq!(ask(&sandbox, ANEW).0, Some(0));
            if killed_at(&sandbox, call, kills + 1, "apply --yes").is_none() {
                break;
            }
            kills += 1;
            what_belongs_together_is_there_together(&sandbox, &format!("killed before {call} number {kills}"));
            let (code, said) = ask(&sandbox, "labwright --site ../site.yaml apply --yes");
            assert_eq!(code, Some(0), "after a kill before {call} number {kills}:\n{said}");
            let (code, said) = ask(&sandbox, "labwright --site ../site.yaml plan --detailed-exitcode");
            assert_eq!(code, Some(0), "after a kill before {call} number {kills} and another apply:\n{said}");
        }
        assert!(kills >= at_least, "an apply with {kills} calls of {call} proves little");
    }
}

/// A disk and the journal's line about it are written in one transaction, before it is made and again after.
fn what_belongs_together_is_there_together(sandbox: &Sandbox, when: &str) {
    let state = Connection::open_with_flags(sandbox.path("site/state.db"), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let text = |query: &str| -> String { state.query_row(query, [], |row| row.get(0)).unwrap() };
    assert_eq!(text("PRAGMA integrity_check"), "ok", "{when}");
    let disks = text("SELECT COUNT(*) || ' meant, ' || COALESCE(SUM(made), 0) || ' made' FROM disks");
    let lines =
        text("SELECT COUNT(*) || ' meant, ' || COUNT(outcome) || ' made' FROM journal WHERE effect = 'make the disk'");
    assert_eq!(disks, lines, "{when}: disks, and what the journal says of them");
}

#[test]
fn a_state_appears_whole_or_not_at_all() {
    let sandbox = Sandbox::new("/dev/shm", None);
    for call in ["pwrite64", "fsync", "rename"] {
        for n in 1.. {
            assert_eq!(ask(&sandbox, "rm -rf ../site").0, Some(0));
            if killed_at(&sandbox, call, n, "state init").is_none() {
                assert!(n > 1, "`state init` never calls {call}");
                break;
            }
            let (code, said) = ask(&sandbox, "labwright --site ../site.yaml plan");
            if code != Some(0) {
                assert_eq!(code, Some(1), "killed before {call} number {n}: {said}");
                assert!(
                    said.contains("there is no state at") && said.contains("hint: make it with `labwright state init`"),
                    "killed before {call} number {n}: {said}"
                );
                let (code, said) = ask(&sandbox, "labwright --site ../site.yaml state init");
                assert_eq!(code, Some(0), "killed before {call} number {n}: {said}");
            }
            assert_eq!(ask(&sandbox, "labwright --site ../site.yaml plan").0, Some(0));
        }
    }
}

/// What is committed and not yet in the file itself stands in the write-ahead log: each of its pages in turn is half zeros.
#[test]
fn a_torn_page_of_the_log_takes_the_state_back_to_before() {
    const HEADER_BYTES: usize = 32;
    const FRAME_HEADER_BYTES: usize = 24;
    let sandbox = Sandbox::new("/dev/shm", None);
    assert_eq!(ask(&sandbox, ANEW).0, Some(0));
    // A whole apply puts the log into the file when it ends, so it must die shortly before.
    let last = (1..).take_while(|n| {
        assert_eq!(ask(&sandbox, ANEW).0, Some(0));
        killed_at(&sandbox, "fsync", *n, "apply --yes").is_some()
    });
    let last = last.last().expect("an apply flushes the state");
    assert_eq!(ask(&sandbox, ANEW).0, Some(0));
    // The very last flushes are those of the checkpoint itself.
    assert!(killed_at(&sandbox, "fsync", last - 2, "apply --yes").is_some());
    let (file, log) = (sandbox.path("site/state.db"), sandbox.path("site/state.db-wal"));
    let (sound_file, sound) = (std::fs::read(&file).unwrap(), std::fs::read(&log).unwrap());
    let page_bytes = usize::from(u16::from_be_bytes([sound_file[16], sound_file[17]]));
    let frames = (sound.len() - HEADER_BYTES) / (FRAME_HEADER_BYTES + page_bytes);
    assert!(frames > 8, "a log of {frames} pages proves little");
    let mut went_back = 0;
    for frame in 0..frames {
        let middle = HEADER_BYTES + frame * (FRAME_HEADER_BYTES + page_bytes) + FRAME_HEADER_BYTES + page_bytes / 2;
        let mut torn = sound.clone();
        torn[middle..middle + page_bytes / 2].fill(0xa5);
        std::fs::write(&file, &sound_file).unwrap();
        std::fs::write(&log, &torn).unwrap();
        let when = format!("page {frame} of the log is torn");
        what_is_meant_is_what_the_journal_says(&sandbox, &when, &mut went_back);
        let (code, said) = ask(&sandbox, "labwright --site ../site.yaml apply --yes");
        assert_eq!(code, Some(0), "{when}: {said}");
        let (code, said) = ask(&sandbox, "labwright --site ../site.yaml plan --detailed-exitcode");
        assert_eq!(code, Some(0), "{when}: {said}");
    }
    assert!(went_back > 3, "only {went_back} torn pages took the state back");
}

fn what_is_meant_is_what_the_journal_says(sandbox: &Sandbox, when: &str, went_back: &mut u32) {
    what_belongs_together_is_there_together(sandbox, when);
    let state = Connection::open_with_flags(sandbox.path("site/state.db"), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let done: u32 =
        state.query_row("SELECT COUNT(*) FROM journal WHERE outcome IS NOT NULL", [], |row| row.get(0)).unwrap();
    let made: u32 = state.query_row("SELECT COUNT(*) FROM disks WHERE made", [], |row| row.get(0)).unwrap();
    *went_back += u32::from(done == 0 || made < 2);
}

/// Another program that writes for longer than the time-out.
#[test]
fn a_busy_state_is_said_to_be_busy() {
    let sandbox = Sandbox::new("/dev/shm", None);
    assert_eq!(ask(&sandbox, ANEW).0, Some(0));
    let other = Connection::open(sandbox.path("site/state.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (code, said) = ask(&sandbox, "labwright --site ../site.yaml apply --yes");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("hint: another process is writing; run the command again"), "{said}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(ask(&sandbox, "labwright --site ../site.yaml apply --yes").0, Some(0));
}

/// A copy that is cut short has no name: nobody takes it for a backup.
#[test]
fn a_backup_is_whole_or_not_there() {
    let small = Small::new("4m");
    small.run("labwright --site ../site.yaml apply --yes");
    small.run("mkdir ../tiny && mount -t tmpfs -o size=32k labwright-test ../tiny");
    let (code, said) = small.ask("labwright --site ../site.yaml state backup ../tiny/copy.db");
    let left = small.run("ls -A ../tiny; umount ../tiny");
    assert_eq!((code, left.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("hint: the disk is full; nothing was lost"), "{said}");
    assert_eq!(said.matches("database or disk is full").count(), 1, "{said}");
    small.run("labwright --site ../site.yaml state backup ../copy.db && test -s ../copy.db");
}

/// A student came back to new disks, and the old ones are put back: at every moment both are recorded where they are, or
/// where they were going.
#[test]
fn a_kill_in_a_restore_loses_neither_disk() {
    let sandbox = Sandbox::new("/dev/shm", None);
    let run = |line: &str| must(&sandbox, line);
    let write = |letter: &str| {
        run(&format!("qemu-io -c 'write -q -P {letter} 0 64k' ../site/storage/vms/course/ada-work/disk-0.qcow2"));
    };
    run("labwright --site ../site.yaml state init && labwright --site ../site.yaml apply --yes");
    write("65");
    run("sed -i /ada/d students.csv && labwright --site ../site.yaml apply --yes --allow user-group/students");
    let set = run("labwright --site ../site.yaml get aside -o csv | tail -1 | cut -d, -f2");
    run("echo ada >>students.csv && labwright --site ../site.yaml apply --yes --allow vm/ada-work");
    write("66");
    run("mv ../site ../fresh");
    let restore = format!("restore vm/ada-work --set {}", set.trim());
    for (call, at_least) in [("linkat", 2), ("unlinkat", 2), ("fsync", 4), ("pwrite64", 8)] {
        let mut kills = 0;
        loop {
            run("rm -rf ../site && cp -a ../fresh ../site");
            if killed_at(&sandbox, call, kills + 1, &restore).is_none() {
                break;
            }
            kills += 1;
            let when = format!("killed before {call} number {kills}");
            assert_eq!(recorded_letters(&sandbox), "AB", "{when}");
            // Nobody makes new disks, or starts, in the middle of it.
            let (_, said) = ask(&sandbox, "labwright --site ../site.yaml apply --yes");
            assert_eq!(recorded_letters(&sandbox), "AB", "{when}, then an apply: {said}");
            let (code, said) = ask(&sandbox, &format!("labwright --site ../site.yaml {restore}"));
            assert!(code == Some(0) || said.contains("no set of vm `ada-work` is called"), "{when}: {said}");
            the_work_is_back(&sandbox, &when);
        }
        assert!(kills >= at_least, "a restore with {kills} calls of {call} proves little");
        the_work_is_back(&sandbox, call);
    }
}

/// What the records lead to, one letter for the content of each disk of ada's.
fn recorded_letters(sandbox: &Sandbox) -> String {
    let state = Connection::open_with_flags(sandbox.path("site/state.db"), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let mut query = state.prepare("SELECT path, moving_to FROM disks WHERE vm = 'ada-work'").unwrap();
    let rows = query.query_map([], |row| Ok([row.get::<_, Option<String>>(0)?, row.get(1)?])).unwrap();
    let mut letters: Vec<char> = rows
        .filter_map(|places| {
            let bytes = places.unwrap().into_iter().flatten().find_map(|place| std::fs::read(place).ok())?;
            let holds = |letter: u8| bytes.windows(512).any(|window| window.iter().all(|byte| *byte == letter));
            ['A', 'B'].into_iter().find(|letter| holds(*letter as u8))
        })
        .collect();
    letters.sort_unstable();
    letters.into_iter().collect()
}

fn the_work_is_back(sandbox: &Sandbox, when: &str) {
    for line in [
        "qemu-io -r -c 'read -q -P 65 0 64k' ../site/storage/vms/course/ada-work/disk-0.qcow2 | grep . && exit 1; true",
        "qemu-io -r -c 'read -q -P 66 0 64k' ../site/storage/aside/course/ada-work/*/disk-0.qcow2 | grep . && exit 1; true",
        "labwright --site ../site.yaml apply --yes && labwright --site ../site.yaml plan --detailed-exitcode",
    ] {
        let (code, said) = ask(sandbox, line);
        assert_eq!(code, Some(0), "{when}: {line}\n{said}");
    }
}

/// A state of the first release of the tables, as its program wrote it.
#[test]
fn an_older_state_is_brought_up_to_date_and_loses_nothing() {
    let sandbox = Sandbox::new("/dev/shm", None);
    let run = |line: &str| must(&sandbox, line);
    run("labwright --site ../site.yaml state init && labwright --site ../site.yaml apply --yes");
    run("qemu-io -c 'write -q -P 65 0 64k' ../site/storage/vms/course/ada-work/disk-0.qcow2");
    run("sed -i /ada/d students.csv && labwright --site ../site.yaml apply --yes --allow user-group/students");
    let state = Connection::open(sandbox.path("site/state.db")).unwrap();
    state
        .execute_batch(
            "DROP TABLE session_record; DROP TABLE submissions; DROP TABLE keeps; DROP TABLE roster; DROP TABLE claims; DROP INDEX runs_of_batch; DROP INDEX runs_over; DROP INDEX disks_aside;
             DROP INDEX applies_of_lab; DROP INDEX journal_of_address;
             ALTER TABLE site DROP COLUMN home; ALTER TABLE disks DROP COLUMN owner; ALTER TABLE disks DROP COLUMN image; ALTER TABLE disks DROP COLUMN instance;
              ALTER TABLE applies DROP COLUMN command; ALTER TABLE applies DROP COLUMN beside;
             DROP TABLE digests; PRAGMA user_version = 1",
        )
        .unwrap();
    drop(state);
    let nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups";
    let (code, said) = ask(&sandbox, &format!("{nobody} labwright --site ../site.yaml plan"));
    assert!(code == Some(1) && said.contains("hint: run any command with `sudo` once"), "{said}");
    run("touch -d 2020-01-01 images/base.qcow2 && labwright --site ../site.yaml plan --refresh-only");
    let state = Connection::open(sandbox.path("site/state.db")).unwrap();
    let text = |query: &str| -> String { state.query_row(query, [], |row| row.get(0)).unwrap() };
    assert_eq!(text("SELECT COUNT(*) || ' ' || MIN(length(sha256)) FROM digests"), "1 64");
    assert!(text("SELECT home FROM site").contains("site/state.db"));
    assert!(sandbox.path("site/state.db.v1").exists(), "the older file is kept");
    run("echo ada >>students.csv && labwright --site ../site.yaml plan | grep 'set [0-9]* of'");
    run("labwright --site ../site.yaml freeze --why lunch");
    // What was typed for an older program was not kept.
    let commands = run("labwright --site ../site.yaml history -o csv | cut -d, -f1,4");
    assert_eq!(commands, "id,command\n3,freeze --why lunch\n2,\n1,\n");
}

/// What came of years: runs that are over, and applies with what they did.
const YEARS: &str = "
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
    INSERT INTO runs (run, lab, vm, generation, batch, task, job, started, state, reason, created_at, ended_at)
    SELECT 'zzzz-' || (i + 100000), 'course', 'ada-work', 0, 'zzzz-' || (i + 100000), 1, i, '{}', 'ended', NULL,
           '2026-01-01T08:00:00Z', '2026-01-01T10:00:00Z' FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
    INSERT INTO applies (id, lab, who, host, summary, began_at, ended_at, outcome)
    SELECT -i, 'course', 'ana', 'front', '1 to start', '2026-01-01T08:00:00Z', '2026-01-01T08:00:00Z', '1 done' FROM n;
    INSERT INTO journal (apply, address, effect, intended_at, outcome)
    SELECT id, 'vm/ada-work', 'submit the run', began_at, 'done' FROM applies WHERE id < 0";

/// How many pages of the state a command reads, as the kernel counts them.
fn pages_read(sandbox: &Sandbox, command: &str) -> usize {
    let trace = sandbox.path("trace");
    let state = sandbox.path("site/state.db").canonicalize().unwrap();
    let traced = format!(
        "strace -f -qq -o {} -e trace=pread64 -P {} labwright --site ../site.yaml {command} >../out",
        trace.display(),
        state.display()
    );
    let (code, said) = ask(sandbox, &traced);
    assert_eq!(code, Some(0), "{command}: {said}");
    std::fs::read_to_string(trace).unwrap().lines().filter(|line| line.contains("pread64(")).count()
}

/// A command costs what it touches: neither all pages of the file nor what is over are read each time.
#[test]
fn what_is_over_costs_nothing() {
    const COMMANDS: [&str; 5] =
        ["plan --detailed-exitcode", "apply --yes", "get vms", "explain vm/bea-work", "history -n 3"];
    let sandbox = Sandbox::new("/dev/shm", None);
    assert_eq!(ask(&sandbox, ANEW).0, Some(0));
    assert_eq!(ask(&sandbox, "labwright --site ../site.yaml apply --yes").0, Some(0));
    let before = COMMANDS.map(|command| pages_read(&sandbox, command));
    Connection::open(sandbox.path("site/state.db")).unwrap().execute_batch(YEARS).unwrap();
    let doubtful = pages_read(&sandbox, "plan");
    assert!(doubtful > 500, "after another program wrote to it, all of the file is read, and not {doubtful} pages");
    let after = COMMANDS.map(|command| pages_read(&sandbox, command));
    for ((command, before), after) in COMMANDS.into_iter().zip(before).zip(after) {
        // The trees of the tables are a few pages deeper.
        assert!(after <= before + 40, "{command}: {before} pages of a new state, {after} of one with years behind it");
    }
    let (code, said) = ask(&sandbox, "labwright --site ../site.yaml state check");
    assert!(code == Some(0) && said.contains("state.db is sound: all of it was read"), "{said}");
}

/// A page that is torn while nobody looks: whoever reads all of the file finds it, however sound it was found before.
#[test]
fn a_damaged_state_is_found_by_who_reads_all_of_it() {
    let sandbox = Sandbox::new("/dev/shm", None);
    assert_eq!(ask(&sandbox, ANEW).0, Some(0));
    assert_eq!(ask(&sandbox, "labwright --site ../site.yaml apply --yes").0, Some(0));
    Connection::open(sandbox.path("site/state.db")).unwrap().execute_batch(YEARS).unwrap();
    assert_eq!(ask(&sandbox, "labwright --site ../site.yaml plan").0, Some(0));
    let path = sandbox.path("site/state.db");
    let (note, sound) = (sandbox.path("site/state.db.checked"), std::fs::read(&path).unwrap());
    let page_bytes = usize::from(u16::from_be_bytes([sound[16], sound[17]]));
    let mut torn = sound.clone();
    // In the middle of the file are rows of what is over.
    let start = sound.len() / page_bytes / 2 * page_bytes;
    torn[start..start + page_bytes].fill(0);
    std::fs::write(&path, &torn).unwrap();
    let (code, said) = ask(&sandbox, "labwright --site ../site.yaml plan");
    assert!(code == Some(1) && said.contains("state.db is damaged"), "{said}");
    // As if the disk had forgotten it: the file is the one that the note speaks of.
    let stat = |what: &str| ask(&sandbox, &format!("stat -c {what} ../site/state.db | tr -d '\n'")).1;
    let mut text: serde_json::Value = serde_json::from_slice(&std::fs::read(&note).unwrap()).unwrap();
    for (field, what) in [("modified", "%.9Y"), ("changed", "%.9Z")] {
        let (seconds, nanoseconds) = stat(what).split_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        text[field] = serde_json::json!([seconds.parse::<i64>().unwrap(), nanoseconds.parse::<i64>().unwrap()]);
    }
    std::fs::write(&note, text.to_string()).unwrap();
    assert_eq!(ask(&sandbox, "labwright --site ../site.yaml plan").0, Some(0), "it is not read");
    for command in ["state check", "state backup ../copy.db"] {
        let (code, said) = ask(&sandbox, &format!("labwright --site ../site.yaml {command}"));
        assert!(code == Some(1) && said.contains("state.db is damaged"), "{command}: {said}");
    }
    assert!(!sandbox.path("copy.db").exists());
    std::fs::write(sandbox.path("torn.db"), &torn).unwrap();
    let (code, said) = ask(&sandbox, "labwright --site ../site.yaml state restore ../torn.db");
    assert!(code == Some(1) && said.contains("torn.db is damaged"), "{said}");
}

/// Runs of ada's: what is over for longer than the site remembers goes, and stays where anything may still need it.
#[test]
fn what_is_over_is_forgotten_after_the_sites_history() {
    let sandbox = Sandbox::new("/dev/shm", None);
    let run = |line: &str| must(&sandbox, line);
    let other = "  other: { derive: base, owner: teacher, state: on_demand }";
    let session =
        "sessions: { final: { vms: [other], start: \"2026-01-01T07:00[UTC]\", end: \"2099-01-01T10:00[UTC]\" } }";
    run(&format!("echo dan >>students.csv; printf '%s\\n' '{other}' '{session}' >>lab.yaml"));
    run("printf 'history: 100d\\n' >>../site.yaml");
    run("labwright --site ../site.yaml state init && labwright --site ../site.yaml apply --yes");
    run("for d in ../site/storage/vms/course/*/disk-0.qcow2; do qemu-io -c 'write -q -P 65 0 64k' $d; done");
    run("sed -i /dan/d students.csv && labwright --site ../site.yaml apply --yes --allow user-group/students");
    let state = Connection::open(sandbox.path("site/state.db")).unwrap();
    let tag: String = state.query_row("SELECT tag FROM site", [], |row| row.get(0)).unwrap();
    let now = jiff::Timestamp::now();
    let started = r#"{"hardware":{"memory_mib":256,"cpus":1,"cdrom":null},"isolated":false,"ip":"10.1.0.3","mac":"de:af:de:af:00:03","bridge":"vbr0","disks":[]}"#;
    let add = |number: u32, vm: &str, batch: u32, state_word: &str, days: i64| {
        let ended = (state_word == "ended").then(|| (now - jiff::SignedDuration::from_hours(24 * days)).to_string());
        state
            .execute(
                "INSERT INTO runs (run, lab, vm, generation, batch, task, job, started, state, created_at, ended_at)
                 VALUES (?1, 'course', ?2, 1, ?3, ?4, ?5, ?8, ?6, '2026-01-01T08:00:00Z', ?7)",
                (format!("{tag}-{number}"), vm, format!("{tag}-{batch}"), number, 7, state_word, ended, started),
            )
            .unwrap();
        let runs = format!("../site/storage/runs/{tag}-{number}");
        run(&format!(
            "mkdir -p {runs}/answers && ln -s ../../../../precious {runs}/answers/link && echo >{runs}/report.jsonl"
        ));
        run(&format!(
            "echo words >../site/storage/runs/batches/7.{number}.log && touch -d '200 days ago' ../site/storage/runs/batches/7.{number}.log"
        ));
    };
    let index = |batch: u32, runs: &[u32]| {
        let runs: Vec<String> = runs.iter().map(|run| format!("{tag}-{run}")).collect();
        let text = serde_json::json!({ "version": 1, "id": format!("{tag}-{batch}"), "lab": "course", "runs": runs });
        std::fs::write(sandbox.path(&format!("site/storage/runs/batches/{tag}-{batch}.json")), text.to_string())
            .unwrap();
    };
    run("mkdir -p ../precious ../site/storage/runs/batches && echo kept >../precious/file");
    add(1, "ada-work", 1, "ended", 101);
    add(2, "ada-work", 2, "ended", 101);
    add(3, "ada-work", 2, "ended", 99);
    add(4, "bea-work", 4, "ended", 200);
    add(5, "other", 5, "ended", 200);
    add(6, "dan-work", 6, "ended", 200);
    add(7, "ada-work", 7, "submitted", 200);
    // The state is an older copy: it does not know run 11, whose folder is there.
    add(10, "gone-work", 10, "ended", 200);
    run(&format!("mkdir ../site/storage/runs/{tag}-11"));
    add(12, "gone-work", 12, "ended", 200);
    let batches: [(u32, &[u32]); 8] =
        [(1, &[1]), (2, &[2, 3]), (4, &[4]), (5, &[5]), (6, &[6]), (7, &[7]), (10, &[10, 11]), (12, &[12])];
    batches.iter().for_each(|(batch, runs)| index(*batch, runs));
    state.execute("UPDATE vms SET run = ?1 WHERE name = 'bea-work'", [format!("{tag}-4")]).unwrap();
    state.execute_batch("UPDATE site SET next_run = 13; UPDATE applies SET began_at = '2020-01-01T08:00:00Z'").unwrap();
    // A job of then had the number that one of today has: its log is today's.
    run("touch ../site/storage/runs/batches/7.2.log");
    drop(state);
    let said = run("labwright --site ../site.yaml purge");
    assert!(said.contains("ended more than 100 days ago: 3 runs,"), "{said}");
    let kept =
        |what: &str| run(&format!("cd ../site/storage/runs && ls -d {what} | sed s/{tag}-// | sort -V | tr '\\n' ' '"));
    assert_eq!(
        kept("????-*"),
        "3 4 5 6 7 11 12 ",
        "1, 2 and 10 are long over; the others are not, are the latest, or needed"
    );
    assert_eq!(
        kept("batches/*.json"),
        "batches/2.json batches/4.json batches/5.json batches/6.json batches/7.json batches/10.json batches/12.json "
    );
    assert_eq!(kept("batches/7.[123].log"), "batches/7.2.log batches/7.3.log ");
    assert_eq!(run("cat ../precious/file"), "kept\n", "no link is followed");
    let applies = run("labwright --site ../site.yaml history -o csv | wc -l");
    assert_eq!(applies.trim(), "2", "a heading, and the latest apply");
    run("labwright --site ../site.yaml purge");
    assert_eq!(kept("????-*"), "3 4 5 6 7 11 12 ");
    // An apply clears a piece of it away by itself, and one whose folder is gone already.
    run(&format!("rm -r ../site/storage/runs/{tag}-3"));
    let state = Connection::open(sandbox.path("site/state.db")).unwrap();
    state.execute("UPDATE runs SET ended_at = '2026-01-01T08:00:00Z' WHERE run = ?1", [format!("{tag}-3")]).unwrap();
    state.execute("DELETE FROM runs WHERE run = ?1", [format!("{tag}-7")]).unwrap();
    drop(state);
    run("sed -i 's/memory: 256M/memory: 257M/' lab.yaml && labwright --site ../site.yaml apply --yes");
    assert_eq!(
        kept("batches/*.json"),
        "batches/4.json batches/5.json batches/6.json batches/7.json batches/10.json batches/12.json "
    );
}

/// A backup that the release before wrote: its tables are brought up to date on the way in.
#[test]
fn a_backup_of_the_version_before_is_put_back() {
    let sandbox = Sandbox::new("/dev/shm", None);
    let run = |line: &str| must(&sandbox, line);
    run("labwright --site ../site.yaml state init && labwright --site ../site.yaml apply --yes");
    run("labwright --site ../site.yaml state backup ../copy.db");
    let copy = Connection::open(sandbox.path("copy.db")).unwrap();
    copy.execute_batch(
        "DROP TABLE session_record; DROP TABLE submissions; DROP TABLE keeps; DROP TABLE roster; DROP TABLE claims; DROP INDEX runs_of_batch; DROP INDEX runs_over; DROP INDEX disks_aside;
         DROP INDEX applies_of_lab; DROP INDEX journal_of_address; ALTER TABLE disks DROP COLUMN instance;
         PRAGMA user_version = 3",
    )
    .unwrap();
    drop(copy);
    run("labwright --site ../site.yaml state restore ../copy.db");
    run("labwright --site ../site.yaml plan --detailed-exitcode && labwright --site ../site.yaml get claims");
    run("labwright --site ../site.yaml state check");
}

/// What people asked for by command is seen wherever the vm is, and taken back by its number.
#[test]
fn claims_are_listed_explained_and_taken_back() {
    let sandbox = Sandbox::new("/dev/shm", None);
    let run = |line: &str| must(&sandbox, line);
    run("labwright --site ../site.yaml state init && labwright --site ../site.yaml apply --yes");
    let state = Connection::open(sandbox.path("site/state.db")).unwrap();
    state
        .execute_batch(
            "INSERT INTO claims (lab, kind, name, body, \"by\", at) VALUES
             ('course', 'power', 'ada-work', '{\"version\":1,\"wanted\":\"stopped\",\"generation\":1}', 'ana', '2027-01-12T08:00:00Z'),
             ('course', 'wish', 'bea-work', '{\"soft\":true}', 'ana', '2027-01-12T08:00:00Z'),
             ('course', 'power', 'zed-work', '{\"version\":1,\"wanted\":\"running\",\"generation\":1}', 'ana', '2027-01-12T08:00:00Z')",
        )
        .unwrap();
    drop(state);
    assert_eq!(
        run("labwright --site ../site.yaml get claims -o csv"),
        "id,kind,name,wants,by,since,idle\n\
         1,power,ada-work,stopped,ana,2027-01-12 13:30:00,\n\
         2,wish,bea-work,\"{\"\"soft\"\":true}\",ana,2027-01-12 13:30:00,it is a newer labwright's\n\
         3,power,zed-work,running,ana,2027-01-12 13:30:00,there is no vm `zed-work`\n"
    );
    let vms = run("labwright --site ../site.yaml get vms ada-work -o json");
    assert!(vms.contains("\"wanted\": \"stopped\"") && vms.contains("\"claim\": \"1 by ana\""), "{vms}");
    let explained = run("labwright --site ../site.yaml explain ada-work");
    assert!(explained.contains("claim      1 by ana, 2027-01-12 13:30:00: it shall be stopped\n"), "{explained}");
    // It is off, which is all that the first one asks for: the next apply ends it. The others stay.
    run("labwright --site ../site.yaml apply --yes");
    let explained = run("labwright --site ../site.yaml explain ada-work");
    assert!(explained.contains("it shall be stopped; ended ") && explained.contains(": it is off\n"), "{explained}");
    let id = run("labwright --site ../site.yaml history -n 1 -o csv | tail -1 | cut -d, -f1");
    let effects = run(&format!("labwright --site ../site.yaml history {}", id.trim()));
    assert!(effects.contains("vm/ada-work") && effects.contains("end the claim"), "{effects}");
    let said = run("labwright --site ../site.yaml claim undo 3");
    assert!(said.contains("claim 3 of ana is taken back; zed-work is left as it is"), "{said}");
    let (code, said) = ask(&sandbox, "labwright --site ../site.yaml claim undo 3");
    assert!(code == Some(1) && said.contains("no claim 3 stands in lab `course`; nothing was changed"), "{said}");
    assert_eq!(run("labwright --site ../site.yaml get claims -o name"), "2\n");
    let history = run("labwright --site ../site.yaml history -n 1 -o csv");
    assert!(history.contains("claim undo 3"), "{history}");
    run("labwright --site ../site.yaml freeze --why exam");
    let (code, said) = ask(&sandbox, "labwright --site ../site.yaml claim undo 2");
    assert!(code == Some(4) && said.contains("exam"), "{said}");
    // Where the manifest is broken, the claims are still there.
    run("labwright --site ../site.yaml thaw && echo : >>lab.yaml && labwright --site ../site.yaml claim undo 2");
}
