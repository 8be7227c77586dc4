//! What must hold. Each function answers the first promise that it finds broken, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use labwright::model::claim::{ClaimBody, ClaimedPower};
use labwright::model::disk::DiskOrigin;
use labwright::model::id::{RunId, VmName};
use labwright::model::job::{JobId, TaskId};
use labwright::model::lab::PowerState;

use crate::lab::Lab;
use crate::world::{Inner, World};

/// What is watched over all steps.
pub(crate) struct Watched {
    /// A job and a disk of others, which must be there untouched after everything.
    task: TaskId,
    disk: PathBuf,
    /// Disks that somebody worked on: they may move, never vanish.
    worked_on: BTreeSet<u64>,
}

impl Watched {
    /// Puts things of others into the world; the job's name is like ours.
    pub(crate) fn new(world: &World) -> Self {
        let task = TaskId { job: JobId(900_000), task: 1 };
        let disk = PathBuf::from("/srv/others/disk.qcow2");
        world.with(|inner| {
            inner.foreign.insert(task, "lw.zzzz.term.1".to_owned());
            let theirs = inner.new_disk(DiskOrigin::Empty { size_bytes: 1 });
            inner.disks.insert(disk.clone(), theirs);
        });
        Self { task, disk, worked_on: BTreeSet::new() }
    }

    /// What holds at every moment.
    pub(crate) fn broken(&mut self, inner: &Inner) -> Option<String> {
        let there = inner.disks.values().filter(|disk| disk.work_of.is_some()).map(|disk| disk.id).collect();
        let lost = self.worked_on.difference(&there).next().copied();
        self.worked_on = there;
        inner
            .broken
            .clone()
            .or_else(|| used_twice(inner))
            .or_else(|| reserved_twice(inner))
            .or_else(|| self.touched(inner))
            .or_else(|| lost.map(|disk| format!("disk {disk} with a student's work on it is lost")))
    }

    fn touched(&self, inner: &Inner) -> Option<String> {
        let untouched = inner.foreign.contains_key(&self.task) && inner.disks.contains_key(&self.disk);
        (!untouched).then(|| "something of others was touched".to_owned())
    }

    /// What holds besides when everything is mended and nothing is under way.
    pub(crate) fn broken_at_rest(&self, lab: &Lab) -> Option<String> {
        not_running(lab).or_else(|| claims(lab)).or_else(|| reservations(lab)).or_else(|| self.disks(lab))
    }

    /// Every disk on storage is recorded, in use or set aside, and every one that is recorded is on storage.
    fn disks(&self, lab: &Lab) -> Option<String> {
        let desired = lab.desired();
        let mut store = lab.store();
        let aside = store.aside(&desired.lab).unwrap().into_iter().map(|disk| disk.path);
        let recorded = store.recorded(&desired.lab).unwrap();
        let used = recorded.vms.into_values().flat_map(|vm| vm.disks).map(|disk| disk.path);
        let published = recorded.versions.into_values().flat_map(|version| version.disks).map(|disk| disk.path);
        let known: BTreeSet<PathBuf> = aside.chain(used).chain(published).collect();
        let there: BTreeSet<PathBuf> =
            lab.world.with(|inner| inner.disks.keys().filter(|path| **path != self.disk).cloned().collect());
        // A published image whose apply was cut short stays where another one took its place: nobody can tell that nothing
        // derives from it.
        let templates = &lab.site.storage.templates;
        let there: BTreeSet<PathBuf> =
            there.into_iter().filter(|path| known.contains(path) || !path.starts_with(templates)).collect();
        let only = |one: &BTreeSet<PathBuf>, other| one.difference(other).cloned().collect::<Vec<_>>();
        let (lost, leaked) = (only(&known, &there), only(&there, &known));
        (!lost.is_empty() || !leaked.is_empty())
            .then(|| format!("recorded and not there: {lost:?}; there and not recorded: {leaked:?}"))
    }
}

/// A vm keeps its address from run to run, so two runs of one vm are found here too, whatever it is called by now. That two
/// guests have one disk open is noted by the world at once.
fn used_twice(inner: &Inner) -> Option<String> {
    let mut seen: BTreeMap<String, &RunId> = BTreeMap::new();
    inner.executing().find_map(|(run, spec)| {
        let addresses = [spec.network.ip.to_string(), spec.network.mac.to_string()];
        addresses.into_iter().find_map(|address| {
            let words = |other: &RunId| format!("{other} and {run} both have {address}");
            seen.insert(address.clone(), run).map(words)
        })
    })
}

fn reserved_twice(inner: &Inner) -> Option<String> {
    let doubled = inner.doubled_addresses();
    (!doubled.is_empty()).then(|| format!("reserved twice: {doubled:?}"))
}

/// A renamed vm runs on under its old name, so runs are compared, not names. A guest that powered itself off stays off, and
/// the plan says so.
fn not_running(lab: &Lab) -> Option<String> {
    let desired = lab.desired();
    let recorded = lab.recorded(&desired);
    let stays_off: BTreeSet<String> = lab.plan().notes.into_iter().map(|note| note.address.name).collect();
    let executing: BTreeSet<RunId> = lab.world.with(|inner| inner.executing().map(|(run, _)| run.clone()).collect());
    let off = desired.vms.iter().filter(|(_, vm)| vm.state == PowerState::Running).find(|(name, _)| {
        let run = recorded.vms.get(*name).and_then(|vm| vm.run.as_ref());
        !run.is_some_and(|run| executing.contains(&run.run)) && !stays_off.contains(name.as_str())
    });
    off.map(|(name, _)| format!("{name} should run"))
}

/// What people asked for by command holds as long as it stands: what they started runs, and what they stopped waits for nothing.
fn claims(lab: &Lab) -> Option<String> {
    let desired = lab.desired();
    let recorded = lab.recorded(&desired);
    let executing: BTreeSet<RunId> = lab.world.with(|inner| inner.executing().map(|(run, _)| run.clone()).collect());
    recorded.claims.iter().find_map(|claim| {
        let ClaimBody::Power(power) = &claim.body else { return None };
        let name = &claim.name;
        if power.wanted == ClaimedPower::Stopped {
            return Some(format!("nobody stops {name}, as is asked for"));
        }
        if desired.vms.get(name.as_str()).is_none_or(|vm| vm.state != PowerState::OnDemand) {
            return Some(format!("claim {} on {name} stands, and its manifest does not leave it to people", claim.id));
        }
        let run = recorded.vms.get(name.as_str()).and_then(|vm| vm.run.as_ref());
        let runs = run.is_some_and(|run| executing.contains(&run.run));
        (!runs).then(|| format!("{name} should run for {}", claim.by))
    })
}

fn reservations(lab: &Lab) -> Option<String> {
    let desired = lab.desired();
    let reserved: BTreeSet<VmName> =
        lab.world.with(|inner| inner.reservations.values().map(|reservation| reservation.vm.clone()).collect());
    let wanted: BTreeSet<VmName> = desired.vms.into_keys().collect();
    (reserved != wanted).then(|| format!("reserved are {reserved:?}, wanted are {wanted:?}"))
}
