//! A whole lab through the command line, as the quickstart does it: real guests, asked over their serial line.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{BINARY, Console, World, console_at, processes, template, text, tool, wait_until};

/// The quickstart's lab in a folder of its own, on a bare host of its own.
pub(crate) struct Lab {
    pub(crate) world: World,
    pub(crate) folder: PathBuf,
    pub(crate) site: PathBuf,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::prepared("", |folder| {
            let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("labs/quickstart");
            std::fs::create_dir_all(folder.join("images")).unwrap();
            for file in ["lab.yaml", "students.csv"] {
                std::fs::copy(quickstart.join(file), folder.join(file)).unwrap();
            }
            std::fs::copy(template(), folder.join("images/tiny.qcow2")).unwrap();
        })
    }

    /// A site with a folder for labs, which `fill` puts there; with more settings for its scheduler.
    pub(crate) fn prepared(scheduler: &str, fill: impl FnOnce(&Path)) -> Self {
        let world = World::bare();
        let folder = world.folder.path().join("lab");
        std::fs::create_dir(&folder).unwrap();
        fill(&folder);
        let site = world.folder.path().join("site.yaml");
        let root = world.folder.path().join("site");
        let settings = format!(
            "service_user: nobody\nstate: {0}/state.db\nstorage: {{ root: {0} }}\n\
             scheduler: {{ local: {{ folder: {0}/scheduler{scheduler} }} }}\n\
             network: {{ dhcp: dnsmasq, dhcp_folder: {0}/dnsmasq }}\ntiming: {{ early_exit: 1s }}\n",
            text(&root)
        );
        std::fs::write(&site, settings).unwrap();
        let lab = Self { world, folder, site };
        lab.must(&["state", "init", "--lab", &text(&lab.folder)]);
        lab
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("--site").arg(&self.site).args(arguments);
        command
    }

    pub(crate) fn labwright(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    pub(crate) fn must(&self, arguments: &[&str]) -> String {
        let output = self.labwright(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?} ended with {}\n{out}\n{err}", output.status);
        out.into_owned()
    }

    pub(crate) fn apply(&self) -> String {
        self.must(&["apply", &text(&self.folder), "--yes", "--wait"])
    }

    /// What runs, by vm name: one JSON object each.
    fn mappings(&self) -> Vec<serde_json::Value> {
        self.mappings_in(&text(&self.folder))
    }

    fn mappings_in(&self, folder: &str) -> Vec<serde_json::Value> {
        let listed = self.must(&["get", "mappings", "-o", "json", "--lab", folder]);
        serde_json::from_str(&listed).unwrap()
    }

    pub(crate) fn mapping(&self, vm: &str) -> serde_json::Value {
        self.mapping_in(&text(&self.folder), vm)
    }

    pub(crate) fn mapping_in(&self, folder: &str, vm: &str) -> serde_json::Value {
        let mut rows = self.mappings_in(folder).into_iter();
        rows.find(|row| row["name"] == vm).unwrap_or_else(|| panic!("{vm} does not run"))
    }

    pub(crate) fn vm_state(&self, vm: &str) -> String {
        let listed = self.must(&["get", "vms", "-o", "json", "--lab", &text(&self.folder)]);
        let rows: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
        rows.iter().find(|row| row["name"] == vm).and_then(|row| row["state"].as_str()).unwrap().to_owned()
    }

    pub(crate) fn console(&self, vm: &str) -> Console {
        console_at(self.mapping(vm)["tap"].as_str().unwrap())
    }

    pub(crate) fn edit(&self, from: &str, to: &str) {
        let path = self.folder.join("lab.yaml");
        let before = std::fs::read_to_string(&path).unwrap();
        let after = before.replace(from, to);
        assert_ne!(before, after, "{from} stands in lab.yaml");
        std::fs::write(path, after).unwrap();
    }

    /// Processes that work for this lab: their command lines name its folder.
    fn processes(&self) -> Vec<(i32, String)> {
        let folder = text(self.world.folder.path());
        processes().into_iter().filter(|(_, command)| command.contains(&folder)).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            // Only for a test that failed half-way; one that is gone already is as good.
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default();
        }
    }
}

