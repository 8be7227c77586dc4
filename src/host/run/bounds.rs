//! Bounds of a guest: a cgroup (version 2) of its own around each qemu, so that one that was broken out of, or leaks, takes
//! no more memory, processor time and threads than its vm may have, whatever it does.
//!
//! ```text
//! /sys/fs/cgroup/labwright-19-4d2/    made by `host setup`, which switches the controllers on for what is below it
//!   k3f9-117/                         made by the run's starter; qemu is alone there
//! /run/labwright/cgroup               names the folder above; where it is missing, guests have no bounds
//! ```
//!
//! Namespaces share one hierarchy, but each has a `/run/labwright` of its own, as on a machine that plays several hosts; and
//! whether a run lives is told by its lock there. So each has a folder of its own, named after the device and inode of its
//! root of runs: what a sweep finds below it is that root's, and no other's.
//!
//! **Whose tree it is.** systemd has each subtree written by one program, and the top by itself. A folder that it did not
//! make it neither fills nor removes, and it cannot switch a controller off again that is on below one: ours stays as it
//! is, as those of container engines do that go without systemd's help. Below the job's own cgroup there is no room: a
//! cgroup with processes of its own, such as this starter, cannot bound cgroups below it ("no internal processes"), and
//! moving the starter out of its job's way is what batch systems do not expect. What a batch system bounds by cgroup does
//! therefore not hold qemu; this does. Our folder has the weight of any other at the top, so that guests that want all
//! processors leave the host's own services, starters among them, their half.
//!
//! **Told, not failed.** A host without version 2, or on which a bound cannot be set, runs its guests without: the starter
//! says so in its report, `host check` with what to do. A bound guards the host's memory, not the guests from each other as
//! filters do, and a guest cannot make one fail: nothing here is writable for qemu. It does not cost a student an exam.
//!
//! **When qemu joins.** Before its guest begins, so that nothing a guest does is out of bounds; but not before it is qemu.
//! The kernel takes 10 to 20 ms for it, a quarter of a whole start, in which qemu comes up as well; the 20 MiB or so that it
//! has used by then count for the job's cgroup. A process that is cloned into a cgroup would not wait either, but takes
//! `unsafe` code between fork and exec.
//!
//! What the site adds with `extra_args` is not counted. Read on in the kernel's `admin-guide/cgroup-v2.rst`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::model::id::RunId;
use crate::model::lab::Hardware;

/// How our folders in the hierarchy begin.
const FOLDER: &str = "labwright-";
/// Names that folder, below the root of runs.
const LINK: &str = "cgroup";
/// What bounds a guest. Without the first there are no bounds to speak of.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

/// Threads of qemu: up to 64 for its disks, and a few for vnc, snapshots and itself. 31 were seen.
const QEMU_THREADS: u32 = 128;
/// The period of the scheduler's bound, the kernel's default.
const PERIOD_MICROSECONDS: u64 = 100_000;
/// What a dead qemu's memory may take to be given back before its cgroup is left to the next sweep.
const EMPTY_WAIT: Duration = Duration::from_secs(1);

