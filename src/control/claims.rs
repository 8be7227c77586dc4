//! What people asked for by command is taken back. Nothing is stopped or deleted by that alone.

use super::journal::{Decides, Lab, Step};
use super::session::{self, Doing, Wanted};
use super::{Context, ControlError, own, understood};
use crate::model::address::{Address, Kind};
use crate::model::claim::{AccommodatedBy, Claim, ClaimBody, ClaimId, TimeChange};
use crate::model::id::{LabName, SessionName};
use crate::state::{Change, Recorded};

/// Ends a claim, and answers what it was.
pub fn take_back(context: &Context, lab: &LabName, claim: ClaimId) -> Result<Claim, ControlError> {
    context.audited(Some(lab), end(context, lab, claim))
}

/// A claim on the times of a session that is there; its guests are to hear at once of what becomes of it.
fn time_claim(recorded: &Recorded, lab: &LabName, id: ClaimId) -> Result<Option<(Claim, SessionName)>, ControlError> {
    let Some(claim) = recorded.claims.iter().find(|standing| standing.id == id) else { return Ok(None) };
    let session = match &claim.body {
        ClaimBody::Time(time) if !matches!(time.change, TimeChange::Begin { .. }) => &time.session,
        ClaimBody::Accommodation(of) if of.by == AccommodatedBy::Command => &of.session,
        _ => return Ok(None),
    };
    let is_there = understood(lab.clone(), recorded)?.sessions.contains_key(session);
    Ok(is_there.then(|| (claim.clone(), session.clone())))
}

fn end(context: &Context, lab: &LabName, claim: ClaimId) -> Result<Claim, ControlError> {
    let mut store = context.known_store()?;
    if let Some((standing, session)) = time_claim(&store.recorded(lab)?, lab, claim)? {
        let doing = Doing::Undo { claim: Some(claim) };
        let wanted = Wanted { whose: None, doing, why: None, is_agreed: true };
        return session::act(context, own::Lab::AsApplied(lab), &session, &wanted).map(|_| standing);
    }
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
