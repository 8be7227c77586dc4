//! Times of a session, on real guests: each keeps its own, and hears of another one while it runs.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::lab::Lab;
use crate::serve::{LAB, PEOPLE, Served};
use crate::world::{text, tool, wait_until};

impl Lab {
    fn session(&self, line: &str) -> String {
        let folder = text(&self.folder);
        let words: Vec<&str> = line.split_whitespace().chain(["--lab", &folder]).collect();
        self.must(&[&["session"], &words[..]].concat())
    }

    /// What stands in the `control.json` of a vm's run.
    fn control(&self, vm: &str) -> serde_json::Value {
        let read = |file: std::path::PathBuf| -> Option<serde_json::Value> {
            serde_json::from_slice(&std::fs::read(file).ok()?).ok()
        };
        let runs = std::fs::read_dir(self.folder.with_file_name("site").join("runs"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let is_its = |run: &std::path::PathBuf| read(run.join("spec.json")).is_some_and(|spec| spec["vm"] == vm);
        let mut own: Vec<_> = runs.filter(is_its).filter_map(|run| read(run.join("control.json"))).collect();
        assert_eq!(own.len(), 1, "{own:?}");
        own.remove(0)
    }

    /// What the run of a vm was told, as its starter reads it.
    fn told_end(&self, vm: &str) -> String {
        let shown: serde_json::Value =
            serde_json::from_str(&self.must(&["vm", "show", vm, "-o", "json", "--lab", &text(&self.folder)])).unwrap();
        shown["until"].as_str().unwrap_or_default().to_owned()
    }
}

#[test]
fn the_time_of_one_is_over_and_another_one_works_on() {
    let lab = Lab::new();
    let now = jiff::Timestamp::now();
    let (start, end) = (now - Duration::from_secs(600), now + Duration::from_secs(3600));
    let manifest = lab.folder.join("lab.yaml");
    let text_of = std::fs::read_to_string(&manifest).unwrap();
    let session = format!("sessions:\n  final: {{ vms: [exam], start: {start:.0}, end: {end:.0} }}\n");
    std::fs::write(&manifest, format!("{text_of}\n{session}")).unwrap();
    lab.must(&["host", "setup", "--lab", &text(&lab.folder)]);
    lab.apply();
    let bob = lab.mapping("bob-tiny");

    let asked = Instant::now();
    let said = lab.session("extend final --user bob 15m --why cable");
    assert!(asked.elapsed() < Duration::from_secs(2), "{said}");
    assert!(said.contains("1 person, 1 guest told"), "{said}");
    let later: jiff::Timestamp = lab.told_end("bob-tiny").parse().unwrap();
    assert_eq!(later.as_second() - end.as_second(), 15 * 60);
    // What is taken back reaches the guest, too.
    let told = || lab.control("bob-tiny")["clock"]["end"].to_string();
    let extended = told();
    let said = lab.session("undo final");
    assert!(said.contains("1 person, 1 guest told"), "{said}");
    assert_ne!(told(), extended);
    lab.session("extend final --user bob 15m --yes");
    assert_eq!(told(), extended);
    let claims: serde_json::Value =
        serde_json::from_str(&lab.must(&["get", "claims", "-o", "json", "--lab", &text(&lab.folder)])).unwrap();
    let id = claims.as_array().unwrap().last().unwrap()["id"].to_string();
    lab.must(&["claim", "undo", &id, "--lab", &text(&lab.folder)]);
    assert_ne!(told(), extended);

    // What became of him, and how the machines stand.
    let story = lab.session("show final bob");
    for told in ["900 s more time", "cable", "its guest runs on", "took it back"] {
        assert!(story.contains(told), "{told}: {story}");
    }
    assert!(!lab.session("show final alice").contains("more time"));
    let machine = |user: &str| {
        let status: serde_json::Value = serde_json::from_str(&lab.session("status final -o json")).unwrap();
        status["machines"].as_array().unwrap().iter().find(|row| row["user"] == user).unwrap().clone()
    };
    wait_until("the guest of bob is ready", || machine("bob")["is_ready"] == true);
    // It was started ten minutes into the session.
    let lost = machine("bob")["lost_seconds"]["not ready"].as_u64().unwrap();
    assert!((600..900).contains(&lost), "{lost}");

    // Handed in: hers ends, and nobody else notices.
    lab.session("end-now final --user alice");
    wait_until("the guest of alice is off", || lab.vm_state("alice-tiny") == "off");
    assert_eq!(lab.mapping("bob-tiny")["pid"], bob["pid"]);
    lab.must(&["reconcile", "--once"]);
    assert_eq!(lab.vm_state("alice-tiny"), "off", "its time was over: nothing starts it again");
}

/// What a session opens is open for its vms alone, and shut at its end under a guest that runs on.
#[test]
fn a_session_opens_destinations_for_its_vms_and_for_its_time() {
    let lab = Lab::new();
    let now = jiff::Timestamp::now();
    let (start, end) = (now - Duration::from_secs(60), now + Duration::from_secs(3600));
    let manifest = lab.folder.join("lab.yaml");
    let text_of = std::fs::read_to_string(&manifest).unwrap();
    let session = format!(
        "sessions:\n  web: {{ vms: [alice-tiny], start: {start:.0}, end: {end:.0}, at_end: keep, egress: [\"192.168.100.1:8080/tcp\"] }}\n"
    );
    std::fs::write(&manifest, format!("{text_of}\n{session}")).unwrap();
    lab.must(&["host", "setup", "--lab", &text(&lab.folder)]);
    lab.apply();
    for port in [8080, 8081] {
        let served = TcpListener::bind(("192.168.100.1", port)).unwrap();
        std::thread::spawn(move || served.incoming().for_each(|stream| drop(stream.unwrap().write_all(b"hello\n"))));
    }
    let (mut alice, mut bob) = (lab.console("alice-tiny"), lab.console("bob-tiny"));
    let mut alice_reaches = |port: u16| alice.run(&format!("nc -w 3 192.168.100.1 {port} </dev/null")).1 == "hello\n";
    wait_until("it is open", || alice_reaches(8080));
    assert!(!alice_reaches(8081), "what is not named");
    assert_ne!(bob.run("nc -w 3 192.168.100.1 8080 </dev/null").1, "hello\n", "he is in no session");
    let pid = lab.mapping("alice-tiny")["pid"].clone();
    lab.session("end-now web --all");
    wait_until("it is shut", || !tool("nft", &["list", "ruleset"]).contains("8080"));
    assert!(!alice_reaches(8080));
    assert_eq!(lab.mapping("alice-tiny")["pid"], pid, "the guest runs on");
}

/// Its owner learns nothing of an exam's vm before the exam, and sees nothing else while it is on.
#[test]
fn an_exams_vm_is_not_there_before_its_time() {
    let exam = |start: jiff::Timestamp| {
        let (start, end) = (start.to_string(), (start + Duration::from_secs(7200)).to_string());
        format!(
            "{LAB}vms:\n  desk: {{ derive: gsr, for_each: studs, name: \"{{user}}-final\", state: stopped }}\n\
             sessions:\n  final: {{ kind: exam, vms: [desk], start: {start}, end: {end} }}\n"
        )
    };
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap();
    let served = Served::of(&exam(now + Duration::from_secs(3600)), "daemon: { interval: 1s }\n", &PEOPLE);
    let unlike = |line: &str| served.says("doraz", line).0.replace("doraz-final", "NAME").replace("no-such-vm", "NAME");
    for line in ["vm start NAME --isolate", "vm show NAME", "vm screen NAME -o /tmp/x.png", "vm snapshot NAME one"] {
        let (own, none) = (line.replace("NAME", "doraz-final"), line.replace("NAME", "no-such-vm"));
        assert_eq!(unlike(&format!("{own} --lab net101")), unlike(&format!("{none} --lab net101")), "{line}");
    }
    let seen = |listing: &str| served.says("doraz", &format!("get {listing} -o name --lab net101")).0;
    assert_eq!((seen("vms"), seen("templates").trim().to_owned()), (String::new(), "gsr".to_owned()));
    std::fs::write(served.lab.folder.join("lab.yaml"), exam(now - Duration::from_secs(60))).unwrap();
    served.lab.must(&["apply", &text(&served.lab.folder), "--yes"]);
    assert_eq!((seen("vms").trim(), seen("templates")), ("doraz-final", String::new()));
    // Nobody started it, as its family says: that is what those who hold the exam must see.
    let status = served.lab.labwright(&["session", "status", "final", "--lab", &text(&served.lab.folder)]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!((status.status.code(), said.starts_with("final is running: 0/")), (Some(5), true), "{said}");
    let (said, code) = served.says("doraz", "session status final --lab net101");
    assert!(code != 0 && !said.contains("ready"), "{said}");
    // From now on the storage has a copy of the state.
    let copy = served.lab.world.folder.path().join("site/submissions/.state/state.db");
    wait_until("the state is copied", || copy.exists());
}
