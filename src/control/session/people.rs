//! Who takes part in a session, and how they stand at this moment.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::view::{Moment, View};
use super::{ControlError, session_of};
use crate::model::id::{SessionName, UserName, VmName};

/// Somebody who takes part.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Sitter {
    /// Who takes part.
    pub user: UserName,
    /// With which vms.
    pub vms: Vec<VmName>,
    /// How their time stands.
    pub state: Sitting,
    /// When their time begins.
    pub start: Moment,
    /// When it ends; none while it stands still.
    pub end: Option<Moment>,
    /// How much of it is left, of a time that runs.
    pub left_seconds: Option<u64>,
}

/// How somebody's time stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sitting {
    /// It has not begun.
    Waiting,
    /// It runs.
    Working,
    /// It stands still.
    Paused,
    /// It is over.
    Over,
}

/// All who take part, by name; for those who may plan and apply the lab.
pub fn sitters(view: &View<'_>, name: &SessionName) -> Result<Vec<Sitter>, ControlError> {
    view.require_all()?;
    let lab = view.applied()?;
    let (session, now) = (session_of(&lab, name)?, Timestamp::now());
    let mut vms: BTreeMap<&UserName, Vec<VmName>> = BTreeMap::new();
    for vm in &session.vms {
        if let Some(known) = lab.vms.get(vm) {
            vms.entry(&known.owner).or_default().push(vm.clone());
        }
    }
    let sitter = |(user, vms): (&UserName, Vec<VmName>)| {
        let end = session.end_of(user);
        let state = match end {
            _ if now < session.start => Sitting::Waiting,
            None => Sitting::Paused,
            Some(end) if end <= now => Sitting::Over,
            Some(_) => Sitting::Working,
        };
        let left = end.filter(|_| state == Sitting::Working).map(|end| end.as_second() - now.as_second());
        let left_seconds = left.and_then(|left| u64::try_from(left).ok());
        let (start, end) = (session.start.into(), end.map(Moment::from));
        Sitter { user: user.clone(), vms, state, start, end, left_seconds }
    };
    Ok(vms.into_iter().map(sitter).collect())
}
