//! What a plan's apply works on: nobody else plans anything for it until the apply lets go of it, or is dead.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::model::address::{Address, Kind};
use crate::model::id::{Mac, UserName};
use crate::plan::{Change, Effect, Plan, Verb};
use crate::state::{Decision, Entry, Hold, Start, StorageQuota};

/// A plan as it is begun.
pub fn decision(plan: &Plan) -> Decision {
    let own = |change: &Change, address: &Address| *address == change.address;
    let stores = plan.storage.iter().flat_map(|quota| quota.vms.iter().map(move |(vm, bytes)| (vm, (quota, *bytes))));
    let stores: BTreeMap<&Address, (&StorageQuota, u64)> = stores.collect();
    let hold = |(change, address): (&Change, Address)| Hold {
        doing: doing(change).to_owned(),
        seat: seat(change).filter(|_| own(change, &address)),
        run: run(change).filter(|_| own(change, &address)),
        stores: stores.get(&address).map(|(quota, bytes)| (quota.owner.clone(), *bytes)),
        address,
    };
    let holds: Vec<Hold> = held(plan).into_iter().map(hold).collect();
    let starters: BTreeSet<&UserName> = holds.iter().filter_map(|hold| Some(&hold.run.as_ref()?.owner)).collect();
    let quotas = plan.quotas.iter().filter(|quota| starters.contains(&quota.owner)).cloned().collect();
    let storers: BTreeSet<&UserName> = holds.iter().filter_map(|hold| Some(&hold.stores.as_ref()?.0)).collect();
    let storage = plan.storage.iter().filter(|quota| storers.contains(&quota.owner)).cloned().collect();
    Decision { after: plan.after, quotas, storage, holds }
}

/// What each change holds: its thing, by its old name too where it gets a new one, unless another thing gets that name.
pub(super) fn held(plan: &Plan) -> Vec<(&Change, Address)> {
    let own: BTreeSet<&Address> = plan.changes.iter().map(|change| &change.address).collect();
    let of = |change: &'_ Change| -> Vec<Address> {
        let old = change.actions.iter().filter_map(|action| match &action.effect {
            Effect::Record(Entry::RenameVm { from, .. }) => Some(Address::vm(from)),
            Effect::Record(Entry::RenameTemplate { from, .. }) => Some(Address::new(Kind::Template, from)),
            _ => None,
        });
        std::iter::once(change.address.clone()).chain(old.filter(|old| !own.contains(old))).collect()
    };
    plan.changes.iter().flat_map(|change| of(change).into_iter().map(move |address| (change, address))).collect()
}

fn seat(change: &Change) -> Option<(Ipv4Addr, Mac)> {
    change.actions.iter().find_map(|action| match &action.effect {
        Effect::Record(Entry::Vm { ip, mac, .. }) => Some((*ip, *mac)),
        _ => None,
    })
}

fn run(change: &Change) -> Option<Start> {
    let spec = change.actions.iter().find_map(|action| action.effect.starts())?;
    Some(Start { number: spec.run.number(), owner: spec.owner.clone() })
}

fn doing(change: &Change) -> &'static str {
    let publishes = change.actions.iter().any(|action| matches!(action.effect, Effect::Publish { .. }));
    let starts = change.actions.iter().any(|action| action.effect.starts().is_some());
    match change.verb {
        _ if publishes => "published",
        Verb::Create if starts => "made and started",
        Verb::Create => "made",
        Verb::Update => "changed",
        Verb::Move => "renamed",
        Verb::Replace => "made anew",
        Verb::Start => "started",
        Verb::Stop => "stopped",
        Verb::Restart => "restarted",
        Verb::SetAside => "set aside",
        Verb::Delete => "removed",
        Verb::Record => "looked after",
    }
}
