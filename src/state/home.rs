//! A state knows where it lives. One that finds itself elsewhere was moved, and its paths follow; or, where the same state is
//! still at the old place, it is a copy, whose records are about the original's disks: it must not act.
//!
//! Paths tell the two apart, and whether two paths are one file is asked now, of the file system as it is mounted now: a
//! bind mount or an automounter gives one file two paths, and numbers of devices change with each mount.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use rusqlite::{OptionalExtension as _, Transaction, params};
use serde::{Deserialize, Serialize};

use super::{StateError, Store};
use crate::files::{foreign_file_system, may_be_there, may_hold_anything};
use crate::model::site::Storage;

/// Where a state and what it describes are, as real paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Home {
    state: PathBuf,
    runs: PathBuf,
    templates: PathBuf,
    vms: PathBuf,
    aside: PathBuf,
    /// Prefixes that paths once had, and what became of each: the headers of disks still name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<(PathBuf, PathBuf)>,
}

impl Home {
    fn here(state: &Path, storage: &Storage) -> Self {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| super::real(path));
        Self {
            state: real(state),
            runs: real(&storage.runs),
            templates: real(&storage.templates),
            vms: real(&storage.vms),
            aside: real(&storage.aside),
            former: Vec::new(),
        }
    }

    fn folders(&self) -> [&PathBuf; 4] {
        [&self.runs, &self.templates, &self.vms, &self.aside]
    }
}

/// What the headers of disks say lies below them, as it is called now.
pub(super) fn former_prefixes(home: &str) -> serde_json::Result<Vec<(PathBuf, PathBuf)>> {
    serde_json::from_str(home).map(|home: Home| home.former)
}

impl Store {
    /// Sees to it that the state is where it lives. Answers from where it was moved, where it was.
    pub fn settle_at_home(&mut self, storage: &Storage) -> Result<Option<PathBuf>, StateError> {
        let here = Home::here(&self.path, storage);
        let text: Option<String> = self
            .connection
            .query_row("SELECT home FROM site", [], |row| row.get(0))
            .optional()
            .map(Option::flatten)
            .map_err(|source| self.sql("read where the state lives", source))?;
        let Some(text) = text else {
            return if self.read_only { Ok(None) } else { self.move_in(&here, &[]).map(|()| None) };
        };
        let home: Home = serde_json::from_str(&text).map_err(|source| StateError::Row {
            path: self.path.clone(),
            what: "where the state lives".into(),
            source,
        })?;
        let here = Home { former: home.former.clone(), ..here };
        let is_there = here.state == home.state || one_file(&home.state, &here.state);
        if here == home || (is_there && self.read_only) {
            return Ok(None);
        }
        if is_there {
            return self.follow(&home, Home { state: home.state.clone(), ..here }).map(|()| None);
        }
        self.refuse_copy(&home, &here)?;
        if self.read_only {
            return Err(StateError::Moved { path: self.path.clone(), from: home.state });
        }
        self.follow(&home, here).map(|()| Some(home.state))
    }

    /// Refuses where the old place still has this state, or what it describes.
    fn refuse_copy(&self, home: &Home, here: &Home) -> Result<(), StateError> {
        let copy = |of: &Path| StateError::Copy { path: self.path.clone(), of: of.to_owned() };
        if self.is_same_lineage(&home.state)? {
            return Err(copy(&home.state));
        }
        let mut folders = home.folders().into_iter().zip(here.folders());
        let left = folders.find(|(old, new)| old != new && may_hold_anything(old) && !one_file(old, new));
        left.map_or(Ok(()), |(old, _)| Err(copy(old)))
    }

