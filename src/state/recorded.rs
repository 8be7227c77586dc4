//! What the state says we asked for: one lab's part of it, and the site-wide facts that a plan of that lab needs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{Row, Transaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::operations::{Promised, Running};
use super::{
    AsideSet, ImageDigest, OpenRun, RecordedThing, Starting, StateError, Store, Storing, Thing, Tried, WaitingDisks,
    Worker,
};
use crate::model::address::{Address, Kind};
use crate::model::claim::Claim;
use crate::model::id::{LabName, Mac, RunId, SiteTag, TemplateName, UserName, VmGroupName, VmName};
use crate::model::job::JobId;
use crate::model::lab::{AddedTime, Desired, Hardware, Session, Vm, VmGroup, VmSource};
use crate::run::{BatchId, StopReason};

/// Everything recorded of one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub site: SiteTag,
    /// Drawn when the state was made: a plan fits only the state it was made from.
    pub lineage: String,
    /// Counts the changes of this lab.
    pub serial: u64,
    /// Somebody stopped all reconciling of this lab or of the site.
    pub frozen: Option<Frozen>,
    /// Number of its latest apply; 0 before the first.
    pub latest: i64,
    /// An apply of this lab never ended, since its controller died.
    pub cut_short: bool,
    /// What others work on just now. It may be otherwise at any moment, and nothing is planned for it.
    pub held: BTreeMap<Address, Worker>,
    /// Vms of the site that others start just now.
    pub starting: Vec<Starting>,
    /// Vms of the site for which others make disks just now.
    pub storing: Vec<Storing>,
    /// Number that the site's next run gets.
    pub next_run: u64,
    /// All that is neither a vm nor a disk.
    pub objects: BTreeMap<Address, RecordedThing>,
    pub versions: BTreeMap<(TemplateName, u32), TemplateVersion>,
    pub vms: BTreeMap<VmName, RecordedVm>,
    /// What people asked for by command, and what still stands of it, oldest first.
    pub claims: Vec<Claim>,
    /// Disks that were set aside, by the vm that they were of.
    pub aside: BTreeMap<VmName, Vec<AsideSet>>,
    /// Disks that were put back, of vms that are not recorded.
    pub waiting: BTreeMap<VmName, WaitingDisks>,
    /// Prefixes that paths had before the state was moved, and what became of each.
    pub former: Vec<(PathBuf, PathBuf)>,
    /// What images held when they were last read.
    pub digests: BTreeMap<PathBuf, ImageDigest>,
    /// Every address in use in the site, with its holder.
    pub taken: BTreeMap<Ipv4Addr, TakenAddress>,
    /// Addresses that a trial of the site's hosts uses just now.
    pub tried: Tried,
    /// Vm groups of the site's other labs.
    pub other_groups: Vec<(LabName, VmGroupName, VmGroup)>,
}

impl Recorded {
    /// What is recorded of any lab before its site has a state.
    pub fn nothing() -> Self {
        Self {
            site: SiteTag::new("0000").expect("four of the allowed letters"),
            lineage: String::new(),
            serial: 0,
            frozen: None,
            latest: 0,
            cut_short: false,
            held: BTreeMap::new(),
            starting: Vec::new(),
            storing: Vec::new(),
            next_run: 1,
            objects: BTreeMap::new(),
            versions: BTreeMap::new(),
            vms: BTreeMap::new(),
            claims: Vec::new(),
            aside: BTreeMap::new(),
            waiting: BTreeMap::new(),
            former: Vec::new(),
            digests: BTreeMap::new(),
            taken: BTreeMap::new(),
            tried: Tried::default(),
            other_groups: Vec::new(),
        }
    }
}

impl Recorded {
    /// What a path that was written before a move is called now.
    pub fn now_at(&self, path: PathBuf) -> PathBuf {
        self.former
            .iter()
            .fold(path, |path, (from, to)| path.strip_prefix(from).map(|rest| to.join(rest)).unwrap_or(path.clone()))
    }

    /// The sessions as they were last applied.
    pub fn sessions(&self) -> impl Iterator<Item = (&Address, &Session)> {
        self.objects.iter().filter_map(|(address, recorded)| match &recorded.thing {
            Thing::Session(session) => Some((address, session)),
            _ => None,
        })
    }

