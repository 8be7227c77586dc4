//! Who applied what, and how it went; and who asked for what at all.

use serde::Serialize;

use super::Moment;
use crate::control::{Context, ControlError};
use crate::model::audit::{Asked, Verdict, Via};
use crate::model::id::LabName;
use crate::state::{About, ActsOf, AppliedEffect, PastAct, PastApply, PastEffect, Someone};

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

/// One act of the audit.
#[derive(Debug, Clone, Serialize)]
pub struct Act {
    pub id: i64,
    pub at: Moment,
    /// `None`: it was about no lab.
    pub lab: Option<String>,
    pub who: Someone,
    /// Who logged in and became that account.
    pub behind: Option<Someone>,
    pub via: Via,
    #[serde(flatten)]
    pub asked: Asked,
    pub about: Vec<About>,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The entry of the history that has what was done.
    pub apply: Option<i64>,
    /// How that went, where the history has it still.
    pub outcome: Option<String>,
}

/// The latest acts in a lab, newest first: refused ones and looks at screens are among them.
pub fn acts(context: &Context, lab: &LabName, of: ActsOf<'_>, most: u32) -> Result<Vec<Act>, ControlError> {
    let Some(store) = context.store_if_any()? else { return Ok(Vec::new()) };
    Ok(store.acts(lab, of, most)?.into_iter().map(Act::from).collect())
}

impl From<PastAct> for Act {
    fn from(past: PastAct) -> Self {
        let PastAct { id, at, lab, who, behind, via, asked, about, verdict, apply, outcome } = past;
        Self { id, at: Moment::read(at), lab, who, behind, via, asked, about, verdict, apply, outcome }
    }
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
