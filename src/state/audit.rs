//! The audit: who asked for what, from where, and whether they were let. Rows are added and never changed, which triggers
//! see to; people and vms stand in them as random ids, whose names are in a table beside. So a person can be forgotten (their
//! names go) and what was done stays. A row is written in the transaction of the act itself.
//!
//! ```text
//! audit        id ─ at, version, lab (null: the site), actor, behind, via, asked (JSON), about (JSON: ids, and addresses of
//!                things that are nobody's), verdict (JSON), apply (null: none)
//! audit_names  id ─ kind (person, vm), lab, name, uid of a person, owner of a vm (an id)
//! audit_gate   has a row only inside a transaction that may take names or rows away: privacy, retention, a vm's new name
//! ```

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::write::to_json;
use super::{StateError, Store, chain};
use crate::model::address::{Address, Kind};
use crate::model::audit::{Account, Act, Asked, Verdict, Via};
use crate::model::id::{LabName, UserName, VmName};

/// Of the rows that this program writes.
const ROW_VERSION: u32 = 1;

/// `MIGRATIONS[5]` of the tables.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, version INTEGER NOT NULL, lab TEXT, actor TEXT NOT NULL,
        behind TEXT, via TEXT NOT NULL, asked TEXT NOT NULL, about TEXT NOT NULL, verdict TEXT NOT NULL, apply INTEGER
    ) STRICT;
    CREATE INDEX IF NOT EXISTS audit_of_lab ON audit (lab, id);
    CREATE INDEX IF NOT EXISTS audit_by_age ON audit (at);
    CREATE TABLE IF NOT EXISTS audit_names (
        id TEXT PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('person', 'vm')), lab TEXT, name TEXT NOT NULL, uid INTEGER,
        owner TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS audit_names_by_name ON audit_names (kind, name);
    CREATE TABLE IF NOT EXISTS audit_gate (why TEXT NOT NULL) STRICT;
    CREATE TRIGGER IF NOT EXISTS audit_stays BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is only ever added to'); END;
    CREATE TRIGGER IF NOT EXISTS audit_is_kept BEFORE DELETE ON audit WHEN NOT EXISTS (SELECT 1 FROM audit_gate)
        BEGIN SELECT RAISE(ABORT, 'the audit is only ever added to'); END;
    CREATE TRIGGER IF NOT EXISTS audit_names_stay BEFORE UPDATE ON audit_names
        WHEN NOT EXISTS (SELECT 1 FROM audit_gate)
            AND (OLD.id <> NEW.id OR OLD.kind <> NEW.kind OR OLD.name <> NEW.name OR OLD.lab IS NOT NEW.lab
                 OR (OLD.uid IS NOT NULL AND OLD.uid IS NOT NEW.uid) OR (OLD.owner IS NOT NULL AND OLD.owner IS NOT NEW.owner))
        BEGIN SELECT RAISE(ABORT, 'names of the audit are only ever added to'); END;
    CREATE TRIGGER IF NOT EXISTS audit_names_are_kept BEFORE DELETE ON audit_names
        WHEN NOT EXISTS (SELECT 1 FROM audit_gate)
        BEGIN SELECT RAISE(ABORT, 'names of the audit are only ever added to'); END;
";

/// One act as the audit has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastAct {
    pub id: i64,
    pub at: String,
    pub lab: Option<String>,
    pub who: Someone,
    /// Who logged in and became that account.
    pub behind: Option<Someone>,
    pub via: Via,
    pub asked: Asked,
    pub about: Vec<About>,
    pub verdict: Verdict,
    pub apply: Option<i64>,
    /// How the apply went, where the history still has it.
    pub outcome: Option<String>,
}

/// A person in the audit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Someone {
    pub id: String,
    /// `None`: they were erased.
    pub login: Option<String>,
    pub uid: Option<u32>,
}

/// What an act was about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    Person(Someone),
    Vm {
        id: String,
        /// `None`: it was erased with its owner.
        name: Option<String>,
        owner: Option<String>,
    },
    /// Something that is nobody's.
    Thing(String),
}