    /// The version that disks lie over; `None` of those that lie over none we know.
    pub fn version_below(&self, disks: &[RecordedDisk]) -> Option<u32> {
        let bases: BTreeSet<&PathBuf> = disks.iter().filter_map(|disk| disk.base.as_ref()).collect();
        let is_below = |version: &TemplateVersion| version.disks.iter().any(|disk| bases.contains(&disk.path));
        self.versions.iter().find(|(_, version)| is_below(version)).map(|((_, number), _)| *number)
    }

    /// The vms that derive from an older version of a template than this.
    pub fn behind(&self, template: &TemplateName, version: u32) -> impl Iterator<Item = &VmName> {
        let derives = move |vm: &RecordedVm| matches!(&vm.vm.source, VmSource::Derive(from) if from == template);
        let is_behind = move |vm: &RecordedVm| derives(vm) && vm.version.is_some_and(|has| has < version);
        self.vms.iter().filter(move |(_, vm)| is_behind(vm)).map(|(name, _)| name)
    }

    /// The latest version of a template that is wanted, by its name now or before a rename.
    pub fn latest_version(&self, desired: &Desired, template: &TemplateName) -> Option<&TemplateVersion> {
        let latest = |name: &str| {
            let mut versions = self.versions.iter().filter(|((known, _), _)| known.as_str() == name);
            versions.next_back().map(|(_, version)| version)
        };
        let renamed =
            desired.moved.iter().filter(|moved| moved.to.kind == Kind::Template && moved.to.name == template.as_str());
        latest(template.as_str()).or_else(|| renamed.into_iter().find_map(|moved| latest(&moved.from.name)))
    }

    /// The number after the latest version of a template by this name.
    pub fn next_version(&self, template: &TemplateName) -> u32 {
        let versions = (template.clone(), 0)..=(template.clone(), u32::MAX);
        self.versions.range(versions).next_back().map_or(1, |((_, number), _)| number + 1)
    }
}

/// Who stopped all reconciling, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    pub who: String,
    pub since: jiff::Timestamp,
    pub why: String,
    /// Not kept in the note: where the note stands says it.
    #[serde(skip)]
    pub scope: FreezeScope,
}

/// What stands still.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreezeScope {
    #[default]
    Lab,
    Site,
}

/// Who has an address of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenAddress {
    pub lab: LabName,
    pub vm: VmName,
    pub mac: Mac,
}

/// One published version of a template's disks; vms derive from it and it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateVersion {
    pub disks: Vec<PublishedDisk>,
}

/// A disk of a template's version, as it was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedDisk {
    pub path: PathBuf,
    pub sha256: String,
    /// What the image held, where it was made into another format on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_sha256: Option<String>,
    /// The image it was copied from, as it was then: a change of size or mtime asks for another look.
    pub source: PathBuf,
    pub source_bytes: u64,
    pub source_mtime_ns: i64,
    /// Size and mtime of what was stored; versions of before this was recorded have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<(u64, i64)>,
    /// How it came about, where it was not copied from an image that a manifest names; then `source` is the stored file itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Making>,
}

/// A version that was made of a vm's disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Making {
    pub vm: VmName,
    pub by: String,
    /// What people should know of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl PublishedDisk {
    /// Digest of the image it was made of.
    pub fn source_sha256(&self) -> &str {
        self.source_sha256.as_ref().unwrap_or(&self.sha256)
    }

    /// Size and mtime of the stored image, where they are known.
    pub fn stored(&self) -> Option<(u64, i64)> {
        self.stored.or_else(|| self.made.is_some().then_some((self.source_bytes, self.source_mtime_ns)))
    }

    /// What its source held.
    pub fn digest(&self) -> ImageDigest {
        ImageDigest {
            bytes: self.source_bytes,
            mtime_ns: self.source_mtime_ns,
            sha256: self.source_sha256().to_owned(),
        }
    }
}

/// A vm as it was last applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedVm {
    pub vm: Vm,
    pub ip: Ipv4Addr,
    pub mac: Mac,
    /// Number of its latest run; 0 before the first.
    pub generation: u64,
    /// Version of the template that its disks derive from.
    pub version: Option<u32>,
    pub disks: Vec<RecordedDisk>,
    /// Its latest run.
    pub run: Option<RecordedRun>,
}

