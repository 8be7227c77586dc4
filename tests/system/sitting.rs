//! A whole exam with real guests, as the people in the hall live it, with nobody but root's timer to look after it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::collect;
use crate::lab::Lab;
use crate::world::{processes, text, wait_until};

const SAVE: &str = "mkdir -p /mnt; mount -t ext4 /dev/vda2 /mnt; mkdir -p /mnt/home/student; echo";

/// Whole seconds.
fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap()
}

/// The quickstart's lab with an exam for both students, which begins at `start` and has booted ahead.
fn sitting(start: Timestamp) -> Lab {
    let end = start + Duration::from_secs(3600);
    let lab = collect::lab(&["alice", "bob"].map(str::to_owned), |manifest| {
        let manifest = manifest.replace("    name: \"{user}-tiny\"\n", "");
        format!(
            "{manifest}\nsessions:\n  final:\n    kind: exam\n    vms: [exam]\n    start: {start}\n    end: {end}\n    \
             boot_before: 2h\n    egress: [\"192.168.100.1:8080/tcp\"]\n    collect: [\"home/*/answer*\"]\n    keep: 400d\n    grace: 60s\n"
        )
    });
    lab.must(&["host", "setup", "--lab", &text(&lab.folder)]);
    lab.apply();
    lab
}

impl Lab {
    fn of_final(&self, words: &[&str]) -> String {
        let folder = text(&self.folder);
        self.must(&[&["session"], words, &["--lab", &folder]].concat())
    }

    /// Somebody who looks at a vm's screen, if that is let.
    fn looks(&self, vm: &str) -> Option<TcpStream> {
        let address = self.mapping(vm)["vnc"].as_str().unwrap().to_owned();
        let mut viewer = TcpStream::connect(address).ok()?;
        viewer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut greeting = [0; 12];
        viewer.read_exact(&mut greeting).ok().filter(|()| greeting.starts_with(b"RFB ")).map(|()| viewer)
    }

    /// The folder of a vm's latest run, and how many it has had.
    fn run_of(&self, vm: &str) -> (u64, PathBuf) {
        let runs = std::fs::read_dir(self.world.folder.path().join("site/runs")).unwrap();
        let of = |folder: PathBuf| {
            let spec: serde_json::Value =
                serde_json::from_slice(&std::fs::read(folder.join("spec.json")).ok()?).unwrap();
            (spec["vm"] == vm).then(|| (spec["generation"].as_u64().unwrap(), folder))
        };
        runs.filter_map(|entry| of(entry.unwrap().path())).max().unwrap()
    }

    /// How many times the starter of a vm's run has said a word.
    fn reported(&self, vm: &str, word: &str) -> usize {
        let report = std::fs::read_to_string(self.run_of(vm).1.join("report.jsonl")).unwrap_or_default();
        report.matches(&format!("\"event\":\"{word}\"")).count()
    }

    fn submission(&self, vm: &str) -> String {
        let list = self.of_final(&["submissions", "final", "-o", "json"]);
        let list: Vec<serde_json::Value> = serde_json::from_str(&list).unwrap();
        list.iter().find(|of| of["vm"] == vm).unwrap()["state"].as_str().unwrap().to_owned()
    }
}

/// The process that looks after a run, which is locked by it.
fn starter_of(run: &Path) -> i32 {
    let number = text(run).rsplit('-').next().unwrap().to_owned();
    let is_starter = |command: &str| command.contains(" starter ") && command.contains(&text(run.parent().unwrap()));
    let starters: Vec<(i32, String)> = processes().into_iter().filter(|(_, command)| is_starter(command)).collect();
    let own = starters.iter().find(|(_, command)| command.trim_end().ends_with(&format!(" {number}")));
    own.unwrap_or_else(|| panic!("{run:?}: {starters:?}")).0
}

fn is_cut(viewer: TcpStream) -> bool {
    let mut rest = Vec::new();
    let mut viewer = viewer;
    viewer.read_to_end(&mut rest).is_ok()
}

