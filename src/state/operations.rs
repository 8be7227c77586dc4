//! Applies that run side by side. A lab's lock is held for a decision alone; what an apply is about to work on it *holds* from then
//! on, until that is over: a row of `holds` for each thing, with the addresses that it is to have. Nobody else plans anything
//! for it.
//!
//! Whether an apply still runs is told by the kernel: it has a byte of the lock's file, and that lock ends with its process,
//! however that ends. What a dead apply held is free, and whoever begins next goes on in its place.
//!
//! ```text
//! state.db.lock    the file itself (flock)   a decision
//!                  byte 0                    everybody who has the state open, together; or alone, who replaces the file
//!                  byte 1                    a trial of the site's hosts
//!                  byte 2^20 + id            apply `id`, as long as it runs
//!                  byte 2^41 + address       an address that a trial uses (IPv4, as a number)
//!                  byte 2^50 + address       the same of a hardware address
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension as _, Transaction, params};
use serde::{Deserialize, Serialize};

use super::quotas::{self, Quota, Starting, StorageQuota, Storing};
use super::read::Reader;
use super::recorded::{Recorded, TakenAddress};
use super::trials::Tried;
use super::write::{ApplyId, ApplyInfo, Broken};
use super::{StateError, Store, audit, real, sibling};
use crate::files::ranges;
use crate::model::address::Address;
use crate::model::id::{LabName, Mac, UserName, VmName};

const FIRST_APPLY: u64 = 1 << 20;
const ALL_APPLIES: Range<u64> = FIRST_APPLY..1 << 40;

/// What somebody is about to do, and what it was decided from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The lab's latest apply when it was decided: any that began since may have changed what it was decided from.
    pub after: i64,
    pub holds: Vec<Hold>,
    /// What those may run at once whose vms are started.
    pub quotas: Vec<Quota>,
    /// What those may store who get disks.
    pub storage: Vec<StorageQuota>,
}

impl Recorded {
    /// Refuses where somebody else works on a thing.
    pub fn refuse_held(&self, address: &Address) -> Result<(), StateError> {
        let held = |worker: &Worker| StateError::Held { address: address.clone(), worker: worker.clone() };
        self.held.get(address).map_or(Ok(()), |worker| Err(held(worker)))
    }
}

/// A thing that an apply works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub address: Address,
    /// What is done to it, such as `stopped`.
    pub doing: String,
    /// What it is to have from now on, and nobody else of the site.
    pub seat: Option<(Ipv4Addr, Mac)>,
    /// The run that it is to have.
    pub run: Option<Start>,
    /// Whose disks are to be made, and what all of that vm's come to then.
    pub stores: Option<(UserName, u64)>,
}

/// A run that is about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub number: u64,
    /// Whose vm it is: it counts among those that they run.
    pub owner: UserName,
}

/// Who works on a thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    pub apply: i64,
    pub who: String,
    pub doing: String,
    pub since: jiff::Timestamp,
}

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is being {} by {} (apply {}, since {:.0})", self.doing, self.who, self.apply, self.since)
    }
}

/// What is to be, by what others work on.
#[derive(Debug, Default)]
pub(super) struct Promised {
    pub(super) taken: BTreeMap<Ipv4Addr, TakenAddress>,
    /// The number after the last run.
    pub(super) next_run: u64,
    pub(super) starting: Vec<Starting>,
    pub(super) storing: Vec<Storing>,
}

/// Kept as long as an apply runs.
#[derive(Debug)]
pub(super) struct AtWork {
    _file: File,
}