/// A disk of a vm, by its place among the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedDisk {
    pub slot: u32,
    pub path: PathBuf,
    pub base: Option<PathBuf>,
    /// Not yet, while the apply that makes it is under way or was cut short.
    pub made: bool,
    /// Where it is being set aside; whether it is there already, only the storage knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_to: Option<PathBuf>,
    /// Digest of the image that it was copied from, where that is no template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// One start of a vm, as far as its controller knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRun {
    pub run: RunId,
    pub batch: BatchId,
    pub task: u32,
    /// `None` while the submit's answer is open.
    pub job: Option<JobId>,
    pub started: Started,
    pub state: RunState,
}

impl RecordedRun {
    /// Whether its end is recorded.
    pub fn is_over(&self) -> bool {
        matches!(self.state, RunState::Ended { .. })
    }
}

/// What a guest was started with; where this differs from what is wanted, it must be restarted for it to take effect. It is
/// compared as a value, and a field that its record does not have takes its default: an upgrade restarts nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub hardware: Hardware,
    pub isolated: bool,
    pub ip: Ipv4Addr,
    pub mac: Mac,
    pub bridge: String,
    pub disks: Vec<PathBuf>,
}

/// How far a run is, by the records alone: what it does on its host, only its starter knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    Intended,
    Submitted,
    /// `None`: nobody said why.
    Ended {
        reason: Option<StopReason>,
    },
}

impl Store {
    /// What is recorded of `lab`; a lab never applied has an empty record with serial 0.
    pub fn recorded(&mut self, lab: &LabName) -> Result<Recorded, StateError> {
        self.refuse_replaced()?;
        let reader = Reader::new(lab, &self.path);
        // An apply that ends while we read has not died: it still ran before, or has ended in what is read.
        let before = Running::look(&self.path)?;
        let transaction = self.connection.transaction().map_err(|source| StateError::Sql {
            action: "read",
            path: reader.path.clone(),
            source,
        })?;
        reader.recorded(&transaction, &before)
    }

    /// What is recorded of every lab of the site, by name.
    pub fn recorded_of_all(&mut self) -> Result<Vec<(LabName, Recorded)>, StateError> {
        let labs = self.labs()?;
        labs.into_iter().map(|(lab, _)| self.recorded(&lab).map(|recorded| (lab, recorded))).collect()
    }

    /// The labs that were ever applied, with the folder each was last applied from.
    pub fn labs(&mut self) -> Result<Vec<(LabName, PathBuf)>, StateError> {
        let read = |connection: &rusqlite::Connection| -> rusqlite::Result<Vec<(String, String)>> {
            connection
                .prepare("SELECT lab, folder FROM labs ORDER BY lab")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        };
        let rows = read(&self.connection).map_err(|source| self.sql("list the labs", source))?;
        rows.into_iter()
            .map(|(lab, folder)| {
                let name = LabName::new(lab).map_err(|invalid| self.damaged(invalid.to_string()))?;
                Ok((name, PathBuf::from(folder)))
            })
            .collect()
    }

    pub(super) fn damaged(&self, detail: String) -> StateError {
        StateError::Damaged { path: self.path.clone(), detail }
    }
}

type Vms = BTreeMap<VmName, RecordedVm>;

/// Reads one lab out of one transaction, so that all parts fit together.
pub(super) struct Reader<'a> {
    pub(super) lab: &'a LabName,
    path: PathBuf,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lab: &'a LabName, path: &Path) -> Self {
        Self { lab, path: path.to_owned() }
    }
}