    /// Whether the file at the old place is this state. One that cannot be read could be.
    fn is_same_lineage(&self, old: &Path) -> Result<bool, StateError> {
        match old.try_exists() {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(source) => return Err(StateError::Io { action: "look for", path: old.to_owned(), source }),
        }
        let lineage = |store: &Self| -> rusqlite::Result<String> {
            store.connection.query_row("SELECT lineage FROM site", [], |row| row.get(0))
        };
        let ours = lineage(self).map_err(|source| self.sql("read the lineage", source))?;
        match Self::connect(old, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
            .and_then(|there| lineage(&there).map_err(|source| there.sql("read the lineage", source)))
        {
            Ok(theirs) => Ok(ours == theirs),
            // Something else has taken the place.
            Err(StateError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Folders that are no longer where they were, and are where the site says now, take their paths with them.
    fn follow(&mut self, home: &Home, here: Home) -> Result<(), StateError> {
        let mut folders: Vec<(PathBuf, PathBuf)> = home
            .folders()
            .into_iter()
            .zip(here.folders())
            .filter(|(old, new)| old != new && !may_be_there(old) && new.exists())
            .map(|(old, new)| (old.clone(), new.clone()))
            .collect();
        folders.dedup();
        // A folder that stays is still the home of the paths in it.
        let stays = |old: &PathBuf, new: PathBuf| if *old != new && may_be_there(old) { old.clone() } else { new };
        let Home { runs, templates, vms, aside, state, mut former } = here;
        former.extend(folders.iter().cloned());
        let settled = Home {
            state,
            runs: stays(&home.runs, runs),
            templates: stays(&home.templates, templates),
            vms: stays(&home.vms, vms),
            aside: stays(&home.aside, aside),
            former,
        };
        if settled == *home {
            return Ok(());
        }
        self.move_in(&settled, &folders)
    }

    fn move_in(&mut self, home: &Home, folders: &[(PathBuf, PathBuf)]) -> Result<(), StateError> {
        let text = serde_json::to_string(home).expect("a home has only string keys");
        self.transact("write where the state lives", |transaction| {
            folders.iter().try_for_each(|(from, to)| replace_prefix(transaction, from, to))?;
            let from_to = home.former.last().filter(|_| !folders.is_empty());
            from_to.map_or(Ok(()), |(from, to)| follow_labs(transaction, from, to))?;
            transaction.execute("UPDATE site SET home = ?1", [text]).map(|_| ())
        })
    }
}

/// Every path below `from` becomes one below `to`.
fn replace_prefix(transaction: &Transaction<'_>, from: &Path, to: &Path) -> rusqlite::Result<()> {
    let below = format!("{}/", from.display());
    let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
    for column in ["path", "base", "moving_to", "aside"] {
        let sql = format!(
            "UPDATE disks SET {column} = ?2 || substr({column}, length(?1) + 1) WHERE substr({column}, 1, length(?3)) = ?3"
        );
        transaction.execute(&sql, params![from, to, below])?;
    }
    transaction.execute(
        "UPDATE versions SET disks = (
             SELECT json_group_array(json_set(disk.value, '$.path',
                 IIF(substr(json_extract(disk.value, '$.path'), 1, length(?3)) = ?3,
                     ?2 || substr(json_extract(disk.value, '$.path'), length(?1) + 1), json_extract(disk.value, '$.path'))))
             FROM json_each(versions.disks) AS disk)",
        params![from, to, below],
    )?;
    Ok(())
}

/// Labs that moved with the site: what differs at the front of a folder's path differs at the front of theirs.
fn follow_labs(transaction: &Transaction<'_>, from: &Path, to: &Path) -> rusqlite::Result<()> {
    let (from, to) = without_common_end(from, to);
    let mut query = transaction.prepare("SELECT lab, folder FROM labs")?;
    let labs: Vec<(String, String)> =
        query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    for (lab, folder) in labs {
        let Ok(rest) = Path::new(&folder).strip_prefix(&from) else { continue };
        let moved = to.join(rest);
        if !may_be_there(Path::new(&folder)) && moved.exists() {
            let moved = moved.to_string_lossy();
            transaction.execute("UPDATE labs SET folder = ?2 WHERE lab = ?1", params![lab, moved])?;
        }
    }
    Ok(())
}

/// `/one/site/vms` and `/three/site/vms`: it was `/one` that became `/three`.
fn without_common_end(from: &Path, to: &Path) -> (PathBuf, PathBuf) {
    let (mut from, mut to) = (from, to);
    while let (Some(one), Some(other)) = (from.file_name(), to.file_name()) {
        match (from.parent(), to.parent()) {
            (Some(above), Some(other_above)) if one == other => (from, to) = (above, other_above),
            _ => break,
        }
    }
    (from.to_owned(), to.to_owned())
}

/// Whether two paths lead to one file or folder.
fn one_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    match (identity(one), identity(other)) {
        (Some(one), Some(other)) if one == other => return true,
        (Some((_, one)), Some((_, other))) if one == other => {}
        _ => return false,
    }
    // Some file systems show one file under two device numbers. A kernel lock knows: the file has only one.
    let lock = |path: &Path, how| Flock::lock(File::open(path).ok()?, how).ok();
    let Some(_held) = lock(one, FlockArg::LockExclusive) else { return false };
    lock(other, FlockArg::LockExclusiveNonblock).is_none()
}

/// Refuses a place where a state cannot be kept safely.
pub(super) fn refuse_foreign(path: &Path) -> Result<(), StateError> {
    let found = foreign_file_system(path).map_err(|errno| StateError::Io {
        action: "ask for the file system of",
        path: path.to_owned(),
        source: errno.into(),
    })?;
    match found {
        Some(file_system) => Err(StateError::ForeignFileSystem { path: path.to_owned(), file_system }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_no_disk_at_all_is_no_place_for_a_state() {
        let proc = refuse_foreign(Path::new("/proc")).unwrap_err();
        assert!(matches!(proc, StateError::ForeignFileSystem { .. }), "{proc}");
    }

    #[test]
    fn what_moved_is_what_differs_in_front() {
        let moved = |from: &str, to: &str| {
            let (from, to) = without_common_end(Path::new(from), Path::new(to));
            (from.display().to_string(), to.display().to_string())
        };
        assert_eq!(moved("/one/site/vms", "/three/site/vms"), ("/one".into(), "/three".into()));
        assert_eq!(moved("/srv/vms", "/data/disks"), ("/srv/vms".into(), "/data/disks".into()));
    }
}
