//! The words for why a plan, or a part of it, must not be applied, and what to do next.

use std::fmt;

use super::freeze::thaw_command;
use super::plain_words::count;
use super::times;
use crate::model::disk::{Spoilt, size};
use crate::model::id::VmName;
use crate::plan::{DiskLoss, Disturbance, Ground, Leaves, Refusal, SessionLoss};

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frozen { who, since, why, .. } => {
                write!(f, "it is frozen by {who} since {}: {why}", times::local(*since))
            }
            Self::RosterShrinks { lost, members, percent_max, first } => {
                let names: Vec<&str> = first.iter().map(|user| user.as_str()).collect();
                let more = if *lost > names.len() { ", …" } else { "" };
                let names = names.join(", ");
                write!(
                    f,
                    "{lost} of {members} members would leave ({names}{more}): more than {percent_max} % looks like a roster that is not whole"
                )
            }
            Self::AccommodationsShrink { lost, recorded } => {
                write!(f, "{lost} of {recorded} people would lose their accommodations: the file may not be whole")
            }
            Self::SessionHeld { ended } => {
                let ended = times::local(*ended);
                write!(f, "this exam was held, and ended at {ended}: what was done in it stands on its vms' disks")
            }
            Self::SessionEdited { until, loss } => {
                write!(f, "it is open until {} and {loss}", times::local(*until))
            }
            Self::DuringSession { session, until, disturbance } => {
                write!(f, "{disturbance}, while session `{session}` is open until {}", times::local(*until))
            }
            Self::SubmissionsPending { waiting } => {
                write!(f, "it is over, and files of {} are not collected yet", count(*waiting, "vm", "vms"))
            }
            Self::NotCollected { session, disturbance } => {
                write!(f, "{disturbance}, and its files are not collected yet after session `{session}`")
            }
            Self::MayStillWrite { host, silent_seconds: None, .. } => {
                write!(f, "its starter on {host} never wrote anything, so nobody knows how long it has been silent")
            }
            Self::MayStillWrite { host, silent_seconds: Some(silent), fenced_seconds } => write!(
                f,
                "its starter on {host} has been silent for {silent} s that we know of, and its guest is certain to be suspended only after {fenced_seconds} s: wait {} s more",
                fenced_seconds.saturating_sub(*silent)
            ),
            Self::Worked { worker } => worker.fmt(f),
            Self::MadeByCommand { leaves, by, at, claim } => write!(
                f,
                "{leaves}, and it would be stopped and its disks set aside: {by} made it {} (claim {claim})",
                times::local(*at)
            ),
            Self::WantedByOthers { by, since, claim } => {
                let since = times::local(*since);
                write!(f, "{by} wants it to run since {since} (claim {claim}), and it would be stopped")
            }
            Self::OverQuota { owner, limit, running, elsewhere, starts } => {
                let runs = what_runs(running, *elsewhere);
                let and = if runs.is_empty() { "" } else { "and " };
                write!(f, "{owner} may run {limit} vms at once: {runs}{and}{starts} would start")
            }
            Self::OverShare { running, starts, vms_max, wanted_mib, memory_mib_max } => {
                let limits = vms_max.map(|limit| format!("{limit} vms")).into_iter();
                let limits: Vec<String> = limits.chain(memory_mib_max.map(|mib| format!("{mib} MiB"))).collect();
                write!(
                    f,
                    "the site lets this lab run {} at once: {running} run, and with {starts} more they would have {wanted_mib} MiB",
                    limits.join(" with ")
                )
            }
            Self::OverStorage { owner, limit_bytes, used_bytes, wanted_bytes } => {
                let (limit, used, wanted) = (size(*limit_bytes), size(*used_bytes), size(*wanted_bytes));
                write!(f, "{owner} may store {limit}: {used} are in use or to be, and {wanted} would come")
            }
            Self::Bug { flaw, more } => {
                write!(f, "this plan is wrong, which is a bug of labwright, not of the lab: {flaw}")?;
                if *more > 0 { write!(f, " (and {more} more like it)") } else { Ok(()) }
            }
            Self::Other { text, .. } => f.write_str(text),
            Self::NoRoom { .. } | Self::TooBig { .. } => self.fmt_room(f),
            Self::RangeOverlaps { .. } | Self::RangeTaken { .. } => self.fmt_room(f),
            Self::NoGroup { .. } | Self::NoAddress { .. } => self.fmt_room(f),
            _ => self.fmt_disk(f),
        }
    }
}

