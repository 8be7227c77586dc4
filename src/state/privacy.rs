//! One person in the state: their runs and what they asked for, to be shown to them; and how they are forgotten. What was done
//! stays, by somebody whom nobody can name any more.

use std::collections::BTreeSet;

use rusqlite::{Transaction, params};

use super::audit::through_gate;
use super::{OldRun, PastClaim, StateError, Store};
use crate::model::id::{LabName, UserName};

/// Stands where a word was that somebody typed and that named them.
const ERASED: &str = "(erased)";

/// A vm by its lab and its name.
type VmKey = (String, String);

/// What was left of somebody when they were forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Nothing,
    /// The state's log, which others read just now, holds what was deleted.
    InLog,
}

impl Store {
    /// Vms that are or were somebody's, as far as that was ever written down, also those that are long gone.
    pub fn vms_ever_of(&self, user: &UserName) -> Result<BTreeSet<(String, String)>, StateError> {
        let mut vms = self.audit_names()?.vms_of(user.as_str());
        let rows = |query: &str| -> Result<Vec<VmKey>, StateError> {
            self.list("look for somebody's vms", query, [user.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        };
        vms.extend(rows("SELECT lab, name FROM vms WHERE json_extract(body, '$.owner') = ?1")?);
        vms.extend(rows("SELECT lab, vm FROM disks WHERE owner = ?1")?);
        vms.extend(rows("SELECT lab, name FROM claims WHERE kind = 'vm' AND json_extract(body, '$.owner') = ?1")?);
        // Of before owners were kept: a name of nobody else's that has theirs as a word.
        let unowned = self.list(
            "look for somebody's vms",
            "SELECT DISTINCT a.lab, substr(j.address, 4) FROM journal j JOIN applies a ON a.id = j.apply
             WHERE j.address LIKE 'vm/%' UNION SELECT lab, vm FROM runs
             UNION SELECT lab, name FROM claims WHERE kind IN ('power', 'vm')",
            [],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
        )?;
        let owned = self.vms_of_others(user)?;
        vms.extend(unowned.into_iter().filter(|vm| mentions(&vm.1, user.as_str()) && !owned.contains(vm)));
        Ok(vms)
    }

    fn vms_of_others(&self, user: &UserName) -> Result<BTreeSet<VmKey>, StateError> {
        let query = "SELECT lab, name FROM vms WHERE json_extract(body, '$.owner') <> ?1
                     UNION SELECT v.lab, v.name FROM audit_names v JOIN audit_names p ON p.id = v.owner
                     WHERE v.lab IS NOT NULL AND p.name <> ?1";
        let vms = self.list("look for others' vms", query, [user.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(vms.into_iter().collect())
    }

    /// Runs of a vm that are over.
    pub fn ended_runs_of(&self, lab: &LabName, vm: &str) -> Result<Vec<OldRun>, StateError> {
        let query = "SELECT run, vm, batch, task, job FROM runs WHERE lab = ?1 AND vm = ?2 AND state = 'ended'";
        let mut statement = self.connection.prepare(query).map_err(|source| self.sql("read the runs", source))?;
        let mut rows =
            statement.query(params![lab.as_str(), vm]).map_err(|source| self.sql("read the runs", source))?;
        let mut runs = Vec::new();
        while let Some(row) = rows.next().map_err(|source| self.sql("read the runs", source))? {
            runs.push(self.old_run(row)?);
        }
        Ok(runs)
    }

    /// All claims in a lab, standing or over.
    pub fn all_claims(&self, lab: &LabName) -> Result<Vec<PastClaim>, StateError> {
        let query = format!("SELECT {} FROM claims WHERE lab = ?1 ORDER BY id", PastClaim::COLUMNS);
        self.list("read the claims", &query, [lab.as_str()], PastClaim::read)
    }

    /// Forgets somebody who has nothing left in any lab; their vms of once are named too. The file is written anew, so that no
    /// page of it holds what was deleted.
    pub fn erase(&mut self, user: &UserName, vms: &BTreeSet<(String, String)>) -> Result<Left, StateError> {
        let deletes = self.connection.execute_batch("PRAGMA secure_delete = ON");
        deletes.map_err(|source| self.sql("see to it that what is deleted is gone", source))?;
        self.transact("forget somebody", |transaction| {
            let alias: String =
                transaction.query_row("SELECT 'erased-' || lower(hex(randomblob(8)))", [], |row| row.get(0))?;
            let erased = Erased { transaction, user: user.as_str(), vms, alias };
            erased.claims()?;
            erased.history()?;
            erased.runs()?;
            erased.freezes()?;
            transaction.execute("DELETE FROM roster WHERE user = ?1", [user.as_str()])?;
            through_gate(transaction, "privacy", |_| erased.names())
        })?;
        let written = self.connection.execute_batch("VACUUM");
        written.map_err(|source| self.sql("write the state anew", source))?;
        let is_busy: bool = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(|source| self.sql("empty the state's log", source))?;
        Ok(if is_busy { Left::InLog } else { Left::Nothing })
    }
}

/// Somebody on their way out.
struct Erased<'t> {
    transaction: &'t Transaction<'t>,
    user: &'t str,
    vms: &'t BTreeSet<VmKey>,
    /// What stands for them in the history from now on.
    alias: String,
}

impl Erased<'_> {
    fn claims(&self) -> rusqlite::Result<()> {
        for (lab, vm) in self.vms {
            self.transaction.execute("DELETE FROM claims WHERE lab = ?1 AND name = ?2", params![lab, vm])?;
        }
        self.replace_by("claims", "by", |text| (text == self.user).then(|| self.alias.clone()))?;
        self.replace_by("claims", "ended", |text| self.without(text))?;
        // What others need stays.
        self.transaction.execute(
            "UPDATE claims SET body = json_remove(body, '$.people.\"' || ?1 || '\"') WHERE kind = 'accommodation'",
            [self.user],
        )?;
        let mut about = self.transaction.prepare("SELECT id, name, body FROM claims")?;
        let rows = about.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let rows: Vec<(i64, String, String)> = rows.collect::<Result<_, _>>()?;
        for (id, ..) in rows.iter().filter(|(_, name, body)| self.is_named_in(name) || self.is_named_in(body)) {
            self.transaction.execute("DELETE FROM claims WHERE id = ?1", [id])?;
        }
        Ok(())
    }

    fn history(&self) -> rusqlite::Result<()> {
        self.replace_by("applies", "who", |text| (text == self.user).then(|| self.alias.clone()))?;
        for column in ["command", "summary"] {
            self.replace_by("applies", column, |text| self.without_names(text))?;
        }
        self.replace_by("applies", "outcome", |text| self.without(text))?;
        self.replace_by("journal", "detail", |text| self.without(text))?;
        for (lab, vm) in self.vms {
            self.transaction.execute(
                "UPDATE journal SET address = 'vm/' || ?3 WHERE address = 'vm/' || ?2
                 AND apply IN (SELECT id FROM applies WHERE lab = ?1)",
                params![lab, vm, self.alias],
            )?;
        }
        let address = |text: &str| match text.split_once('/')? {
            ("user", name) if name == self.user => Some(format!("user/{}", self.alias)),
            ("permission", name) if self.is_named_in(name) => Some(format!("permission/{}", self.alias)),
            _ => None,
        };
        self.replace_by("journal", "address", address)
    }

    fn runs(&self) -> rusqlite::Result<()> {
        for (lab, vm) in self.vms {
            let query = "DELETE FROM runs WHERE lab = ?1 AND vm = ?2 AND state = 'ended'";
            self.transaction.execute(query, params![lab, vm])?;
        }
        Ok(())
    }

    fn freezes(&self) -> rusqlite::Result<()> {
        let note = |text: &str| {
            let mut note: serde_json::Value = serde_json::from_str(text).ok().filter(|_| self.is_named_in(text))?;
            note["who"] = self.alias.clone().into();
            note["why"] = ERASED.into();
            Some(note.to_string())
        };
        self.replace_by("labs", "frozen", note)?;
        self.replace_by("site", "frozen", note)
    }

    fn names(&self) -> rusqlite::Result<()> {
        self.transaction.execute(
            "DELETE FROM audit_names WHERE kind = 'vm'
             AND owner IN (SELECT id FROM audit_names WHERE kind = 'person' AND name = ?1)",
            [self.user],
        )?;
        for (lab, vm) in self.vms {
            let query = "DELETE FROM audit_names WHERE kind = 'vm' AND lab = ?1 AND name = ?2";
            self.transaction.execute(query, params![lab, vm])?;
        }
        self.transaction.execute("DELETE FROM audit_names WHERE kind = 'person' AND name = ?1", [self.user]).map(drop)
    }

    fn without(&self, text: &str) -> Option<String> {
        self.is_named_in(text).then(|| ERASED.to_owned())
    }

    /// A command as it was typed, without the words that name them.
    fn without_names(&self, text: &str) -> Option<String> {
        let word = |word: &str| if self.is_named_in(word) { ERASED.to_owned() } else { word.to_owned() };
        let text = self.is_named_in(text).then(|| text.split(' ').map(word).collect::<Vec<_>>().join(" "))?;
        // A name of several words is no name of ours, but somebody may have typed one.
        Some(if self.is_named_in(&text) { ERASED.to_owned() } else { text })
    }

    /// They, or a vm of theirs.
    fn is_named_in(&self, text: &str) -> bool {
        mentions(text, self.user) || self.vms.iter().any(|(_, vm)| mentions(text, vm))
    }

    /// Writes another text into each row where `other` has one.
    fn replace_by(&self, table: &str, column: &str, other: impl Fn(&str) -> Option<String>) -> rusqlite::Result<()> {
        let query = format!("SELECT DISTINCT \"{column}\" FROM {table} WHERE \"{column}\" IS NOT NULL");
        let mut texts = self.transaction.prepare(&query)?;
        let texts: Vec<String> = texts.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let update = format!("UPDATE {table} SET \"{column}\" = ?2 WHERE \"{column}\" = ?1");
        for (text, other) in texts.iter().filter_map(|text| Some((text, other(text)?))) {
            self.transaction.execute(&update, params![text, other])?;
        }
        Ok(())
    }
}

/// Whether a name stands in a text as a word of its own: `ada` in `vm stop ada-work`, and not in `adam`.
fn mentions(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::mentions;

    #[test]
    fn a_name_is_a_word() {
        for text in ["ada", "ada-work", "ada/mine", "vm stop 'ada'", "user:ada,vm:x", "x=ada"] {
            assert!(mentions(text, "ada"), "{text}");
        }
        for text in ["adam", "xada", "ada_b", "", "canada-work"] {
            assert!(!mentions(text, "ada"), "{text}");
        }
    }
}