/// One of `audit.about`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AboutId {
    Person(String),
    Vm(String),
    Thing(String),
}

/// Which acts are meant.
#[derive(Debug, Clone, Copy)]
pub enum ActsOf<'a> {
    Everybody,
    /// What they did, and what was done to them or theirs.
    User(&'a UserName),
    Vm(&'a VmName),
}

impl Store {
    /// Writes down an act that changes nothing of what is recorded: a look at a screen, a refusal.
    pub fn audit(&mut self, lab: Option<&LabName>, act: &Act, now: jiff::Timestamp) -> Result<(), StateError> {
        self.transact("write the audit", |transaction| write(transaction, lab, act, None, &now.to_string()))
    }

    /// The latest acts of a lab, newest first; those that are about no lab are among them.
    pub fn acts(&self, lab: &LabName, of: ActsOf<'_>, most: u32) -> Result<Vec<PastAct>, StateError> {
        let failed = |source| self.sql("read the audit", source);
        let names = self.audit_names()?;
        let meant: Option<BTreeSet<&String>> = match of {
            ActsOf::Everybody => None,
            ActsOf::User(user) => Some(names.of_person(user.as_str())),
            ActsOf::Vm(vm) => Some(names.ids(|name| name.kind == "vm" && name.name == vm.as_str() && name.is_in(lab))),
        };
        let mut query = self
            .connection
            .prepare(
                "SELECT u.id, u.at, u.lab, u.actor, u.behind, u.via, u.asked, u.about, u.verdict, u.apply, a.outcome, a.ended_at
                 FROM audit u LEFT JOIN applies a ON a.id = u.apply WHERE u.lab = ?1 OR u.lab IS NULL ORDER BY u.id DESC",
            )
            .map_err(failed)?;
        let mut rows = query.query([lab.as_str()]).map_err(failed)?;
        let mut acts = Vec::new();
        while acts.len() < most as usize {
            let Some(row) = rows.next().map_err(failed)? else { break };
            let written = Written::read(row).map_err(failed)?;
            if meant.as_ref().is_none_or(|meant| written.is_about(meant)) {
                acts.push(written.named(&names));
            }
        }
        Ok(acts)
    }

    pub(super) fn audit_names(&self) -> Result<Names, StateError> {
        let query = "SELECT id, kind, lab, name, uid, owner FROM audit_names";
        let names = self.list("read the audit's names", query, [], |row| {
            let name =
                Name { kind: row.get(1)?, lab: row.get(2)?, name: row.get(3)?, uid: row.get(4)?, owner: row.get(5)? };
            Ok((row.get::<_, String>(0)?, name))
        })?;
        Ok(Names(names.into_iter().collect()))
    }

    /// Forgets acts of before `before`, at most `most`, oldest first; with the last of them the names that nothing else needs.
    /// Answers how many those were.
    pub fn forget_acts(&mut self, before: jiff::Timestamp, most: usize) -> Result<usize, StateError> {
        let oldest = "SELECT id FROM audit WHERE at < ?1 ORDER BY at LIMIT ?2";
        self.transact("forget what was asked long ago", |transaction| {
            let any: bool = transaction.query_row(
                "SELECT EXISTS (SELECT 1 FROM audit WHERE at < ?1)",
                [before.to_string()],
                |row| row.get(0),
            )?;
            if !any {
                return Ok(0);
            }
            through_gate(transaction, "retention", |transaction| {
                let forgotten = transaction
                    .execute(&format!("DELETE FROM audit WHERE id IN ({oldest})"), params![before.to_string(), most])?;
                if forgotten < most {
                    forget_unused_names(transaction)?;
                }
                Ok(forgotten)
            })
        })
    }
}

fn forget_unused_names(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "DELETE FROM audit_names WHERE id NOT IN (
             SELECT actor FROM audit UNION SELECT behind FROM audit WHERE behind IS NOT NULL
             UNION SELECT value.value FROM audit, json_each(audit.about) AS part, json_each(part.value) AS value
             UNION SELECT value.value FROM session_record, json_tree(session_record.body) AS value WHERE value.type = 'text')
         AND id NOT IN (SELECT owner FROM audit_names WHERE owner IS NOT NULL)",
    )
}