/// Each with a comma behind it; nothing where nothing runs.
fn what_runs(running: &[VmName], elsewhere: usize) -> String {
    let names = running.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let here = match running.len() {
        0 => None,
        1 => Some(format!("{names} runs")),
        several => Some(format!("{several} run ({names})")),
    };
    let elsewhere = match elsewhere {
        0 => None,
        1 => Some("1 runs in another lab".to_owned()),
        several => Some(format!("{several} run in other labs")),
    };
    [here, elsewhere].into_iter().flatten().map(|runs| runs + ", ").collect()
}

impl Ground {
    fn fmt_room(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom { without, memory_mib, wanted_slots, wanted_mib, .. } if wanted_mib > memory_mib => write!(
                f,
                "the {wanted_slots} vms that are to run take {wanted_mib} MiB of this site, which has {memory_mib} MiB: there is no room for {without}"
            ),
            Self::NoRoom { without, slots, wanted_slots, .. } => write!(
                f,
                "{wanted_slots} vms are to run at once on this site, which has {slots} slots: there is no room for {without}"
            ),
            Self::TooBig { wanted_mib, others, memory_mib, .. } => {
                write!(f, "it takes {wanted_mib} MiB of a host")?;
                if *others > 0 {
                    write!(f, " (and {others} more vms like it)")?;
                }
                write!(f, ", and this site has {memory_mib} MiB in all: it would wait forever")
            }
            Self::RangeOverlaps { range, lab, group, other } => write!(
                f,
                "its range {}-{} overlaps {}-{} of vm group `{group}` in lab `{lab}`",
                range.0, range.1, other.0, other.1
            ),
            Self::RangeTaken { range } => {
                write!(f, "of its range {}-{}, another lab has addresses", range.0, range.1)
            }
            Self::NoGroup { group } => write!(f, "its vm group `{group}` is neither in the manifest nor recorded"),
            Self::NoAddress { group, addresses } => {
                write!(f, "no address of vm group `{group}` is free: it has {addresses}, all in use")
            }
            _ => Ok(()),
        }
    }

    fn fmt_disk(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DisksReplaced { owner } => {
                write!(f, "its disks would be set aside and made anew: {owner} would not find the work on them")
            }
            Self::DiskStrange { disk } => write!(
                f,
                "its disk {} is not the one that was recorded, and a start could ruin what is on it",
                disk.display()
            ),
            Self::BaseSpoilt { image, how } => {
                write!(f, "the published image {} {}; nothing is started over it", image.display(), spoilt(*how))
            }
            Self::DiskGone { disk, loss } => write!(f, "its disk {} is gone; {loss}", disk.display()),
            Self::DisksOfOther { theirs, owner } => {
                write!(f, "the disks that were put back for it are {theirs}'s, and it is {owner}'s")
            }
            Self::WasHereBefore { sets, .. } => {
                write!(f, "it was here before, and its disks are set aside: {}", sets.join(", "))
            }
            Self::NothingAside => f.write_str("none of its disks is set aside that could come back"),
            Self::BeginsEmpty => {
                f.write_str("it was made with an empty disk, and there is nothing to make another from")
            }
            Self::NoVersion { template } => write!(f, "template `{template}` has no version to derive from"),
            Self::ImageMissing => f.write_str("its image is not there"),
            Self::ImageChanged { derived, version } => write!(
                f,
                "its image changed while {derived} vms derive from it: they would keep version {}, new ones would get version {version}",
                version.saturating_sub(1)
            ),
            _ => Ok(()),
        }
    }
}