fn taps() -> String {
    tool("ip", &["-br", "link"]).lines().filter(|line| line.starts_with("lw")).collect()
}

#[test]
fn a_lab_from_yaml_to_guests_and_back() {
    let lab = Lab::new();
    let folder = text(&lab.folder);
    lab.must(&["host", "setup", "--lab", &folder]);

    lab.apply();
    for (vm, planned, other) in
        [("alice-tiny", "192.168.100.2", "192.168.100.3"), ("bob-tiny", "192.168.100.3", "192.168.100.2")]
    {
        let mut guest = lab.console(vm);
        let (_, addresses) = guest.run("ip -4 -o addr show eth0");
        assert!(addresses.contains(&format!("inet {planned}/24 ")), "{vm} has {addresses}, planned was {planned}");
        assert_eq!(guest.run("ping -c1 -W5 192.168.100.1 >/dev/null").0, 0, "{vm} reaches its gateway");
        assert_ne!(guest.run(&format!("ping -c1 -W2 {other} >/dev/null")).0, 0, "{vm} is isolated from {other}");
    }

    let again = lab.apply();
    assert!(again.starts_with("no changes: "), "a second apply changes nothing:\n{again}");
    assert_eq!(lab.mappings().len(), 2);

    a_colleague_looks(&lab);
    a_picture_of_the_screen(&lab);
    a_screen_for_each_student(&lab);
    back_to_a_snapshot(&lab);
    a_killed_starter_leaves_nothing(&lab);
    more_memory_restarts_the_guests(&lab);
    destroy_leaves_only_the_disks(&lab);
}

/// Without root: who is in the service account's group sees what root sees, and anybody else is told how to.
fn a_colleague_looks(lab: &Lab) {
    let program = lab.world.program_in_reach();
    let look = |group| {
        let mut command = Command::new(&program);
        command.arg("--site").arg(&lab.site).arg("status").arg(&lab.folder);
        let output = command.uid(4242).gid(group).output().unwrap();
        (output.status.code(), [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()))
    };
    let group = nix::unistd::User::from_name("nobody").unwrap().unwrap().gid.as_raw();
    let [seen, complaint] = look(group).1;
    assert_eq!(seen, lab.must(&["status", &text(&lab.folder)]), "{complaint}");
    let (code, [_, complaint]) = look(4242);
    assert!(code == Some(1) && complaint.contains("add you to the group of the service account"), "{complaint}");
}

/// Of one vm into a file; of a family into a folder, with a file for each.
fn a_picture_of_the_screen(lab: &Lab) {
    let (picture, pictures) = (lab.world.folder.path().join("guest.png"), lab.world.folder.path().join("pictures"));
    let folder = text(&lab.folder);
    lab.must(&["vm", "screen", "vm/alice-tiny", "--lab", &folder, "-o", &text(&picture)]);
    lab.must(&["vm", "screen", "exam", "--lab", &folder, "-o", &text(&pictures)]);
    for picture in [picture, pictures.join("alice-tiny.png"), pictures.join("bob-tiny.png")] {
        assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG\r\n\x1a\n"), "{}", picture.display());
    }
}

