//! Disks that no vm has: those that were set aside, by the sets in which they went, and those that came back and wait for
//! their vm. And the digests of images, as they were when each was last read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{Transaction, params};

use super::home::former_prefixes;
use super::read::Reader;
use super::{AsideDisk, Recorded, RecordedDisk, StateError, Store, TemplateVersion, Thing};
use crate::model::address::{Address, Kind};
use crate::model::id::VmName;
use crate::model::lab::VmSource;

/// Disks of one vm that were set aside together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsideSet {
    /// The last word of its folder: people choose a set by it.
    pub name: String,
    /// Whose they were; `None` of those that went before this was recorded.
    pub owner: Option<String>,
    pub since: String,
    pub disks: Vec<AsideDisk>,
}

impl AsideSet {
    /// Whether somebody wants it back, and was cut short.
    pub fn is_returning(&self) -> bool {
        self.disks.iter().any(|disk| disk.to.is_some())
    }

    /// Whether it may be a vm's whose owner is this.
    pub fn may_belong_to(&self, owner: &str) -> bool {
        self.owner.as_deref().is_none_or(|was| was == owner)
    }

    /// In words: name, date, and how many.
    pub fn words(&self) -> String {
        let since = self.since.get(..19).unwrap_or(&self.since).replacen('T', " ", 1);
        let disks = if self.disks.len() == 1 { "1 disk".to_owned() } else { format!("{} disks", self.disks.len()) };
        format!("set {} of {since} UTC ({disks})", self.name)
    }
}

/// Disks that were put back where their vm is not, or not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingDisks {
    /// Whose they were; empty of those that went before this was recorded.
    pub owner: String,
    pub disks: Vec<RecordedDisk>,
}

/// An image as it was when it was last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDigest {
    pub bytes: u64,
    pub mtime_ns: i64,
    pub sha256: String,
}

impl Reader<'_> {
    /// The sets of each vm, oldest first.
    pub(super) fn asides(&self, transaction: &Transaction<'_>) -> Result<BTreeMap<VmName, Vec<AsideSet>>, StateError> {
        let mut sets: BTreeMap<VmName, Vec<AsideSet>> = BTreeMap::new();
        for disk in self.rows(transaction, AsideDisk::QUERY, AsideDisk::read)? {
            let of_vm = sets.entry(self.valid(VmName::new(&disk.vm))?).or_default();
            let folder = disk.path.parent().map(Path::to_owned);
            let known = of_vm.iter_mut().find(|set| set.disks[0].path.parent() == folder.as_deref());
            match known {
                Some(set) => set.disks.push(disk),
                None => of_vm.push(AsideSet {
                    name: disk.set(),
                    owner: disk.owner.clone(),
                    since: disk.since.clone(),
                    disks: vec![disk],
                }),
            }
        }
        Ok(sets)
    }

    pub(super) fn former(&self, transaction: &Transaction<'_>) -> Result<Vec<(PathBuf, PathBuf)>, StateError> {
        let query = "SELECT home FROM site WHERE ?1 <> '' AND home IS NOT NULL";
        match self.rows(transaction, query, |row| row.get::<_, String>(0))?.first() {
            Some(home) => self.valid(former_prefixes(home)),
            None => Ok(Vec::new()),
        }
    }

    pub(super) fn digests(&self, transaction: &Transaction<'_>) -> Result<BTreeMap<PathBuf, ImageDigest>, StateError> {
        // The reader's parameter is the lab, which this table does not know: an image is the same for all.
        let query = "SELECT path, bytes, mtime_ns, sha256 FROM digests WHERE ?1 <> ''";
        let rows = self.rows(transaction, query, |row| {
            let digest = ImageDigest { bytes: row.get(1)?, mtime_ns: row.get(2)?, sha256: row.get(3)? };
            Ok((PathBuf::from(row.get::<_, String>(0)?), digest))
        })?;
        Ok(rows.into_iter().collect())
    }
}

impl Recorded {
    /// For how many days a disk of a vm is kept once it is set aside, where the template says so that it was made from.
    pub fn keep_days(&self, vm: &str, base: Option<&Path>) -> Option<u32> {
        let is_below = |version: &TemplateVersion| version.disks.iter().any(|disk| Some(disk.path.as_path()) == base);
        let of_base = self.versions.iter().find(|(_, version)| is_below(version)).map(|((template, _), _)| template);
        let of_vm = || match &self.vms.get(vm)?.vm.source {
            VmSource::Derive(template) | VmSource::Clone(template) => Some(template),
            VmSource::Disks(_) => None,
        };
        let address = Address::new(Kind::Template, of_base.or_else(of_vm)?);
        match &self.objects.get(&address)?.thing {
            Thing::Template(template) => template.keep_days,
            _ => None,
        }
    }
}

impl Store {
    /// Remembers digests that were computed, so that nobody reads these images again until they change.
    pub fn remember(&mut self, digests: &BTreeMap<PathBuf, ImageDigest>) -> Result<(), StateError> {
        if digests.is_empty() {
            return Ok(());
        }
        self.transact("remember what images hold", |transaction| {
            digests.iter().try_for_each(|(path, digest)| remember(transaction, path, digest))
        })
    }
}

pub(super) fn remember(transaction: &Transaction<'_>, path: &Path, digest: &ImageDigest) -> rusqlite::Result<()> {
    let mut insert = transaction
        .prepare_cached("INSERT OR REPLACE INTO digests (path, bytes, mtime_ns, sha256) VALUES (?1, ?2, ?3, ?4)")?;
    insert.execute(params![path.to_string_lossy(), digest.bytes, digest.mtime_ns, digest.sha256]).map(|_| ())
}
