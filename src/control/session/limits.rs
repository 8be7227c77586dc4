//! How late somebody's time may end at most, and what is in the way then.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Held;
use crate::model::id::{SessionName, UserName, VmName};
use crate::model::lab::Session;

/// What is in the way of a later end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InTheWay {
    /// The session's own latest end.
    LatestEnd,
    /// Another session has the vm from then on.
    Session(SessionName),
}

impl Held<'_> {
    /// The latest ends that somebody may have whose time is over at `end` by now.
    pub(super) fn bounds(&self, user: &UserName, end: Timestamp) -> Vec<(Timestamp, InTheWay)> {
        let is_theirs = |vm: &VmName| self.lab.vms.get(vm).is_some_and(|vm| vm.owner == *user);
        let shares = |other: &Session| self.session.vms.intersection(&other.vms).any(is_theirs);
        let others = self.lab.sessions.iter().filter(|(name, _)| *name != self.name);
        let next = others.filter(|(_, other)| other.opens() >= end && shares(other));
        let next = next.map(|(name, other)| (other.opens(), InTheWay::Session(name.clone())));
        let latest = self.session.latest_end_of(user).map(|latest| (latest, InTheWay::LatestEnd));
        next.chain(latest).collect()
    }
}
