//! Disks that nobody deletes for the time being, whatever their age: somebody may still have to look at them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::aside::{AsideError, among};
use super::journal::{Decides, Lab, Step};
use super::upload::require_owner;
use super::{Context, ControlError};
use crate::model::address::Address;
use crate::model::claim::{Claim, ClaimBody, HoldClaim};
use crate::model::id::VmName;
use crate::model::lab::Desired;
use crate::state::{Change, Recorded};

/// What is to become of the disks that vms have and had.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// In place of what held them before.
    Hold {
        until: Option<Date>,
        why: String,
    },
    Release,
}

/// The day on this machine.
pub fn today() -> Date {
    jiff::Timestamp::now().to_zoned_datetime(TimeZone::system()).date()
}

/// Holds the disks of the vms that are named, or lets them go; answers which vms these are.
pub fn hold(
    context: &Context,
    desired: &Desired,
    words: &[String],
    wanted: &Wanted,
) -> Result<BTreeSet<VmName>, ControlError> {
    context.audited(Some(&desired.lab), change(context, desired, words, wanted))
}

fn change(
    context: &Context,
    desired: &Desired,
    words: &[String],
    wanted: &Wanted,
) -> Result<BTreeSet<VmName>, ControlError> {
    if let Wanted::Hold { until: Some(until), .. } = wanted
        && *until < today()
    {
        return Err(AsideError::Past { until: *until }.into());
    }
    require_owner(context, &desired.lab)?;
    let mut store = context.known_store()?;
    let decides = Decides::begin(context, format!("hold {}", words.join(" ")))?;
    let recorded = store.recorded(&desired.lab)?;
    let having = recorded.aside.keys().chain(recorded.vms.keys());
    let names = among(having, words, desired, &recorded)?;
    let steps: Vec<Step<'_>> =
        names.iter().map(|name| step(context, &recorded, name, wanted)).collect::<Result<_, _>>()?;
    let doing = if matches!(wanted, Wanted::Release) { "released" } else { "held" };
    let summary = format!("disks of {} {doing}", words.join(" "));
    Lab { name: &desired.lab, after: recorded.latest, doing }.record(&mut store, decides, &summary, steps)?;
    Ok(names)
}

fn step(context: &Context, recorded: &Recorded, name: &VmName, wanted: &Wanted) -> Result<Step<'static>, AsideError> {
    let vm = name.to_string();
    if !recorded.vms.contains_key(name) && !recorded.aside.contains_key(name) {
        return Err(AsideError::None { vm });
    }
    let by = context.caller.name.clone();
    let end = |why: &str| -> Vec<Change> {
        let of_it = on(recorded, name);
        of_it.map(|(claim, _)| Change::EndClaim { id: claim.id, why: why.to_owned() }).collect()
    };
    let (effect, changes) = match wanted {
        Wanted::Hold { until, why } => {
            let body = HoldClaim { version: ClaimBody::VERSION, until: *until, why: why.clone() };
            let put = Change::PutClaim { name: vm, body: ClaimBody::Hold(body), by };
            ("hold the disks", end("it was held anew").into_iter().chain([put]).collect())
        }
        Wanted::Release => ("release the disks", end(&format!("{by} released it"))),
    };
    if changes.is_empty() {
        return Err(AsideError::NotHeld { vm: name.clone() });
    }
    Ok(Step::record(Address::vm(name), effect, changes))
}

fn on<'a>(recorded: &'a Recorded, name: &'a VmName) -> impl Iterator<Item = (&'a Claim, &'a HoldClaim)> {
    holds(recorded).filter(|(claim, _)| claim.name == name.as_str())
}

fn holds(recorded: &Recorded) -> impl Iterator<Item = (&Claim, &HoldClaim)> {
    recorded.claims.iter().filter_map(|claim| match &claim.body {
        ClaimBody::Hold(hold) => Some((claim, hold)),
        _ => None,
    })
}

/// What counts today, by vm: what people hold, and what a session keeps.
pub(super) fn counting(recorded: &Recorded) -> BTreeMap<String, HoldClaim> {
    let today = today();
    let kept = recorded.keeps.iter().map(|(vm, (session, until))| {
        let until = Some(until.to_zoned_datetime(TimeZone::system()).date());
        (vm.clone(), HoldClaim { version: ClaimBody::VERSION, until, why: format!("session `{session}` keeps them") })
    });
    let held = holds(recorded).map(|(claim, hold)| (claim.name.clone(), hold.clone()));
    kept.chain(held).filter(|(_, hold)| hold.counts(today)).collect()
}
