//! What goes over the wire when somebody plans and applies a lab of their own: one request with its files, and a stream of lines
//! that tells how it goes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::messages::Refusal;
use crate::model::address::AddressPattern;
use crate::plan::Plan;

/// The first line of the body; behind it, the lab's files as `manifest::Gathered` has them, but for `destroy`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabRequest {
    /// The lab's folder on this machine: for the history, and for the next command that names it.
    pub folder: PathBuf,
    #[serde(default)]
    pub targets: Vec<AddressPattern>,
    #[serde(default)]
    pub allow: Vec<AddressPattern>,
    #[serde(default)]
    pub refresh_only: bool,
    /// What somebody has agreed to.
    #[serde(default)]
    pub agreed: Agreed,
    /// Findings are wanted in colour.
    #[serde(default)]
    pub is_styled: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreed {
    /// To nothing: the plan is shown.
    #[default]
    ToNothing,
    /// To a plan that was shown, by its digest.
    To(String),
    /// To whatever comes out.
    ToAll,
}

/// One line of the answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// What is to be said about the files, for people.
    Findings(String),
    /// What is going to be done, or would be.
    Plan { plan: Box<Plan>, digest: String },
    /// Something else than what was agreed to is to be done by now; nothing was done, and this is the plan.
    Moved { plan: Box<Plan>, digest: String },
    /// How far it is, for people.
    Progress(String),
    /// How it went: for people, and as the line stream of `apply --json`.
    Outcome { text: String, stream: String, is_whole: bool },
    /// It is not done.
    No(Refusal),
}
