//! `host check --exam` through the command line, with real guests: green, red, interrupted; nothing stays behind. And what
//! the neighbours see of a guest that is not isolated.

use std::path::Path;
use std::process::{Command, Stdio};

use labwright::disks::Owner;
use labwright::host::machine::probe::{Neighbour, Sight, answers_gateway, sight};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::Lab;
use crate::world::{BINARY, World, text, tool, wait_until};

/// Everything that a trial could leave behind: interfaces, tables, chains, reservations, files, and what is recorded.
fn world_of(lab: &Lab) -> String {
    let site = text(&lab.world.folder.path().join("site"));
    let links = tool("ip", &["-br", "link"]);
    // A bridge goes down with its last port; that is no change of ours.
    let links: Vec<&str> = links.lines().filter_map(|line| line.split_whitespace().next()).collect();
    // Locks and the batch system's own books are none of a trial's.
    let of_others = ["*.log", "*.lock", "*/dnsmasq/*.leases", "*/scheduler*"].map(|path| ["-not", "-path", path]);
    let files = tool("find", &[&[site.as_str()], of_others.as_flattened()].concat());
    let mut files: Vec<&str> = files.lines().collect();
    files.sort_unstable();
    let state = std::fs::read(lab.world.folder.path().join("site/state.db")).unwrap();
    let tables = tool("nft", &["list", "tables"]);
    format!("{links:#?}\n{files:#?}\n{tables}\nstate: {} bytes, {}", state.len(), sum(&state))
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

/// How the check ended, and its lines about the trial.
fn exam(lab: &Lab, more: &[&str]) -> (Option<i32>, Vec<(String, String, String)>) {
    let folder = text(&lab.folder);
    let output = lab.labwright(&[&["host", "check", "--exam", &folder, "-o", "json"], more].concat());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}\n{words}", String::from_utf8_lossy(&output.stdout));
    });
    let word = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
    let lines = rows.iter().filter(|row| word(row, "what").starts_with("exam: "));
    let lines = lines.map(|row| (word(row, "what"), word(row, "verdict"), word(row, "found"))).collect();
    (output.status.code(), lines)
}

fn verdicts(lines: &[(String, String, String)]) -> Vec<(&str, &str)> {
    lines.iter().map(|(what, verdict, _)| (what.as_str(), verdict.as_str())).collect()
}

#[test]
fn a_trial_beside_a_lab_that_runs_leaves_nothing() {
    let lab = Lab::new();
    let folder = text(&lab.folder);
    lab.must(&["host", "setup", "--lab", &folder]);
    lab.apply();
    let before = world_of(&lab);
    let running = lab.must(&["get", "mappings", "-o", "json", "--lab", &folder]);

    let (exit, lines) = exam(&lab, &[]);
    let all_well = [("exam: boot", "ok"), ("exam: vnc", "ok"), ("exam: isolation", "ok"), ("exam: gateway", "ok")];
    assert_eq!((verdicts(&lines), exit), (all_well.to_vec(), Some(0)), "{lines:#?}");
    assert!(lines[0].2.contains("uses its address 192.168.100.20 "), "the highest address of the group: {lines:#?}");
    assert_eq!(world_of(&lab), before);
    let after = lab.must(&["get", "mappings", "-o", "json", "--lab", &folder]);
    assert_eq!(after, running, "the lab's own guests run on");

    let page = lab.must(&["host", "check", "--exam", &folder]);
    assert_eq!(page.lines().last(), Some("green: this host is ready for quickstart"), "{page}");
    lab.must(&["destroy", &folder, "--yes"]);
}

