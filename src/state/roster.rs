//! What a roster says of people besides their accounts: their names and numbers, for those who must tell who sits there. They are
//! part of no plan, and stay as long as the lab has the person.
//!
//! ```text
//! roster     lab, user ─ name, student_id, candidate, as the lab's rosters last had them
//! ```

use std::collections::BTreeMap;

use rusqlite::{Transaction, params};

use super::{StateError, Store};
use crate::model::id::{Candidate, LabName, UserName};
use crate::model::lab::Particulars;

/// `MIGRATIONS[7]` of the tables.
pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS roster (
        lab TEXT NOT NULL, user TEXT NOT NULL, name TEXT, student_id TEXT, PRIMARY KEY (lab, user)
    ) STRICT, WITHOUT ROWID;
";

/// `MIGRATIONS[8]` of the tables.
pub(super) const CANDIDATE: &str = "ALTER TABLE roster ADD COLUMN candidate TEXT";

impl Store {
    /// Of everybody whom the lab's rosters name.
    pub fn particulars(&self, lab: &LabName) -> Result<BTreeMap<UserName, Particulars>, StateError> {
        let query = "SELECT user, name, student_id, candidate FROM roster WHERE lab = ?1";
        let rows = self.list("read the rosters", query, [lab.as_str()], |row| {
            let of = Particulars { name: row.get(1)?, student_id: row.get(2)?, candidate: None };
            Ok((row.get::<_, String>(0)?, of, row.get::<_, Option<String>>(3)?))
        })?;
        let valid = |(user, of, candidate): (String, Particulars, Option<String>)| {
            let candidate = candidate.map(Candidate::new).transpose();
            let valid = UserName::new(user).and_then(|user| Ok((user, Particulars { candidate: candidate?, ..of })));
            valid.map_err(|invalid| self.damaged(invalid.to_string()))
        };
        rows.into_iter().map(valid).collect()
    }

    /// Keeps what the rosters say now, of people who are recorded in the lab.
    pub fn keep_particulars(
        &mut self,
        lab: &LabName,
        people: &BTreeMap<UserName, Particulars>,
    ) -> Result<(), StateError> {
        if self.particulars(lab)? == *people {
            return Ok(());
        }
        let lab = lab.as_str();
        self.transact("keep what the rosters say", |transaction| {
            transaction.execute("DELETE FROM roster WHERE lab = ?1", [lab])?;
            let mut insert = transaction.prepare(
                "INSERT INTO roster (lab, user, name, student_id, candidate) SELECT ?1, ?2, ?3, ?4, ?5
                 WHERE EXISTS (SELECT 1 FROM objects WHERE lab = ?1 AND kind = 'user' AND name = ?2)",
            )?;
            people.iter().try_for_each(|(user, Particulars { name, student_id, candidate })| {
                let candidate = candidate.as_ref().map(Candidate::as_str);
                insert.execute(params![lab, user.as_str(), name, student_id, candidate]).map(drop)
            })
        })
    }
}

/// Somebody has left the lab.
pub(super) fn forget(transaction: &Transaction<'_>, lab: &str, user: &str) -> rusqlite::Result<()> {
    transaction.prepare_cached("DELETE FROM roster WHERE lab = ?1 AND user = ?2")?.execute(params![lab, user]).map(drop)
}
