//! What people may use at once, what they use of it, and what one more vm would cost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::view::View;
use super::{Context, ControlError};
use crate::disks::{DiskError, Disks as _, Images, OnStorage, Owner};
use crate::model::disk::DiskSize;
use crate::model::id::{LabName, TemplateName, UserName, VmName};
use crate::observe::{Elsewhere, Observed, life};
use crate::state::{RecordedVm, Starting, Storing};

/// One user of one lab.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Quota {
    /// Whose it is.
    pub user: UserName,
    /// Where.
    pub lab: LabName,
    /// Vms that run or are about to, in all labs of the site: the limit is the site's.
    pub running_vms: Used,
    /// What disks take, in all labs of the site.
    pub storage_bytes: Used,
    /// What was set aside in this lab, which counts against no limit.
    pub aside_bytes: u64,
    /// What one more vm takes of the storage.
    pub one_more: Vec<OneMore>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub struct Used {
    /// By now.
    pub used: u64,
    /// At most.
    pub limit: u64,
}

impl Used {
    pub fn left(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// A vm from one template.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct OneMore {
    /// What it would come from.
    pub template: TemplateName,
    /// As it is made; it grows with what is written.
    pub derive_bytes: u64,
    /// As a full copy.
    pub clone_bytes: u64,
}

/// Of one user, or of everybody whom the lab knows.
pub fn quotas(view: &View<'_>, who: Option<&UserName>) -> Result<Vec<Quota>, ControlError> {
    let users = &view.desired.users;
    if let Some(user) = who.filter(|user| !users.contains_key(*user)) {
        return Err(ControlError::NoUser { user: user.clone(), lab: view.desired.lab.clone() });
    }
    let meant: BTreeSet<UserName> = users.keys().filter(|user| who.is_none_or(|who| *user == who)).cloned().collect();
    let observed = view.observed()?;
    let storers: Vec<&UserName> = meant.iter().collect();
    let elsewhere = view.context.elsewhere(&view.desired.lab, &meant, &storers, &view.recorded, &observed)?;
    let (stored, aside) = stored(view, &elsewhere)?;
    let (running, one_more) = (running(view, &observed, &elsewhere), one_more(view)?);
    let of = |user: &UserName| {
        let limits = users[user].limits;
        let used = |of: &Sums| of.get(user).copied().unwrap_or_default();
        Quota {
            user: user.clone(),
            lab: view.desired.lab.clone(),
            running_vms: Used { used: used(&running), limit: u64::from(limits.running_vms) },
            storage_bytes: Used { used: used(&stored), limit: limits.storage_bytes },
            aside_bytes: used(&aside),
            one_more: one_more.clone(),
        }
    };
    Ok(meant.iter().map(of).collect())
}

/// Of who asks, in every lab that knows them.
pub fn own(context: &Context) -> Result<Vec<Quota>, ControlError> {
    let Some(user) = context.caller.person.user().cloned() else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for lab in context.labs()? {
        let (context, desired) = context.of_applied_lab(&lab)?;
        let view = context.view(&desired)?;
        if view.desired.users.contains_key(&user) {
            all.extend(quotas(&view, Some(&user))?);
        }
    }
    Ok(all)
}

/// By owner.
type Sums = BTreeMap<UserName, u64>;

/// Bytes of disks in use in all of the site, and of those set aside in this lab. A vm for which somebody makes disks just now counts
/// by what it will have, as where a plan is judged.
fn stored(view: &View<'_>, elsewhere: &BTreeMap<UserName, Elsewhere>) -> Result<(Sums, Sums), ControlError> {
    let of_user = |(user, seen): (&UserName, &Elsewhere)| (user.clone(), seen.stored.values().sum());
    let (mut stored, mut aside): (Sums, Sums) = (elsewhere.iter().map(of_user).collect(), Sums::new());
    let storing = &view.recorded.storing;
    for Storing { owner, bytes, .. } in storing {
        *stored.entry(owner.clone()).or_default() += bytes;
    }
    let is_promised = |vm: &VmName| storing.iter().any(|of| of.lab == view.desired.lab && of.vm == *vm);
    for (_, known) in view.recorded.vms.iter().filter(|(vm, _)| !is_promised(vm)) {
        for disk in known.disks.iter().filter(|disk| disk.made) {
            add(&mut stored, &known.vm.owner, disk.base.is_some(), &disk.path)?;
        }
    }
    for set in view.recorded.aside.values().flatten() {
        let Some(owner) = set.owner.as_ref().and_then(|owner| UserName::new(owner).ok()) else { continue };
        for disk in &set.disks {
            add(&mut aside, &owner, disk.base.is_some(), &disk.path)?;
        }
    }
    Ok((stored, aside))
}

fn add(sums: &mut Sums, owner: &UserName, is_overlay: bool, path: &Path) -> Result<(), DiskError> {
    if let Some(size) = size(path)? {
        let sum = sums.entry(owner.clone()).or_default();
        *sum = sum.saturating_add(size.stored_bytes(is_overlay));
    }
    Ok(())
}

fn size(path: &Path) -> Result<Option<DiskSize>, DiskError> {
    // Looking changes no owner.
    OnStorage { owner: Owner { uid: 0, gid: 0 }, images: Images::Anywhere, authorities: None }.size(path)
}

/// In all of the site, with those that are being started.
fn running(view: &View<'_>, observed: &Observed, elsewhere: &BTreeMap<UserName, Elsewhere>) -> Sums {
    let on = |known: &RecordedVm| !life(known, observed, &view.context.site).is_off();
    let of = |owner: &UserName, lab: &LabName, vm: &VmName| (owner.clone(), lab.clone(), vm.clone());
    let here = view.recorded.vms.iter().filter(|(_, known)| on(known));
    let here = here.map(|(vm, known)| of(&known.vm.owner, &view.desired.lab, vm));
    let starting = view.recorded.starting.iter().map(|Starting { owner, lab, vm }| of(owner, lab, vm));
    let there = elsewhere.iter().flat_map(|(owner, seen)| seen.running.iter().map(|(lab, vm)| of(owner, lab, vm)));
    let all: BTreeSet<(UserName, LabName, VmName)> = here.chain(starting).chain(there).collect();
    let mut running = Sums::new();
    all.into_iter().for_each(|(owner, _, _)| *running.entry(owner).or_default() += 1);
    running
}

fn one_more(view: &View<'_>) -> Result<Vec<OneMore>, ControlError> {
    let mut latest: BTreeMap<&TemplateName, u64> = BTreeMap::new();
    for ((template, _), version) in &view.recorded.versions {
        let mut bytes = 0_u64;
        for disk in &version.disks {
            bytes = bytes.saturating_add(size(&disk.path)?.map_or(0, |size| size.virtual_bytes));
        }
        latest.insert(template, bytes);
    }
    let of = |(template, clone_bytes): (&TemplateName, u64)| OneMore {
        template: template.clone(),
        derive_bytes: 0,
        clone_bytes,
    };
    Ok(latest.into_iter().map(of).collect())
}