impl Reader<'_> {
    fn recorded(&self, transaction: &Transaction<'_>, before: &Running) -> Result<Recorded, StateError> {
        let sql = |source| StateError::Sql { action: "read", path: self.path.clone(), source };
        let (tag, lineage, next_run): (String, String, u64) = transaction
            .query_row("SELECT tag, lineage, next_run FROM site", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .map_err(sql)?;
        let serial = transaction
            .query_row("SELECT serial FROM labs WHERE lab = ?1", [self.lab.as_str()], |row| row.get(0))
            .or_else(|source| if source == rusqlite::Error::QueryReturnedNoRows { Ok(0) } else { Err(source) })
            .map_err(sql)?;
        let (vms, waiting) = self.vms(transaction)?;
        let claims = self.claims(transaction)?;
        // One that has begun since the first look runs now.
        let now = Running::look(&self.path)?;
        let runs = |apply| before.has(apply) || now.has(apply);
        let Promised { mut taken, next_run: promised_run, starting, storing } = self.promised(transaction, &runs)?;
        taken.extend(self.taken(transaction, &vms)?);
        Ok(Recorded {
            site: self.valid(SiteTag::new(tag))?,
            lineage,
            serial,
            frozen: self.frozen(transaction)?,
            latest: self.latest(transaction)?,
            cut_short: self.cut_short(transaction, &runs)?,
            held: self.held(transaction, &runs)?,
            starting,
            storing,
            next_run: next_run.max(promised_run),
            objects: self.objects(transaction, &claims)?,
            versions: self.versions(transaction)?,
            vms,
            claims,
            aside: self.asides(transaction)?,
            waiting,
            former: self.former(transaction)?,
            digests: self.digests(transaction)?,
            taken,
            tried: Tried::look(&self.path)?,
            other_groups: self.other_groups(transaction)?,
        })
    }

    fn frozen(&self, transaction: &Transaction<'_>) -> Result<Option<Frozen>, StateError> {
        let query = "SELECT frozen, 0 FROM labs WHERE lab = ?1 AND frozen IS NOT NULL UNION ALL SELECT frozen, 1 FROM site WHERE frozen IS NOT NULL ORDER BY 2 DESC";
        let rows = self.rows(transaction, query, |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)))?;
        let Some((text, is_site)) = rows.first() else { return Ok(None) };
        let scope = if *is_site { FreezeScope::Site } else { FreezeScope::Lab };
        Ok(Some(Frozen { scope, ..self.json("a freeze", text)? }))
    }

    /// Sessions with the times that people gave them.
    fn objects(
        &self,
        transaction: &Transaction<'_>,
        claims: &[Claim],
    ) -> Result<BTreeMap<Address, RecordedThing>, StateError> {
        let query = "SELECT kind, name, body FROM objects WHERE lab = ?1";
        let objects = self.each(transaction, query, |row| {
            let (kind, name, body) = (self.text(row, 0)?, self.text(row, 1)?, self.text(row, 2)?);
            let known = Kind::ALL.into_iter().find(|k| k.as_str() == kind);
            let unknown = || self.damaged(format!("it speaks of a {kind:?}"));
            let kind = known.ok_or_else(unknown)?;
            let address = Address { kind, name: name.to_owned() };
            let thing = Thing::read(kind, body).ok_or_else(unknown)?;
            let mut thing = thing.map_err(|source| self.row(address.to_string(), source))?;
            if let Thing::Session(session) = &mut thing {
                session.added = AddedTime::of(&address.name, claims);
            }
            Ok((address, RecordedThing { body: body.to_owned(), thing }))
        })?;
        Ok(objects.into_iter().collect())
    }

    fn versions(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<BTreeMap<(TemplateName, u32), TemplateVersion>, StateError> {
        let rows = self.rows(transaction, "SELECT template, version, disks FROM versions WHERE lab = ?1", |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?, row.get::<_, String>(2)?))
        })?;
        rows.into_iter()
            .map(|(template, version, disks)| {
                let disks = self.json("a template's version", &disks)?;
                Ok(((self.valid(TemplateName::new(template))?, version), TemplateVersion { disks }))
            })
            .collect()
    }

    fn vms(&self, transaction: &Transaction<'_>) -> Result<(Vms, BTreeMap<VmName, WaitingDisks>), StateError> {
        // One look at each vm, with its latest run where it has one.
        let query = "SELECT v.name, v.ip, v.mac, v.generation, v.version, v.body,
                            r.run, r.batch, r.task, r.job, r.started, r.state, r.reason
                     FROM vms v LEFT JOIN runs r ON r.run = v.run WHERE v.lab = ?1";
        let vms = self.each(transaction, query, |row| {
            let name = self.text(row, 0)?;
            let has_run = row.get_ref(6).map_err(|source| self.sql(source))? != ValueRef::Null;
            let vm = RecordedVm {
                vm: self.json("a vm", self.text(row, 5)?)?,
                ip: self.valid(self.text(row, 1)?.parse::<Ipv4Addr>())?,
                mac: self.valid(self.text(row, 2)?.parse::<Mac>())?,
                generation: self.value(row, 3)?,
                version: self.value(row, 4)?,
                disks: Vec::new(),
                run: has_run.then(|| self.run(name, row, 6)).transpose()?,
            };
            Ok((self.valid(VmName::new(name))?, vm))
        })?;
        let mut vms: BTreeMap<VmName, RecordedVm> = vms.into_iter().collect();
        let waiting = self.add_disks(transaction, &mut vms)?;
        Ok((vms, waiting))
    }

    fn add_disks(
        &self,
        transaction: &Transaction<'_>,
        vms: &mut Vms,
    ) -> Result<BTreeMap<VmName, WaitingDisks>, StateError> {
        let query =
            "SELECT vm, slot, path, base, moving_to, made, owner, image FROM disks WHERE lab = ?1 AND aside IS NULL";
        let mut waiting: BTreeMap<VmName, WaitingDisks> = BTreeMap::new();
        self.each(transaction, query, |row| {
            let disk = RecordedDisk {
                slot: self.value(row, 1)?,
                path: PathBuf::from(self.text(row, 2)?),
                base: self.value::<Option<String>>(row, 3)?.map(PathBuf::from),
                moving_to: self.value::<Option<String>>(row, 4)?.map(PathBuf::from),
                made: self.value(row, 5)?,
                image: self.value(row, 7)?,
            };
            let vm = self.text(row, 0)?;
            if let Some(known) = vms.get_mut(vm) {
                known.disks.push(disk);
                return Ok(());
            }
            // A vm's row and its disks come and go in one transaction, so a disk without its vm is damage, unless it was put
            // back for one that is yet to come.
            let owner: Option<String> = self.value(row, 6)?;
            let owner = owner.ok_or_else(|| self.damaged(format!("a disk of {vm:?} has no vm")))?;
            let entry = waiting.entry(self.valid(VmName::new(vm))?);
            entry.or_insert_with(|| WaitingDisks { owner, disks: Vec::new() }).disks.push(disk);
            Ok(())
        })?;
        // Most have one: to sort those that have more is less than to have all rows sorted.
        let of_waiting = waiting.values_mut().map(|waiting| &mut waiting.disks);
        let all = vms.values_mut().map(|vm| &mut vm.disks).chain(of_waiting);
        all.filter(|disks| disks.len() > 1).for_each(|disks| disks.sort_by_key(|disk| disk.slot));
        Ok(waiting)
    }

    /// A run of `vm`, from the columns that begin with this one.
    fn run(&self, vm: &str, row: &Row<'_>, first: usize) -> Result<RecordedRun, StateError> {
        let state = match self.text(row, first + 5)? {
            "intended" => RunState::Intended,
            "submitted" => RunState::Submitted,
            _ => {
                let reason: Option<String> = self.value(row, first + 6)?;
                let read = |text: String| self.json(&format!("how a run of {vm} ended"), &text);
                RunState::Ended { reason: reason.map(read).transpose()? }
            }
        };
        Ok(RecordedRun {
            run: self.valid(self.text(row, first)?.parse::<RunId>())?,
            batch: BatchId(self.valid(self.text(row, first + 1)?.parse::<RunId>())?),
            task: self.value(row, first + 2)?,
            job: self.value::<Option<u64>>(row, first + 3)?.map(JobId),
            started: serde_json::from_str(self.text(row, first + 4)?)
                .map_err(|source| self.row(format!("what {vm} was started with"), source))?,
            state,
        })
    }

    /// Vms of `owner` in other labs whose run's end is not recorded.
    pub(super) fn running_elsewhere(
        &self,
        transaction: &Transaction<'_>,
        owner: &UserName,
    ) -> Result<Vec<OpenRun>, StateError> {
        let query = "SELECT v.lab, v.name, r.run, r.batch, r.task, r.job, r.started, r.state, r.reason
                     FROM vms v JOIN runs r ON r.run = v.run
                     WHERE json_extract(v.body, '$.owner') = ?1 AND v.lab <> ?2 AND r.state <> 'ended'";
        self.each_of(transaction, query, [owner.as_str(), self.lab.as_str()], |row| {
            let (lab, vm) = (self.valid(LabName::new(self.text(row, 0)?))?, self.text(row, 1)?);
            let run = self.run(vm, row, 2)?;
            Ok(OpenRun { owner: owner.clone(), lab, vm: self.valid(VmName::new(vm))?, run })
        })
    }

    /// Addresses of the vms of this lab, and of all others.
    fn taken(&self, transaction: &Transaction<'_>, here: &Vms) -> Result<BTreeMap<Ipv4Addr, TakenAddress>, StateError> {
        let query = "SELECT ip, lab, name, mac FROM vms WHERE lab <> ?1";
        let mut all = self.each(transaction, query, |row| {
            let (lab, vm) =
                (self.valid(LabName::new(self.text(row, 1)?))?, self.valid(VmName::new(self.text(row, 2)?))?);
            let (ip, mac) = (self.valid(self.text(row, 0)?.parse())?, self.valid(self.text(row, 3)?.parse())?);
            Ok((ip, TakenAddress { lab, vm, mac }))
        })?;
        let of = |(name, vm): (&VmName, &RecordedVm)| {
            (vm.ip, TakenAddress { lab: self.lab.clone(), vm: name.clone(), mac: vm.mac })
        };
        all.extend(here.iter().map(of));
        Ok(all.into_iter().collect())
    }

    fn other_groups(&self, transaction: &Transaction<'_>) -> Result<Vec<(LabName, VmGroupName, VmGroup)>, StateError> {
        let query = "SELECT lab, name, body FROM objects WHERE lab <> ?1 AND kind = 'vm-group' ORDER BY lab, name";
        let rows = self.rows(transaction, query, |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?;
        rows.into_iter()
            .map(|(lab, name, body)| {
                Ok((
                    self.valid(LabName::new(lab))?,
                    self.valid(VmGroupName::new(name))?,
                    self.json("a vm group", &body)?,
                ))
            })
            .collect()
    }

    pub(super) fn rows<T>(
        &self,
        transaction: &Transaction<'_>,
        query: &str,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StateError> {
        let mut statement = transaction.prepare(query).map_err(|source| self.sql(source))?;
        statement.query_map([self.lab.as_str()], read).and_then(Iterator::collect).map_err(|source| self.sql(source))
    }

    /// The same for rows that are read where they stand: there may be tens of thousands.
    fn each<T>(
        &self,
        transaction: &Transaction<'_>,
        query: &str,
        read: impl FnMut(&Row<'_>) -> Result<T, StateError>,
    ) -> Result<Vec<T>, StateError> {
        self.each_of(transaction, query, [self.lab.as_str()], read)
    }

    fn each_of<T>(
        &self,
        transaction: &Transaction<'_>,
        query: &str,
        parameters: impl rusqlite::Params,
        mut read: impl FnMut(&Row<'_>) -> Result<T, StateError>,
    ) -> Result<Vec<T>, StateError> {
        let mut statement = transaction.prepare_cached(query).map_err(|source| self.sql(source))?;
        let mut rows = statement.query(parameters).map_err(|source| self.sql(source))?;
        let mut all = Vec::new();
        while let Some(row) = rows.next().map_err(|source| self.sql(source))? {
            all.push(read(row)?);
        }
        Ok(all)
    }

    fn text<'r>(&self, row: &'r Row<'_>, column: usize) -> Result<&'r str, StateError> {
        let found = row.get_ref(column).map_err(|source| self.sql(source))?;
        self.valid(found.as_str())
    }

    fn value<T: FromSql>(&self, row: &Row<'_>, column: usize) -> Result<T, StateError> {
        row.get(column).map_err(|source| self.sql(source))
    }

    pub(super) fn sql(&self, source: rusqlite::Error) -> StateError {
        StateError::Sql { action: "read", path: self.path.clone(), source }
    }

    fn damaged(&self, detail: String) -> StateError {
        StateError::Damaged { path: self.path.clone(), detail }
    }

    pub(super) fn valid<T, E: std::fmt::Display>(&self, result: Result<T, E>) -> Result<T, StateError> {
        result.map_err(|invalid| self.damaged(invalid.to_string()))
    }

    pub(super) fn row(&self, what: String, source: serde_json::Error) -> StateError {
        StateError::Row { path: self.path.clone(), what, source }
    }

    fn json<T: DeserializeOwned>(&self, what: &str, text: &str) -> Result<T, StateError> {
        serde_json::from_str(text).map_err(|source| self.row(what.to_owned(), source))
    }
}
