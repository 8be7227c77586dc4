//! The real program with its local scheduler and real qemus, ended by SIGKILL at random moments of an apply, and then a look
//! at the world from outside: SQLite, disks, run folders, reservations and processes as any other program sees them. Whatever
//! the moment was, the next apply must end where an apply that nobody killed would have ended, no disk is ever open twice, and
//! nothing that a student ever had may be gone. It all happens in namespaces of its own, so it runs as root.
//!
//! The guests have empty disks: their firmware finds nothing to boot, which costs little and keeps qemu up.
//!
//! `tests/run campaign kills 200` kills more often. `LABWRIGHT_KILLS_SEED` replays the same edits, but never the same
//! moments: those belong to the kernel.

#[path = "cluster/dice.rs"]
mod dice;
#[path = "cli/machine.rs"]
mod machine;
#[path = "cli/sandbox.rs"]
mod sandbox;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use dice::{Dice, number_from};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::{Connection, OpenFlags};
use sandbox::Sandbox;

/// What CI does when nothing else is asked for.
const KILLS_IN_CI: u64 = 30;

/// In memory: on a disk most of the time would go to waiting for it, and a kill needs no disk to be one.
const PARENT: &str = "/dev/shm";

const STUDENTS: [&str; 5] = ["ada", "bea", "cid", "dan", "eve"];

/// Guests without a system do not hear their power button, so a stop takes the whole grace period.
const SITE: &str = "\
state: site/state.db
storage: { root: site/storage }
scheduler: { local: { folder: site/scheduler, slots: 16, memory: 8G } }
network: { dhcp: dnsmasq, dhcp_folder: site/dnsmasq }
timing: { grace: 1s }
service_user: nobody
";

/// How long a guest that was submitted may take until its qemu is there, on a machine that does other work beside.
const PATIENCE: Duration = Duration::from_secs(120);

/// The guards are not what is tested here; what they guard against is exactly what an edit does.
const GUARDS: [&str; 6] = ["--allow", "user-group/*", "--allow", "vm/*", "--allow", "template/*"];

#[test]
#[expect(clippy::print_stderr, reason = "a campaign says what it did")]
fn a_killed_apply_loses_nothing_and_the_next_one_ends_the_same() {
    let kills = number_from("LABWRIGHT_KILLS", KILLS_IN_CI);
    let mut lab = Lab::new(number_from("LABWRIGHT_KILLS_SEED", 1));
    let (mut killed, mut rounds) = (0, 0);
    while killed < kills {
        rounds += 1;
        assert!(rounds <= 4 * kills + 20, "only {killed} of {rounds} applies could be killed before they ended");
        lab.edit();
        if !lab.killed_apply() {
            continue;
        }
        killed += 1;
        lab.look();
        // The teacher may think again between a kill and the next apply.
        if lab.dice.below(2) == 0 {
            lab.edit();
        }
        lab.bring_to_rest();
        lab.look_at_rest();
        if lab.dice.below(3) == 0 {
            killed += u64::from(lab.killed_reimage());
            lab.look();
            lab.bring_to_rest();
            lab.look_at_rest();
        }
    }
    lab.must("labwright --site ../site.yaml destroy --yes");
    let left = lab.open_disks();
    assert_eq!(left, Vec::<PathBuf>::new(), "after the lab is gone");
    lab.must("labwright --site ../site.yaml host teardown");
    eprintln!("{killed} kills in {rounds} applies: {} disks were made, none was lost", lab.seen.len());
}

/// One lab, the edits that its teacher makes, and every disk that was ever somebody's.
struct Lab {
    sandbox: Sandbox,
    dice: Dice,
    members: BTreeSet<&'static str>,
    memory_mib: u64,
    image_mib: u64,
    suffix: &'static str,
    /// How long an apply takes that nobody kills.
    apply_takes: Duration,
    /// The same of new disks for one vm.
    reimage_takes: Duration,
    /// The file of each disk that was recorded, whatever its name is by now.
    seen: BTreeMap<(u64, u64), PathBuf>,
    story: Vec<String>,
}

/// A row of the table `disks`.
struct Disk {
    path: PathBuf,
    is_aside: bool,
    moving_to: Option<PathBuf>,
    /// Not yet, where it is only meant to be made.
    made: bool,
}