/// Lets names and rows be taken away, for this transaction alone.
pub(super) fn through_gate<T>(
    transaction: &Transaction<'_>,
    why: &str,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    transaction.execute("INSERT INTO audit_gate (why) VALUES (?1)", [why])?;
    let value = work(transaction)?;
    transaction.execute("DELETE FROM audit_gate", [])?;
    Ok(value)
}

/// Adds an act, with the apply by which it is done.
pub(super) fn write(
    transaction: &Transaction<'_>,
    lab: Option<&LabName>,
    act: &Act,
    apply: Option<i64>,
    now: &str,
) -> rusqlite::Result<()> {
    let mut ids = Ids::new(transaction);
    let actor = ids.account(&act.actor.account)?;
    let behind = act.actor.behind.as_ref().map(|account| ids.account(account)).transpose()?;
    let is_refused = matches!(act.verdict, Verdict::Refused { .. });
    let (mut about, things) = (Vec::new(), parts(&act.about));
    for address in &things {
        about.extend(ids.about(lab, address, is_refused)?);
    }
    let via = serde_json::to_value(act.actor.via).ok();
    let via = via.as_ref().and_then(serde_json::Value::as_str).unwrap_or("other");
    transaction
        .prepare_cached(
            "INSERT INTO audit (at, version, lab, actor, behind, via, asked, about, verdict, apply)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            now,
            ROW_VERSION,
            lab.map(LabName::as_str),
            actor,
            behind,
            via,
            to_json(&act.asked),
            to_json(&about),
            to_json(&act.verdict),
            apply
        ])?;
    let row = json!({ "actor": actor, "behind": behind, "via": via, "asked": act.asked, "verdict": act.verdict });
    lab.map_or(Ok(()), |lab| chain::note_act(transaction, lab, &things, &row, now))
}

/// A permission's name is made of those of whom and what it joins, such as `user:doraz,vm:alex/mine`.
fn parts(about: &[Address]) -> BTreeSet<Address> {
    let of = |address: &Address| match address.kind {
        Kind::Permission => {
            address.name.split(',').filter_map(|part| part.replacen(':', "/", 1).parse().ok()).collect()
        }
        _ => vec![address.clone()],
    };
    about.iter().flat_map(of).collect()
}

/// Ids of people and vms, made where there are none yet.
pub(super) struct Ids<'t> {
    transaction: &'t Transaction<'t>,
    people: BTreeMap<String, String>,
}

impl<'t> Ids<'t> {
    pub(super) fn new(transaction: &'t Transaction<'t>) -> Self {
        Self { transaction, people: BTreeMap::new() }
    }

    fn account(&mut self, account: &Account) -> rusqlite::Result<String> {
        let name = account.login.clone().unwrap_or_else(|| format!("uid {}", account.uid));
        let found: Option<String> = self
            .transaction
            .prepare_cached(
                "SELECT id FROM audit_names WHERE kind = 'person' AND name = ?1 AND (uid IS NULL OR uid = ?2) ORDER BY uid IS NULL LIMIT 1",
            )?
            .query_row(params![name, account.uid], |row| row.get(0))
            .optional()?;
        let Some(id) = found else { return self.add("person", (None, &name), Some(account.uid), None) };
        self.transaction
            .prepare_cached("UPDATE audit_names SET uid = ?2 WHERE id = ?1 AND uid IS NULL")?
            .execute(params![id, account.uid])?;
        Ok(id)
    }

    pub(super) fn person(&mut self, login: &str) -> rusqlite::Result<String> {
        if let Some(id) = self.people.get(login) {
            return Ok(id.clone());
        }
        let found: Option<String> = self
            .transaction
            .prepare_cached("SELECT id FROM audit_names WHERE kind = 'person' AND name = ?1 LIMIT 1")?
            .query_row([login], |row| row.get(0))
            .optional()?;
        let id = found.map_or_else(|| self.add("person", (None, login), None, None), Ok)?;
        self.people.insert(login.to_owned(), id.clone());
        Ok(id)
    }

