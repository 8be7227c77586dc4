//! What a roster says of people besides their accounts: their names and numbers, for those who must tell who sits there. They are
//! part of no plan, and stay as long as the lab has the person.
//!
//! ```text
//! roster     lab, user ─ name, student_id, as the lab's rosters last had them
//! ```

use std::collections::BTreeMap;

use rusqlite::{Transaction, params};

use super::{StateError, Store};
use crate::model::id::{LabName, UserName};
use crate::model::lab::Particulars;

/// `MIGRATIONS[7]` of the tables.
pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS roster (
        lab TEXT NOT NULL, user TEXT NOT NULL, name TEXT, student_id TEXT, PRIMARY KEY (lab, user)
    ) STRICT, WITHOUT ROWID;
";

impl Store {
    /// Of everybody whom the lab's rosters name.
    pub fn particulars(&self, lab: &LabName) -> Result<BTreeMap<UserName, Particulars>, StateError> {
        let query = "SELECT user, name, student_id FROM roster WHERE lab = ?1";
        let rows = self.list("read the rosters", query, [lab.as_str()], |row| {
            Ok((row.get::<_, String>(0)?, Particulars { name: row.get(1)?, student_id: row.get(2)? }))
        })?;
        let valid = |(user, of): (String, Particulars)| {
            UserName::new(user).map(|user| (user, of)).map_err(|invalid| self.damaged(invalid.to_string()))
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
                "INSERT INTO roster (lab, user, name, student_id) SELECT ?1, ?2, ?3, ?4
                 WHERE EXISTS (SELECT 1 FROM objects WHERE lab = ?1 AND kind = 'user' AND name = ?2)",
            )?;
            people.iter().try_for_each(|(user, Particulars { name, student_id })| {
                insert.execute(params![lab, user.as_str(), name, student_id]).map(drop)
            })
        })
    }
}

/// Somebody has left the lab.
pub(super) fn forget(transaction: &Transaction<'_>, lab: &str, user: &str) -> rusqlite::Result<()> {
    transaction.prepare_cached("DELETE FROM roster WHERE lab = ?1 AND user = ?2")?.execute(params![lab, user]).map(drop)
}