impl AtWork {
    /// Before the apply's row is there for others to see. Numbers are never used again, so nobody else has this byte.
    fn begin(state: &Path, apply: i64) -> Result<Self, StateError> {
        let failed = |source| StateError::Io { action: "lock", path: lock_path(state), source };
        let file = open(state)?;
        let byte = FIRST_APPLY + apply.unsigned_abs();
        match ranges::lock(&file, &(byte..byte + 1)) {
            Ok(true) => Ok(Self { _file: file }),
            Ok(false) => Err(failed(std::io::Error::other("another process has the place of this apply"))),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Applies that run now.
pub(super) enum Running {
    These(Vec<Range<u64>>),
    /// Who may not look at the lock takes every apply that did not end for one that runs: nothing is done about it.
    Unseen,
}

impl Running {
    pub(super) fn look(state: &Path) -> Result<Self, StateError> {
        let failed = |source| StateError::Io { action: "look at", path: lock_path(state), source };
        match File::open(lock_path(state)) {
            Ok(file) => ranges::locked(file, &ALL_APPLIES).map(Self::These).map_err(failed),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::These(Vec::new())),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(Self::Unseen),
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) fn has(&self, apply: i64) -> bool {
        let byte = FIRST_APPLY + apply.unsigned_abs();
        match self {
            Self::These(ranges) => ranges.iter().any(|range| range.contains(&byte)),
            Self::Unseen => true,
        }
    }
}

/// Beside the state's file itself, whatever links lead to it.
pub(super) fn lock_path(state: &Path) -> PathBuf {
    sibling(&state.canonicalize().unwrap_or_else(|_| real(state)), "lock")
}

/// The lock's file, made where it is missing.
pub(super) fn open(state: &Path) -> Result<File, StateError> {
    let path = lock_path(state);
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(&path);
    opened.map_err(|source| StateError::Io { action: "open the lock", path, source })
}

/// How far a site's records have come, for one lab: as long as it is the same, nobody has decided anything, nor written anything of
/// this lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The site's latest apply.
    apply: Option<i64>,
    serial: Option<u64>,
}

impl Store {
    /// How far the records have come. What is read after this is no older.
    pub fn standing(&self, lab: &LabName) -> Result<Standing, StateError> {
        self.refuse_replaced()?;
        let query = "SELECT (SELECT MAX(id) FROM applies), (SELECT serial FROM labs WHERE lab = ?1)";
        let read = |row: &rusqlite::Row<'_>| Ok(Standing { apply: row.get(0)?, serial: row.get(1)? });
        self.connection.query_row(query, [lab.as_str()], read).map_err(|source| self.sql("read", source))
    }

    /// Begins an apply: from now on it holds what it works on, and what it gives to runs and vms is nobody else's. Refused
    /// where what it was decided from has changed, and where somebody else works on the same.
    pub fn begin(
        &mut self,
        lab: &LabName,
        decision: &Decision,
        info: &ApplyInfo,
        now: jiff::Timestamp,
    ) -> Result<ApplyId, StateError> {
        let path = self.path.clone();
        let act = info.act.as_ref().map(|act| act.about_also(decision.holds.iter().map(|hold| &hold.address)));
        let (apply, at_work) = self.transact_checked("begin the apply", |transaction| {
            refuse_stale(transaction, lab, decision.after, &path)?;
            refuse_frozen(transaction, lab, &path)?;
            transaction.execute(
                "INSERT INTO labs (lab, serial, folder) VALUES (?1, 0, ?2) ON CONFLICT (lab) DO UPDATE SET folder = ?2",
                params![lab.as_str(), info.folder.to_string_lossy()],
            )?;
            transaction.execute(
                "INSERT INTO applies (lab, who, host, command, \"commit\", summary, began_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![lab.as_str(), info.who, info.host, info.command, info.commit, info.summary, now.to_string()],
            )?;
            let apply = transaction.last_insert_rowid();
            take_over_the_dead(transaction, apply, lab, &path)?;
            refuse_runs_of_others(transaction, &decision.holds)?;
            refuse_seats_of_trials(&decision.holds, &path)?;
            take(transaction, apply, lab, &decision.holds)?;
            quotas::refuse_too_many(transaction, &decision.quotas)?;
            quotas::refuse_too_much(transaction, &decision.storage)?;
            for act in act.iter().chain(&info.acts) {
                audit::write(transaction, Some(lab), act, Some(apply), &now.to_string())?;
            }
            Ok((ApplyId(apply), AtWork::begin(&path, apply)?))
        })?;
        self.at_work = Some(at_work);
        Ok(apply)
    }

    /// Closes an apply in the history; it holds nothing any more.
    pub fn end(&mut self, apply: ApplyId, outcome: &str, now: jiff::Timestamp) -> Result<(), StateError> {
        self.transact("end the apply", |transaction| {
            transaction.execute("DELETE FROM holds WHERE apply = ?1", [apply.0])?;
            transaction
                .execute(
                    "UPDATE applies SET ended_at = ?2, outcome = ?3 WHERE id = ?1",
                    params![apply.0, now.to_string(), outcome],
                )
                .map(drop)
        })?;
        self.at_work = None;
        Ok(())
    }

    /// A transaction of one apply. Should somebody have taken the lock's file away, an apply that began since may have taken
    /// this one for dead: then that one goes on, and this one is stopped here.
    pub(super) fn transact_as<T>(
        &mut self,
        apply: ApplyId,
        action: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        let path = self.path.clone();
        self.transact_checked(action, |transaction| {
            let overtaken: Option<i64> = transaction
                .prepare_cached("SELECT by_apply FROM overtaken WHERE apply = ?1")?
                .query_row([apply.0], |row| row.get(0))
                .optional()?;
            match overtaken {
                Some(latest) => Err(StateError::Overtaken { path, apply: apply.0, latest }.into()),
                None => Ok(work(transaction)?),
            }
        })
    }
}

/// Under the lock nothing can have come in between; without it, or from a plan that was kept, it can.
fn refuse_stale(transaction: &Transaction<'_>, lab: &LabName, after: i64, path: &Path) -> Result<(), Broken> {
    let latest = latest(transaction, lab)?;
    if latest == after { Ok(()) } else { Err(StateError::Stale { path: path.to_owned(), latest }.into()) }
}

/// Number of the lab's latest apply; 0 before the first.
fn latest(transaction: &Transaction<'_>, lab: &LabName) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached("SELECT id FROM applies WHERE lab = ?1 AND NOT beside ORDER BY id DESC LIMIT 1")?
        .query_row([lab.as_str()], |row| row.get(0))
        .optional()
        .map(|latest| latest.unwrap_or(0))
}

/// A freeze takes no lock, so that nothing can hold it up: it may have come at any moment.
fn refuse_frozen(transaction: &Transaction<'_>, lab: &LabName, path: &Path) -> Result<(), Broken> {
    let frozen: Option<String> = transaction
        .query_row(
            "SELECT frozen FROM site WHERE frozen IS NOT NULL
             UNION ALL SELECT frozen FROM labs WHERE lab = ?1 AND frozen IS NOT NULL",
            [lab.as_str()],
            |row| row.get(0),
        )
        .optional()?;
    let Some(note) = frozen else { return Ok(()) };
    Err(Broken::State(match serde_json::from_str(&note) {
        Ok(frozen) => StateError::Frozen { frozen },
        Err(source) => StateError::Row { path: path.to_owned(), what: "a freeze".to_owned(), source },
    }))
}

/// What the dead held is free, in every lab; those of this lab are gone on for by this apply. Nobody begins meanwhile, since
/// the state is being written to.
fn take_over_the_dead(transaction: &Transaction<'_>, apply: i64, lab: &LabName, path: &Path) -> Result<(), Broken> {
    let running = Running::look(path)?;
    let mut query = transaction.prepare_cached(
        "SELECT id, lab FROM applies WHERE ended_at IS NULL AND id <> ?1 AND id NOT IN (SELECT apply FROM overtaken)",
    )?;
    let open = query.query_map([apply], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let open: Vec<(i64, String)> = open.collect::<Result<_, _>>()?;
    for (dead, of) in open.into_iter().filter(|(id, _)| !running.has(*id)) {
        transaction.execute("DELETE FROM holds WHERE apply = ?1", [dead])?;
        if of == lab.as_str() {
            transaction.execute("INSERT INTO overtaken (apply, by_apply) VALUES (?1, ?2)", [dead, apply])?;
        }
    }
    Ok(())
}

/// Numbers of runs are the site's: those that are to be given must be nobody's.
fn refuse_runs_of_others(transaction: &Transaction<'_>, holds: &[Hold]) -> Result<(), Broken> {
    let Some(first) = holds.iter().filter_map(|hold| Some(hold.run.as_ref()?.number)).min() else { return Ok(()) };
    let next: u64 = transaction.query_row(
        "SELECT MAX(next_run, COALESCE((SELECT MAX(run) + 1 FROM holds), 0)) FROM site",
        [],
        |row| row.get(0),
    )?;
    if first >= next {
        return Ok(());
    }
    Err(StateError::Given { what: format!("run number {first}"), to: "another run".into() }.into())
}

fn take(transaction: &Transaction<'_>, apply: i64, lab: &LabName, holds: &[Hold]) -> Result<(), Broken> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO holds (lab, address, apply, doing, ip, mac, run, owner, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for Hold { address, doing, seat, run, stores } in holds {
        if let Some(worker) = worker(transaction, lab, address)? {
            return Err(StateError::Held { address: address.clone(), worker }.into());
        }
        let (ip, mac) = seat.map(|(ip, mac)| (ip.to_string(), mac.to_string())).unzip();
        let (run, owner) = run.as_ref().map(|start| (start.number, start.owner.as_str())).unzip();
        let (storer, bytes) = stores.as_ref().map(|(owner, bytes)| (owner.as_str(), bytes)).unzip();
        let owner = owner.or(storer);
        insert.execute(params![lab.as_str(), address.to_string(), apply, doing, ip, mac, run, owner, bytes])?;
    }
    refuse_seats_of_others(transaction, apply)
}

/// Addresses are the site's too: each that this apply is to give must be nobody's, or that of a vm which it works on.
fn refuse_seats_of_others(transaction: &Transaction<'_>, apply: i64) -> Result<(), Broken> {
    let of_vms = |column: &str| {
        format!(
            "SELECT h.{column}, h.address, 'vm/' || v.name || ' of lab ' || v.lab FROM holds h JOIN vms v ON v.{column} = h.{column}
             WHERE h.apply = ?1 AND NOT EXISTS (SELECT 1 FROM holds own
                 WHERE own.apply = ?1 AND own.lab = v.lab AND own.address = 'vm/' || v.name)"
        )
    };
    let of_holds = |column: &str| {
        format!(
            "SELECT h.{column}, h.address, o.address || ' of lab ' || o.lab FROM holds h JOIN holds o ON o.{column} = h.{column}
             WHERE h.apply = ?1 AND o.apply <> ?1"
        )
    };
    let all = [of_vms("ip"), of_vms("mac"), of_holds("ip"), of_holds("mac")].join(" UNION ALL ");
    let read = |row: &rusqlite::Row<'_>| {
        let (seat, address, to): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(StateError::Given { what: format!("{seat}, meant for {address},"), to })
    };
    match transaction.query_row(&format!("{all} LIMIT 1"), [apply], read).optional()? {
        Some(given) => Err(given.into()),
        None => Ok(()),
    }
}

/// Nor may it be one that a trial of the site's hosts uses.
fn refuse_seats_of_trials(holds: &[Hold], path: &Path) -> Result<(), Broken> {
    let tried = Tried::look(path)?;
    let seats = holds.iter().filter_map(|hold| Some((hold, hold.seat?)));
    let mut given = seats.filter(|(_, (ip, mac))| tried.ips.contains(ip) || tried.macs.contains(mac));
    given.next().map_or(Ok(()), |(hold, (ip, _))| {
        let what = format!("{ip}, meant for {},", hold.address);
        Err(StateError::Given { what, to: "a trial of the site's hosts".into() }.into())
    })
}

fn worker(transaction: &Transaction<'_>, lab: &LabName, address: &Address) -> Result<Option<Worker>, Broken> {
    let query = "SELECT a.id, a.who, h.doing, a.began_at FROM holds h JOIN applies a ON a.id = h.apply
                 WHERE h.lab = ?1 AND h.address = ?2";
    let mut query = transaction.prepare_cached(query)?;
    Ok(query.query_row(params![lab.as_str(), address.to_string()], read_worker).optional()?)
}

fn read_worker(row: &rusqlite::Row<'_>) -> rusqlite::Result<Worker> {
    let since: String = row.get(3)?;
    // For people alone; a time that cannot be read is told as the oldest.
    let since = since.parse().unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    Ok(Worker { apply: row.get(0)?, who: row.get(1)?, doing: row.get(2)?, since })
}

impl Reader<'_> {
    /// What others work on in this lab.
    pub(super) fn held(
        &self,
        transaction: &Transaction<'_>,
        runs: &dyn Fn(i64) -> bool,
    ) -> Result<BTreeMap<Address, Worker>, StateError> {
        let query = "SELECT a.id, a.who, h.doing, a.began_at, h.address FROM holds h JOIN applies a ON a.id = h.apply
                     WHERE h.lab = ?1";
        let rows = self.rows(transaction, query, |row| Ok((row.get::<_, String>(4)?, read_worker(row)?)))?;
        let living = rows.into_iter().filter(|(_, worker)| runs(worker.apply));
        living.map(|(address, worker)| Ok((self.valid(address.parse::<Address>())?, worker))).collect()
    }

