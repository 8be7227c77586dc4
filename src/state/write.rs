//! Intents and outcomes in: every outside effect is journalled before and after, each batch in one transaction.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Transaction, params};

use super::aside::remember;
use super::{Entry, RecordedDisk, StateError, Store, TemplateVersion, audit, chain, claims};
use crate::model::address::Address;
use crate::model::audit::Act;
use crate::model::claim::{ClaimBody, ClaimId};
use crate::model::id::{LabName, RunId, TemplateName, VmName};
use crate::model::job::JobId;
use crate::run::{BatchId, StopReason};

/// One apply in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplyId(pub i64);

/// One line of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalId(pub i64);

/// Who applies what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyInfo {
    pub folder: PathBuf,
    pub who: String,
    pub host: String,
    /// As it was typed.
    pub command: String,
    /// Git commit of the lab's folder, `+` behind it where the folder has changes.
    pub commit: Option<String>,
    pub summary: String,
    /// For the audit, with what it is about besides that which the apply works on; `None`: it is there already.
    pub act: Option<Act>,
    /// The same of several people who asked together, each about their own.
    pub acts: Vec<Act>,
}

/// An effect that is about to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub address: Address,
    pub effect: &'static str,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Failed { detail: String },
}

impl Outcome {
    fn words(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Done => ("done", None),
            Self::Failed { detail } => ("failed", Some(detail)),
        }
    }
}

/// One change of what is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// What a plan has recorded for its own sake.
    Entry(Entry),
    PutVersion {
        template: TemplateName,
        version: u32,
        content: TemplateVersion,
    },
    /// Its disks are deleted.
    DropVersion {
        template: TemplateName,
        version: u32,
    },
    PutDisk {
        vm: VmName,
        disk: RecordedDisk,
    },
    /// A disk is about to be moved; until `Aside` follows, it may be here or there.
    Asiding {
        path: PathBuf,
        to: PathBuf,
    },
    Aside {
        path: PathBuf,
        aside: PathBuf,
    },
    /// A disk that was set aside is about to be moved back; until `Returned` follows, it may be here or there.
    Returning {
        path: PathBuf,
        to: PathBuf,
    },
    /// A disk is where it was before it was set aside. Where its vm is not recorded, it waits for it.
    Returned {
        path: PathBuf,
        to: PathBuf,
    },
    /// A disk that is no longer there.
    DropDisk {
        path: PathBuf,
    },
    /// A disk that was deleted where it was set aside.
    Purged {
        path: PathBuf,
    },
    /// A disk that waits for a vm which is not recorded yet.
    PutWaiting {
        vm: VmName,
        owner: String,
        disk: RecordedDisk,
    },
    /// A run about to be submitted; raises the vm's generation and the site's run counter.
    PutRun {
        run: RunId,
        vm: VmName,
        generation: u64,
        batch: BatchId,
        task: u32,
        started: String,
    },
    /// A run's guest is about to begin anew, with other disks.
    BeginsWith {
        run: RunId,
        started: String,
    },
    Submitted {
        run: RunId,
        job: JobId,
    },
    /// Runs below this number exist, although no record knows them all.
    NextRun {
        at_least: u64,
    },
    /// `None`: gone without a word.
    Ended {
        run: RunId,
        reason: Option<StopReason>,
    },
    /// Somebody asked for something by command.
    PutClaim {
        name: String,
        body: ClaimBody,
        by: String,
    },
    EndClaim {
        id: ClaimId,
        why: String,
    },
}

impl From<Entry> for Change {
    fn from(entry: Entry) -> Self {
        Self::Entry(entry)
    }
}

impl Store {
    /// What was done beside any plan: what running guests were asked for, a freeze. It needs no lock and overtakes no apply.
    pub fn note(
        &mut self,
        lab: &LabName,
        info: &ApplyInfo,
        effects: &[(Intent, Outcome)],
        now: jiff::Timestamp,
    ) -> Result<(), StateError> {
        self.note_and_record(lab, info, effects, &[], now)
    }