/// What went wrong with a guest's bounds; it may run without.
#[derive(Debug, thiserror::Error)]
pub enum BoundsError {
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BoundsError {
    let path = path.to_owned();
    move |source| BoundsError::Io { action, path, source }
}

/// What the guest and its qemu may take, in bytes.
fn memory_max(hardware: &Hardware) -> u64 {
    hardware.host_memory_mib() << 20
}

/// What is written into a run's cgroup: file and value, in order.
///
/// * `memory.max`: beyond it the kernel takes back what it can, and then ends qemu.
/// * `memory.swap.max`: the host may page out an idle guest, but one that leaks does not fill its swap.
/// * `memory.oom.group`: all of it or nothing, so that no half of a qemu goes on.
/// * `cpu.max`: its processors, and one for qemu's own threads.
/// * `cpu.weight`: where guests want more than there is, each gets as much as it has processors.
/// * `pids.max`: also keeps one that was broken out of from filling the table of processes.
fn limits(hardware: &Hardware) -> [(&'static str, String); 6] {
    let cpus = u64::from(hardware.cpus);
    [
        ("memory.max", memory_max(hardware).to_string()),
        ("memory.swap.max", (u64::from(hardware.memory_mib) << 20).to_string()),
        ("memory.oom.group", "1".to_owned()),
        ("cpu.max", format!("{} {PERIOD_MICROSECONDS}", (cpus + 1) * PERIOD_MICROSECONDS)),
        ("cpu.weight", (cpus * 100).clamp(1, 10_000).to_string()),
        ("pids.max", (hardware.cpus + QEMU_THREADS).to_string()),
    ]
}

/// A run's cgroup. Removed when dropped, with everything that may still be in it.
#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
    memory_max: u64,
    /// How often the kernel had ended a qemu for its memory when it was last asked.
    killed: u64,
}

impl Group {
    /// Makes a run's cgroup where `host setup` has prepared for them. The second is what the guest goes without, in words.
    pub fn create(run_root: &Path, run: &RunId, hardware: &Hardware) -> (Option<Self>, Option<String>) {
        let folder = run_root.join(LINK).join(run.to_string());
        match std::fs::create_dir(&folder) {
            Ok(()) => {}
            // A starter of the run that was killed has left it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return (None, Some(format!("cannot make {}: {error}", folder.display()))),
        }
        let mut lacking = Vec::new();
        for (file, value) in limits(hardware) {
            match write(&folder.join(file), &value) {
                Ok(()) => {}
                // A kernel that knows no swap.
                Err(error) if file == "memory.swap.max" && error.kind() == ErrorKind::NotFound => {}
                Err(error) => lacking.push(format!("{file}: {error}")),
            }
        }
        let killed = kills(&folder);
        let group = Self { folder, memory_max: memory_max(hardware), killed };
        (Some(group), (!lacking.is_empty()).then(|| lacking.join("; ")))
    }

    /// Lets qemu in, beside what else there is to do.
    pub fn let_in(&self, qemu: u32) -> Joining {
        let entrance = self.folder.join("cgroup.procs");
        let join = move || write(&entrance, &qemu.to_string());
        Joining(std::thread::Builder::new().name("bounds-qemu".to_owned()).spawn(join))
    }