    /// `None` of what has no place here. Of a refusal only what there is: anybody could fill the table with names otherwise.
    fn about(
        &mut self,
        lab: Option<&LabName>,
        address: &Address,
        is_refused: bool,
    ) -> rusqlite::Result<Option<AboutId>> {
        match address.kind {
            Kind::Vm => self.vm(lab, &address.name, is_refused).map(|id| id.map(AboutId::Vm)),
            Kind::User if is_refused && !self.is_known(&address.name)? => Ok(None),
            Kind::User => self.person(&address.name).map(|id| Some(AboutId::Person(id))),
            _ => Ok(Some(AboutId::Thing(address.to_string()))),
        }
    }

    fn is_known(&self, login: &str) -> rusqlite::Result<bool> {
        self.transaction
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM audit_names WHERE kind = 'person' AND name = ?1)")?
            .query_row([login], |row| row.get(0))
    }

    pub(super) fn vm(
        &mut self,
        lab: Option<&LabName>,
        name: &str,
        is_refused: bool,
    ) -> rusqlite::Result<Option<String>> {
        let lab = lab.map(LabName::as_str);
        let owner: Option<String> = self
            .transaction
            .prepare_cached("SELECT json_extract(body, '$.owner') FROM vms WHERE lab = ?1 AND name = ?2")?
            .query_row(params![lab, name], |row| row.get(0))
            .optional()?
            .flatten();
        if owner.is_none() && is_refused {
            return Ok(None);
        }
        // Of somebody's own vm the owner is in its name, before it is recorded.
        let owner = owner.or_else(|| name.split_once('/').map(|(owner, _)| owner.to_owned()));
        let owner = owner.map(|owner| self.person(&owner)).transpose()?;
        let found: Option<String> = self
            .transaction
            .prepare_cached(
                "SELECT id FROM audit_names WHERE kind = 'vm' AND name = ?1 AND lab IS ?2 AND (owner IS ?3 OR owner IS NULL) ORDER BY owner IS NULL LIMIT 1",
            )?
            .query_row(params![name, lab, owner], |row| row.get(0))
            .optional()?;
        let id = found.map_or_else(|| self.add("vm", (lab, name), None, owner.as_deref()), Ok)?;
        Ok(Some(id))
    }

    fn add(
        &self,
        kind: &str,
        (lab, name): (Option<&str>, &str),
        uid: Option<u32>,
        owner: Option<&str>,
    ) -> rusqlite::Result<String> {
        self.transaction
            .prepare_cached(
                "INSERT INTO audit_names (id, kind, lab, name, uid, owner) VALUES (lower(hex(randomblob(8))), ?1, ?2, ?3, ?4, ?5) RETURNING id",
            )?
            .query_row(params![kind, lab, name, uid, owner], |row| row.get(0))
    }
}

/// A vm is recorded: whose it is is known from now on, of acts that came before too.
pub(super) fn owned(transaction: &Transaction<'_>, lab: &str, vm: &str, owner: &str) -> rusqlite::Result<()> {
    let waits: bool = transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM audit_names WHERE kind = 'vm' AND name = ?1 AND lab = ?2 AND owner IS NULL)",
        )?
        .query_row(params![vm, lab], |row| row.get(0))?;
    if !waits {
        return Ok(());
    }
    let owner = Ids::new(transaction).person(owner)?;
    transaction
        .prepare_cached(
            "UPDATE audit_names SET owner = ?3 WHERE kind = 'vm' AND name = ?1 AND lab = ?2 AND owner IS NULL",
        )?
        .execute(params![vm, lab, owner])
        .map(drop)
}

/// What was done to a vm stays with it under its new name.
pub(super) fn rename(transaction: &Transaction<'_>, lab: &str, from: &str, to: &str) -> rusqlite::Result<()> {
    through_gate(transaction, "a vm's new name", |transaction| {
        transaction
            .prepare_cached("UPDATE audit_names SET name = ?3 WHERE kind = 'vm' AND lab = ?1 AND name = ?2")?
            .execute(params![lab, from, to])
            .map(drop)
    })
}