impl Refusal {
    /// What to do next.
    pub fn hint(&self) -> String {
        let allow = format!("`--allow {}`", self.address);
        match &self.why {
            Ground::Frozen { scope, .. } => format!("`{}` lets plans be applied again", thaw_command(*scope)),
            Ground::RosterShrinks { .. } => format!("if they really leave: {allow}"),
            Ground::AccommodationsShrink { .. } => format!("if they really lose them: {allow}"),
            Ground::SessionHeld { .. } => {
                "leave it as it was, and give the new exam a name of its own: its vms get new disks".to_owned()
            }
            Ground::SessionEdited { .. } => format!("wait until it is over, or mean it: {allow}"),
            Ground::DuringSession { .. } => format!("wait until the session is over, or mean it: {allow}"),
            Ground::SubmissionsPending { .. } | Ground::NotCollected { .. } => format!(
                "the daemon or `labwright reconcile --once` collects them once each is off: `labwright session submissions` shows how they stand; or mean it: {allow}"
            ),
            Ground::DisksReplaced { .. } => {
                format!("if that is meant: {allow}; the old disks are kept and can be restored")
            }
            Ground::MayStillWrite { host, .. } => format!(
                "if {host} is switched off for certain: `labwright host forget {host} --powered-off`; a starter that goes on writing is alive: only the batch system has lost touch with its host"
            ),
            Ground::Worked { .. } => {
                "nothing is done to it meanwhile; run the command again when that is over".to_owned()
            }
            Ground::RangeOverlaps { .. } => "give one of the two groups another `ip_range`".to_owned(),
            Ground::RangeTaken { .. } => "take another `ip_range`".to_owned(),
            Ground::MadeByCommand { .. } | Ground::WantedByOthers { .. } => {
                format!("if that is meant: {allow}; its disks are kept")
            }
            Ground::DiskStrange { .. } => format!(
                "put the right file back (`qemu-img info` shows what lies below it), or have it set aside and made anew with {allow}"
            ),
            Ground::BaseSpoilt { .. } => {
                "put the file back as it was published: `labwright template versions -o json` has its sha256".to_owned()
            }
            Ground::DiskGone { .. } => {
                format!("put the file back (is the storage mounted?), or give it up with {allow}")
            }
            Ground::DisksOfOther { .. } => {
                format!("`labwright restore {} --undo` sets them aside again", self.address)
            }
            Ground::WasHereBefore { latest, .. } => {
                let choice = latest.as_ref().map(|set| format!(" --set {set}")).unwrap_or_default();
                format!(
                    "`labwright restore {}{choice}` brings them back; to begin with new ones: {allow}",
                    self.address
                )
            }
            Ground::OverQuota { .. } => format!(
                "stop one first, or raise `limits: {{ running_vms: … }}` of the user or a group; if that is meant: {allow}"
            ),
            Ground::OverShare { .. } => {
                "stop some first, or ask an admin to raise the lab's share in site.yaml".to_owned()
            }
            Ground::OverStorage { owner, .. } => format!(
                "`labwright quota {owner}` shows it: give a vm up with `labwright vm delete`, `derive` in place of `clone`, or have `limits: {{ storage: … }}` raised; if that is meant: {allow}"
            ),
            Ground::NothingAside => "`labwright get aside` lists the disks that are set aside".to_owned(),
            Ground::BeginsEmpty => "only a vm of a template or of an image can be reimaged".to_owned(),
            Ground::NoVersion { .. } => "publish one: `labwright plan` says what the template waits for".to_owned(),
            Ground::ImageMissing => "put the image in its place, or correct its path".to_owned(),
            Ground::ImageChanged { .. } => format!("put the old image back, or mean it: {allow}"),
            Ground::NoGroup { .. } => "mend the manifest: `labwright validate` says what is wrong with it".to_owned(),
            Ground::NoAddress { .. } => "widen the group's `ip_range`".to_owned(),
            Ground::Bug { .. } => {
                "nothing was changed; please report it with the output of `labwright plan --json`".to_owned()
            }
            Ground::NoRoom { .. } | Ground::TooBig { .. } => room_hint(&self.why),
            Ground::Other { hint, .. } => hint.clone(),
        }
    }
}

