//! The record of a session: what happened in it, and whether it is still what was written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::ControlError;
use super::super::view::View;
use super::SessionError;
use crate::model::id::SessionName;
use crate::state::SessionRecord;

/// What a session's record was found to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verified {
    /// How many rows it has.
    pub rows: usize,
    /// Hash of the last one.
    pub head: String,
    /// How many of them came after the row of the hash that was named.
    pub since: usize,
}

/// Everything that is recorded of a session; for those who may plan and apply the lab. One that left the manifest has its record
/// still.
pub fn record(view: &View<'_>, name: &SessionName) -> Result<SessionRecord, ControlError> {
    view.require_all()?;
    let record = view.context.known_store()?.session_record(&view.desired.lab, name)?;
    if record.rows.is_empty() {
        super::session_of(&view.applied()?, name)?;
        return Err(SessionError::NoRecord { session: name.clone() }.into());
    }
    Ok(record)
}

/// Whether no row is another than when it was written, as far as the rows themselves tell, and one has the hash `head`, which
/// somebody wrote down.
pub fn verify(record: &SessionRecord, head: Option<&str>) -> Result<Verified, SessionError> {
    let session = || record.session.clone();
    if let Some(row) = record.wrong {
        return Err(SessionError::Rewritten { session: session(), row });
    }
    let rows = record.rows.len();
    let known = match head {
        None => Some(rows),
        Some(head) => record.rows.iter().position(|row| row.hash.eq_ignore_ascii_case(head)).map(|at| at + 1),
    };
    let known = known.ok_or_else(|| SessionError::OtherHead { session: session(), head: record.head.clone() })?;
    Ok(Verified { rows, head: record.head.clone(), since: rows - known })
}