/// Everybody's names.
pub(super) struct Names(BTreeMap<String, Name>);

pub(super) struct Name {
    kind: String,
    lab: Option<String>,
    name: String,
    uid: Option<u32>,
    owner: Option<String>,
}

impl Name {
    fn is_in(&self, lab: &LabName) -> bool {
        self.lab.as_deref() == Some(lab.as_str())
    }
}

impl Names {
    fn ids(&self, is_meant: impl Fn(&Name) -> bool) -> BTreeSet<&String> {
        self.0.iter().filter(|(_, name)| is_meant(name)).map(|(id, _)| id).collect()
    }

    /// A person, and their vms.
    fn of_person(&self, login: &str) -> BTreeSet<&String> {
        let person = self.ids(|name| name.kind == "person" && name.name == login);
        let mut all = self.ids(|name| name.owner.as_ref().is_some_and(|owner| person.contains(owner)));
        all.extend(person);
        all
    }

    /// A person's vms, by lab and name.
    pub(super) fn vms_of(&self, login: &str) -> BTreeSet<(String, String)> {
        let person = self.ids(|name| name.kind == "person" && name.name == login);
        let owned = self.0.values().filter(|name| name.owner.as_ref().is_some_and(|owner| person.contains(owner)));
        owned.filter_map(|name| Some((name.lab.clone()?, name.name.clone()))).collect()
    }

    /// What each id stands for.
    pub(super) fn plain(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(id, name)| (id.clone(), name.name.clone())).collect()
    }

    fn someone(&self, id: String) -> Someone {
        let known = self.0.get(&id);
        Someone { login: known.map(|name| name.name.clone()), uid: known.and_then(|name| name.uid), id }
    }

    fn about(&self, part: AboutId) -> About {
        match part {
            AboutId::Person(id) => About::Person(self.someone(id)),
            AboutId::Vm(id) => {
                let known = self.0.get(&id);
                let owner = known.and_then(|name| self.0.get(name.owner.as_ref()?)).map(|owner| owner.name.clone());
                About::Vm { name: known.map(|name| name.name.clone()), owner, id }
            }
            AboutId::Thing(address) => About::Thing(address),
        }
    }
}

/// A row, still without names. What a newer program wrote in a form of its own is shown as far as it is understood.
struct Written {
    id: i64,
    at: String,
    lab: Option<String>,
    actor: String,
    behind: Option<String>,
    via: Via,
    asked: Asked,
    about: Vec<AboutId>,
    verdict: Verdict,
    apply: Option<i64>,
    outcome: Option<String>,
}

impl Written {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let text = |column| row.get::<_, String>(column);
        Ok(Self {
            id: row.get(0)?,
            at: row.get(1)?,
            lab: row.get(2)?,
            actor: row.get(3)?,
            behind: row.get(4)?,
            via: serde_json::from_value(text(5)?.into()).unwrap_or(Via::Other),
            asked: serde_json::from_str(&text(6)?).unwrap_or_default(),
            about: serde_json::from_str(&text(7)?).unwrap_or_default(),
            verdict: serde_json::from_str(&text(8)?).unwrap_or(Verdict::Other),
            apply: row.get(9)?,
            outcome: row.get(10)?,
        })
    }

    fn is_about(&self, meant: &BTreeSet<&String>) -> bool {
        let is_part = |part: &AboutId| match part {
            AboutId::Person(id) | AboutId::Vm(id) => meant.contains(id),
            AboutId::Thing(_) => false,
        };
        meant.contains(&self.actor)
            || self.behind.as_ref().is_some_and(|id| meant.contains(id))
            || self.about.iter().any(is_part)
    }

    fn named(self, names: &Names) -> PastAct {
        let Self { id, at, lab, actor, behind, via, asked, about, verdict, apply, outcome } = self;
        PastAct {
            id,
            at,
            lab,
            who: names.someone(actor),
            behind: behind.map(|id| names.someone(id)),
            via,
            asked,
            about: about.into_iter().map(|part| names.about(part)).collect(),
            verdict,
            apply,
            outcome,
        }
    }
}
