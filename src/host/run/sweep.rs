//! Removes what carries the mark of a run that is no more, and nothing else. A run lives as long as its starter holds the
//! lock in its host-local folder; taps and filters go with their processes, so that there is little to find.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bounds::{self, BoundsError};
use super::filter::{Turns, remove_chains, runs_with_chains};
use super::run_folder::{LOCK, RunFolderError, lock};
use crate::host::command::{self, CommandError};
use crate::model::id::RunId;

/// A starter makes its folder just before it locks it; folders younger than this are left alone.
const YOUNG: Duration = Duration::from_secs(60);
/// Alias of a tap: `labwright:<run>`.
pub(in crate::host) const TAP_MARK: &str = "labwright:";

#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error(transparent)]
    Lock(#[from] RunFolderError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    Bounds(#[from] BoundsError),
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
}

/// What was removed, and what could not be.
#[derive(Debug, Default)]
#[must_use = "what was removed is for the user"]
pub struct Swept {
    pub removed: Vec<String>,
    pub errors: Vec<SweepError>,
}

/// Sweeps this host. Taps come first: their owner's lock is looked at after they were seen, and it is taken before a tap
/// is made, so that a tap whose lock is free is a dead run's.
pub fn sweep(run_root: &Path) -> Swept {
    sweep_older_than(run_root, YOUNG)
}

/// Sweeps a host on which nothing is to start any more.
pub(in crate::host) fn sweep_all(run_root: &Path) -> Swept {
    sweep_older_than(run_root, Duration::ZERO)
}

fn sweep_older_than(run_root: &Path, young: Duration) -> Swept {
    let mut swept = remove_dead_taps(run_root);
    for more in [remove_dead_chains(run_root), remove_dead_groups(run_root), remove_dead_folders(run_root, young)] {
        swept.removed.extend(more.removed);
        swept.errors.extend(more.errors);
    }
    swept
}

impl Swept {
    /// Does the same to each thing that was found. One that fails keeps none of the others.
    fn of_each<T>(found: Result<Vec<T>, SweepError>, remove: impl Fn(T) -> Result<Option<String>, SweepError>) -> Self {
        let mut swept = Self::default();
        match found {
            Err(error) => swept.errors.push(error),
            Ok(found) => {
                for thing in found {
                    match remove(thing) {
                        Ok(removed) => swept.removed.extend(removed),
                        Err(error) => swept.errors.push(error),
                    }
                }
            }
        }
        swept
    }
}

/// Interfaces with our mark, and the run that each names.
fn marked_taps() -> Result<Vec<(String, RunId)>, SweepError> {
    let net = Path::new("/sys/class/net");
    let mut taps = Vec::new();
    for path in entries(net)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        taps.extend(run_of_tap(name).map(|run| (name.to_owned(), run)));
    }
    taps.sort();
    Ok(taps)
}

/// The run that an interface names with our mark. One that is gone by now is nobody's.
pub(in crate::host) fn run_of_tap(interface: &str) -> Option<RunId> {
    let alias = std::fs::read_to_string(Path::new("/sys/class/net").join(interface).join("ifalias")).ok()?;
    alias.trim().strip_prefix(TAP_MARK)?.parse().ok()
}

fn remove_dead_taps(run_root: &Path) -> Swept {
    Swept::of_each(marked_taps(), |(tap, run)| {
        if is_alive(run_root, &run)? {
            return Ok(None);
        }
        command::run("ip", &["link", "del", "dev", &tap], "")?;
        Ok(Some(format!("tap {tap} of run {run}")))
    })
}

/// What a starter with a filter of ebtables does first. Chains are looked for only where a starter was killed, which leaves
/// its folder: a listing of them is one of all runs, and takes longer than all else of a start.
pub fn remove_chains_of_the_killed(run_root: &Path) -> Swept {
    let killed = |path: &PathBuf| {
        let run = path.file_name().and_then(|name| name.to_str()?.parse::<RunId>().ok());
        run.is_some_and(|run| !is_alive(run_root, &run).unwrap_or(false))
    };
    match entries(run_root) {
        Ok(entries) if !entries.iter().any(killed) => Swept::default(),
        _ => remove_dead_chains(run_root),
    }
}