    /// Whether the kernel has ended a qemu for its memory since this was last asked; in words.
    pub fn out_of_memory(&mut self) -> Option<String> {
        let kills = kills(&self.folder);
        let before = std::mem::replace(&mut self.killed, kills);
        let bound_mib = self.memory_max >> 20;
        (kills > before).then(|| format!("the kernel ended qemu, which took more than its bound of {bound_mib} MiB"))
    }
}

/// A process on its way into a cgroup.
#[derive(Debug)]
pub struct Joining(std::io::Result<JoinHandle<std::io::Result<()>>>);

impl Joining {
    /// Waits until it is there, or for why it cannot be.
    pub fn wait(self) -> std::io::Result<()> {
        self.0.and_then(|thread| thread.join().expect("the thread only returns errors"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.folder) {
            tracing::warn!(%error, "the cgroup stays behind, for the next sweep");
        }
    }
}

/// How often the kernel has ended a process there because of `memory.max`.
fn kills(folder: &Path) -> u64 {
    // A cgroup without the memory controller has no such file.
    let events = std::fs::read_to_string(folder.join("memory.events")).unwrap_or_default();
    let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Writes to a file that the kernel has made. It never makes one.
fn write(path: &Path, value: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Ends what is in a cgroup of ours, and removes it.
pub(in crate::host) fn remove(folder: &Path) -> Result<(), BoundsError> {
    // Missing before Linux 5.14. qemu has ended by now; this is for what might have left it.
    drop(write(&folder.join("cgroup.kill"), "1"));
    let deadline = Instant::now() + EMPTY_WAIT;
    loop {
        match std::fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(io("remove", folder)(error)),
        }
    }
}

/// Where runs' cgroups are.
pub(in crate::host) fn folder(run_root: &Path) -> PathBuf {
    run_root.join(LINK)
}

/// The folder of a root of runs in the hierarchy.
fn folder_in(hierarchy: &Path, run_root: &Path) -> std::io::Result<PathBuf> {
    let root = run_root.metadata()?;
    Ok(hierarchy.join(format!("{FOLDER}{:x}-{:x}", root.dev(), root.ino())))
}

/// What a host has of bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::host) enum Standing {
    /// These controllers bound each guest.
    Bounded { folder: PathBuf, controllers: Vec<&'static str> },
    /// They could.
    NotPrepared { hierarchy: PathBuf },
    /// This kernel offers none, as it was booted.
    Impossible { found: String },
}

pub(in crate::host) fn standing(run_root: &Path) -> Standing {
    match hierarchy() {
        Some(hierarchy) => standing_in(hierarchy, run_root),
        None => Standing::Impossible { found: "no cgroup hierarchy of version 2 is mounted".to_owned() },
    }
}

fn standing_in(hierarchy: PathBuf, run_root: &Path) -> Standing {
    if !offered(&hierarchy).contains(&CONTROLLERS[0]) {
        let found = format!("{} has no memory controller: it is on version 1, or off", hierarchy.display());
        return Standing::Impossible { found };
    }
    // Where there is no root of runs, no link names its folder either.
    let folder = folder_in(&hierarchy, run_root).unwrap_or_default();
    let controllers = listed(&folder.join(SUBTREE));
    let named = std::fs::read_link(run_root.join(LINK)).is_ok_and(|named| named == folder);
    if named && controllers.contains(&CONTROLLERS[0]) {
        Standing::Bounded { folder, controllers }
    } else {
        Standing::NotPrepared { hierarchy }
    }
}

/// Prepares for bounds where the kernel offers them; says what was made.
pub(in crate::host) fn ensure(run_root: &Path) -> Result<Option<String>, BoundsError> {
    match standing(run_root) {
        Standing::NotPrepared { hierarchy } => prepare(&hierarchy, run_root).map(Some),
        Standing::Bounded { .. } | Standing::Impossible { .. } => Ok(None),
    }
}

fn prepare(hierarchy: &Path, run_root: &Path) -> Result<String, BoundsError> {
    let folder = folder_in(hierarchy, run_root).map_err(io("look at", run_root))?;
    let link = run_root.join(LINK);
    std::fs::DirBuilder::new().recursive(true).create(&folder).map_err(io("create", &folder))?;
    for controller in offered(hierarchy) {
        for level in [hierarchy, &folder] {
            let file = level.join(SUBTREE);
            if listed(&file).contains(&controller) {
                continue;
            }
            match write(&file, &format!("+{controller}")) {
                Ok(()) => {}
                Err(source) if controller == CONTROLLERS[0] => {
                    return Err(io("switch the memory controller on in", &file)(source));
                }
                // Memory is what a host runs out of. Processes with real-time priority, for one, keep `cpu` off.
                Err(error) => tracing::warn!(%error, controller, "guests go without this bound"),
            }
        }
    }
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("replace", &link)(error)),
        _ => {}
    }
    std::os::unix::fs::symlink(&folder, &link).map_err(io("create", &link))?;
    Ok(format!("cgroup {} made: it bounds the memory of guests", folder.display()))
}

/// Takes away what `ensure` made; refused while guests live there. The controllers stay on: others may count on them by now.
pub(in crate::host) fn take_down(run_root: &Path) -> Result<Option<String>, BoundsError> {
    let link = run_root.join(LINK);
    let Ok(folder) = std::fs::read_link(&link) else { return Ok(None) };
    match std::fs::remove_dir(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("remove", &folder)(error)),
        _ => {}
    }
    std::fs::remove_file(&link).map_err(io("remove", &link))?;
    Ok(Some(format!("cgroup {} removed", folder.display())))
}

const SUBTREE: &str = "cgroup.subtree_control";

/// Those of our controllers that a file names.
fn listed(file: &Path) -> Vec<&'static str> {
    // Where there is no such file, there is no cgroup.
    let text = std::fs::read_to_string(file).unwrap_or_default();
    CONTROLLERS.into_iter().filter(|name| text.split_whitespace().any(|word| word == *name)).collect()
}

fn offered(hierarchy: &Path) -> Vec<&'static str> {
    listed(&hierarchy.join("cgroup.controllers"))
}

/// The hierarchy of version 2, wherever it is mounted and can be seen.
fn hierarchy() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounted(&mounts).find(|path| path.join("cgroup.controllers").exists())
}

