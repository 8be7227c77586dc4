//! Who may do what, and which line decides.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::table::{Column, Row, column};
use crate::access::{Because, Decision, Forced, Given, Refused, RightsChange, Whom};
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

/// From how many changes of rights on those are only counted.
const CHANGES_MAX: usize = 12;
/// Most people that a line of them names.
const NAMES_MAX: usize = 3;

/// How what people may do changes, a line for each kind of change.
pub fn changes(changes: &[RightsChange], verbose: bool) -> String {
    let shown = if verbose || changes.len() <= CHANGES_MAX { changes.len() } else { CHANGES_MAX };
    let mut text = if changes.is_empty() { String::new() } else { "\n".to_owned() };
    changes[..shown].iter().for_each(|change| change_lines(change, &mut text));
    if shown < changes.len() {
        let more = changes.len() - shown;
        writeln!(text, "  … {more} more changes of rights; `--verbose` lists them").expect(TAKES_ALL);
    }
    text
}

const TAKES_ALL: &str = "a string takes all";

fn change_lines(RightsChange { who, on, gained, lost, isolated }: &RightsChange, text: &mut String) {
    let who = whom(who);
    if !gained.is_empty() {
        let isolated = if isolated.1 { ", isolated" } else { "" };
        writeln!(text, "  + {who} may now {} {on}{isolated}", list(gained.iter())).expect(TAKES_ALL);
    }
    if !lost.is_empty() {
        writeln!(text, "  - {who} may no longer {} {on}", list(lost.iter())).expect(TAKES_ALL);
    }
    match isolated {
        (false, true) if gained.is_empty() => {
            writeln!(text, "  + what {who} runs of {on} is isolated from now on").expect(TAKES_ALL);
        }
        (true, false) if lost.is_empty() => {
            writeln!(text, "  - what {who} runs of {on} need not be isolated any more").expect(TAKES_ALL);
        }
        _ => {}
    }
}

fn whom(whom: &Whom) -> String {
    match whom {
        Whom::Group(group) => format!("group/{group}"),
        Whom::Users { names, of } => {
            let shown = names.iter().take(NAMES_MAX).map(ToString::to_string).collect::<Vec<_>>().join(", ");
            match (of, names.len()) {
                (_, number) if number <= NAMES_MAX => shown,
                (Some(group), number) => format!("{number} of group/{group} ({shown}, …)"),
                (None, number) => format!("{number} users ({shown}, …)"),
            }
        }
    }
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
