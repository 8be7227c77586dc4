//! The line streams that programs read (`plan --json`, `apply --json`, `validate --json`): one JSON object per line, told apart by `type`,
//! the first always `version`. The types here are what is written and what `labwright schema plan|apply|validate` describes, so
//! the two cannot differ.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::diagnostics_json::Finding;
use crate::model::address::Address;
use crate::model::id::{LabName, RunId, UserGroupName, UserName};
use crate::plan::Verb;

/// Version of the line streams: major.minor.
pub const STREAM_VERSION: &str = "1.0";

/// That of plans. 2.0: `before` and `after` have numbers, lists and objects where 1.0 had texts, and `memory_mib` for `memory`. 2.1: changes have
/// `codes`. 2.2: lines of type `rights`.
pub const PLAN_STREAM_VERSION: &str = "2.2";

/// One line of `labwright plan --json`, and of the plan that `labwright apply --json` prints first. The first line is
/// `version`, the last one `summary`. Within a major version, fields and types of lines are only added: ignore those that
/// you do not know. Another major version means that what you know may mean something else.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PlanLine<'a> {
    /// What follows.
    Version(Version),
    /// What happens to one thing.
    Change(ChangeLine<'a>),
    /// Something is not as it was recorded.
    Drift(Remark<'a>),
    /// What is not done until something else happens.
    Wait(Remark<'a>),
    /// Something else to know.
    Note(Remark<'a>),
    /// What people may do with a thing from now on, or no longer.
    Rights {
        /// All of a user group; the single users below where this is missing.
        #[serde(skip_serializing_if = "Option::is_none")]
        group: Option<&'a UserGroupName>,
        /// These users.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        users: Vec<&'a UserName>,
        /// With what, as `kind/name`.
        on: String,
        /// What they may do that they might not: `run`, `modify`, `derive`, `view`.
        gained: Vec<String>,
        /// What they may do no longer.
        lost: Vec<String>,
        /// Whether what they run of it is isolated then.
        isolated: bool,
    },
    /// Why this plan, or a part of it, must not be applied.
    Refusal {
        /// What it is about.
        address: &'a Address,
        /// Tells its kind from others; `other` in plans of a labwright that had no codes. Codes are only added.
        code: String,
        /// What forbids it, as a sentence.
        text: String,
        /// What to do next.
        hint: String,
        /// What it holds back while the rest is done; all of the plan where this is missing.
        #[serde(skip_serializing_if = "Option::is_none")]
        holds: Option<Vec<&'a Address>>,
    },
    /// The last line.
    Summary {
        /// Whose plan this is.
        lab: &'a LabName,
        /// How often the records of the lab had changed when the plan was made; the plan fits no other state.
        serial: u64,
        /// How many lines of type `change` there are.
        changes: usize,
        /// How many things are as they should be.
        unchanged: usize,
    },
}

/// One line of what `labwright apply --json` and `labwright destroy --json` print behind their plan. The first line is
/// `version`, the last one `summary`. Within a major version, fields and types of lines are only added: ignore those that
/// you do not know. Another major version means that what you know may mean something else.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ApplyLine<'a> {
    /// What follows.
    Version(Version),
    /// All that a change asked for was done.
    Done {
        /// What was changed.
        address: &'a Address,
    },
    /// One effect of a change failed.
    Failed {
        /// What was to be changed.
        address: &'a Address,
        /// What was tried, such as `make the disk`.
        effect: &'static str,
        /// What went wrong, with the program's own words.
        detail: &'a str,
    },
    /// A change was not begun or not finished: something that it needs failed, or the user stopped the apply.
    Skipped {
        /// What stays as it was, or half-way; the next apply goes on with it.
        address: &'a Address,
    },
    /// The last line.
    Summary {
        /// How many lines of type `done` there are.
        done: usize,
        /// How many lines of type `failed` there are.
        failed: usize,
        /// How many lines of type `skipped` there are.
        skipped: usize,
        /// Runs that were submitted.
        started: &'a [RunId],
        /// Whether the user stopped the apply.
        interrupted: bool,
    },
}

/// One line of `labwright validate --json`. The first line is `version`, the last one `summary`. Within a major version,
/// fields and types of lines are only added: ignore those that you do not know. Another major version means that what you
/// know may mean something else.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ValidateLine<'a> {
    /// What follows.
    Version(Version),
    /// A file that was checked.
    File {
        /// As it was named on the command line and below.
        file: &'a str,
    },
    /// One thing that is wrong, the most severe first.
    Finding(Finding),
    /// The last line.
    Summary {
        /// How many lines of type `file` there are.
        files: usize,
        /// How many errors there are, also those beyond the thousand that are listed.
        errors: usize,
        /// How many warnings there are.
        warnings: usize,
    },
}

/// The first line of a stream.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Version {
    /// What the lines that follow are about: `plan`, `apply` or `validate`.
    pub stream: &'static str,
    /// Version of the stream, as major.minor.
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]+$"))]
    pub version: &'static str,
    /// Version of the program that wrote it.
    pub labwright: &'static str,
}

/// What happens to one thing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChangeLine<'a> {
    /// What is changed, as `kind/name`.
    pub address: &'a Address,
    /// What happens to it.
    pub verb: Verb,
    /// Why, as a half-sentence.
    pub reason: String,
    /// What tells its reasons from others, one for each part of that; `other` in plans of a labwright that had no codes. Codes
    /// are only added.
    pub codes: Vec<String>,
    /// The fields that differ as they are; nothing for what is new.
    pub before: BTreeMap<String, Value>,
    /// The fields that differ as they will be; all of them for what is new.
    pub after: BTreeMap<String, Value>,
    /// Whose vm it is, where somebody would notice the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<&'a UserName>,
    /// Whether the vm's guest runs now.
    pub in_use: bool,
    /// Other changes that must be done before.
    pub needs: Vec<&'a Address>,
    /// What will be done, in order, such as `make the disk`; texts for people.
    pub effects: Vec<&'static str>,
}

/// A sentence about one thing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Remark<'a> {
    /// What it is about, as `kind/name`.
    pub address: &'a Address,
    /// Tells its kind from others; `other` in plans of a labwright that had no codes. Codes are only added.
    pub code: String,
    /// The sentence.
    pub text: String,
}

impl Version {
    pub(super) fn of(stream: &'static str) -> Self {
        let version = if stream == "plan" { PLAN_STREAM_VERSION } else { STREAM_VERSION };
        Self { stream, version, labwright: env!("CARGO_PKG_VERSION") }
    }
}

/// Each line as one JSON object, its keys in alphabetical order so that two streams can be compared by line.
pub(super) fn text<T: Serialize>(lines: impl IntoIterator<Item = T>) -> String {
    let line = |line| serde_json::to_value(line).expect("a line has only string keys");
    lines.into_iter().map(|each| format!("{}\n", line(each))).collect()
}