/// Where each screen is and its password, for slips to print; by the family's name, a vm's, and a pattern.
fn a_screen_for_each_student(lab: &Lab) {
    let folder = text(&lab.folder);
    let screens: Vec<serde_json::Value> =
        serde_json::from_str(&lab.must(&["vm", "vnc", "exam", "-o", "json", "--lab", &folder])).unwrap();
    assert_eq!(
        screens.iter().map(|screen| screen["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["alice-tiny", "bob-tiny"]
    );
    for screen in &screens {
        let (host, port) = (screen["host"].as_str().unwrap(), screen["port"].as_u64().unwrap());
        assert_eq!(screen["display"].as_u64().unwrap(), port - 5900);
        let place = format!("{host}:{port}").parse().unwrap();
        assert_eq!(
            labwright::host::machine::vnc::look(&place).unwrap(),
            labwright::host::machine::vnc::Entry::Password
        );
        let tap = lab.mapping(screen["name"].as_str().unwrap())["tap"].as_str().unwrap().to_owned();
        let secret = format!("site/runs/{}-{}/vnc.password", &tap[2..6], &tap[6..]);
        let secret = std::fs::read_to_string(lab.world.folder.path().join(secret)).unwrap();
        assert_eq!(screen["password"], secret, "it is the run's own");
    }
    let slips = lab.must(&["vm", "vnc", "*-tiny", "-o", "csv", "--lab", &folder]);
    assert_eq!(slips.lines().count(), 3, "{slips}");
    let one = lab.must(&["vm", "vnc", "vm/bob-tiny", "--lab", &folder]);
    let password = screens[1]["password"].as_str().unwrap();
    assert!(one.contains(&format!("  password   {password}\n")) && one.contains("display"), "{one}");
    // Who may see that it runs, and not its password, is told so.
    let program = lab.world.program_in_reach();
    let mut colleague = Command::new("setpriv");
    colleague.args(["--reuid=54321", "--regid=nogroup", "--clear-groups"]).arg(&program).arg("--site").arg(&lab.site);
    let refused = colleague.args(["vm", "vnc", "bob-tiny", "--lab", &folder]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("hint: only root and the service account may: `sudo labwright vm vnc …`"), "{said}");
    assert_eq!(refused.stdout, b"");
}

/// What a person types: the guest stands still and goes on; what is in its memory comes back with a snapshot.
fn back_to_a_snapshot(lab: &Lab) {
    let folder = text(&lab.folder);
    let said = |arguments: &[&str]| {
        let output = lab.labwright(&[arguments, &["--lab", &folder]].concat());
        let words = [output.stdout, output.stderr].concat();
        format!("{}{}\n", String::from_utf8(words).unwrap(), output.status.code().unwrap())
    };
    let answers =
        || Command::new("ping").args(["-q", "-c1", "-W1", "192.168.100.2"]).output().unwrap().status.success();

    let mut story = said(&["vm", "suspend", "alice-tiny"]);
    assert!(!answers(), "a suspended guest is silent");
    assert_eq!(lab.vm_state("alice-tiny"), "suspended");
    story += &said(&["vm", "resume", "alice-tiny"]);
    wait_until("a resumed guest answers", answers);

    let mut guest = lab.console("alice-tiny");
    guest.run("echo marker >/tmp/state");
    story += &said(&["vm", "snapshot", "alice-tiny", "marked"]);
    story += &said(&["vm", "snapshot", "alice-tiny", "marked"]);
    guest.run("rm /tmp/state; echo later >/tmp/later");
    story += &said(&["vm", "revert", "alice-tiny", "markt"]);
    // Nobody else of those that are named has it.
    story += &said(&["vm", "revert", "vm/alice-tiny", "b*", "marked"]);
    assert_eq!(guest.run("cat /tmp/state; ls /tmp/later").1.lines().next(), Some("marker"));
    assert_ne!(guest.run("ls /tmp/later").0, 0, "what came later is gone");
    wait_until("it is still on the network", answers);

    let listed = lab.must(&["vm", "snapshots", "alice-tiny", "-o", "json", "--lab", &folder]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["name"], "marked");
    assert!(listed[0]["memory_mib"].as_u64().unwrap() > 10, "{listed}");
    story += &said(&["vm", "delete-snapshot", "alice-tiny", "marked"]);
    story += &said(&["vm", "snapshots", "alice-tiny"]);
    let history = lab.must(&["history", &folder, "-o", "csv"]);
    let commands = history.lines().map(|line| line.split(',').nth(3).unwrap().replace(&folder, "LAB"));
    story += &commands.collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!("snapshots", story);
}

fn a_killed_starter_leaves_nothing(lab: &Lab) {
    let before = lab.mapping("alice-tiny");
    let (qemu, tap) = (before["pid"].as_i64().unwrap(), before["tap"].as_str().unwrap().to_owned());
    let starter = parent_of(qemu);
    kill(Pid::from_raw(starter), Signal::SIGKILL).unwrap();
    let gone = || !Path::new("/proc").join(qemu.to_string()).join("exe").exists() && !taps().contains(&tap);
    wait_until("qemu and tap of a killed starter are gone", gone);
    let table = format!("lw_{}_{}", &tap[2..6], &tap[6..]);
    wait_until("its filter is gone", || !tool("nft", &["list", "tables"]).contains(&table));

    a_killed_guest_is_told(lab);
    let logs = || {
        let batches = std::fs::read_dir(lab.world.folder.path().join("site/runs/batches")).unwrap();
        let logs =
            batches.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "log"));
        logs.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect::<BTreeMap<_, _>>()
    };
    let earlier = logs();
    assert!(earlier.values().any(|log| log.contains(" INFO ")), "a starter says what it reports: {earlier:?}");
    let mut quiet = lab.command(&["apply", &text(&lab.folder), "--yes", "--wait"]);
    assert!(quiet.env("LABWRIGHT_LOG", "error").output().unwrap().status.success());
    let new: Vec<_> = logs().into_iter().filter(|(path, _)| !earlier.contains_key(path)).collect();
    assert!(!new.is_empty() && new.iter().all(|(_, log)| !log.contains(" INFO ")), "not what was asked for: {new:?}");
    let after = lab.mapping("alice-tiny");
    assert_eq!((&after["ip"], &after["mac"]), (&before["ip"], &before["mac"]), "it comes back under its address");
    assert_ne!(after["tap"], before["tap"], "as a new run");
}