    /// The same, with what is recorded of it: both are there, or neither.
    pub fn note_and_record(
        &mut self,
        lab: &LabName,
        info: &ApplyInfo,
        effects: &[(Intent, Outcome)],
        changes: &[Change],
        now: jiff::Timestamp,
    ) -> Result<(), StateError> {
        let at = now;
        let failed = effects.iter().filter(|(_, outcome)| *outcome != Outcome::Done).count();
        let outcome = format!("{} done, {failed} failed, 0 skipped", effects.len() - failed);
        let ApplyInfo { who, host, command, commit, summary, .. } = info;
        let (name, lab, now) = (lab, lab.as_str(), now.to_string());
        let addresses = effects.iter().map(|(intent, _)| &intent.address);
        let act = info.act.as_ref().map(|act| act.about_also(addresses));
        self.transact("write the history", |transaction| {
            transaction.execute(
                "INSERT INTO applies (lab, who, host, command, \"commit\", summary, began_at, ended_at, outcome, beside)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, 1)",
                params![lab, who, host, command, commit, summary, now, outcome],
            )?;
            let id = transaction.last_insert_rowid();
            if let Some(act) = &act {
                audit::write(transaction, Some(name), act, Some(id), &now)?;
            }
            write_changes(transaction, name, changes, at)?;
            let mut insert = transaction.prepare_cached(
                "INSERT INTO journal (apply, address, effect, intended_at, outcome, detail, ended_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?4)",
            )?;
            effects.iter().try_for_each(|(Intent { address, effect }, outcome)| {
                let (word, detail) = outcome.words();
                insert.execute(params![id, address.to_string(), effect, now, word, detail]).map(drop)
            })
        })
    }

    /// Writes down effects before they happen, and what must be known of them even if we die in the middle.
    pub fn intend(
        &mut self,
        lab: &LabName,
        apply: ApplyId,
        intents: &[Intent],
        changes: &[Change],
        now: jiff::Timestamp,
    ) -> Result<Vec<JournalId>, StateError> {
        self.transact_as(apply, "write the journal", |transaction| {
            write_changes(transaction, lab, changes, now)?;
            let mut insert = transaction
                .prepare_cached("INSERT INTO journal (apply, address, effect, intended_at) VALUES (?1, ?2, ?3, ?4)")?;
            intents
                .iter()
                .map(|intent| {
                    insert.execute(params![apply.0, intent.address.to_string(), intent.effect, now.to_string()])?;
                    Ok(JournalId(transaction.last_insert_rowid()))
                })
                .collect()
        })
    }

    /// Writes down how effects ended, and what is recorded from now on.
    pub fn settle(
        &mut self,
        lab: &LabName,
        apply: ApplyId,
        outcomes: &[(JournalId, Outcome)],
        changes: &[Change],
        now: jiff::Timestamp,
    ) -> Result<(), StateError> {
        self.settle_and_let_go(lab, apply, outcomes, changes, &[], now)
    }

    /// The same, where nothing more is to be done to some of the things that the apply holds.
    pub fn settle_and_let_go(
        &mut self,
        lab: &LabName,
        apply: ApplyId,
        outcomes: &[(JournalId, Outcome)],
        changes: &[Change],
        done: &[Address],
        now: jiff::Timestamp,
    ) -> Result<(), StateError> {
        self.transact_as(apply, "write the outcome", |transaction| {
            write_changes(transaction, lab, changes, now)?;
            let mut update = transaction
                .prepare_cached("UPDATE journal SET outcome = ?2, detail = ?3, ended_at = ?4 WHERE id = ?1")?;
            for (id, outcome) in outcomes {
                let (word, detail) = outcome.words();
                update.execute(params![id.0, word, detail, now.to_string()])?;
            }
            let mut let_go =
                transaction.prepare_cached("DELETE FROM holds WHERE lab = ?1 AND address = ?2 AND apply = ?3")?;
            done.iter()
                .try_for_each(|address| let_go.execute(params![lab.as_str(), address.to_string(), apply.0]).map(drop))
        })
    }

