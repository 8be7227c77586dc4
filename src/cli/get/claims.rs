//! `labwright get claims`: what people asked for by command, and what comes of it.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::control::view::Listed;
use crate::model::claim::{Claim, ClaimBody};
use crate::model::lab::Desired;
use crate::report::table::Row;
use crate::report::times;
use crate::resolve::why_idle;
use crate::state::Recorded;

/// One claim that stands.
#[derive(Debug, Serialize)]
pub(super) struct ClaimRow {
    id: i64,
    kind: String,
    name: String,
    /// What is asked for, in a word or two.
    wants: String,
    by: String,
    at: Timestamp,
    /// Why nothing comes of it; `None`: it has its effect.
    idle: Option<String>,
    /// As it is written.
    body: Value,
}

impl Row for ClaimRow {
    const COLUMNS: &'static [&'static str] = &["id", "kind", "name", "wants", "by", "since", "idle"];
    const YIELDING: &'static [&'static str] = &["idle"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.kind.clone(),
            self.name.clone(),
            self.wants.clone(),
            self.by.clone(),
            times::local(self.at),
            self.idle.clone().unwrap_or_default(),
        ]
    }
}

impl Listed for ClaimRow {
    fn key(&self) -> &str {
        &self.name
    }
    fn owner(&self) -> Option<&str> {
        Some(&self.by)
    }
}

pub(super) fn claim_rows(desired: &Desired, recorded: &Recorded) -> Vec<ClaimRow> {
    let row = |claim: &Claim| {
        let body = claim.body.text();
        ClaimRow {
            id: claim.id.0,
            kind: claim.body.kind().to_owned(),
            name: claim.name.clone(),
            wants: wants(&claim.body),
            by: claim.by.clone(),
            at: claim.at,
            idle: why_idle(desired, claim, |vm| recorded.vms.contains_key(vm)),
            body: serde_json::from_str(&body).unwrap_or(Value::String(body)),
        }
    };
    recorded.claims.iter().map(row).collect()
}

fn wants(body: &ClaimBody) -> String {
    match body {
        ClaimBody::Power(claim) => claim.wanted.as_str().to_owned(),
        ClaimBody::Grant(claim) => crate::plan::permission_address(&claim.permission).name,
        ClaimBody::Vm(claim) => format!("a vm of {}'s own", claim.owner),
        ClaimBody::Time(claim) => format!("other times of {}", claim.session),
        ClaimBody::Other { body, .. } => body.clone(),
    }
}
