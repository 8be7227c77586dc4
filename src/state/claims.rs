//! Claims in and out: those that stand, as values; and all that there ever were, for people. One that ends is kept, with the
//! reason, until the site's history is over.

use rusqlite::{Row, Transaction, params};
use serde::Serialize;

use super::read::Reader;
use super::{StateError, Store};
use crate::model::claim::{AccommodatedBy, Claim, ClaimBody, ClaimId};
use crate::model::id::LabName;

/// A claim, standing or over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastClaim {
    pub id: i64,
    pub kind: String,
    pub name: String,
    pub body: String,
    pub by: String,
    pub at: String,
    pub ended_at: Option<String>,
    /// Why it ended.
    pub ended: Option<String>,
}

impl PastClaim {
    pub(super) const COLUMNS: &str = "id, kind, name, body, \"by\", at, ended_at, ended";

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            kind: row.get(1)?,
            name: row.get(2)?,
            body: row.get(3)?,
            by: row.get(4)?,
            at: row.get(5)?,
            ended_at: row.get(6)?,
            ended: row.get(7)?,
        })
    }
}

impl Reader<'_> {
    /// Those that stand, oldest first.
    pub(super) fn claims(&self, transaction: &Transaction<'_>) -> Result<Vec<Claim>, StateError> {
        let query =
            format!("SELECT {} FROM claims WHERE lab = ?1 AND ended_at IS NULL ORDER BY id", PastClaim::COLUMNS);
        let rows = self.rows(transaction, &query, PastClaim::read)?;
        rows.into_iter()
            .map(|row| {
                let body = ClaimBody::read(&row.kind, &row.body);
                let body = body.map_err(|source| self.row(format!("claim {}", row.id), source))?;
                Ok(Claim { id: ClaimId(row.id), name: row.name, body, by: row.by, at: self.valid(row.at.parse())? })
            })
            .collect()
    }
}

impl Store {
    /// The latest claims on one thing, standing or over, newest first.
    pub fn claims_on(&self, lab: &LabName, name: &str, most: u32) -> Result<Vec<PastClaim>, StateError> {
        let query =
            format!("SELECT {} FROM claims WHERE lab = ?1 AND name = ?2 ORDER BY id DESC LIMIT ?3", PastClaim::COLUMNS);
        self.list("read the claims", &query, params![lab.as_str(), name, most], PastClaim::read)
    }
}

/// A new claim. Of power there is one on each vm, and of a session's file one: the one before ends.
pub(super) fn put(
    transaction: &Transaction<'_>,
    lab: &str,
    (name, body, by): (&str, &ClaimBody, &str),
    now: &str,
) -> rusqlite::Result<()> {
    match body {
        ClaimBody::Power(_) => end_power(transaction, lab, name, "something else was asked for", now)?,
        ClaimBody::Accommodation(of) if of.by == AccommodatedBy::File => end_file(transaction, lab, name, now)?,
        _ => {}
    }
    transaction
        .prepare_cached("INSERT INTO claims (lab, kind, name, body, \"by\", at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![lab, body.kind(), name, body.text(), by, now])
        .map(|_| ())
}

pub(super) fn end(transaction: &Transaction<'_>, lab: &str, id: ClaimId, why: &str, now: &str) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE claims SET ended_at = ?4, ended = ?3 WHERE lab = ?1 AND id = ?2 AND ended_at IS NULL")?
        .execute(params![lab, id.0, why, now])
        .map(|_| ())
}

fn end_file(transaction: &Transaction<'_>, lab: &str, session: &str, now: &str) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "UPDATE claims SET ended_at = ?3, ended = 'the file says something else' WHERE lab = ?1 AND name = ?2
             AND kind = 'accommodation' AND json_extract(body, '$.by') = 'file' AND ended_at IS NULL",
        )?
        .execute(params![lab, session, now])
        .map(drop)
}

/// Ends what is wanted of a vm's power, if anything is.
pub(super) fn end_power(
    transaction: &Transaction<'_>,
    lab: &str,
    vm: &str,
    why: &str,
    now: &str,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "UPDATE claims SET ended_at = ?4, ended = ?3
             WHERE lab = ?1 AND name = ?2 AND kind = 'power' AND ended_at IS NULL",
        )?
        .execute(params![lab, vm, why, now])
        .map(|_| ())
}

/// A vm's claims go with it under its new name. One that waits there for a vm that never came ends, if another comes.
pub(super) fn rename(
    transaction: &Transaction<'_>,
    lab: &str,
    from: &str,
    to: &str,
    now: &str,
) -> rusqlite::Result<()> {
    let standing: bool = transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM claims WHERE lab = ?1 AND name = ?2 AND kind = 'power' AND ended_at IS NULL)",
        )?
        .query_row(params![lab, from], |row| row.get(0))?;
    if standing {
        end_power(transaction, lab, to, &format!("`{from}` took the name"), now)?;
    }
    transaction
        .prepare_cached("UPDATE claims SET name = ?3 WHERE lab = ?1 AND name = ?2 AND kind IN ('power', 'hold')")?
        .execute(params![lab, from, to])
        .map(|_| ())
}