    /// Writes down what is recorded from now on, outside of any apply.
    pub fn record(&mut self, lab: &LabName, changes: &[Change], now: jiff::Timestamp) -> Result<(), StateError> {
        self.transact("record the change", |transaction| write_changes(transaction, lab, changes, now))
    }

    pub(super) fn transact<T>(
        &mut self,
        action: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        self.transact_checked(action, |transaction| Ok(work(transaction)?))
    }

    /// A transaction that may find that it must not be done; then nothing of it is.
    pub(super) fn transact_checked<T>(
        &mut self,
        action: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Broken>,
    ) -> Result<T, StateError> {
        self.refuse_replaced()?;
        let run = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run(&mut self.connection).map_err(|broken| match broken {
            Broken::Sql(source) => self.sql(action, source),
            Broken::State(error) => error,
        })
    }
}

/// Why a transaction was not carried out.
pub(super) enum Broken {
    Sql(rusqlite::Error),
    State(StateError),
}

impl From<rusqlite::Error> for Broken {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StateError> for Broken {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

fn write_changes(
    transaction: &Transaction<'_>,
    lab: &LabName,
    changes: &[Change],
    now: jiff::Timestamp,
) -> rusqlite::Result<()> {
    let (exams, at) = (chain::Exams::default(), now.to_string());
    for change in changes {
        let told = chain::Told::of(transaction, lab, change)?;
        write_change(transaction, lab.as_str(), change, &at)?;
        told.map_or(Ok(()), |told| told.write(transaction, lab, &exams, &at))?;
    }
    if !changes.is_empty() {
        transaction.execute("UPDATE labs SET serial = serial + 1 WHERE lab = ?1", [lab.as_str()])?;
    }
    Ok(())
}

fn write_change(transaction: &Transaction<'_>, lab: &str, change: &Change, now: &str) -> rusqlite::Result<()> {
    let execute = |sql, parameters: &[&dyn rusqlite::ToSql]| execute(transaction, sql, parameters);
    match change {
        Change::Entry(entry) => entry.write(transaction, lab, now),
        Change::PutVersion { template, version, content } => {
            put_version(transaction, lab, (template, *version, content), now)
        }
        Change::DropVersion { template, version } => execute(
            "DELETE FROM versions WHERE lab = ?1 AND template = ?2 AND version = ?3",
            params![lab, template.as_str(), version],
        ),
        Change::PutDisk { vm, disk } => put_disk(transaction, "INSERT OR REPLACE", (lab, vm, disk), None),
        Change::PutWaiting { vm, owner, disk } => put_disk(transaction, "INSERT", (lab, vm, disk), Some(owner)),
        Change::Aside { path, aside } => execute(
            "UPDATE disks SET path = ?2, aside = ?1, aside_at = ?3, moving_to = NULL, made = 1,
                    owner = COALESCE((SELECT json_extract(body, '$.owner') FROM vms WHERE vms.lab = disks.lab AND name = vm), owner)
             WHERE path = ?1",
            params![text(path), text(aside), now],
        ),
        Change::Asiding { path, to } => {
            execute("UPDATE disks SET moving_to = ?2 WHERE path = ?1", params![text(path), text(to)])
        }
        Change::Returning { path, to } => want_back(transaction, path, to),
        Change::Returned { path, to } => execute(
            "UPDATE disks SET path = ?2, aside = NULL, aside_at = NULL, moving_to = NULL,
                    owner = IIF(EXISTS (SELECT 1 FROM vms WHERE vms.lab = disks.lab AND name = vm), NULL, COALESCE(owner, ''))
             WHERE path = ?1",
            params![text(path), text(to)],
        ),
        Change::DropDisk { path } => execute("DELETE FROM disks WHERE path = ?1 AND aside IS NULL", params![text(path)]),
        Change::Purged { path } => {
            execute("DELETE FROM disks WHERE path = ?1 AND aside IS NOT NULL", params![text(path)])
        }
        Change::PutRun { run, vm, generation, batch, task, started } => {
            execute(
                "INSERT INTO runs (run, lab, vm, generation, batch, task, started, state, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'intended', ?8)",
                params![run.to_string(), lab, vm.as_str(), generation, batch.to_string(), task, started, now],
            )?;
            count_run(transaction, lab, (vm, *generation, run))
        }
        Change::BeginsWith { run, started } => {
            execute("UPDATE runs SET started = ?2 WHERE run = ?1", params![run.to_string(), started])
        }
        Change::Submitted { run, job } => {
            execute("UPDATE runs SET state = 'submitted', job = ?2 WHERE run = ?1", params![run.to_string(), job.0])
        }
        Change::NextRun { at_least } => {
            execute("UPDATE site SET next_run = MAX(next_run, ?1)", params![at_least])
        }
        Change::Ended { run, reason } => execute(
            "UPDATE runs SET state = 'ended', reason = ?2, ended_at = ?3 WHERE run = ?1",
            params![run.to_string(), reason.as_ref().map(to_json), now],
        ),
        Change::PutClaim { name, body, by } => claims::put(transaction, lab, (name, body, by), now),
        Change::EndClaim { id, why } => claims::end(transaction, lab, *id, why, now),
    }
}

/// `owner`: of one whose vm is yet to come.
fn put_disk(
    transaction: &Transaction<'_>,
    insert: &str,
    (lab, vm, disk): (&str, &VmName, &RecordedDisk),
    owner: Option<&String>,
) -> rusqlite::Result<()> {
    let RecordedDisk { slot, path, base, made, moving_to: _, image, instance } = disk;
    let sql = format!(
        "{insert} INTO disks (path, lab, vm, slot, base, made, image, instance, owner)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
    );
    let base = base.as_deref().map(text);
    execute(transaction, &sql, params![text(path), lab, vm.as_str(), slot, base, made, image, instance, owner])
}

fn put_version(
    transaction: &Transaction<'_>,
    lab: &str,
    (template, version, content): (&TemplateName, u32, &TemplateVersion),
    now: &str,
) -> rusqlite::Result<()> {
    execute(
        transaction,
        "INSERT OR REPLACE INTO versions (lab, template, version, disks, published_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![lab, template.as_str(), version, to_json(&content.disks), now],
    )?;
    content.disks.iter().try_for_each(|disk| remember(transaction, &disk.source, &disk.digest()))
}

/// A run that was put is its vm's latest, and its number is never given out again.
fn count_run(
    transaction: &Transaction<'_>,
    lab: &str,
    (vm, generation, run): (&VmName, u64, &RunId),
) -> rusqlite::Result<()> {
    execute(
        transaction,
        "UPDATE vms SET generation = ?3, run = ?4 WHERE lab = ?1 AND name = ?2",
        params![lab, vm.as_str(), generation, run.to_string()],
    )?;
    execute(transaction, "UPDATE site SET next_run = MAX(next_run, ?1)", params![run.number() + 1])
}

/// From now on a disk that was set aside may be there or at `to`.
pub(super) fn want_back(transaction: &Transaction<'_>, path: &Path, to: &Path) -> rusqlite::Result<()> {
    let sql = "UPDATE disks SET moving_to = ?2 WHERE path = ?1 AND aside IS NOT NULL";
    execute(transaction, sql, params![text(path), text(to)])
}

pub(super) fn execute(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: &[&dyn rusqlite::ToSql],
) -> rusqlite::Result<()> {
    transaction.prepare_cached(sql)?.execute(parameters).map(drop)
}

fn text(path: &Path) -> std::borrow::Cow<'_, str> {
    path.to_string_lossy()
}

pub(super) fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("what is recorded has only string keys")
}
