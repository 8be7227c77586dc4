//! What became of one person in a session: what was done to their time and their machine, by whom, and what its starters said.
//! What they need more time for is no part of it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::view::{Moment, View};
use super::status::reports;
use super::{ControlError, SessionError, session_of};
use crate::model::address::Address;
use crate::model::audit::Verdict;
use crate::model::claim::{ClaimBody, TimeChange, TimeClaim};
use crate::model::id::{SessionName, UserName, VmName};
use crate::run::{Event, Record};
use crate::state::{ActsOf, PastClaim, Store};

/// The latest of each that are told.
const MOST: u32 = 500;

/// One thing that happened.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Happened {
    /// When.
    pub at: Moment,
    /// What.
    pub what: String,
    /// Who did it, where it was somebody.
    pub by: Option<String>,
    /// Why, in the words of who did it; or of the starter.
    pub why: Option<String>,
}

/// In the order of time; for those who may plan and apply the lab.
pub fn story(view: &View<'_>, name: &SessionName, user: &UserName) -> Result<Vec<Happened>, ControlError> {
    view.require_all()?;
    let lab = view.applied()?;
    let session = session_of(&lab, name)?;
    let own = |vm: &&VmName| lab.vms.get(*vm).is_some_and(|vm| vm.owner == *user);
    let vms: Vec<&VmName> = session.vms.iter().filter(own).collect();
    if vms.is_empty() {
        return Err(SessionError::TakesNoPart { session: name.clone(), user: user.clone() }.into());
    }
    let Some(store) = view.context.store_if_any()? else { return Ok(Vec::new()) };
    let since = session.opens();
    let mut told = Vec::new();
    for past in store.claims_on(&lab.lab, name.as_str(), MOST)? {
        told.extend(of_claim(&past, name, user));
    }
    for vm in vms {
        told.extend(of_plans(&store, view, vm)?);
        told.extend(of_audit(&store, view, vm)?);
        for (_, records) in reports(view.context, &store, &lab.lab, vm, since)? {
            told.extend(records.iter().filter_map(of_guest));
        }
    }
    told.retain(|(at, _)| *at >= since);
    told.sort_by_key(|(at, _)| *at);
    Ok(told.into_iter().map(|(_, happened)| happened).collect())
}

type Told = (Timestamp, Happened);

fn told(at: Timestamp, what: String, by: Option<String>, why: Option<String>) -> Told {
    (at, Happened { at: at.into(), what, by, why })
}

fn of_claim(past: &PastClaim, session: &SessionName, user: &UserName) -> Vec<Told> {
    let Ok(ClaimBody::Time(time)) = ClaimBody::read(&past.kind, &past.body) else { return Vec::new() };
    let is_theirs = time.session == *session && time.user.as_ref().is_none_or(|of| of == user);
    let Some(at) = past.at.parse().ok().filter(|_| is_theirs) else { return Vec::new() };
    let ended = past.ended_at.as_ref().and_then(|at| at.parse().ok());
    let did = told(at, words(&time), Some(past.by.clone()), time.why.clone());
    let undid = ended.map(|at| told(at, format!("ended: {}", words(&time)), None, past.ended.clone()));
    std::iter::once(did).chain(undid).collect()
}

fn words(time: &TimeClaim) -> String {
    match &time.change {
        TimeChange::Extend { seconds } if *seconds < 0 => format!("{} s taken from their time", -seconds),
        TimeChange::Extend { seconds } => format!("{seconds} s more time"),
        TimeChange::Pause { from, until: None } => format!("their clock stands still, from {from:.0} on"),
        TimeChange::Pause { from, until: Some(until) } => {
            format!("their clock stood still from {from:.0} to {until:.0}")
        }
        TimeChange::Begin { at } => format!("their time began at {at:.0}"),
    }
}

fn of_plans(store: &Store, view: &View<'_>, vm: &VmName) -> Result<Vec<Told>, ControlError> {
    let lab = &view.desired.lab;
    let mut all = Vec::new();
    for effect in store.effects(lab, &Address::vm(vm).to_string(), MOST)? {
        let Ok(at) = effect.intended_at.parse() else { continue };
        let apply = store.past_apply(lab, effect.apply)?;
        let outcome = effect.outcome.unwrap_or_else(|| "cut short".to_owned());
        let what = if outcome == "done" { effect.effect } else { format!("{} ({outcome})", effect.effect) };
        all.push(told(at, what, apply.map(|apply| apply.who), effect.detail));
    }
    Ok(all)
}

/// What the history has not: looks at the screen, and what was refused.
fn of_audit(store: &Store, view: &View<'_>, vm: &VmName) -> Result<Vec<Told>, ControlError> {
    let acts = store.acts(&view.desired.lab, ActsOf::Vm(vm), MOST)?.into_iter();
    let told = acts.filter(|act| act.apply.is_none()).filter_map(|act| {
        let what = match &act.verdict {
            Verdict::Refused { .. } => format!("{}, refused", act.asked.command),
            Verdict::Begun | Verdict::Other => act.asked.command.clone(),
        };
        Some(told(act.at.parse().ok()?, what, act.who.login, None))
    });
    Ok(told.collect())
}

fn of_guest(record: &Record) -> Option<Told> {
    let (what, why) = match &record.event {
        Event::Running { host, .. } => (format!("its guest runs on {host}"), None),
        Event::Ready => ("its guest is up".to_owned(), None),
        Event::Paused { reason } => ("its guest stands still".to_owned(), Some(reason.clone())),
        Event::Resumed => ("its guest goes on".to_owned(), None),
        Event::CutOff { reason } => ("its guest reaches nobody".to_owned(), Some(reason.clone())),
        Event::Connected => ("its guest reaches others again".to_owned(), None),
        Event::Opened => ("its screen is open".to_owned(), None),
        Event::Locked { reason } => {
            ("its screen is shut".to_owned(), serde_json::to_value(reason).ok()?.as_str().map(str::to_owned))
        }
        Event::Warned { left_seconds, failed } => {
            (format!("its guest was told that {left_seconds} s are left"), failed.clone())
        }
        Event::Off { .. } => ("its guest is off, for other disks".to_owned(), None),
        Event::Stopped { reason, .. } => ("its guest is off".to_owned(), Some(reason.to_string())),
        _ => return None,
    };
    Some(told(record.at, what, None, why))
}