/// Takes the chains of ebtables that dead runs left; nothing else of a filter outlives its starter.
pub(in crate::host) fn remove_dead_chains(run_root: &Path) -> Swept {
    Swept::of_each(runs_with_chains().map_err(SweepError::from), |run| {
        if is_alive(run_root, &run)? {
            return Ok(None);
        }
        let _turn = Turns::new(run_root).take();
        remove_chains(&run)?;
        Ok(Some(format!("chains of ebtables of run {run}")))
    })
}

/// Ends what is still in them, too.
fn remove_dead_groups(run_root: &Path) -> Swept {
    Swept::of_each(entries(&bounds::folder(run_root)), |path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(run) = name.parse::<RunId>() else { return Ok(None) };
        if is_alive(run_root, &run)? {
            return Ok(None);
        }
        bounds::remove(&path)?;
        Ok(Some(format!("cgroup of run {run}")))
    })
}

/// A run lives as long as its starter holds its lock, which it takes before it makes anything else.
fn is_alive(run_root: &Path, run: &RunId) -> Result<bool, SweepError> {
    let folder = run_root.join(run.to_string());
    Ok(folder.exists() && lock(&folder.join(LOCK))?.is_none())
}

fn remove_dead_folders(run_root: &Path, young: Duration) -> Swept {
    Swept::of_each(entries(run_root), |path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let io = |action| {
            let path = path.clone();
            move |source| SweepError::Io { action, path, source }
        };
        if name.parse::<RunId>().is_err() {
            return Ok(None);
        }
        let age = path.metadata().and_then(|m| m.modified()).map_err(io("look at"))?.elapsed().unwrap_or_default();
        if age < young {
            return Ok(None);
        }
        let Some(_lock) = lock(&path.join(LOCK))? else { return Ok(None) };
        std::fs::remove_dir_all(&path).map_err(io("remove"))?;
        Ok(Some(format!("folder {}", path.display())))
    })
}

/// What is in a folder; nothing where there is none.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, SweepError> {
    let io = |source| SweepError::Io { action: "list", path: folder.to_owned(), source };
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(io),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(io(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_dead_runs_go() {
        let root = tempfile::tempdir().unwrap();
        for name in ["k3f9-1", "k3f9-2", "boot", "somebody-elses"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let _alive = lock(&root.path().join("k3f9-2").join(LOCK)).unwrap().unwrap();
        let swept = remove_dead_folders(root.path(), YOUNG);
        assert!(swept.removed.is_empty() && swept.errors.is_empty(), "{swept:?}");
        let swept = remove_dead_folders(root.path(), Duration::ZERO);
        assert_eq!(swept.removed, [format!("folder {}/k3f9-1", root.path().display())]);
        assert!(swept.errors.is_empty(), "{swept:?}");
        assert!(root.path().join("k3f9-2").exists() && root.path().join("somebody-elses").exists());
    }

    /// What a qemu that was broken out of could put in place of its lock: each is told, and keeps no other from going.
    #[test]
    fn neither_a_link_nor_a_pipe_nor_a_folder_is_taken_for_a_lock() {
        let root = tempfile::tempdir().unwrap();
        let folder = |number: u8| root.path().join(format!("k3f9-{number}"));
        for number in 1..=5 {
            std::fs::create_dir(folder(number)).unwrap();
        }
        let (elsewhere, absent) = (root.path().join("elsewhere"), root.path().join("absent"));
        std::fs::write(&elsewhere, "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, folder(1).join(LOCK)).unwrap();
        std::os::unix::fs::symlink(&absent, folder(2).join(LOCK)).unwrap();
        nix::unistd::mkfifo(&folder(3).join(LOCK), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::create_dir(folder(4).join(LOCK)).unwrap();

        let mut swept = remove_dead_folders(root.path(), Duration::ZERO);
        assert_eq!(swept.removed, [format!("folder {}", folder(5).display())]);
        swept.errors.sort_by_key(ToString::to_string);
        let said: Vec<String> = swept.errors.iter().map(ToString::to_string).collect();
        let expected: Vec<String> = (1..=4).map(|n| format!("cannot open {}/lock", folder(n).display())).collect();
        assert_eq!(said, expected);
        assert!((1..=4).all(|number| folder(number).exists()) && !absent.exists());
    }
}
