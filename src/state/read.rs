//! How all that is recorded of a lab is read: in one transaction, so that all parts fit together.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{Row, Transaction};
use serde::de::DeserializeOwned;

use super::operations::{Promised, Running};
use super::recorded::{
    FreezeScope, Frozen, Recorded, RecordedDisk, RecordedRun, RecordedVm, RunState, TakenAddress, TemplateVersion,
};
use super::{OpenRun, RecordedThing, StateError, Store, Thing, Tried, WaitingDisks};
use crate::model::address::{Address, Kind};
use crate::model::claim::Claim;
use crate::model::id::{LabName, Mac, RunId, SiteTag, TemplateName, UserName, VmGroupName, VmName};
use crate::model::job::JobId;
use crate::model::lab::{AddedTime, VmGroup};
use crate::run::BatchId;

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
            submitted: self.submitted(transaction)?,
            keeps: self.keeps(transaction)?,
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
        let query = "SELECT vm, slot, path, base, moving_to, made, owner, image, instance FROM disks WHERE lab = ?1 AND aside IS NULL";
        let mut waiting: BTreeMap<VmName, WaitingDisks> = BTreeMap::new();
        self.each(transaction, query, |row| {
            let disk = RecordedDisk {
                slot: self.value(row, 1)?,
                path: PathBuf::from(self.text(row, 2)?),
                base: self.value::<Option<String>>(row, 3)?.map(PathBuf::from),
                moving_to: self.value::<Option<String>>(row, 4)?.map(PathBuf::from),
                made: self.value(row, 5)?,
                image: self.value(row, 7)?,
                instance: self.value(row, 8)?,
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