/// The smallest change that makes it fit.
fn room_hint(why: &Ground) -> String {
    match why {
        Ground::NoRoom { fitting_mib: Some(memory), .. } => format!(
            "with `memory: {memory}M` all would fit; or give the site more under `scheduler: {{ local: … }}`, or run fewer at once"
        ),
        Ground::NoRoom { wanted_slots, wanted_mib, .. } => format!(
            "give the site at least `slots: {wanted_slots}` and `memory: {wanted_mib}M` under `scheduler: {{ local: … }}`, or run fewer at once"
        ),
        Ground::TooBig { most_mib, .. } => format!(
            "`memory: {most_mib}M` is the most that fits; or give the site more under `scheduler: {{ local: … }}`"
        ),
        _ => String::new(),
    }
}

/// Behind "it is open until … and".
impl fmt::Display for SessionLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaves => "would leave the manifest",
            Self::EndsEarlier => "would end earlier",
            Self::StartsLater => "would start only later",
            Self::LosesVms => "would lose vms",
        })
    }
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "it would be stopped",
            Self::Restarted => "it would be restarted",
            Self::Readdressed => "it would get another address",
            Self::Rebuilt => "its disks would be set aside and made anew",
            Self::Leaves { why, runs } => {
                let loss = if *runs { "would be stopped" } else { "would lose its disks" };
                return write!(f, "{why}, and it {loss}");
            }
        })
    }
}

impl fmt::Display for DiskLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forgotten => "it would be forgotten, and nobody could restore it",
            Self::PutBack => "it was put back for it",
            Self::MadeAnew => "a new one would start from the template, without what was on it",
        })
    }
}

impl fmt::Display for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WithItsLab => f.write_str("the lab is taken down"),
            Self::Manifest => f.write_str("left the manifest"),
            Self::OwnerLeft { owner } => write!(f, "its owner `{owner}` left the manifest"),
            Self::GroupLeft => f.write_str("its vm group left the manifest"),
        }
    }
}

/// What is wrong with a published image, after its name.
pub(super) fn spoilt(how: Spoilt) -> &'static str {
    match how {
        Spoilt::Missing => "is gone",
        Spoilt::OtherBytes => "holds other bytes than were published",
    }
}

#[cfg(test)]
mod tests {
    use super::super::remarks::code;
    use super::*;

    #[test]
    fn a_refusal_has_a_code_its_fields_words_and_a_hint() {
        // (as a kept plan has it, its code, its words, what to do next)
        let table = [
            (
                r#"{"code":"disk_gone","disk":"/d","loss":"put_back"}"#,
                "disk_gone",
                "its disk /d is gone; it was put back for it",
                "put the file back (is the storage mounted?), or give it up with `--allow vm/a`",
            ),
            (
                r#"{"code":"during_session","session":"final","until":"2027-01-12T12:00:00Z","disturbance":{"leaves":{"why":"manifest","runs":false}}}"#,
                "during_session",
                "left the manifest, and it would lose its disks, while session `final` is open until NOON",
                "wait until the session is over, or mean it: `--allow vm/a`",
            ),
            (
                r#"{"code":"no_room","without":1,"slots":2,"memory_mib":4096,"wanted_slots":3,"wanted_mib":5000,"fitting_mib":840}"#,
                "no_room",
                "the 3 vms that are to run take 5000 MiB of this site, which has 4096 MiB: there is no room for 1",
                "with `memory: 840M` all would fit; or give the site more under `scheduler: { local: … }`, or run fewer at once",
            ),
            // Of before there were codes.
            (r#"{"text":"its image is not there","hint":"mend it"}"#, "other", "its image is not there", "mend it"),
        ];
        for (fields, expected, words, hint) in table {
            let words = words.replace("NOON", &times::local("2027-01-12T12:00:00Z".parse().unwrap()));
            let kept = format!(r#"{{"address":"vm/a","holds":"everything",{}"#, &fields[1..]);
            let refusal: Refusal = serde_json::from_str(&kept).unwrap();
            assert_eq!((code(&refusal.why).as_str(), refusal.why.to_string()), (expected, words));
            assert_eq!(refusal.hint(), hint);
            let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
            assert_eq!(serde_json::to_value(&refusal).unwrap(), kept);
        }
    }
}
