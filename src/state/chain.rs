//! The record of each exam, and what of its submissions is in. In: every change of what is recorded, and every act of the audit.
//! Out: for each that is about an exam's vms or the exam itself a row, written in the same transaction. A row carries the hash
//! of itself and of the row before it, so that no row can be rewritten, taken out or put in between without all later hashes,
//! and with them the last one, which people keep on paper, becoming others.
//!
//! ```text
//! session_record  lab, session, number ─ body (JSON, with ids of the audit in place of names), hash: SHA-256 of the hash
//!                   before it, a line end, and the body
//! submissions     lab, session, vm ─ at: when the files of a vm, or that there are none, came into the record last
//! keeps           lab, session, vm ─ until: how long its disks, set aside or not, are kept from every purge
//! ```

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension as _, Transaction, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::audit::Ids;
use super::read::Reader;
use super::write::{execute, to_json};
use super::{Change, Entry, StateError, Store};
use crate::model::address::{Address, Kind};
use crate::model::claim::{ClaimBody, TimeClaim};
use crate::model::hexadecimal;
use crate::model::id::{LabName, SessionName, VmName};
use crate::model::lab::Session;

/// `MIGRATIONS[11]` of the tables.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS session_record (
        lab TEXT NOT NULL, session TEXT NOT NULL, number INTEGER NOT NULL, body TEXT NOT NULL, hash TEXT NOT NULL,
        PRIMARY KEY (lab, session, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER IF NOT EXISTS session_record_stays BEFORE UPDATE ON session_record
        BEGIN SELECT RAISE(ABORT, 'the record of a session is only ever added to'); END;
    CREATE TRIGGER IF NOT EXISTS session_record_is_kept BEFORE DELETE ON session_record
        WHEN NOT EXISTS (SELECT 1 FROM audit_gate)
        BEGIN SELECT RAISE(ABORT, 'the record of a session is only ever added to'); END;
    CREATE TABLE IF NOT EXISTS submissions (
        lab TEXT NOT NULL, session TEXT NOT NULL, vm TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (lab, session, vm)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS keeps (
        lab TEXT NOT NULL, session TEXT NOT NULL, vm TEXT NOT NULL, until TEXT NOT NULL, PRIMARY KEY (lab, session, vm)
    ) STRICT, WITHOUT ROWID;
";

/// A session's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionRecord {
    /// Of the format.
    pub version: u32,
    /// The session's lab.
    pub lab: LabName,
    /// The session.
    pub session: SessionName,
    /// Hash of the last row: whoever has it can tell whether any row is another by now.
    pub head: String,
    /// Number of the first row that is not what it was when it was written.
    pub wrong: Option<u64>,
    /// Oldest first.
    pub rows: Vec<SessionRow>,
    /// Who and what the ids are, of those that are not erased. No hash is about names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, String>,
}

/// One row of a session's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionRow {
    /// From 1 on.
    pub number: u64,
    /// What happened, as it was hashed; people and vms are ids.
    pub body: Value,
    /// SHA-256 of the hash before it, a line end, and the body.
    pub hash: String,
}

impl SessionRecord {
    const VERSION: u32 = 1;
}

