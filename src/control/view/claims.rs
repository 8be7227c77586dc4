//! What people asked for by command, and what comes of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Listed, Moment, View};
use crate::model::claim::{self, ClaimBody, ClaimId};
use crate::plan::permission_address;
use crate::resolve::why_idle;

/// One claim that stands.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// Its number in the site.
    pub id: ClaimId,
    /// Such as `power`, `grant` or `vm`.
    pub kind: String,
    /// What it is about, by its name within its kind.
    pub name: String,
    /// What is asked for, in a word or two.
    pub wants: String,
    /// Who asked.
    pub by: String,
    /// When.
    pub at: Moment,
    /// Why nothing comes of it; `None`: it has its effect.
    pub idle: Option<String>,
    /// As it is written.
    pub body: Value,
}

impl Listed for Claim {
    const KIND: &'static str = "claim";
    const IS_OWNED: bool = true;
    fn key(&self) -> &str {
        &self.name
    }
    fn owner(&self) -> Option<&str> {
        Some(&self.by)
    }
}

impl View<'_> {
    /// Oldest first.
    pub fn claims(&self) -> Vec<Claim> {
        self.recorded.claims.iter().map(|claim| self.claim(claim)).collect()
    }

    fn claim(&self, claim: &claim::Claim) -> Claim {
        Claim {
            id: claim.id,
            kind: claim.body.kind().to_owned(),
            name: claim.name.clone(),
            wants: wants(&claim.body),
            by: claim.by.clone(),
            at: claim.at.into(),
            idle: why_idle(&self.desired, claim, |vm| self.recorded.vms.contains_key(vm)),
            body: ClaimBody::shown(claim.body.kind(), &claim.body.text()),
        }
    }
}

fn wants(body: &ClaimBody) -> String {
    match body {
        ClaimBody::Power(claim) => claim.wanted.as_str().to_owned(),
        ClaimBody::Grant(claim) => permission_address(&claim.permission).name,
        ClaimBody::Vm(claim) => format!("a vm of {}'s own", claim.owner),
        ClaimBody::Time(claim) => format!("other times of {}", claim.session),
        ClaimBody::Accommodation(claim) => {
            format!("accommodations in {}: {}", claim.session, claim.people.len())
        }
        ClaimBody::Hold(claim) => claim.to_string(),
        ClaimBody::Other { body, .. } => body.clone(),
    }
}
