//! How the world is looked at, and a plan made of what was seen.

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, ControlError};
use crate::disks::Owner;
use crate::model::address::AddressPattern;
use crate::model::id::{LabName, UserName, VmName};
use crate::model::lab::Desired;
use crate::observe::{Elsewhere, Observed, World, life_of, observe, runs_elsewhere};
use crate::plan::{Ask, Inputs, LostHost, Plan, plan};
use crate::resolve::with_claims;
use crate::scheduler::Scheduler;
use crate::state::{Ledger, OpenRun, Recorded, RecordedRun, Store, StoredDisk};

impl Context {
    /// Looks at the world and plans; the plan is the same for `plan`, `apply` and `destroy`.
    pub fn plan(
        &self,
        desired: &Desired,
        recorded: &Recorded,
        allow: &[AddressPattern],
        asks: &BTreeMap<VmName, Ask>,
    ) -> Result<Plan, ControlError> {
        self.plan_without(None, desired, recorded, allow, asks)
    }

    /// The same by a queue that others look at too.
    pub fn plan_in(
        &self,
        queue: &dyn Scheduler,
        desired: &Desired,
        recorded: &Recorded,
        allow: &[AddressPattern],
        asks: &BTreeMap<VmName, Ask>,
    ) -> Result<Plan, ControlError> {
        self.plan_by(queue, None, desired, recorded, allow, asks)
    }

    /// The same, with a host given up for lost.
    pub fn plan_without(
        &self,
        lost_host: Option<&LostHost>,
        desired: &Desired,
        recorded: &Recorded,
        allow: &[AddressPattern],
        asks: &BTreeMap<VmName, Ask>,
    ) -> Result<Plan, ControlError> {
        self.plan_by(&*self.scheduler(), lost_host, desired, recorded, allow, asks)
    }

    fn plan_by(
        &self,
        queue: &dyn Scheduler,
        lost_host: Option<&LostHost>,
        desired: &Desired,
        recorded: &Recorded,
        allow: &[AddressPattern],
        asks: &BTreeMap<VmName, Ask>,
    ) -> Result<Plan, ControlError> {
        let desired = &*with_claims(desired, &recorded.claims);
        let observed = self.observe_in(queue, desired, recorded)?;
        self.plan_from(observed, lost_host, desired, recorded, allow, asks)
    }

    /// The same by what was seen already, of the lab with its claims.
    pub(super) fn plan_from(
        &self,
        mut observed: Observed,
        lost_host: Option<&LostHost>,
        desired: &Desired,
        recorded: &Recorded,
        allow: &[AddressPattern],
        asks: &BTreeMap<VmName, Ask>,
    ) -> Result<Plan, ControlError> {
        let (site, now, by) = (&self.site, self.clock().now(), &self.caller.name);
        let make =
            |observed: &Observed| plan(&Inputs { desired, recorded, observed, site, now, allow, asks, by, lost_host });
        let plan = make(&observed);
        // What people run and store elsewhere is looked up for those alone whose vms are to be started, or get disks.
        let storers: Vec<&UserName> = plan.storage.iter().map(|quota| &quota.owner).collect();
        observed.elsewhere = self.elsewhere(&plan.lab, &plan.starters(), &storers, recorded, &observed)?;
        Ok(if observed.elsewhere.is_empty() { plan } else { make(&observed) })
    }

    /// What some people run in other labs than this one, and some store there.
    pub(super) fn elsewhere(
        &self,
        lab: &LabName,
        starters: &BTreeSet<UserName>,
        storers: &[&UserName],
        recorded: &Recorded,
        seen: &Observed,
    ) -> Result<BTreeMap<UserName, Elsewhere>, ControlError> {
        let mut elsewhere: BTreeMap<UserName, Elsewhere> = BTreeMap::new();
        let ledger = Ledger { state: self.site.state.clone() };
        let open = if starters.is_empty() { Vec::new() } else { ledger.running_elsewhere(lab, starters)? };
        let runs: Vec<&RecordedRun> = open.iter().map(|open| &open.run).collect();
        let observed = runs_elsewhere(&*self.runs(Owner { uid: 0, gid: 0 }), &runs, seen)?;
        for OpenRun { owner, lab, vm, run } in open {
            let starts = recorded.starting.iter().any(|starting| starting.lab == lab && starting.vm == vm);
            let is_over = !starts && life_of(&run, &observed, &self.site).is_off();
            let of_owner = elsewhere.entry(owner).or_default();
            if is_over {
                of_owner.over.insert(run.run)
            } else {
                of_owner.running.insert((lab, vm))
            };
        }
        let disks = self.disks(lab, Owner { uid: 0, gid: 0 });
        let stored = if storers.is_empty() { Vec::new() } else { ledger.disks_elsewhere(lab, storers)? };
        for StoredDisk { owner, path, is_overlay } in stored {
            let bytes = disks.size(&path)?.map_or(0, |size| size.stored_bytes(is_overlay));
            elsewhere.entry(owner).or_default().stored.insert(path, bytes);
        }
        Ok(elsewhere)
    }

    /// Looks at all that a plan of this lab depends on, with one question to the queue.
    pub fn observe(&self, desired: &Desired, recorded: &Recorded) -> Result<Observed, ControlError> {
        self.observe_in(&*self.scheduler(), desired, recorded)
    }

    pub(super) fn observe_in(
        &self,
        scheduler: &dyn Scheduler,
        desired: &Desired,
        recorded: &Recorded,
    ) -> Result<Observed, ControlError> {
        let dhcp = self.dhcp();
        // Looking changes no owner, so any will do.
        let nobody = Owner { uid: 0, gid: 0 };
        let (runs, disks) = (self.runs(nobody), self.disks(&desired.lab, nobody));
        let (storage, ledger) = (&self.site.storage, Ledger { state: self.site.state.clone() });
        let world = World { runs: &*runs, disks: &*disks, scheduler, dhcp: &*dhcp, storage, ledger: &ledger };
        let observed = observe(&world, desired, recorded)?;
        self.remember(recorded, &observed);
        Ok(observed)
    }

    /// Keeps what images hold, so that nobody reads them again until they change. Who may not write just reads again.
    fn remember(&self, recorded: &Recorded, observed: &Observed) {
        let mut digests = observed.digests();
        digests.retain(|path, digest| recorded.digests.get(path) != Some(digest));
        let remembered = match digests.is_empty() {
            true => Ok(()),
            false => Store::open(&self.site.state).and_then(|mut store| store.remember(&digests)),
        };
        if let Err(error) = remembered {
            tracing::debug!(%error, "digests of images are not kept");
        }
    }
}