impl Store {
    /// What is recorded of a session, from the first row to the last.
    pub fn session_record(&self, lab: &LabName, session: &SessionName) -> Result<SessionRecord, StateError> {
        let query = "SELECT number, body, hash FROM session_record WHERE lab = ?1 AND session = ?2 ORDER BY number";
        let rows = self.list("read the record", query, params![lab.as_str(), session.as_str()], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?;
        let wrong = first_wrong(&rows);
        let row = |(number, body, hash): (u64, String, String)| {
            let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
            SessionRow { number, body, hash }
        };
        let rows: Vec<SessionRow> = rows.into_iter().map(row).collect();
        let head = rows.last().map_or_else(String::new, |row| row.hash.clone());
        let names = self.audit_names()?.plain();
        let (version, lab, session) = (SessionRecord::VERSION, lab.clone(), session.clone());
        Ok(SessionRecord { version, lab, session, head, wrong, rows, names })
    }

    /// Files of these vms, or that there are none, are in: what came of each. They are not collected for this session again.
    pub fn submitted(
        &mut self,
        lab: &LabName,
        session: &SessionName,
        came: &[(VmName, Map<String, Value>)],
        now: Timestamp,
    ) -> Result<(), StateError> {
        let at = now.to_string();
        self.transact("record the submissions", |transaction| {
            came.iter().try_for_each(|(vm, came)| {
                execute(
                    transaction,
                    "INSERT INTO submissions (lab, session, vm, at) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (lab, session, vm) DO UPDATE SET at = ?4",
                    params![lab.as_str(), session.as_str(), vm.as_str(), at],
                )?;
                let mut body = came.clone();
                body.insert("vm".to_owned(), Ids::new(transaction).vm(Some(lab), vm.as_str(), false)?.into());
                append(transaction, lab.as_str(), session.as_str(), body, &at)
            })
        })
    }
}

impl Reader<'_> {
    /// When the files of vms were collected last, by session.
    pub(super) fn submitted(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<BTreeMap<SessionName, BTreeMap<VmName, Timestamp>>, StateError> {
        let rows = self.rows(transaction, "SELECT session, vm, at FROM submissions WHERE lab = ?1", |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?;
        let mut submitted: BTreeMap<SessionName, BTreeMap<VmName, Timestamp>> = BTreeMap::new();
        for (session, vm, at) in rows {
            let of = submitted.entry(self.valid(SessionName::new(session))?).or_default();
            of.insert(self.valid(VmName::new(vm))?, self.valid(at.parse())?);
        }
        Ok(submitted)
    }

    /// Until when the disks of vms are kept for the sake of a session, with the session.
    pub(super) fn keeps(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<BTreeMap<String, (SessionName, Timestamp)>, StateError> {
        let query = "SELECT vm, session, until FROM keeps WHERE lab = ?1 ORDER BY until";
        let rows = self.rows(transaction, query, |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?;
        let keep = |(vm, session, until): (String, String, String)| {
            Ok((vm, (self.valid(SessionName::new(session))?, self.valid(until.parse())?)))
        };
        rows.into_iter().map(keep).collect()
    }
}

/// Number of the first row that does not follow from the one before it.
fn first_wrong(rows: &[(u64, String, String)]) -> Option<u64> {
    let mut before = "";
    for ((number, body, hash), expected) in rows.iter().zip(1..) {
        if *number != expected || *hash != hash_of(before, body) {
            return Some(*number);
        }
        before = hash;
    }
    None
}

fn hash_of(before: &str, body: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update("\n");
    hash.update(body);
    hexadecimal(&hash.finalize())
}

fn append(
    transaction: &Transaction<'_>,
    lab: &str,
    session: &str,
    mut body: Map<String, Value>,
    now: &str,
) -> rusqlite::Result<()> {
    let last = transaction
        .prepare_cached(
            "SELECT number, hash FROM session_record WHERE lab = ?1 AND session = ?2 ORDER BY number DESC LIMIT 1",
        )?
        .query_row(params![lab, session], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    let (number, before) = last.unwrap_or_default();
    body.insert("number".to_owned(), (number + 1).into());
    body.insert("at".to_owned(), now.into());
    let body = to_json(&body);
    let hash = hash_of(&before, &body);
    execute(
        transaction,
        "INSERT INTO session_record (lab, session, number, body, hash) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![lab, session, number + 1, body, hash],
    )
}

/// The exams of a lab, by the vms that are in them; read once for all that is written together.
#[derive(Default)]
pub(super) struct Exams(OnceCell<BTreeMap<String, Vec<String>>>);

impl Exams {
    fn of(&self, transaction: &Transaction<'_>, lab: &str, vm: &str) -> rusqlite::Result<Vec<String>> {
        let exams = match self.0.get() {
            Some(exams) => exams,
            None => {
                let read = Self::read(transaction, lab)?;
                self.0.get_or_init(|| read)
            }
        };
        Ok(exams.get(vm).cloned().unwrap_or_default())
    }

    fn read(transaction: &Transaction<'_>, lab: &str) -> rusqlite::Result<BTreeMap<String, Vec<String>>> {
        let mut query = transaction.prepare_cached(
            "SELECT vm.value, name FROM objects, json_each(body, '$.vms') AS vm
             WHERE lab = ?1 AND kind = 'session' AND json_extract(body, '$.kind') = 'exam'",
        )?;
        let mut rows = query.query([lab])?;
        let mut exams: BTreeMap<String, Vec<String>> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            exams.entry(row.get(0)?).or_default().push(row.get(1)?);
        }
        Ok(exams)
    }
}

/// What a change comes to in the record, found before it is written: what it was is gone afterwards.
pub(super) struct Told {
    of: About,
    body: Value,
}

enum About {
    Vm(String),
    Session(String),
}

impl Told {
    fn vm(vm: impl Into<String>, body: Value) -> Option<Self> {
        Some(Self { of: About::Vm(vm.into()), body })
    }

    fn session(session: &str, body: Value) -> Option<Self> {
        Some(Self { of: About::Session(session.to_owned()), body })
    }

    /// `None` of a change that says nothing of a vm or a session.
    pub(super) fn of(transaction: &Transaction<'_>, lab: &LabName, change: &Change) -> rusqlite::Result<Option<Self>> {
        Ok(match change {
            Change::Entry(entry) => Self::of_entry(transaction, lab, entry)?,
            Change::PutRun { run, vm, generation, .. } => {
                let images = images_below(transaction, lab, vm)?;
                let body =
                    json!({ "what": "started", "run": run.to_string(), "generation": generation, "images": images });
                Self::vm(vm.as_str(), body)
            }
            Change::BeginsWith { run, .. } => {
                let body = json!({ "what": "began again with other disks", "run": run.to_string() });
                vm_of_run(transaction, &run.to_string())?.and_then(|vm| Self::vm(vm, body))
            }
            Change::Ended { run, reason } => {
                let body = json!({ "what": "ended", "run": run.to_string(), "reason": reason });
                vm_of_run(transaction, &run.to_string())?.and_then(|vm| Self::vm(vm, body))
            }
            Change::PutDisk { vm, disk } if disk.made => {
                Self::vm(vm.as_str(), json!({ "what": "disk made", "disk": disk.slot }))
            }
            Change::Aside { path, .. } => vm_of_disk(transaction, &path.to_string_lossy())?
                .and_then(|(vm, slot)| Self::vm(vm, json!({ "what": "disk set aside", "disk": slot }))),
            Change::Returned { path, .. } => vm_of_disk(transaction, &path.to_string_lossy())?
                .and_then(|(vm, slot)| Self::vm(vm, json!({ "what": "disk put back", "disk": slot }))),
            Change::PutClaim { body: ClaimBody::Time(time), .. } => Self::of_time(transaction, "time moved", time)?,
            Change::EndClaim { id, .. } => {
                let time = transaction
                    .prepare_cached("SELECT body FROM claims WHERE id = ?1 AND kind = 'time'")?
                    .query_row([id.0], |row| row.get::<_, String>(0))
                    .optional()?;
                match time.map(|text| ClaimBody::read("time", &text)) {
                    Some(Ok(ClaimBody::Time(time))) => Self::of_time(transaction, "time taken back", &time)?,
                    _ => None,
                }
            }
            _ => None,
        })
    }

    fn of_entry(transaction: &Transaction<'_>, lab: &LabName, entry: &Entry) -> rusqlite::Result<Option<Self>> {
        Ok(match entry {
            Entry::Vm { name, ip, mac, version, .. } => {
                let body = json!({
                    "what": "address", "ip": ip.to_string(), "mac": mac.to_string(), "template_version": version
                });
                Self::vm(name.as_str(), body)
            }
            Entry::ForgetVm { name } => Self::vm(name.as_str(), json!({ "what": "left" })),
            Entry::Object { address, body } if address.kind == Kind::Session => {
                let commit = transaction
                    .prepare_cached("SELECT \"commit\" FROM applies WHERE lab = ?1 ORDER BY id DESC LIMIT 1")?
                    .query_row([lab.as_str()], |row| row.get::<_, Option<String>>(0))
                    .optional()?
                    .flatten();
                let body: Option<Map<String, Value>> = body.as_ref().and_then(|text| serde_json::from_str(text).ok());
                Self::session(&address.name, json!({ "what": "session", "is": body.map(nameless), "commit": commit }))
            }
            _ => None,
        })
    }

    fn of_time(transaction: &Transaction<'_>, what: &str, time: &TimeClaim) -> rusqlite::Result<Option<Self>> {
        let user = time.user.as_ref().map(|user| Ids::new(transaction).person(user.as_str())).transpose()?;
        let body = json!({ "what": what, "user": user, "change": time.change, "why": time.why });
        Ok(Self::session(time.session.as_str(), body))
    }

    /// Writes it into the record of every exam that it is about.
    pub(super) fn write(
        self,
        transaction: &Transaction<'_>,
        lab: &LabName,
        exams: &Exams,
        now: &str,
    ) -> rusqlite::Result<()> {
        let Value::Object(mut body) = self.body else { return Ok(()) };
        let sessions = match self.of {
            About::Session(session) if is_exam(transaction, lab, &session)? => vec![session],
            About::Session(_) => Vec::new(),
            About::Vm(vm) => {
                let sessions = exams.of(transaction, lab.as_str(), &vm)?;
                if !sessions.is_empty() {
                    body.insert("vm".to_owned(), Ids::new(transaction).vm(Some(lab), &vm, false)?.into());
                }
                sessions
            }
        };
        sessions.iter().try_for_each(|session| append(transaction, lab.as_str(), session, body.clone(), now))
    }
}

/// One that was an exam when it was last written of has a record, too.
fn is_exam(transaction: &Transaction<'_>, lab: &LabName, session: &str) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM objects WHERE lab = ?1 AND kind = 'session' AND name = ?2
                            AND json_extract(body, '$.kind') = 'exam')
                 OR EXISTS (SELECT 1 FROM session_record WHERE lab = ?1 AND session = ?2)",
        )?
        .query_row(params![lab.as_str(), session], |row| row.get(0))
}

/// A session without anybody's name in it.
fn nameless(mut session: Map<String, Value>) -> Map<String, Value> {
    let count = |value: Option<Value>| {
        value.map_or(0, |value| match value {
            Value::Array(list) => list.len(),
            Value::Object(list) => list.len(),
            _ => 0,
        })
    };
    let (vms, extra) = (count(session.remove("vms")), count(session.remove("extra_time_percent")));
    session.insert("vms".to_owned(), vms.into());
    session.insert("people_with_extra_time".to_owned(), extra.into());
    session
}

/// SHA-256 of each published disk below a vm's own ones.
fn images_below(transaction: &Transaction<'_>, lab: &LabName, vm: &VmName) -> rusqlite::Result<Vec<String>> {
    transaction
        .prepare_cached(
            "SELECT json_extract(disk.value, '$.sha256') FROM versions, json_each(versions.disks) AS disk
             WHERE versions.lab = ?1 AND json_extract(disk.value, '$.path') IN
                 (SELECT base FROM disks WHERE disks.lab = ?1 AND vm = ?2 AND aside IS NULL)",
        )?
        .query_map(params![lab.as_str(), vm.as_str()], |row| row.get(0))?
        .collect()
}

fn vm_of_run(transaction: &Transaction<'_>, run: &str) -> rusqlite::Result<Option<String>> {
    transaction.prepare_cached("SELECT vm FROM runs WHERE run = ?1")?.query_row([run], |row| row.get(0)).optional()
}

fn vm_of_disk(transaction: &Transaction<'_>, path: &str) -> rusqlite::Result<Option<(String, u32)>> {
    transaction
        .prepare_cached("SELECT vm, slot FROM disks WHERE path = ?1")?
        .query_row([path], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// An act that is in the audit, in the record of each exam that it is about. `row` is what the audit says of it.
pub(super) fn note_act(
    transaction: &Transaction<'_>,
    lab: &LabName,
    about: &BTreeSet<Address>,
    row: &Value,
    now: &str,
) -> rusqlite::Result<()> {
    let exams = Exams::default();
    let mut of: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for address in about {
        match address.kind {
            Kind::Session if is_exam(transaction, lab, &address.name)? => {
                of.entry(address.name.clone()).or_default();
            }
            Kind::Vm => {
                for session in exams.of(transaction, lab.as_str(), &address.name)? {
                    let id = Ids::new(transaction).vm(Some(lab), &address.name, false)?;
                    of.entry(session).or_default().push(id.into());
                }
            }
            _ => {}
        }
    }
    of.into_iter().try_for_each(|(session, vms)| {
        let mut body = Map::from_iter([("what".to_owned(), "act".into()), ("act".to_owned(), row.clone())]);
        body.insert("vms".to_owned(), vms.into());
        append(transaction, lab.as_str(), &session, body, now)
    })
}

/// What a session says of how long its vms' disks are kept; a later word never shortens it.
pub(super) fn keep(transaction: &Transaction<'_>, lab: &str, session: &str, body: &str) -> rusqlite::Result<()> {
    let Some(written) = serde_json::from_str::<Session>(body).ok() else { return Ok(()) };
    let Some(seconds) = written.keep_seconds else { return Ok(()) };
    let length = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    let until = written.window().1.checked_add(length).unwrap_or(Timestamp::MAX).to_string();
    written.vms.iter().try_for_each(|vm| {
        execute(
            transaction,
            "INSERT INTO keeps (lab, session, vm, until) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (lab, session, vm) DO UPDATE SET until = MAX(until, ?4)",
            params![lab, session, vm.as_str(), until],
        )
    })
}

/// A vm's new name.
pub(super) fn rename(transaction: &Transaction<'_>, lab: &str, from: &str, to: &str) -> rusqlite::Result<()> {
    ["submissions", "keeps"].iter().try_for_each(|table| {
        let sql = format!("UPDATE OR REPLACE {table} SET vm = ?3 WHERE lab = ?1 AND vm = ?2");
        execute(transaction, &sql, params![lab, from, to])
    })
}
