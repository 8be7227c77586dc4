//! What goes over the wire when somebody plans and applies a lab of their own: one request with its files, and a stream of lines
//! that tells how it goes.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::messages::Refusal;
use crate::model::address::AddressPattern;
use crate::plan::Plan;

/// The first line of the body; behind it, the lab's files as `manifest::Gathered` has them, but for `destroy`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabRequest {
    /// The lab's folder on this machine: for the history, and for the next command that names it.
    pub folder: PathBuf,
    /// What it is about; all, where there is none.
    #[serde(default)]
    pub targets: Vec<AddressPattern>,
    /// What may be done to them though a guard forbids it.
    #[serde(default)]
    pub allow: Vec<AddressPattern>,
    /// Only what is recorded of the world is brought up to date.
    #[serde(default)]
    pub refresh_only: bool,
    /// What somebody has agreed to.
    #[serde(default)]
    pub agreed: Agreed,
    /// Findings are wanted in colour.
    #[serde(default)]
    pub is_styled: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// A plan as `plan --out` keeps it. What is in it may be another with each version of the program: other programs read
/// `labwright plan --json`.
#[derive(JsonSchema)]
#[schemars(transparent)]
struct KeptPlan(
    #[expect(dead_code, reason = "it stands for the shape alone")] serde_json::Map<String, serde_json::Value>,
);

/// One line of the answer.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// What is to be said about the files, for people.
    Findings(String),
    /// What is going to be done, or would be.
    Plan {
        /// The plan.
        #[schemars(with = "KeptPlan")]
        plan: Box<Plan>,
        /// What to agree to.
        digest: String,
    },
    /// Something else than what was agreed to is to be done by now; nothing was done, and this is the plan.
    Moved {
        /// The plan.
        #[schemars(with = "KeptPlan")]
        plan: Box<Plan>,
        /// What to agree to.
        digest: String,
    },
    /// How far it is, for people.
    Progress(String),
    /// How it went.
    Outcome {
        /// For people.
        text: String,
        /// As `labwright schema apply` describes it.
        stream: String,
        /// Whether all was done.
        is_whole: bool,
    },
    /// It is not done.
    No(Refusal),
}
