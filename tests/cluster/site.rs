//! The site under test, and how everything but labwright sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::console::Console;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_labwright");
/// Longest wait for anything that cluster or guests do by themselves; the machines that run this are busy.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often what is waited for is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Seconds of silence after which a guest stands still. What else takes its time follows from it.
pub(crate) const SELF_FENCE_SECONDS: u64 = 6;
/// The guards are not what is tested here.
const GUARDS: [&str; 6] = ["--allow", "user-group/*", "--allow", "vm/*", "--allow", "template/*"];

pub(crate) struct Site {
    name: String,
    root: PathBuf,
    pub(crate) members: BTreeSet<String>,
}

/// A vm that runs, as the site's mapping table has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mapping {
    pub(crate) vm: String,
    pub(crate) ip: String,
    pub(crate) mac: String,
    pub(crate) host: u32,
    pub(crate) tap: String,
    pub(crate) vnc: String,
    /// As its host counts it.
    pub(crate) pid: u32,
}

/// A qemu of this site, as the machine's process table has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Qemu {
    pub(crate) vm: String,
    pub(crate) pid: u32,
    /// Clock ticks since the machine's start: with the pid, the process and no other.
    pub(crate) started: u64,
}

impl Site {
    pub(crate) fn up() -> Self {
        let name = format!("lwt{}", std::process::id());
        let members = ["ana", "dan", "eva", "ion", "mara", "radu"].map(String::from).into();
        let site = Self { root: Path::new("/srv").join(&name), name, members };
        site.script("cluster", &["up"]);
        site.write_lab();
        let images = site.lab().join("images");
        std::fs::create_dir(&images).unwrap();
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let guest = project.join("target/guest");
        let made = Command::new(project.join("labs/quickstart/make-template")).arg(&guest).status().unwrap();
        assert!(made.success());
        std::fs::copy(guest.join("template.qcow2"), images.join("tiny.qcow2")).unwrap();
        site.write_tools();
        site.script("site", &[site.lab().to_str().unwrap()]);
        site
    }

    fn lab(&self) -> PathBuf {
        self.root.join("lab")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A lab of one guest for each of `members`.
    pub(crate) fn write_lab(&self) {
        let lab = self.lab();
        std::fs::create_dir_all(&lab).unwrap();
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("labs/cluster/lab.yaml"), lab.join("lab.yaml"))
            .unwrap();
        let members: Vec<&str> = self.members.iter().map(String::as_str).collect();
        std::fs::write(lab.join("students.csv"), format!("user\n{}\n", members.join("\n"))).unwrap();
    }

    /// Grid Engine's tools, with a place for an accident: `accident` is a shell script that gets the tool's whole command.
    fn write_tools(&self) {
        let folder = self.path("binaries");
        std::fs::create_dir(&folder).unwrap();
        for tool in ["qsub", "qstat", "qdel", "qhost", "qconf", "qacct", "qmod"] {
            let real = format!("/usr/lib/gridengine/{tool}");
            let accident = self.path("accident");
            let accident = accident.display();
            let script =
                format!("#!/bin/sh\n[ ! -e {accident} ] || exec sh {accident} {real} \"$@\"\nexec {real} \"$@\"\n");
            let path = folder.join(tool);
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
    }

    /// One of the scripts in labs/cluster, for this site.
    pub(crate) fn command(&self, script: &str) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("labs/cluster").join(script));
        let timing = format!("timing: {{ heartbeat: 1s, self_fence: {SELF_FENCE_SECONDS}s, grace: 20s }}");
        command
            .env("CLUSTER_ROOT", &self.root)
            .env("CLUSTER_NAME", &self.name)
            .env("CLUSTER_UNHEARD", "0:0:6")
            .env("CLUSTER_NET", "10.199.83")
            .env("CLUSTER_MEMORY", "4G")
            .env("CLUSTER_BINARIES", self.path("binaries"))
            .env("CLUSTER_SITE", timing)
            .env("LABWRIGHT", BINARY)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn try_script(&self, script: &str, arguments: &[&str]) -> Output {
        self.command(script).args(arguments).output().unwrap()
    }

