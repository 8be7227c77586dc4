//! What people may use at once, what they use of it, and what one more vm would cost.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::view::View;
use super::{Context, ControlError};
use crate::disks::{DiskError, Disks as _, Images, OnStorage, Owner};
use crate::model::disk::DiskSize;
use crate::model::id::{LabName, TemplateName, UserName};
use crate::observe::life;

/// One user of one lab.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Quota {
    /// Whose it is.
    pub user: UserName,
    /// Where.
    pub lab: LabName,
    /// Vms that run or are about to.
    pub running_vms: Used,
    /// What disks take.
    pub storage_bytes: Used,
    /// What was set aside, which counts against no limit.
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
    let (stored, aside) = stored(view)?;
    let (running, one_more) = (running(view)?, one_more(view)?);
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
    Ok(users.keys().filter(|user| who.is_none_or(|who| *user == who)).map(of).collect())
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

/// Bytes of disks in use, and of those set aside.
fn stored(view: &View<'_>) -> Result<(Sums, Sums), ControlError> {
    let (mut stored, mut aside) = (Sums::new(), Sums::new());
    for known in view.recorded.vms.values() {
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

fn running(view: &View<'_>) -> Result<Sums, ControlError> {
    let observed = view.observed()?;
    let mut running = Sums::new();
    for known in view.recorded.vms.values() {
        if !life(known, &observed, &view.context.site).is_off() {
            *running.entry(known.vm.owner.clone()).or_default() += 1;
        }
    }
    Ok(running)
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
