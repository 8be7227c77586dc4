//! The steps of a change in words: what exactly will be done, and after what.

use std::collections::BTreeSet;

use super::escaped;
use super::plain_words::count;
use crate::model::address::Address;
use crate::model::claim::ClaimedPower;
use crate::model::disk::DiskOrigin;
use crate::plan::{Change, Effect, PublishSource};
use crate::state::Entry;

/// One line per step, indented and fit for a terminal; `needs` are other changes that come first.
pub(super) fn lines(change: &Change, needs: &BTreeSet<&Address>) -> Vec<String> {
    let after = needs.iter().map(|address| format!("after {address}"));
    let steps = change.actions.iter().filter_map(|action| words(&action.effect));
    after.chain(steps).map(|line| format!("      {}", escaped(&line))).collect()
}

/// What an effect does outside our records; `None` of one that is only recorded.
fn words(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Record(entry) => return recorded(entry),
        Effect::Publish { version, disks, .. } => {
            let image = |disk: &PublishSource| match &disk.url {
                Some(url) => format!("{url} (to be fetched, unless it is kept here)"),
                None => disk.image.display().to_string(),
            };
            let images: Vec<String> = disks.iter().map(image).collect();
            format!("publishes {} as version {version}", images.join(", "))
        }
        Effect::MakeDisk { disk, origin, .. } => {
            let origin = match origin {
                DiskOrigin::Derive { base } => format!("over {}", base.display()),
                DiskOrigin::Copy { image } => format!("as a copy of {}", image.display()),
                DiskOrigin::Empty { size_bytes } => format!("empty, of {size_bytes} bytes"),
            };
            format!("makes disk {} {origin}", disk.path.display())
        }
        Effect::SetAside { disks, folder, lost, .. } => {
            let lost = if lost.is_empty() {
                String::new()
            } else {
                format!("; forgets {}, lost", count(lost.len(), "disk", "disks"))
            };
            format!("sets {} aside in {}{lost}", count(disks.len(), "disk", "disks"), folder.display())
        }
        Effect::PutBack { moves, .. } => {
            let from = moves.first().and_then(|(from, _)| from.parent()).unwrap_or(std::path::Path::new(""));
            format!("puts {} back from {}", count(moves.len(), "disk", "disks"), from.display())
        }
        Effect::Renew { disks, folder, .. } => {
            let copies = count(disks.len(), "a copy of its disk", "copies of its disks");
            format!("goes on with {copies}, and sets what its lost host had aside in {}", folder.display())
        }
        Effect::CheckDisks { disks, .. } => format!("checks {}", count(disks.len(), "disk", "disks")),
        Effect::Reserve { reservation, .. } => format!("reserves {} for {}", reservation.ip, reservation.mac),
        Effect::Release { reservation, .. } => {
            format!("releases the reservation of {} for {}", reservation.ip, reservation.mac)
        }
        Effect::Stop { run, .. } => format!("stops run {run}"),
        Effect::TurnOff { run, .. } => format!("turns the guest off, while its run {run} goes on"),
        Effect::TurnOn { run, .. } => format!("turns the guest on in run {run}"),
        Effect::Start { spec, .. } => format!("submits run {}", spec.run),
        Effect::Tell { run, .. } => format!("tells run {run} its times"),
        Effect::Adopt { run, task, .. } => format!("takes job {task} for run {run}"),
        Effect::Fence { run, .. } => format!("fences run {run} off"),
        Effect::RecordEnd { run, .. } => format!("takes run {run} for ended"),
    })
}

/// Of what is only recorded, people's wishes alone are a step of their own.
fn recorded(entry: &Entry) -> Option<String> {
    Some(match entry {
        Entry::ClaimPower { wanted: ClaimedPower::Running, by, .. } => format!("claims for {by} that it runs"),
        Entry::ClaimPower { wanted: ClaimedPower::Stopped, by, .. } => format!("claims for {by} that it is stopped"),
        Entry::EndPowerClaim { why, .. } | Entry::EndClaim { why, .. } => format!("ends the claim on it: {why}"),
        Entry::Accommodate { people, .. } => format!("records accommodations: {people}"),
        Entry::BeginTime { at, .. } => format!("records that its owner's time began {}", super::times::local(*at)),
        Entry::Object { .. } | Entry::Vm { .. } | Entry::ForgetVm { .. } => return None,
        Entry::WantBack { .. } | Entry::Image { .. } | Entry::RenameVm { .. } | Entry::RenameTemplate { .. } => {
            return None;
        }
    })
}
