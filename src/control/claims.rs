//! What people asked for by command is taken back. Nothing is stopped or deleted by that alone.

use super::journal::{Decides, Lab, Step};
use super::{Context, ControlError};
use crate::model::address::{Address, Kind};
use crate::model::claim::{Claim, ClaimBody, ClaimId};
use crate::model::id::LabName;
use crate::state::Change;

/// Ends a claim, and answers what it was.
pub fn take_back(context: &Context, lab: &LabName, claim: ClaimId) -> Result<Claim, ControlError> {
    context.audited(Some(lab), end(context, lab, claim))
}

fn end(context: &Context, lab: &LabName, claim: ClaimId) -> Result<Claim, ControlError> {
    let mut store = context.known_store()?;
    let decides = Decides::begin(context, format!("claim undo {claim}"))?;
    let recorded = store.recorded(lab)?;
    let standing = recorded.claims.into_iter().find(|standing| standing.id == claim);
    let standing = standing.ok_or_else(|| ControlError::NoClaim { claim, lab: lab.clone() })?;
    let address = match &standing.body {
        ClaimBody::Power(_) | ClaimBody::Hold(_) => Address::vm(&standing.name),
        _ => Address::new(Kind::Lab, lab),
    };
    let why = format!("{} took it back", context.caller.name);
    let step = Step::record(address, "end the claim", vec![Change::EndClaim { id: claim, why }]);
    let of_lab = Lab { name: lab, after: recorded.latest, doing: "changed" };
    of_lab.record(&mut store, decides, &format!("claim undo {claim}"), vec![step])?;
    Ok(standing)
}