#[test]
fn an_exam_is_held_from_its_first_boot_to_its_record() {
    let start = now() + Duration::from_secs(3600);
    let lab = sitting(start);
    let folder = text(&lab.folder);
    let served = TcpListener::bind("192.168.100.1:8080").unwrap();
    std::thread::spawn(move || served.incoming().for_each(|stream| drop(stream.unwrap().write_all(b"hello\n"))));
    let mut alice = lab.console("alice-final");
    let ask = "nc -w 3 192.168.100.1 8080 </dev/null";
    assert!(lab.looks("alice-final").is_none(), "nobody is let in before the start");
    assert_ne!(alice.run(ask).1, "hello\n");
    let refused = lab.labwright(&["destroy", &folder, "--yes"]);
    assert_eq!(refused.status.code(), Some(4), "its vms boot: the guard stands");

    lab.edit(&format!("start: {start}"), &format!("start: {}", now()));
    lab.apply();
    for vm in ["alice-final", "bob-final"] {
        wait_until("its time begins", || lab.reported(vm, "opened") == 1);
    }
    let viewer = lab.looks("alice-final").unwrap();
    assert_eq!(alice.run(ask).1, "hello\n", "whoever is let in finds what the exam opens");

    let copy = text(&lab.world.folder.path().join("copy.db"));
    lab.must(&["state", "backup", &copy, "--lab", &folder]);
    let asked = Instant::now();
    let said = lab.of_final(&["extend", "final", "--user", "bob", "15m", "--why", "cable"]);
    assert!(said.contains("1 guest told") && asked.elapsed() < Duration::from_secs(2), "{said}");
    // A copy of the state that knows nothing of it does not take it back.
    let ends = || {
        lab.of_final(&["show", "final", "-o", "csv"])
            .lines()
            .map(|line| line.split(',').nth(2).unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let before = ends();
    assert_ne!(before[1], before[2]);
    lab.must(&["state", "restore", &copy, "--lab", &folder]);
    assert_eq!(ends(), before);
    lab.must(&["reconcile", "--once"]);
    assert_eq!(ends(), before);
    lab.of_final(&["pause", "final", "--user", "alice"]);
    wait_until("she stands still", || lab.reported("alice-final", "paused") == 1);
    assert!(is_cut(viewer));
    assert_eq!(lab.reported("bob-final", "paused"), 0, "and nobody else does");
    lab.of_final(&["resume", "final", "--user", "alice"]);
    wait_until("she goes on", || lab.reported("alice-final", "resumed") == 1);

    // His starter dies, and his guest with it: the next round starts it again, on the disk with what he saved.
    assert_eq!(lab.console("bob-final").run(&format!("{SAVE} bob >/mnt/home/student/answer.txt; sync")).0, 0);
    let (before, folder_of_run) = lab.run_of("bob-final");
    kill(Pid::from_raw(starter_of(&folder_of_run)), Signal::SIGKILL).unwrap();
    wait_until("he is back", || {
        lab.must(&["reconcile", "--once"]);
        lab.run_of("bob-final").0 > before && lab.reported("bob-final", "ready") == 1
    });
    let saved =
        lab.console("bob-final").run("mkdir -p /mnt; mount -t ext4 /dev/vda2 /mnt; cat /mnt/home/student/answer.txt");
    assert_eq!(saved.1, "bob\n");

    // She hands in; what was saved a moment before is on no disk yet.
    assert_eq!(alice.run(&format!("{SAVE} early >/mnt/home/student/answer.txt")).0, 0);
    let viewer = lab.looks("alice-final").unwrap();
    assert_eq!(alice.run("echo late >/mnt/home/student/answer-late.txt").0, 0);
    lab.of_final(&["end-now", "final", "--user", "alice", "--why", "handed in"]);
    let ended = Instant::now();
    assert!(is_cut(viewer));
    assert!(lab.looks("alice-final").is_none());
    assert_eq!(lab.submission("alice-final"), "pending");
    // Her guest writes what she saved for a minute, and is powered off.
    while lab.reported("alice-final", "stopped") == 0 {
        assert!(ended.elapsed() < Duration::from_secs(240), "she is off");
        std::thread::sleep(Duration::from_millis(500));
    }
    lab.must(&["reconcile", "--once"]);
    assert_eq!(
        (lab.submission("alice-final"), lab.submission("bob-final")),
        ("submitted".to_owned(), "pending".to_owned())
    );
    let answers =
        lab.world.folder.path().join("site/submissions/quickstart/final/alice/alice-final/files/home/student");
    assert_eq!(std::fs::read_to_string(answers.join("answer-late.txt")).unwrap(), "late\n");
    assert_eq!(lab.vm_state("bob-final"), "ready", "the late one works on");
    assert!(lab.looks("bob-final").is_some());

    let record = lab.of_final(&["record", "final", "-o", "json"]);
    for what in ["started", "time moved", "handed in", "ended", "submission", "opened", "filtered"] {
        assert!(record.contains(&format!("\"{what}\"")), "{what} is in the record: {record}");
    }
    let verified = lab.of_final(&["verify", "final"]);
    assert!(verified.contains("the record is what was written"), "{verified}");
}