impl Lab {
    fn new(seed: u64) -> Self {
        machine::of_its_own();
        let mut lab = Self {
            sandbox: Sandbox::new(PARENT, None),
            dice: Dice(seed),
            members: STUDENTS[..3].iter().copied().collect(),
            memory_mib: 128,
            image_mib: 1,
            suffix: "work",
            apply_takes: Duration::ZERO,
            reimage_takes: Duration::from_secs(2),
            seen: BTreeMap::new(),
            story: vec![format!("seed {seed}")],
        };
        std::fs::write(lab.sandbox.path("site.yaml"), SITE).unwrap();
        lab.write(None);
        lab.must("labwright --site ../site.yaml state init");
        lab.must("labwright --site ../site.yaml host setup");
        lab.bring_to_rest();
        lab.look_at_rest();
        lab
    }

    fn must(&self, line: &str) {
        let output = self.sandbox.shell(line);
        self.expect(line, output.status, &[output.stdout, output.stderr]);
    }

    fn edit(&mut self) {
        let mut moved_from = None;
        for _ in 0..=self.dice.below(3) {
            match self.dice.below(8) {
                0..=4 => {
                    let student = STUDENTS[self.dice.below(STUDENTS.len() as u64) as usize];
                    if !self.members.remove(student) || self.members.len() < 2 {
                        self.members.insert(student);
                    }
                }
                5 => self.memory_mib = 128 + 64 * self.dice.below(3),
                6 => self.image_mib = 1 + self.dice.below(3),
                _ if moved_from.is_none() => {
                    moved_from = Some(self.suffix);
                    self.suffix = if self.suffix == "work" { "play" } else { "work" };
                }
                _ => {}
            }
        }
        self.write(moved_from);
    }

    /// The lab's files, as the teacher wants them by now.
    fn write(&mut self, moved_from: Option<&str>) {
        let Self { members, memory_mib, image_mib, suffix, story, .. } = self;
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/lab/lab.yaml");
        let mut manifest = std::fs::read_to_string(sample).unwrap();
        manifest = manifest
            .replace("256M", &format!("{memory_mib}M"))
            .replace("on_demand", "running")
            .replace("}-work", &format!("}}-{suffix}"));
        if let Some(old) = moved_from {
            manifest += "\nmoved:\n";
            let moves = members.iter().map(|user| format!("  - {{ from: vm/{user}-{old}, to: vm/{user}-{suffix} }}\n"));
            manifest += &moves.collect::<String>();
        }
        let members: Vec<_> = members.iter().copied().collect();
        story.push(format!(
            "edited: {members:?} with -{suffix} (before: {moved_from:?}), {memory_mib} MiB, image of {image_mib} MiB"
        ));
        std::fs::write(self.sandbox.path("lab/lab.yaml"), manifest).unwrap();
        std::fs::write(self.sandbox.path("lab/students.csv"), format!("user\n{}\n", members.join("\n"))).unwrap();
        let image = format!("qemu-img create -q -f qcow2 images/base.qcow2 {image_mib}M");
        assert!(self.sandbox.shell(&image).status.success());
    }

    fn apply(&self) -> Command {
        let mut command = self.sandbox.command("labwright");
        command.args(["--site", "../site.yaml", "apply", "--yes"]).args(GUARDS);
        command
    }

    /// Whether the apply was killed, and not done already. Now and then somebody else does something to a vm meanwhile, and
    /// half of them are killed too.
    fn killed_apply(&mut self) -> bool {
        let moment = self.apply_takes.mul_f64(self.dice.below(1000) as f64 / 900.0);
        let mut child = self.apply().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let before = moment.mul_f64(self.dice.below(1000) as f64 / 1000.0);
        std::thread::sleep(before);
        let rival = (self.dice.below(3) == 0).then(|| self.rival());
        std::thread::sleep(moment - before);
        child.kill().unwrap();
        let killed = child.wait().unwrap().code().is_none();
        self.story.push(format!("apply, {} after {moment:?}", if killed { "killed" } else { "done" }));
        if let Some(rival) = rival {
            self.end(rival);
        }
        killed
    }

    /// Whether somebody who gives a guest another disk, or the one of before, was killed over it.
    fn killed_reimage(&mut self) -> bool {
        let members: Vec<_> = self.members.iter().copied().collect();
        let student = members[self.dice.below(members.len() as u64) as usize];
        let vm = format!("{student}-{}", self.suffix);
        let undo: &[&str] = if self.dice.below(2) == 0 { &["--undo"] } else { &[] };
        // The guest, which hears no power button, takes most of it.
        let moment = self.reimage_takes.mul_f64(self.dice.below(1000) as f64 / 900.0);
        let mut command = self.sandbox.command("labwright");
        command.args(["--site", "../site.yaml", "vm", "reimage", &vm, "--yes"]).args(undo);
        let began = Instant::now();
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(moment);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let killed = status.code().is_none();
        if status.success() {
            self.reimage_takes = self.reimage_takes.mul_f64(0.5) + began.elapsed().mul_f64(0.5);
        }
        self.story
            .push(format!("reimage of {vm} {undo:?}, {} after {moment:?}", if killed { "killed" } else { "done" }));
        killed
    }

