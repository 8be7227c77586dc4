//! The site's loop: labs stay as they were applied with nobody looking on, and a class that starts at one moment is one apply.

use std::collections::BTreeMap;
use std::process::Stdio;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::serve::{Served, answered, daemon};
use crate::world::{processes, text, tool, wait_until};

/// Guests that never execute an instruction cost little.
const HELD: &str = "qemu: { accel: tcg, extra_args: [\"-S\"] }
daemon: { interval: 1s }";

const CLASS: usize = 20;

fn lab(members: &str, state: &str) -> String {
    format!(
        "lab: net101
user_groups:
  studs: {{ members: [{members}] }}
vm_groups:
  lab1: {{ ip_range: 192.168.100.2-192.168.100.60, gateway: 192.168.100.1, bridge: vbr0 }}
templates:
  gsr: {{ owner: badmin, vm_group: lab1, disks: [{{ image: images/tiny.qcow2 }}], memory: 64M }}
vms:
  work: {{ derive: gsr, for_each: studs, name: \"{{user}}-work\"{state} }}
"
    )
}

/// How many array jobs were submitted.
fn submits(served: &Served) -> usize {
    let batches = served.lab.world.folder.path().join("site/runs/batches");
    let files = std::fs::read_dir(batches).into_iter().flatten().map(|file| file.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|ending| ending == "json")).count()
}

/// The latest run of each vm, as it is recorded.
fn runs(served: &Served) -> BTreeMap<String, String> {
    let state = served.lab.world.folder.path().join("site/state.db");
    let state = rusqlite::Connection::open_with_flags(state, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut query = state.prepare("SELECT name, run FROM vms WHERE run IS NOT NULL").unwrap();
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

fn mapped(served: &Served) -> BTreeMap<String, u64> {
    let listed = served.lab.must(&["get", "mappings", "-o", "json", "--lab", &text(&served.lab.folder)]);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    rows.iter().map(|row| (row["name"].as_str().unwrap().to_owned(), row["pid"].as_u64().unwrap())).collect()
}

/// What starters look at whose guests come to their end.
fn beat(served: &Served) -> std::path::PathBuf {
    served.lab.world.folder.path().join("site/runs/controller.beat")
}

/// When the daemon touched it last; 0 where it never did.
fn last_beat(served: &Served) -> i64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(beat(served)).map_or(0, |found| found.mtime())
}

/// A guest's starter ends without a word, and the guest with it.
fn kill_starter(served: &Served, vm: &str) {
    let guest = mapped(served)[vm];
    let status = std::fs::read_to_string(format!("/proc/{guest}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(parent), Signal::SIGKILL).unwrap();
}

/// How many have connected to the daemon and were not met yet.
fn waiting(served: &Served) -> usize {
    let listening = tool("ss", &["-lxH", "src", &format!("unix:{}", text(&served.socket))]);
    listening.split_whitespace().nth(2).and_then(|queued| queued.parse().ok()).unwrap_or(0)
}

#[test]
fn a_class_that_starts_at_one_moment_is_one_array_job() {
    let people: Vec<(String, u32)> = (0..CLASS).map(|n| (format!("s{n:02}"), 44_200 + n as u32)).collect();
    let accounts: Vec<(&str, u32)> = people.iter().map(|(name, uid)| (name.as_str(), *uid)).collect();
    let members: Vec<&str> = accounts.iter().map(|(name, _)| *name).collect();
    let served = Served::of(&lab(&members.join(", "), ""), HELD, &accounts);
    assert_eq!(submits(&served), 0);
    let start = |name: &str| (format!("POST /v1/labs/net101/vms/{name}-work/power"), r#"{"wanted":"start"}"#);
    for ((status, said), (name, _)) in at_one_moment(&served, &accounts, start).into_iter().zip(&accounts) {
        assert_eq!(status, "200", "{name}: {said}");
        assert!(said.contains(&format!("vm/{name}-work")), "{said}");
        assert!(said.contains("apply: 1 done, 0 failed, 0 skipped"), "each is told of their own: {said}");
        let others = accounts.iter().filter(|(other, _)| other != name);
        assert_eq!(others.filter(|(other, _)| said.contains(*other)).count(), 0, "{said}");
    }
    wait_until("all run", || mapped(&served).len() == CLASS);
    assert_eq!(submits(&served), 1, "one apply, one array job");
    let claims = served.lab.must(&["get", "claims", "-o", "json", "--lab", &text(&served.lab.folder)]);
    let claims: Vec<serde_json::Value> = serde_json::from_str(&claims).unwrap();
    let by: Vec<&str> = claims.iter().map(|claim| claim["by"].as_str().unwrap()).collect();
    assert_eq!(by.len(), CLASS, "each has their own claim");
    assert!(members.iter().all(|name| by.contains(name)), "{by:?}");

    // And all who look at one moment look together.
    let before = queue_looks(&served);
    let look = |_: &str| ("GET /v1/labs/net101/vms".to_owned(), "");
    for ((status, said), (name, _)) in at_one_moment(&served, &accounts, look).into_iter().zip(&accounts) {
        assert_eq!(status, "200", "{name}: {said}");
        let vms: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
        assert_eq!((vms.len(), &vms[0]["owner"]), (1, &(*name).into()), "each sees their own: {said}");
    }
    let looks = queue_looks(&served) - before;
    assert!(looks < CLASS, "{CLASS} who look cost {looks} looks at the queue");
}

/// What the daemon answers each of them, who all have asked before the first is heard.
fn at_one_moment(
    served: &Served,
    accounts: &[(&str, u32)],
    asks: impl Fn(&str) -> (String, &'static str),
) -> Vec<(String, String)> {
    let itself = Pid::from_raw(i32::try_from(served.daemon.id()).unwrap());
    kill(itself, Signal::SIGSTOP).unwrap();
    let ask = |(name, uid): &(&str, u32)| {
        let (line, body) = asks(name);
        served.asking(*uid, &line, "", body)
    };
    let asking: Vec<_> = accounts.iter().map(ask).collect();
    wait_until("all have asked", || waiting(served) >= accounts.len());
    kill(itself, Signal::SIGCONT).unwrap();
    asking.into_iter().map(answered).collect()
}

/// How often the daemon has looked at the queue.
fn queue_looks(served: &Served) -> usize {
    let (_, numbers) = served.raw_with(0, "GET /metrics", "", "");
    let count = numbers.lines().find_map(|line| line.strip_prefix("labwright_queue_calls_total{call=\"list\"} "));
    count.expect("looks are counted").parse().unwrap()
}

#[test]
fn labs_stay_as_they_were_applied_with_nobody_looking_on() {
    let mut served = Served::of(&lab("doraz, alex", ", state: running"), HELD, &[("doraz", 44_102), ("alex", 44_103)]);
    wait_until("both run", || mapped(&served).len() == 2);
    wait_until("it says that it lives", || last_beat(&served) > 0);
    let before = runs(&served);
    // What the folder says by now was not applied.
    let manifest = served.lab.folder.join("lab.yaml");
    let applied = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, lab("doraz", ", state: running").replace("64M", "96M")).unwrap();
    kill_starter(&served, "alex-work");
    wait_until("it is started again", || {
        runs(&served)["alex-work"] != before["alex-work"] && mapped(&served).len() == 2
    });
    assert_eq!(runs(&served)["doraz-work"], before["doraz-work"], "nobody else's is touched");

    // Frozen, it is left alone; the loop goes on when it is thawed.
    served.lab.must(&["freeze", "--lab", &text(&served.lab.folder)]);
    let before = runs(&served);
    kill_starter(&served, "alex-work");
    // Without the daemon, root's timer is the same.
    assert!(served.end().success());
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    std::fs::File::options().write(true).open(beat(&served)).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(served.lab.must(&["reconcile", "--once"]), "");
    assert_eq!(runs(&served)["alex-work"], before["alex-work"]);
    served.lab.must(&["thaw", "--lab", &text(&served.lab.folder)]);
    let told = served.lab.must(&["reconcile", "--once"]);
    assert!(
        told.contains("Touches 1 student (alex)") && told.ends_with("apply: 1 done, 0 failed, 0 skipped\n"),
        "{told}"
    );
    assert_eq!(served.lab.must(&["reconcile", "--once"]), "", "there is nothing more to do");

    // A daemon that begins sees to what happened while there was none.
    wait_until("both run", || mapped(&served).len() == 2);
    let before = runs(&served);
    kill_starter(&served, "doraz-work");
    assert_eq!(last_beat(&served), 1, "nobody is there who could move an end");
    served.daemon = daemon(&served.lab, &served.socket);
    wait_until("it is started again", || runs(&served)["doraz-work"] != before["doraz-work"]);
    wait_until("it says that it lives", || last_beat(&served) > 1);
    // What root stops by command beside the daemon, the loop does not start.
    wait_until("both run", || mapped(&served).len() == 2);
    std::fs::write(&manifest, applied).unwrap();
    served.lab.must(&["vm", "stop", "alex-work", "--yes", "--lab", &text(&served.lab.folder)]);
    let stopped = runs(&served);
    kill_starter(&served, "doraz-work");
    wait_until("a later round came and went", || runs(&served)["doraz-work"] != stopped["doraz-work"]);
    assert_eq!(runs(&served)["alex-work"], stopped["alex-work"]);
}

#[test]
fn a_restart_that_is_asked_for_twice_under_one_key_is_one_also_after_the_daemon_was_killed() {
    let doraz = 44_102;
    let mut served = Served::of(&lab("doraz", ""), HELD, &[("doraz", doraz)]);
    let ask = |served: &Served, wanted: &str, key: &str| {
        let line = "POST /v1/labs/net101/vms/doraz-work/power";
        let header = format!("idempotency-key: {key}\r\n");
        served.raw_with(doraz, line, &header, &format!(r#"{{"wanted":"{wanted}","by_name":true}}"#))
    };
    assert_eq!(ask(&served, "start", "one").0, "200");
    wait_until("it runs", || mapped(&served).len() == 1);
    let (status, said) = ask(&served, "restart", "two");
    assert_eq!(status, "200", "{said}");
    let restarted = runs(&served);
    assert_eq!(ask(&served, "restart", "two"), (status, said), "the same answer again");
    assert_eq!(runs(&served), restarted);
    served.daemon.kill().unwrap();
    served.daemon.wait().unwrap();
    served.daemon = daemon(&served.lab, &served.socket);
    let (status, said) = ask(&served, "restart", "two");
    assert!(status == "200" && said.contains("\"changed\":false"), "{status} {said}");
    assert_eq!(runs(&served), restarted);
    assert_eq!(ask(&served, "restart", "three").0, "200");
    assert_ne!(runs(&served), restarted, "another key means it again");
}

#[test]
fn who_waits_is_told_and_who_floods_slows_nobody() {
    let (doraz, alex) = (44_102, 44_103);
    let manifest =
        lab("doraz, alex", "").replace("64M", "128M") + "  still: { derive: gsr, owner: doraz, state: stopped }\n";
    let served = Served::of(&manifest, "", &[("doraz", doraz), ("alex", alex)]);
    // The loop would stop it within the minute.
    served.expect(
        "doraz",
        "vm start still",
        4,
        "error: vm `still` is to stand still: its manifest says `state: stopped`; nothing was changed\n\
         hint: whoever keeps the manifest writes `state: on_demand` there, or nothing, so that people decide",
    );
    let output = served.typing(doraz, "vm start doraz-work --wait").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let told: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("doraz-work: ")).collect();
    assert!(told.last().is_some_and(|last| last.starts_with("ready, on ")), "{said}");

    // Nobody hears of a vm that they may not know of.
    let (status, _) = served.raw_with(alex, "GET /v1/labs/net101/vms/doraz-work/events", "", "");
    assert_eq!(status, "404");
    let start = r#"{"wanted":"start","by_name":true}"#;
    let own = "POST /v1/labs/net101/vms/doraz-work/power";
    let flood: Vec<_> = (0..150).map(|_| served.asking(doraz, own, "", start)).collect();
    let (status, said) = served.raw_with(alex, "POST /v1/labs/net101/vms/alex-work/power", "", r#"{"wanted":"start"}"#);
    assert_eq!(status, "200", "others are served meanwhile: {said}");
    let refused = flood.into_iter().map(answered).filter(|(status, _)| status == "429").count();
    assert!(refused > 0, "150 requests at once are too many");

    // Root and admins read the numbers, without anybody's name.
    let (status, said) = served.raw_with(0, "GET /metrics", "", "");
    assert_eq!(status, "200");
    assert!(
        said.contains("labwright_guests{state=\"ready\"} ") && said.contains("labwright_refused_total{code=\"429\"} "),
        "{said}"
    );
    assert!(!said.contains("doraz") && !said.contains("net101"), "{said}");
    assert_eq!(served.raw_with(alex, "GET /metrics", "", "").0, "403");
}

/// The daemon is killed at some moment of a start and of a derive, and another one takes its place at once. The client asks again by
/// itself; in the end there is one run, one disk, one claim.
#[test]
fn a_daemon_that_is_killed_in_the_middle_costs_nobody_anything() {
    let doraz = 44_102;
    let permission = "permissions:\n  - { to: { group: studs }, on: { template: gsr }, allow: [derive] }\n";
    let mut served = Served::of(&format!("{}{permission}", lab("doraz", "")), HELD, &[("doraz", doraz)]);
    for (round, moment) in [0, 60, 120, 180, 240, 320].into_iter().enumerate() {
        let asked = |served: &Served, line: &str| {
            let mut typing = served.typing(doraz, line);
            typing.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let derive = format!("vm derive gsr --name n{round}");
        for line in [derive.as_str(), "vm restart doraz-work"] {
            let before = runs(&served);
            let asking = asked(&served, line);
            // A moment like any other: the kernel's own scheduling makes another of it each time.
            std::thread::sleep(std::time::Duration::from_millis(moment));
            served.daemon.kill().unwrap();
            served.daemon.wait().unwrap();
            served.daemon = daemon(&served.lab, &served.socket);
            let output = asking.wait_with_output().unwrap();
            let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
            // One that was killed before it heard the first word was never asked.
            if said.contains("cannot reach the daemon") {
                continue;
            }
            assert!(output.status.success(), "killed after {moment} ms of `{line}`: {said}");
            if line.starts_with("vm restart") {
                wait_until("it runs again", || mapped(&served).contains_key("doraz-work") && runs(&served) != before);
            }
        }
    }
    wait_until("there is one guest", || guests(&served) == 1);
    // What root sees is whole: nothing is left to be done, and nothing strange is there.
    assert_eq!(served.lab.must(&["reconcile", "--once"]), "");
    let disks = text(&served.lab.world.folder.path().join("site/vms/net101"));
    let made = tool("find", &[&disks, "-name", "disk-*.qcow2"]).lines().count();
    let listed = served.typing(doraz, "get vms -o name").output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    assert_eq!(listed.lines().count(), made, "each vm has its disk, and there is no other");
}

/// The same of what nobody asks for: guests have died, and the daemon is killed at some moment of starting them again.
#[test]
fn a_daemon_that_is_killed_while_its_loop_acts_starts_each_guest_once() {
    let people = [("doraz", 44_102), ("alex", 44_103), ("eva", 44_104)];
    let mut served = Served::of(&lab("doraz, alex, eva", ", state: running"), HELD, &people);
    for moment in [0, 300, 600, 900, 1_200, 1_500] {
        wait_until("all run", || mapped(&served).len() == people.len());
        let before = runs(&served);
        people.iter().for_each(|(name, _)| kill_starter(&served, &format!("{name}-work")));
        // Within this time the loop has seen it, planned, and told its dispatcher, or some of that.
        std::thread::sleep(std::time::Duration::from_millis(moment));
        served.daemon.kill().unwrap();
        served.daemon.wait().unwrap();
        served.daemon = daemon(&served.lab, &served.socket);
        wait_until("each has another run", || runs(&served).iter().all(|(vm, run)| before[vm] != *run));
    }
    wait_until("all run", || mapped(&served).len() == people.len());
    assert_eq!(guests(&served), people.len(), "none twice");
    assert_eq!(served.lab.must(&["reconcile", "--once"]), "", "nothing is left to be done");
}

/// Guests that run, as the kernel has them.
fn guests(served: &Served) -> usize {
    let folder = text(served.lab.world.folder.path());
    let is_guest = |(_, command): &(i32, String)| command.contains("qemu-system") && command.contains(&folder);
    processes().into_iter().filter(is_guest).count()
}

/// Where nothing can be written, people are told so, nothing is lost, and it goes on once there is room.
#[test]
fn a_state_that_cannot_be_written_refuses_and_goes_on() {
    let doraz = 44_102;
    let served = Served::of(&lab("doraz", ""), HELD, &[("doraz", doraz)]);
    let ask = || {
        let line = "POST /v1/labs/net101/vms/doraz-work/power";
        served.raw_with(doraz, line, "", r#"{"wanted":"start","by_name":true}"#)
    };
    let site = served.lab.world.folder.path().join("site");
    let none: Option<&str> = None;
    let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    mount(Some(&site), &site, none, MsFlags::MS_BIND, none).unwrap();
    mount(none, &site, none, again | MsFlags::MS_RDONLY, none).unwrap();
    let (status, said) = ask();
    assert!(
        status.starts_with('5') && said.contains("nothing was changed") || said.contains("not writable"),
        "{status}: {said}"
    );
    mount(none, &site, none, again, none).unwrap();
    assert_eq!(runs(&served).len(), 0);
    let (status, said) = ask();
    assert_eq!(status, "200", "{said}");
    wait_until("it runs", || mapped(&served).len() == 1);
}

/// The same where the file system of state and disks is full: whatever was begun is whole or not there, root can look, and what
/// people ask for is done once there is room.
#[test]
fn a_file_system_that_is_full_refuses_and_goes_on() {
    let (doraz, alex) = (44_102, 44_103);
    let permission = "permissions:\n  - { to: { group: studs }, on: { template: gsr }, allow: [derive] }\n";
    let manifest = format!("{}{permission}", lab("doraz, alex", ""));
    let served = Served::on_file_system("96m", &manifest, HELD, &[("doraz", doraz), ("alex", alex)]);
    let site = served.lab.world.folder.path().join("site");
    let start = |uid: u32, vm: &str| {
        let line = format!("POST /v1/labs/net101/vms/{vm}/power");
        served.raw_with(uid, &line, "", r#"{"wanted":"start","by_name":true}"#)
    };
    let (status, said) = start(alex, "alex-work");
    assert_eq!(status, "200", "{said}");
    wait_until("hers runs", || mapped(&served).len() == 1);
    let running = runs(&served);

    let filler = site.join("filler");
    fill(&filler);
    let (status, said) = start(doraz, "doraz-work");
    assert!(status.starts_with('5') && is_told(&said), "{status}: {said}");
    let derive = r#"{"template":"gsr","name":"mine"}"#;
    let (status, said) = served.raw_with(doraz, "POST /v1/labs/net101/vms", "", derive);
    assert!(status.starts_with('5') && is_told(&said), "{status}: {said}");
    assert_eq!(runs(&served), running, "nobody else's is touched");
    let listed = served.lab.must(&["get", "vms", "-o", "name", "--lab", &text(&served.lab.folder)]);
    assert_eq!(listed, "alex-work\ndoraz-work\n", "root can look, and half a vm is none");

    std::fs::remove_file(&filler).unwrap();
    let (status, said) = start(doraz, "doraz-work");
    assert_eq!(status, "200", "{said}");
    let (status, said) = served.raw_with(doraz, "POST /v1/labs/net101/vms", "", derive);
    assert_eq!(status, "200", "{said}");
    wait_until("both run", || mapped(&served).len() == 2);
    assert_eq!(runs(&served)["alex-work"], running["alex-work"]);
    assert_eq!(served.lab.must(&["reconcile", "--once"]), "", "nothing is left to be done");
    served.lab.must(&["state", "check", "--lab", &text(&served.lab.folder)]);
}

/// In the words of the kernel, or of SQLite.
fn is_told(said: &str) -> bool {
    said.contains("No space left") || said.contains("full")
}

/// To the last byte.
fn fill(filler: &std::path::Path) {
    let mut file = std::fs::File::create(filler).unwrap();
    for size in [1 << 20, 4096, 1] {
        while std::io::Write::write_all(&mut file, &vec![1; size]).is_ok() {}
    }
}
