//! Who may do what, and which line decides.

use std::collections::BTreeSet;

use super::table::{Column, Row, column};
use crate::access::{Because, Decision, Forced, Given, Refused};
use crate::control::permissions::{EffectiveRights, PersonsRights};
use crate::model::id::UserName;
use crate::model::lab::{Object, Right, Subject};

impl Row for EffectiveRights {
    const COLUMNS: &'static [Column<Self>] = &[
        column("object", |rights| rights.object.to_string()),
        column("allow", |rights| list(rights.allow.keys())),
        column("isolated", isolated),
        column("because", because),
    ];
}

impl Row for PersonsRights {
    const COLUMNS: &'static [Column<Self>] = &[
        column("user", |of| of.user.to_string()),
        column("object", |of| of.rights.object.to_string()),
        column("allow", |of| list(of.rights.allow.keys())),
        column("isolated", |of| isolated(&of.rights)),
        column("because", |of| because(&of.rights)),
    ];
}

fn isolated(rights: &EffectiveRights) -> String {
    rights.isolated.as_ref().map_or_else(String::new, |_| "forced".to_owned())
}

/// Every line that decides, once.
fn because(rights: &EffectiveRights) -> String {
    let reasons: BTreeSet<String> = rights.allow.values().map(reason).collect();
    reasons.into_iter().chain(rights.isolated.as_ref().map(forced)).collect::<Vec<_>>().join("; ")
}

/// Rights, with commas between.
pub fn list<'r>(rights: impl Iterator<Item = &'r Right>) -> String {
    rights.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The answer to whether somebody may do something.
pub fn decision(user: &UserName, right: Right, on: &Object, decision: &Decision) -> String {
    match decision {
        Ok(because) => format!("yes: {user} may {right} {on}: {}\n", reason(because)),
        Err(refused) => {
            let why = match refused {
                Refused::NotKnown => "to them, it is not there",
                Refused::NoRight => "no line allows it",
                Refused::NotReimaged => "its manifest does not say `may_reimage: true`",
                Refused::NotInSession => "they may look in an open session, or if its owner lets them",
            };
            format!("no: {user} may not {right} {on}: {why}\n")
        }
    }
}

fn reason(because: &Because) -> String {
    match because {
        Because::Root => "root".to_owned(),
        Because::SiteAdmin => "an admin of the site".to_owned(),
        Because::LabOwner => "an owner of the lab".to_owned(),
        Because::Owner => "it is theirs".to_owned(),
        Because::Permission { to, on, given } => permission(to, on, given),
    }
}

fn forced(forced: &Forced) -> String {
    match forced {
        Forced::FromTheStart => "isolated since it was made".to_owned(),
        Forced::By { to, on, given } => format!("isolated by {}", permission(to, on, given)),
    }
}

fn permission(to: &Subject, on: &Object, given: &Given) -> String {
    let place = match given {
        Given::Manifest(Some(place)) => place.to_string(),
        Given::Manifest(None) => "the lab as it was applied".to_owned(),
        Given::Claim { id, by } => format!("claim {id} of {by}"),
    };
    format!("{to} on {on} ({place})")
}
