//! A part of a plan: what no refusal holds back, only some addresses, or only what brings our records in line with what is
//! there. A part keeps every refusal that holds for it.

use std::collections::{BTreeMap, BTreeSet};

use super::objects::wanted_things;
use super::{ActionId, Change, Effect, Held, Note, Plan, Reason, Refusal};
use crate::model::address::{Address, AddressPattern, Kind};
use crate::model::lab::Desired;
use crate::run::StopReason;
use crate::state::{Entry, Recorded};

/// How alike two addresses must be, of 1, for one to be offered in place of the other.
const LIKENESS_MIN: f64 = 0.75;

/// Takes out what refusals hold back, and what needs it. Each refusal then names all that it holds.
pub(super) fn hold_back(mut plan: Plan) -> Plan {
    let mut holders: BTreeMap<Address, usize> = BTreeMap::new();
    for (at, refusal) in plan.refusals.iter().enumerate() {
        if let Held::Only(addresses) = &refusal.holds {
            holders.extend(addresses.iter().map(|address| (address.clone(), at)));
        }
    }
    let mut held: BTreeMap<ActionId, usize> = BTreeMap::new();
    let mut kept = Vec::new();
    // An action needs only earlier ones, so one walk finds all.
    for change in std::mem::take(&mut plan.changes) {
        let by_name = holders.get(&change.address).copied();
        let by_name = by_name.filter(|at| plan.refusals[*at].address.kind != Kind::VmGroup || !only_ends(&change));
        let needs = || change.actions.iter().flat_map(|action| &action.needs);
        let Some(at) = by_name.or_else(|| needs().find_map(|need| held.get(need).copied())) else {
            kept.push(change);
            continue;
        };
        held.extend(change.actions.iter().map(|action| (action.id, at)));
        if let Held::Only(addresses) = &mut plan.refusals[at].holds {
            addresses.insert(change.address);
        }
    }
    plan.changes = kept;
    plan
}

/// Whether a change only gives something up: no address range of another lab stands against that.
fn only_ends(change: &Change) -> bool {
    change.actions.iter().all(|action| {
        matches!(
            action.effect,
            Effect::Stop { .. }
                | Effect::Release { .. }
                | Effect::SetAside { .. }
                | Effect::Record(Entry::ForgetVm { .. })
                | Effect::Fence { .. }
                | Effect::Adopt { .. }
                | Effect::RecordEnd { .. }
                | Effect::Record(Entry::EndPowerClaim { .. })
                | Effect::Record(Entry::EndClaim { .. })
        )
    })
}

/// Keeps the changes of the named addresses and what they need, and every refusal that holds for one of them.
pub fn target(mut plan: Plan, targets: &[AddressPattern]) -> Plan {
    let mut needed: BTreeSet<ActionId> = BTreeSet::new();
    let named = |address: &Address| targets.iter().any(|target| target.matches(address));
    let mut keep = vec![false; plan.changes.len()];
    // An action needs only earlier ones, so one walk from the end finds all.
    for at in (0..plan.changes.len()).rev() {
        let change = &plan.changes[at];
        keep[at] = named(&change.address) || change.actions.iter().any(|action| needed.contains(&action.id));
        if keep[at] {
            needed.extend(change.actions.iter().flat_map(|action| action.needs.iter().copied()));
        }
    }
    let (mut kept, whole) = (keep.into_iter(), plan.deciding_rights());
    plan.changes.retain(|_| kept.next().unwrap_or(false));
    plan.refusals.retain(|refusal| match &refusal.holds {
        Held::Everything => true,
        Held::Only(held) => named(&refusal.address) || held.iter().any(named),
    });
    let kept: BTreeSet<Address> = plan.changes.iter().map(|change| change.address.clone()).collect();
    // What is said of the queue, the lab and the site holds for every part.
    let is_meant = |note: &Note| {
        matches!(note.address.kind, Kind::Job | Kind::Lab | Kind::Site)
            || named(&note.address)
            || kept.contains(&note.address)
    };
    for notes in [&mut plan.drift, &mut plan.waits, &mut plan.notes] {
        notes.retain(is_meant);
    }
    plan.unchanged.retain(named);
    plan.forget_rights_unless_whole(whole);
    plan
}

/// Those of `patterns` that name nothing of the lab, each with the address that is most like it.
pub fn unknown_addresses<'p>(
    patterns: &'p [AddressPattern],
    desired: &Desired,
    recorded: &Recorded,
    plan: &Plan,
) -> Vec<(&'p AddressPattern, Option<Address>)> {
    let templates = desired.templates.keys().map(|name| Address::new(Kind::Template, name));
    let vms = desired.vms.keys().chain(recorded.vms.keys()).map(Address::vm);
    let jobs = plan.drift.iter().map(|note| &note.address).filter(|address| address.kind == Kind::Job);
    let mut known: BTreeSet<Address> = wanted_things(desired).into_keys().chain(templates).chain(vms).collect();
    known.extend(recorded.objects.keys().chain(jobs).cloned());
    let unknown = patterns.iter().filter(|pattern| !known.iter().any(|address| pattern.matches(address)));
    let near = |pattern: &AddressPattern| {
        let likeness = |address: &Address| strsim::jaro_winkler(&address.to_string(), &pattern.to_string());
        let near = known.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
        near.filter(|address| likeness(address) > LIKENESS_MIN).cloned()
    };
    unknown.map(|pattern| (pattern, near(pattern))).collect()
}

/// Keeps only what takes note of the world: ends of runs, adopted jobs, touched images.
pub fn refresh_only(mut plan: Plan) -> Plan {
    for change in &mut plan.changes {
        change.actions.retain(|action| {
            matches!(
                action.effect,
                Effect::Fence { .. }
                    | Effect::RecordEnd { .. }
                    | Effect::Adopt { .. }
                    | Effect::Record(Entry::Image { .. })
            )
        });
        change.verb = super::Verb::Record;
        change.reasons = vec![Reason::Refreshed];
        change.before.clear();
        change.after.clear();
        change.touches = None;
    }
    plan.changes.retain(|change| !change.actions.is_empty());
    let kept: BTreeSet<ActionId> = plan.actions().map(|(_, action)| action.id).collect();
    for action in plan.changes.iter_mut().flat_map(|change| &mut change.actions) {
        action.needs.retain(|need| kept.contains(need));
    }
    plan.rights.clear();
    // Nobody notices what is left; a frozen lab's records stand still all the same.
    plan.refusals.retain(|refusal| refusal.holds == Held::Everything);
    plan
}

/// Keeps only what gives up the runs of a lost host. What forbids that is said of vms; all other guards are about what is
/// dropped here.
pub fn give_up_only(mut plan: Plan) -> Plan {
    let gives_up =
        |effect: &Effect| matches!(effect, Effect::RecordEnd { reason: Some(StopReason::HostLost { .. }), .. });
    let for_vms_or_all = |refusal: &&Refusal| refusal.address.kind == Kind::Vm || refusal.holds == Held::Everything;
    let refusals: Vec<_> = plan.refusals.iter().filter(for_vms_or_all).cloned().collect();
    plan.changes.retain(|change| change.actions.iter().any(|action| gives_up(&action.effect)));
    plan.drift.clear();
    plan.waits.clear();
    plan.notes.clear();
    let mut plan = refresh_only(plan);
    for change in &mut plan.changes {
        change.reasons = vec![Reason::FencedOff];
    }
    plan.refusals = refusals;
    plan
}
