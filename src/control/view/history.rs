//! Who applied what, and how it went.

use serde::Serialize;

use super::Moment;
use crate::control::{Context, ControlError};
use crate::model::id::LabName;
use crate::state::{AppliedEffect, PastApply, PastEffect};

/// One apply.
#[derive(Debug, Clone, Serialize)]
pub struct Apply {
    pub id: i64,
    pub lab: String,
    pub who: String,
    pub host: String,
    /// In the words of who asked; `None`: an older program did not keep it.
    pub command: Option<String>,
    pub commit: Option<String>,
    /// The lab's folder had changes that were not committed.
    pub dirty: bool,
    pub summary: String,
    pub began_at: Moment,
    pub ended_at: Option<Moment>,
    /// `None`: it never ended; its process was killed.
    pub outcome: Option<String>,
}

/// One effect of one apply.
#[derive(Debug, Clone, Serialize)]
pub struct Effect {
    pub when: Moment,
    pub apply: i64,
    /// What it was done to, as `kind/name`.
    pub address: String,
    pub effect: String,
    /// `None`: it was cut short.
    pub outcome: Option<String>,
    pub detail: Option<String>,
}

/// The latest applies of a lab, newest first.
pub fn history(context: &Context, lab: &LabName, most: u32) -> Result<Vec<Apply>, ControlError> {
    let Some(store) = context.store_if_any()? else { return Ok(Vec::new()) };
    Ok(store.history(lab, most)?.into_iter().map(Apply::from).collect())
}

/// All that one apply of a lab did, in its order.
pub fn effects_of(context: &Context, lab: &LabName, apply: i64) -> Result<Vec<Effect>, ControlError> {
    let unknown = || ControlError::UnknownApply { lab: lab.clone(), apply };
    let store = context.store_if_any()?.ok_or_else(unknown)?;
    store.past_apply(lab, apply)?.ok_or_else(unknown)?;
    Ok(store.effects_of(lab, apply)?.into_iter().map(|effect| Effect::of_apply(effect, apply)).collect())
}

impl From<PastApply> for Apply {
    fn from(past: PastApply) -> Self {
        let PastApply { id, lab, who, host, command, commit, dirty, summary, began_at, ended_at, outcome } = past;
        let (began_at, ended_at) = (Moment::read(began_at), ended_at.map(Moment::read));
        Self { id, lab, who, host, command, commit, dirty, summary, began_at, ended_at, outcome }
    }
}

impl Effect {
    fn of_apply(applied: AppliedEffect, apply: i64) -> Self {
        let AppliedEffect { address, effect, intended_at, outcome, detail } = applied;
        Self { when: Moment::read(intended_at), apply, address, effect, outcome, detail }
    }

    pub(super) fn of_address(past: PastEffect, address: String) -> Self {
        let PastEffect { apply, effect, intended_at, outcome, detail } = past;
        Self { when: Moment::read(intended_at), apply, address, effect, outcome, detail }
    }
}
