//! A checker of plans: what every plan must keep, whatever it was made from. It runs on each plan in debug builds and in
//! tests; a flaw it finds is our bug, never the user's.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, ActionId, Effect, Plan};
use crate::state::Recorded;

/// A rule that a plan broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// Two vms would have this address.
    AddressTwice {
        ip: String,
        vms: [String; 2],
    },
    MacTwice {
        mac: String,
        vms: [String; 2],
    },
    /// An action comes before one it needs, or needs one that does not exist.
    Order {
        action: u32,
        needs: u32,
    },
    RunTwice {
        run: String,
    },
    /// A start of a vm that has no disks.
    NoDisk {
        vm: String,
    },
    /// A path of a disk that is set aside or made outside what is recorded for the vm.
    ForeignDisk {
        vm: String,
        path: String,
    },
}

/// All rules that `plan` breaks; none, if we made no mistake.
pub fn check(plan: &Plan, recorded: &Recorded) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    check_order(plan, &mut flaws);
    check_addresses(plan, recorded, &mut flaws);
    check_runs(plan, recorded, &mut flaws);
    check_disks(plan, recorded, &mut flaws);
    flaws
}

fn effects(plan: &Plan) -> impl Iterator<Item = &Effect> {
    plan.actions().map(|(_, action)| &action.effect)
}

/// New names of vms, each with the old one.
fn renamed(plan: &Plan) -> BTreeMap<&str, &str> {
    fn rename(effect: &Effect) -> Option<(&str, &str)> {
        let Effect::RenameVm { from, to } = effect else { return None };
        Some((to.as_str(), from.as_str()))
    }
    effects(plan).filter_map(rename).collect()
}

fn check_order(plan: &Plan, flaws: &mut Vec<Flaw>) {
    let mut seen = BTreeSet::new();
    for (_, Action { id, needs, .. }) in plan.actions() {
        let early = needs.iter().filter(|need: &&ActionId| !seen.contains(*need));
        flaws.extend(early.map(|need| Flaw::Order { action: id.0, needs: need.0 }));
        seen.insert(*id);
    }
}

fn check_addresses(plan: &Plan, recorded: &Recorded, flaws: &mut Vec<Flaw>) {
    let mut by_ip: BTreeMap<String, String> = BTreeMap::new();
    let mut by_mac: BTreeMap<String, String> = BTreeMap::new();
    let readdressed: BTreeSet<&str> = effects(plan)
        .filter_map(|effect| match effect {
            Effect::RecordVm { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let renamed = renamed(plan);
    for (ip, holder) in &recorded.taken {
        let name =
            renamed.iter().find(|(_, from)| **from == holder.vm.as_str()).map_or(holder.vm.as_str(), |(to, _)| to);
        if holder.lab != plan.lab || !readdressed.contains(name) {
            by_ip.insert(ip.to_string(), holder.vm.to_string());
            by_mac.insert(holder.mac.to_string(), holder.vm.to_string());
        }
    }
    for effect in effects(plan) {
        let Effect::RecordVm { name, ip, mac, .. } = effect else { continue };
        if let Some(other) = by_ip.insert(ip.to_string(), name.to_string()) {
            flaws.push(Flaw::AddressTwice { ip: ip.to_string(), vms: [other, name.to_string()] });
        }
        if let Some(other) = by_mac.insert(mac.to_string(), name.to_string()) {
            flaws.push(Flaw::MacTwice { mac: mac.to_string(), vms: [other, name.to_string()] });
        }
    }
}

fn check_runs(plan: &Plan, recorded: &Recorded, flaws: &mut Vec<Flaw>) {
    let mut runs: BTreeSet<String> =
        recorded.vms.values().filter_map(|vm| vm.run.as_ref()).map(|run| run.run.to_string()).collect();
    for effect in effects(plan) {
        let Effect::Start { spec, .. } = effect else { continue };
        if !runs.insert(spec.run.to_string()) {
            flaws.push(Flaw::RunTwice { run: spec.run.to_string() });
        }
        if spec.disks.is_empty() {
            flaws.push(Flaw::NoDisk { vm: spec.vm.to_string() });
        }
    }
}

fn check_disks(plan: &Plan, recorded: &Recorded, flaws: &mut Vec<Flaw>) {
    let renamed = renamed(plan);
    for effect in effects(plan) {
        let Effect::SetAside { vm, disks, .. } = effect else { continue };
        let known = recorded.vms.get(renamed.get(vm.as_str()).copied().unwrap_or(vm.as_str()));
        let foreign =
            disks.iter().filter(|path| known.is_none_or(|known| known.disks.iter().all(|disk| disk.path != **path)));
        flaws.extend(foreign.map(|path| Flaw::ForeignDisk { vm: vm.to_string(), path: path.display().to_string() }));
    }
}