/// Mounts of type cgroup2: the fifth field is the place, the first one after a lone dash the type (proc(5)).
fn mounted(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    mountinfo.lines().filter_map(|line| {
        let (place, filesystem) = line.split_once(" - ")?;
        filesystem.starts_with("cgroup2 ").then(|| place.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::SiteTag;
    use crate::model::lab::{DisplayModel, Firmware, NicModel};

    fn hardware(memory_mib: u32, cpus: u32, display: DisplayModel) -> Hardware {
        Hardware { memory_mib, cpus, firmware: Firmware::Bios, nic: NicModel::Virtio, display, cdrom: None }
    }

    #[test]
    fn what_is_written() {
        let text = |hardware| limits(&hardware).map(|(file, value)| format!("{file} {value}\n")).concat();
        insta::assert_snapshot!(text(hardware(2048, 1, DisplayModel::Std)), @r"
        memory.max 2332033024
        memory.swap.max 2147483648
        memory.oom.group 1
        cpu.max 200000 100000
        cpu.weight 100
        pids.max 129
        ");
        insta::assert_snapshot!(text(hardware(65536, 128, DisplayModel::Virtio)), @r"
        memory.max 70204260352
        memory.swap.max 68719476736
        memory.oom.group 1
        cpu.max 12900000 100000
        cpu.weight 10000
        pids.max 256
        ");
    }

    #[test]
    fn the_hierarchy_is_where_it_is_mounted() {
        let hybrid = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        let unified = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 master:2 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(mounted(hybrid).collect::<Vec<_>>(), [Path::new("/sys/fs/cgroup/unified")]);
        assert_eq!(mounted(unified).collect::<Vec<_>>(), [Path::new("/sys/fs/cgroup")]);
        assert_eq!(mounted("1 2 0:28 / /sys/fs/cgroup2 rw - tmpfs cgroup2 rw\n").count(), 0);
    }

    /// Plain files in place of the kernel's, which would show what was written as a list of names.
    #[test]
    fn a_host_is_prepared_once() {
        let scratch = tempfile::tempdir().unwrap();
        let (hierarchy, root) = (scratch.path().join("cgroup"), scratch.path().join("run"));
        std::fs::create_dir(&root).unwrap();
        let folder = folder_in(&hierarchy, &root).unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(hierarchy.join("cgroup.controllers"), "cpuset io pids\n").unwrap();
        let standing = || standing_in(hierarchy.clone(), &root);
        assert!(matches!(standing(), Standing::Impossible { .. }));

        std::fs::write(hierarchy.join("cgroup.controllers"), "cpuset io memory\n").unwrap();
        std::fs::write(hierarchy.join(SUBTREE), "io\n").unwrap();
        std::fs::write(folder.join(SUBTREE), "").unwrap();
        assert_eq!(standing(), Standing::NotPrepared { hierarchy: hierarchy.clone() });
        std::os::unix::fs::symlink("/somewhere/else", root.join(LINK)).unwrap();
        prepare(&hierarchy, &root).unwrap();
        for level in [&hierarchy, &folder] {
            assert_eq!(std::fs::read_to_string(level.join(SUBTREE)).unwrap(), "+memory");
            std::fs::write(level.join(SUBTREE), "io memory\n").unwrap();
        }
        assert_eq!(standing(), Standing::Bounded { folder: folder.clone(), controllers: vec!["memory"] });
    }

    #[test]
    fn bounds_are_written_and_the_kernel_is_asked_why_qemu_ended() {
        let root = tempfile::tempdir().unwrap();
        let run = RunId::new(SiteTag::new("k3f9").unwrap(), 1);
        let hardware = hardware(128, 1, DisplayModel::Std);
        assert!(Group::create(root.path(), &run, &hardware).0.is_none(), "a host that was not prepared has no bounds");

        let folder = folder(root.path()).join(run.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let files = ["memory.max", "memory.oom.group", "cpu.max", "pids.max"];
        for file in files {
            std::fs::write(folder.join(file), "").unwrap();
        }
        std::fs::write(folder.join("memory.events"), "oom 3\noom_kill 1\noom_group_kill 0\n").unwrap();
        let (group, lacking) = Group::create(root.path(), &run, &hardware);
        assert_eq!(lacking.as_deref(), Some("cpu.weight: No such file or directory (os error 2)"));
        let mut group = group.unwrap();
        let expected = limits(&hardware);
        for (file, value) in expected.iter().filter(|(file, _)| files.contains(file)) {
            assert_eq!(std::fs::read_to_string(folder.join(file)).unwrap(), *value, "{file}");
        }
        assert!(!folder.join("cpu.weight").exists(), "files are the kernel's to make");

        assert_eq!(group.out_of_memory(), None, "the one before was another qemu");
        std::fs::write(folder.join("memory.events"), "oom 4\noom_kill 2\noom_group_kill 0\n").unwrap();
        let told = "the kernel ended qemu, which took more than its bound of 274 MiB";
        assert_eq!(group.out_of_memory().as_deref(), Some(told));
        assert_eq!(group.out_of_memory(), None);
    }
}