    #[track_caller]
    pub(crate) fn script(&self, script: &str, arguments: &[&str]) -> String {
        let output = self.try_script(script, arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{script} {arguments:?} ended with {}\n{out}\n{err}", output.status);
        out.into_owned()
    }

    #[track_caller]
    pub(crate) fn cluster(&self, arguments: &[&str]) -> String {
        self.script("cluster", arguments)
    }

    #[track_caller]
    pub(crate) fn on_host(&self, host: u32, command: &[&str]) -> String {
        self.cluster(&[&["host", &host.to_string()], command].concat())
    }

    pub(crate) fn host_name(&self, host: u32) -> String {
        format!("{}-h{host}", self.name)
    }

    #[track_caller]
    pub(crate) fn labwright(&self, arguments: &[&str]) -> String {
        self.script("labwright", arguments)
    }

    /// An apply that is under way.
    pub(crate) fn apply_command(&self) -> Command {
        let mut command = self.command("labwright");
        command.args(["apply", "--yes"]).args(GUARDS);
        command
    }

    /// What the apply said, and whether it ended well.
    pub(crate) fn try_apply(&self) -> (bool, String) {
        let output = self.apply_command().output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        (output.status.success(), said)
    }

    /// Applies, and waits until every guest is where it is to be.
    #[track_caller]
    pub(crate) fn apply(&self) -> String {
        self.labwright(&[&["apply", "--yes", "--wait"], GUARDS.as_slice()].concat())
    }

    fn rows(&self, kind: &str) -> Vec<Value> {
        serde_json::from_str(&self.labwright(&["get", kind, "-o", "json"])).unwrap()
    }

    /// What labwright says of each vm in one word.
    pub(crate) fn states(&self) -> BTreeMap<String, String> {
        let word = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
        self.rows("vms").iter().map(|row| (word(row, "name"), word(row, "state"))).collect()
    }

    pub(crate) fn mappings(&self) -> BTreeMap<String, Mapping> {
        let mapping = |row: &Value| {
            let word = |key: &str| row[key].as_str().unwrap_or_else(|| panic!("no {key} in {row}")).to_owned();
            let host = word("host").strip_prefix(&format!("{}-h", self.name)).unwrap().parse().unwrap();
            let pid = row["pid"].as_u64().unwrap().try_into().unwrap();
            Mapping {
                vm: word("name"),
                ip: word("ip"),
                mac: word("mac"),
                host,
                tap: word("tap"),
                vnc: word("vnc"),
                pid,
            }
        };
        self.rows("mappings").iter().map(mapping).map(|mapping| (mapping.vm.clone(), mapping)).collect()
    }

    pub(crate) fn on(&self, host: u32) -> Vec<Mapping> {
        self.mappings().into_values().filter(|mapping| mapping.host == host).collect()
    }

    /// The serial line of a guest, by way of its host.
    pub(crate) fn console(&self, mapping: &Mapping) -> Console {
        let host = self.host_name(mapping.host);
        let pid = std::fs::read_to_string(self.path("run").join(format!("{host}.pid"))).unwrap();
        // lw<tag><number> is the tap of run <tag>-<number>.
        let run = format!("{}-{}", &mapping.tap[2..6], &mapping.tap[6..]);
        let root = Path::new("/proc").join(pid.trim()).join("root");
        Console::open(&root.join("run/labwright").join(run).join("serial.sock"))
    }

    pub(crate) fn pings(&self, mapping: &Mapping) -> bool {
        self.try_script("cluster", &["master", "ping", "-c1", "-W2", &mapping.ip]).status.success()
    }

    /// Every qemu on a disk of this site, whatever it does.
    pub(crate) fn qemus(&self) -> BTreeSet<Qemu> {
        let disks = format!("{}/storage/vms/cluster-exam/", self.root.display());
        let pids =
            std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid: u32| {
            // What is gone by now is no qemu any more.
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command).into_owned();
            let program = command.split('\0').next()?;
            let vm = command.split_once(&disks)?.1.split_once('/')?.0.to_owned();
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
            program.contains("qemu-system").then_some(Qemu { vm, pid, started })
        })
        .collect()
    }

    /// The jobs' tasks in the queue: `(job, task)` and its letters.
    pub(crate) fn tasks(&self) -> BTreeMap<(u32, u32), String> {
        let listed = self.cluster(&["master", "qstat", "-u", "*", "-g", "d"]);
        let lines = listed.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (job, task) = (words.first()?.parse().ok()?, words.last()?.parse().ok()?);
            Some(((job, task), (*words.get(4)?).to_owned()))
        });
        lines.collect()
    }

    /// dhcpd's reservations: MAC and address, by name.
    pub(crate) fn reservations(&self) -> BTreeMap<String, (String, String)> {
        let text = std::fs::read_to_string(self.path("dhcp/dhcpd.leases")).unwrap();
        let mut found = BTreeMap::new();
        for block in text.split("\nhost ").skip(1) {
            let (name, block) = block.split_once(" {").unwrap();
            let block = block.split_once("\n}").unwrap().0;
            let value = |key: &str| {
                let line = block.lines().find_map(|line| line.trim().strip_prefix(key));
                line.map(|rest| rest.trim().trim_end_matches(';').to_owned())
            };
            if block.contains("deleted;") {
                found.remove(name);
            } else if let (Some(mac), Some(ip)) = (value("hardware ethernet"), value("fixed-address")) {
                found.insert(name.to_owned(), (mac, ip));
            }
        }
        found
    }

    pub(crate) fn state(&self) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        Connection::open_with_flags(self.path("state.db"), flags).unwrap()
    }

    /// One qemu, one task, one reservation and one address for every member, nothing besides, and nothing left to do.
    #[track_caller]
    pub(crate) fn is_at_rest(&self) {
        let members: Vec<String> = self.members.iter().map(|user| format!("{user}-exam")).collect();
        let vms: Vec<String> = self.qemus().into_iter().map(|qemu| qemu.vm).collect();
        assert_eq!(vms, members, "one qemu for each member");
        // The queue is a moment behind what starters say.
        until("one running task for each", || {
            let tasks = self.tasks();
            let so = tasks.len() == members.len() && tasks.values().all(|letters| letters == "r");
            if so { Ok(()) } else { Err(format!("{tasks:?}")) }
        });
        let reserved = self.reservations();
        let query = "SELECT name, mac, ip FROM vms ORDER BY name";
        let state = self.state();
        let mut query = state.prepare(query).unwrap();
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)));
        let recorded: BTreeMap<String, (String, String)> =
            query.query_map([], row).unwrap().map(Result::unwrap).collect();
        assert_eq!(recorded.keys().cloned().collect::<Vec<_>>(), members);
        let reserved: BTreeMap<String, (String, String)> = reserved
            .into_iter()
            .map(|(name, at)| (name.split_once("-cluster-exam-").unwrap().1.to_owned(), at))
            .collect();
        assert_eq!(reserved, recorded, "dhcpd has what was recorded, and nothing else");
        let open: u64 =
            state.query_row("SELECT COUNT(*) FROM runs WHERE state != 'ended'", [], |row| row.get(0)).unwrap();
        assert_eq!(open, members.len() as u64, "runs that are not over");
        let plan = self.labwright(&["plan"]);
        assert!(plan.starts_with("no changes: "), "{plan}");
    }

    /// Takes the lab down in good order, then the cluster, and looks for what is left.
    pub(crate) fn ends_with_nothing_left(self) {
        self.labwright(&[&["destroy", "--yes"], GUARDS.as_slice()].concat());
        assert_eq!(self.qemus(), BTreeSet::new());
        assert_eq!(self.reservations(), BTreeMap::new());
        until("an empty queue", || match self.tasks() {
            tasks if tasks.is_empty() => Ok(()),
            tasks => Err(format!("{tasks:?}")),
        });
        for host in 1..=3 {
            let links = self.on_host(host, &["ip", "-br", "link"]);
            assert!(!links.lines().any(|line| line.starts_with("lw")), "{links}");
            let tables = self.on_host(host, &["nft", "list", "tables"]);
            assert_eq!(tables, "table bridge labwright\n");
        }
        self.script("down", &[]);
        assert!(!self.root.exists());
        let left = Command::new("ip").args(["netns", "list"]).output().unwrap();
        assert!(!String::from_utf8_lossy(&left.stdout).contains(&self.name));
        let account = nix::unistd::User::from_name(&self.name).unwrap();
        assert!(account.is_none(), "{account:?}");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.root.exists() {
            // A test that has failed has said more than this could. Nothing is asked to end in good order any more.
            drop(std::fs::remove_file(self.path("state.db")));
            drop(self.try_script("down", &[]));
        }
    }
}

#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(began.elapsed() < PATIENCE, "waited for {what}; seen: {seen}"),
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