    /// Somebody asks something of one vm by its name, which may be a name of yesterday.
    fn rival(&mut self) -> Child {
        let student = STUDENTS[self.dice.below(STUDENTS.len() as u64) as usize];
        let what = ["start", "stop", "restart"][self.dice.below(3) as usize];
        let vm = format!("{student}-{}", self.suffix);
        self.story.push(format!("meanwhile, vm {what} {vm}"));
        let mut command = self.sandbox.command("labwright");
        command.args(["--site", "../site.yaml", "vm", what, &vm, "--yes"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The rival is killed, or says how it went: done, or refused with its reason.
    fn end(&mut self, mut rival: Child) {
        if self.dice.below(2) == 0 {
            std::thread::sleep(self.apply_takes.mul_f64(self.dice.below(1000) as f64 / 2000.0));
            rival.kill().unwrap();
        }
        let output = rival.wait_with_output().unwrap();
        let said: String = [output.stdout, output.stderr].iter().map(|text| String::from_utf8_lossy(text)).collect();
        self.story.push(format!("the other one ended with {:?}", output.status.code()));
        let is_unknown = said.contains("error: lab `course` has no vm ");
        let is_expected = matches!(output.status.code(), None | Some(0 | 4 | 5)) || is_unknown;
        self.check(is_expected, || format!("{}: {said}", output.status));
    }

    fn bring_to_rest(&mut self) {
        let began = Instant::now();
        let output = self.apply().output().unwrap();
        self.apply_takes = self.apply_takes.mul_f64(0.5) + began.elapsed().mul_f64(0.5);
        self.story.push("apply, whole".to_owned());
        self.expect("apply", output.status, &[output.stdout, output.stderr]);
        let mut plan = self.sandbox.command("labwright");
        let output = plan.args(["--site", "../site.yaml", "plan", "--detailed-exitcode"]).output().unwrap();
        self.expect("an empty plan after the apply", output.status, &[output.stdout, output.stderr]);
    }

    fn expect(&self, what: &str, status: ExitStatus, said: &[Vec<u8>]) {
        let said: String = said.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        self.check(status.success(), || format!("{what}: {status}\n{said}"));
    }

    fn check(&self, holds: bool, what: impl Fn() -> String) {
        let story: Vec<_> = self.story.iter().rev().take(12).rev().map(String::as_str).collect();
        assert!(holds, "{}\nthe last steps:\n  {}", what(), story.join("\n  "));
    }

    /// What must hold at any moment.
    fn look(&mut self) {
        self.no_disk_is_open_twice();
        let state = self.open_state();
        let verdict: String = state.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        self.check(verdict == "ok", || format!("the state is damaged: {verdict}"));
        for disk in disks(&state) {
            let there = [Some(&disk.path), disk.moving_to.as_ref()].into_iter().flatten().find(|path| path.exists());
            if !disk.made && there.is_none() {
                continue;
            }
            self.check(there.is_some(), || format!("{} is recorded and not there", disk.path.display()));
            let metadata = there.unwrap().metadata().unwrap();
            self.seen.entry((metadata.dev(), metadata.ino())).or_insert(disk.path);
        }
        let standing: BTreeSet<_> =
            self.files().iter().map(|path| path.metadata().unwrap()).map(|m| (m.dev(), m.ino())).collect();
        for (file, path) in &self.seen {
            self.check(standing.contains(file), || format!("a disk is lost that once was {}", path.display()));
        }
        // A disk that a guest writes on is checked as far as reading goes.
        for path in self.files().iter().filter(|path| is_disk(path)) {
            let output = Command::new("qemu-img").args(["check", "-q", "-U"]).arg(path).output().unwrap();
            self.expect(&format!("{} is whole", path.display()), output.status, &[output.stdout, output.stderr]);
        }
    }

    /// The disks that qemu processes of this lab have open.
    fn open_disks(&self) -> Vec<PathBuf> {
        let vms = self.sandbox.path("site/storage/vms");
        let qemus = self.processes().into_iter().filter(|(_, command)| command.contains("qemu-system"));
        let open = qemus.flat_map(|(pid, _)| {
            let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
            let files: BTreeSet<PathBuf> =
                entries.flatten().filter_map(|entry| entry.path().read_link().ok()).collect();
            files
        });
        open.filter(|file| file.starts_with(&vms)).collect()
    }

    /// Processes whose command lines name this lab's folder.
    fn processes(&self) -> Vec<(i32, String)> {
        machine::processes_that_name(&self.sandbox.path("site").display().to_string())
    }

    fn no_disk_is_open_twice(&self) {
        let mut seen = BTreeSet::new();
        let twice = self.open_disks().into_iter().find(|path| !seen.insert(path.clone()));
        self.check(twice.is_none(), || format!("{twice:?} is open in two qemus"));
    }

    /// Every vm has its qemu, its run folder and its reservation, and nobody else has one.
    fn look_at_guests(&self) {
        let wanted: BTreeSet<PathBuf> = self
            .members
            .iter()
            .map(|user| self.sandbox.path(&format!("site/storage/vms/course/{user}-{}/disk-0.qcow2", self.suffix)))
            .collect();
        let began = Instant::now();
        let used = |lab: &Self| lab.open_disks().len();
        while used(self) != wanted.len() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.no_disk_is_open_twice();
        let open = self.open_disks();
        self.check(open.len() == wanted.len(), || format!("open are {open:?} for {wanted:?}; {:#?}", self.processes()));
        let state = self.open_state();
        let mut query = state.prepare("SELECT run FROM runs WHERE state <> 'ended'").unwrap();
        let runs: Vec<String> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        self.check(runs.len() == wanted.len(), || format!("recorded as not over: {runs:?}"));
        for run in runs {
            let folder = self.sandbox.path("site/storage/runs").join(&run);
            self.check(folder.join("report.jsonl").exists(), || format!("run {run} has no report"));
        }
        let reserved = std::fs::read_dir(self.sandbox.path("site/dnsmasq/hosts")).unwrap().count();
        self.check(reserved == wanted.len(), || format!("{reserved} reservations for {wanted:?}"));
    }

    /// What must hold besides when nothing is under way.
    fn look_at_rest(&mut self) {
        self.look_at_guests();
        self.look();
        let state = self.open_state();
        let rows = disks(&state);
        let unfinished = rows.iter().find(|disk| disk.moving_to.is_some());
        self.check(unfinished.is_none(), || "a disk is still on its way aside".into());
        self.check(rows.iter().all(|disk| disk.made), || "a disk is still to be made".into());
        let recorded: BTreeSet<PathBuf> = rows.iter().map(|disk| disk.path.clone()).collect();
        let disks_only = ["vms", "aside"].map(|folder| self.sandbox.path("site/storage").join(folder));
        let standing: BTreeSet<PathBuf> =
            self.files().into_iter().filter(|path| disks_only.iter().any(|folder| path.starts_with(folder))).collect();
        self.check(recorded == standing, || {
            let only = |a: &BTreeSet<PathBuf>, b| a.difference(b).map(|p| p.display().to_string()).collect::<Vec<_>>();
            format!("recorded only: {:?}; standing only: {:?}", only(&recorded, &standing), only(&standing, &recorded))
        });
        let linked_twice = standing.iter().find(|path| path.metadata().unwrap().nlink() > 1);
        self.check(linked_twice.is_none(), || format!("{linked_twice:?} has a second name"));
        let used = rows.iter().filter(|disk| !disk.is_aside).count();
        self.check(used == self.members.len(), || format!("{used} disks for {} students", self.members.len()));
        let addresses: u64 = state.query_row("SELECT COUNT(DISTINCT ip) FROM vms", [], |row| row.get(0)).unwrap();
        self.check(addresses == self.members.len() as u64, || format!("{addresses} addresses for {:?}", self.members));
    }

    fn open_state(&self) -> Connection {
        Connection::open_with_flags(self.sandbox.path("site/state.db"), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap()
    }

    /// Everything on the storage, unfinished things too.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.sandbox.path("site/storage")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
                if entry.path().is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
            }
        }
        found
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Starters end their guests, and namespaces go with their last process; only a failed test has some of them left.
        for (pid, _) in self.processes() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default();
        }
    }
}

/// Whether a file bears a disk's name, and not that of one that is still being written.
fn is_disk(path: &Path) -> bool {
    path.file_name().unwrap().to_string_lossy().starts_with("disk-")
}

fn disks(state: &Connection) -> Vec<Disk> {
    let mut query = state.prepare("SELECT path, aside IS NOT NULL, moving_to, made FROM disks").unwrap();
    let rows = query.query_map([], |row| {
        let (path, moving_to): (String, Option<String>) = (row.get(0)?, row.get(2)?);
        Ok(Disk {
            path: path.into(),
            is_aside: row.get(1)?,
            moving_to: moving_to.map(PathBuf::from),
            made: row.get(3)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}