/// The same trial in a job, of a lab that was never applied, whose screens are on sockets. The batch system here is this
/// machine's own, so all hosts are one.
#[test]
fn a_trial_in_a_job_before_the_first_apply_leaves_nothing() {
    let lab = Lab::new();
    let settings = std::fs::read_to_string(&lab.site).unwrap();
    std::fs::write(&lab.site, format!("{settings}qemu: {{ vnc_bind: socket }}\n")).unwrap();
    let folder = text(&lab.folder);
    lab.must(&["host", "setup", "--lab", &folder]);
    let before = world_of(&lab);

    let (exit, lines) = exam(&lab, &["--all-hosts"]);
    let all_well = [("exam: boot", "ok"), ("exam: vnc", "ok"), ("exam: isolation", "ok"), ("exam: gateway", "ok")];
    assert_eq!((verdicts(&lines), exit), (all_well.to_vec(), Some(0)), "{lines:#?}");
    let screen = &lines[1].2;
    assert!(screen.starts_with("unix:/run/labwright/") && screen.ends_with(" asks for its password"), "{screen}");
    assert_eq!(world_of(&lab), before);
    lab.apply();
    lab.must(&["destroy", &folder, "--yes"]);
}

/// Before the first apply copies of the images are tried; here one with nothing on it.
#[test]
fn an_image_that_does_not_boot_is_red_and_leaves_nothing() {
    let lab = Lab::new();
    let folder = text(&lab.folder);
    tool("qemu-img", &["create", "-q", "-f", "qcow2", &text(&lab.folder.join("images/tiny.qcow2")), "64M"]);
    lab.must(&["host", "setup", "--lab", &folder]);
    let before = world_of(&lab);

    let (exit, lines) = exam(&lab, &["--timeout", "20"]);
    assert_eq!((verdicts(&lines), exit), (vec![("exam: boot", "failed")], Some(5)), "{lines:#?}");
    let found = "a guest of template tiny runs, but did not use its address 192.168.100.20 within 20 s";
    assert_eq!(lines[0].2, found);
    assert_eq!(world_of(&lab), before);
}

#[test]
fn an_interrupted_trial_leaves_nothing() {
    let lab = Lab::new();
    let folder = text(&lab.folder);
    tool("qemu-img", &["create", "-q", "-f", "qcow2", &text(&lab.folder.join("images/tiny.qcow2")), "64M"]);
    lab.must(&["host", "setup", "--lab", &folder]);
    let before = world_of(&lab);

    let mut command = Command::new(BINARY);
    command.arg("--site").arg(&lab.site).args(["host", "check", "--exam", &folder]);
    let check = command.stdout(Stdio::piped()).spawn().unwrap();
    wait_until("a guest is under trial", || tool("ip", &["-br", "link"]).lines().any(|line| line.starts_with("lw")));
    kill(Pid::from_raw(check.id().cast_signed()), Signal::SIGINT).unwrap();
    let output = check.wait_with_output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(5), "{page}");
    assert!(page.contains("the trial was interrupted"), "{page}");
    assert_eq!(world_of(&lab), before);
}

/// The same question that an isolated guest must not answer is one that others do.
#[test]
fn neighbours_hear_a_guest_that_is_not_isolated() {
    let mut world = World::new();
    let guests: Vec<_> = [(5, false), (6, true)]
        .into_iter()
        .map(|(last, isolated)| {
            let mut spec = world.spec(last);
            spec.network.isolated = isolated;
            world.start(spec)
        })
        .collect();
    let owner = Owner { uid: 65534, gid: 65534 };
    let neighbours: Vec<Neighbour> = [8, 9]
        .into_iter()
        .map(|last| {
            let mut spec = world.spec(last);
            spec.network.isolated = false;
            Neighbour::join(&spec.run, &spec.network, Path::new(&world.run_root()), owner).unwrap()
        })
        .collect();
    for (guest, expected) in guests.iter().zip([Sight::Heard, Sight::Isolated]) {
        guest.wait_ready();
        let network = &guest.spec.network;
        let seen = sight(&neighbours[0], &neighbours[1], (network.ip, network.mac)).unwrap();
        assert_eq!(seen, expected, "{}", network.ip);
        let gateway = network.gateway.unwrap();
        assert!(answers_gateway(gateway, &network.bridge, (network.ip, network.mac)).unwrap(), "{}", network.ip);
    }
    let nobody = (world.group.range.last, world.group.mac(world.group.range.last));
    assert!(!answers_gateway([192, 168, 100, 1].into(), "vbr0", nobody).unwrap(), "nobody is there to answer");
    assert_eq!(sight(&neighbours[0], &neighbours[1], nobody).unwrap(), Sight::Isolated);
}