    /// What vms of the site are to have, once those who work on them come to it.
    pub(super) fn promised(
        &self,
        transaction: &Transaction<'_>,
        runs: &dyn Fn(i64) -> bool,
    ) -> Result<Promised, StateError> {
        let query = "SELECT apply, run, lab, address, ip, mac, owner, bytes FROM holds
                     WHERE ?1 <> '' AND (ip IS NOT NULL OR run IS NOT NULL OR bytes IS NOT NULL)";
        let rows = self.rows(transaction, query, |row| {
            let seat = row.get::<_, Option<String>>(4)?.zip(row.get::<_, Option<String>>(5)?);
            let owner = row.get::<_, Option<String>>(6)?;
            let start = row.get::<_, Option<u64>>(1)?.zip(owner.clone());
            let stores = row.get::<_, Option<u64>>(7)?.zip(owner);
            Ok((row.get::<_, i64>(0)?, (start, stores), [row.get::<_, String>(2)?, row.get(3)?], seat))
        })?;
        let mut promised = Promised::default();
        for (_, (start, stores), [lab, address], seat) in rows.into_iter().filter(|(apply, ..)| runs(*apply)) {
            let vm = self.valid(address.parse::<Address>())?.name;
            let (lab, vm) = (self.valid(LabName::new(lab))?, self.valid(VmName::new(vm))?);
            if let Some((run, owner)) = start {
                promised.next_run = promised.next_run.max(run + 1);
                let (owner, lab, vm) = (self.valid(UserName::new(owner))?, lab.clone(), vm.clone());
                promised.starting.push(Starting { owner, lab, vm });
            }
            if let Some((bytes, owner)) = stores {
                let (owner, lab, vm) = (self.valid(UserName::new(owner))?, lab.clone(), vm.clone());
                promised.storing.push(Storing { owner, lab, vm, bytes });
            }
            let Some((ip, mac)) = seat else { continue };
            promised.taken.insert(self.valid(ip.parse())?, TakenAddress { lab, vm, mac: self.valid(mac.parse())? });
        }
        Ok(promised)
    }

    /// Number of the lab's latest apply; 0 before the first.
    pub(super) fn latest(&self, transaction: &Transaction<'_>) -> Result<i64, StateError> {
        latest(transaction, self.lab).map_err(|source| self.sql(source))
    }

    /// Whether an apply of this lab was cut short, and nobody has gone on in its place.
    pub(super) fn cut_short(
        &self,
        transaction: &Transaction<'_>,
        runs: &dyn Fn(i64) -> bool,
    ) -> Result<bool, StateError> {
        let query =
            "SELECT id FROM applies WHERE lab = ?1 AND ended_at IS NULL AND id NOT IN (SELECT apply FROM overtaken)";
        Ok(self.rows(transaction, query, |row| row.get::<_, i64>(0))?.into_iter().any(|id| !runs(id)))
    }
}