fn a_killed_guest_is_told(lab: &Lab) {
    let qemu = lab.mapping("bob-tiny")["pid"].as_i64().unwrap();
    kill(Pid::from_raw(i32::try_from(qemu).unwrap()), Signal::SIGKILL).unwrap();
    wait_until("its starter has seen it", || lab.vm_state("bob-tiny") == "off");
    let folder = text(&lab.folder);
    for told in [lab.must(&["status", &folder]), lab.must(&["explain", "bob-tiny", "--lab", &folder])] {
        assert!(told.contains("qemu ended with an error: killed by signal 9"), "{told}");
    }
}

fn parent_of(pid: i64) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

fn more_memory_restarts_the_guests(lab: &Lab) {
    let before: Vec<String> = lab.mappings().iter().map(|row| row["tap"].to_string()).collect();
    lab.edit("memory: 128M", "memory: 160M");
    let plan = lab.must(&["plan", &text(&lab.folder), "--json"]);
    let changes: Vec<serde_json::Value> = plan.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let restarts: Vec<&str> =
        changes.iter().filter(|line| line["verb"] == "restart").map(|line| line["address"].as_str().unwrap()).collect();
    assert_eq!(restarts, ["vm/alice-tiny", "vm/bob-tiny"], "exactly the template's vms restart:\n{plan}");
    lab.apply();
    let after: Vec<String> = lab.mappings().iter().map(|row| row["tap"].to_string()).collect();
    assert!(before.iter().all(|tap| !after.contains(tap)), "both are new runs: {before:?}, {after:?}");
    let (_, memory) = lab.console("bob-tiny").run("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo");
    let memory: u64 = memory.trim().parse().unwrap();
    assert!((120_000..=163_840).contains(&memory), "160 MiB, less what the kernel keeps: {memory} kB");
}

fn destroy_leaves_only_the_disks(lab: &Lab) {
    let folder = text(&lab.folder);
    lab.must(&["destroy", &folder, "--yes"]);
    assert_eq!(taps(), "");
    assert!(!tool("nft", &["list", "tables"]).contains("lw_"), "no run's filter is left");
    let site = lab.world.folder.path().join("site");
    assert_eq!(std::fs::read_dir(site.join("dnsmasq/hosts")).unwrap().count(), 0, "no reservation is left");
    let found = tool("find", &[&text(&site), "-name", "disk-0.qcow2", "-path", "*/aside/*"]);
    assert_eq!(found.lines().count(), 2, "both students' disks are set aside:\n{found}");
    lab.must(&["host", "teardown", "--lab", &folder]);
    assert!(!tool("nft", &["list", "tables"]).contains("labwright"));
    assert!(!tool("ip", &["-br", "link"]).contains("vbr0"));
    wait_until("no process is left", || lab.processes().is_empty());
}
