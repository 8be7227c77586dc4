//! The words for what a plan says of a thing beside what it changes, and the code by which a program tells them apart.

use std::fmt;

use super::grounds::spoilt;
use super::plain_words::shortened;
use super::times;
use crate::plan::{Already, NotDone, Remark};

/// The name of a value among those of its kind, as its JSON has it.
pub(super) fn code(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value["code"].as_str().unwrap_or("other").to_owned()
}

fn reason(reason: Option<&String>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

fn leaving(is_leaving: bool) -> &'static str {
    if is_leaving { "to leave the manifest, " } else { "" }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostSilent { host } => write!(f, "its host {host} does not answer"),
            Self::StarterSilent { host, seconds } => {
                write!(
                    f,
                    "its job is gone without a word, and its starter on {host} has been silent for {seconds} s that we know of"
                )
            }
            Self::RunEnded { run, reason: None } => write!(f, "its run {run} ended without a word"),
            Self::RunEnded { run, reason: Some(reason) } => write!(f, "its run {run} ended ({reason})"),
            Self::SubmitUnconfirmed { run, task } => {
                write!(f, "its run {run} is in the queue as job {task}, although its submit was never confirmed")
            }
            Self::DiskGone { disk } => write!(f, "its disk {} is gone", disk.display()),
            Self::BaseSpoilt { image, how } => write!(f, "its published image {} {}", image.display(), spoilt(*how)),
            Self::DiskStrange { disk, found, base } => {
                write!(f, "its disk {} {found}; our records say that it ", disk.display())?;
                match base {
                    Some(base) => write!(f, "lies over {}", base.display()),
                    None => f.write_str("stands alone"),
                }
            }
            Self::ReservationGone => f.write_str("its DHCP reservation is gone"),
            Self::JobForeign { .. } | Self::JobUnknown { .. } | Self::MayRunUnknown { .. } => self.fmt_job(f),
            Self::StopsAgain => {
                f.write_str("is started, and its manifest says `state: stopped`: the next apply stops it again")
            }
            Self::OldSettings => f.write_str("runs with its old settings; the new ones take effect at its next start"),
            Self::SitsAgain { users } => {
                let sits = if users.len() == 1 { "sits" } else { "sit" };
                write!(f, "{} {sits} an exam again, with new disks: {}", users.len(), shortened(users.iter()))
            }
            Self::AccommodationsUnread { recorded, why } => {
                write!(f, "its accommodations are not read, since {why}; the {recorded} that are recorded stay")
            }
            Self::SessionPast { ended } => {
                write!(f, "it lies in the past, and is over since {}: look at its year", times::local(*ended))
            }
            Self::PoweredOff { vm } => {
                write!(f, "its guest powered itself off, so it stays off; `labwright vm start {vm}` starts it")
            }
            Self::Behind { template, vms, version } => write!(
                f,
                "{} on versions before {version}: `labwright template update {template}` gives new disks and keeps the old ones",
                if *vms == 1 { "1 vm stands".to_owned() } else { format!("{vms} vms stand") }
            ),
            Self::NeverRestarted { vm } => {
                write!(
                    f,
                    "its guest was never restarted: `labwright vm restart {vm}` keeps its disks and may be enough"
                )
            }
            Self::NewDisks { aside } => write!(f, "begins with new disks; these stay set aside: {}", aside.join(", ")),
            Self::ImageGone { version } => {
                write!(f, "its image is gone; vms derive from version {version}, which is kept")
            }
            Self::AddressHeld { group, held } => write!(
                f,
                "waits for an address of vm group `{group}`: {held} are held until the vms that leave are stopped; apply again after this plan"
            ),
            Self::Other { text } => f.write_str(text),
            _ => self.fmt_wait(f),
        }
    }
}

impl Remark {
    fn fmt_job(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JobForeign { name, owner } => write!(
                f,
                "it carries our mark ({name}) and belongs to `{owner}`, who is not the account that submits our jobs; it is not counted and left alone"
            ),
            Self::JobUnknown { name, task } => write!(
                f,
                "it carries our mark ({name}) and belongs to no run we know; it is left alone: `labwright import vm/NAME --job {task}` takes it over"
            ),
            Self::MayRunUnknown { vm, task } => write!(
                f,
                "until it is known whose job {task} is: it may be this vm's. `labwright import vm/{vm} --job {task}` takes it over if it is; `--allow job/{task}` goes on if it is not a vm's of this lab"
            ),
            _ => Ok(()),
        }
    }

    /// Behind "waits".
    fn fmt_wait(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForHost { host, leaving: is_leaving } => {
                write!(f, "{}until {host} answers or `labwright host forget {host}` is typed", leaving(*is_leaving))
            }
            Self::ForSilence { seconds, leaving: is_leaving } => {
                write!(
                    f,
                    "{}until its starter has been silent for {seconds} s: then it is over for certain",
                    leaving(*is_leaving)
                )
            }
            Self::Worked { worker } => write!(f, "it {worker}, and is left out until that is done"),
            Self::NeedWorked { thing, worker } => write!(f, "for {thing}, which {worker}"),
            Self::StillNeeded { by } => write!(f, "to be forgotten, until {by} no longer needs it"),
            Self::TemplateUnpublished { template } => {
                write!(f, "until template `{template}` is installed and published")
            }
            Self::NotInstalled { template } => write!(
                f,
                "until its empty disk is installed and published, no vm can derive from it: `labwright template install {template} --cdrom FILE`"
            ),
            Self::Queued { reason: why } => write!(f, "in the queue{}", reason(why.as_ref())),
            Self::QueueHeld => f.write_str("in the queue, where it is held"),
            Self::JobSuspended => f.write_str("for its job to go on: it is suspended"),
            Self::JobDeleting => f.write_str("for its job to go: it was told to"),
            Self::JobError { reason: why } => write!(f, "for an admin: its job is in error{}", reason(why.as_ref())),
            Self::Paused { reason } => write!(f, "for its guest to go on: it is paused, {reason}"),
            Self::Restoring { vm, set } => {
                write!(f, "until {set} is put back, which was cut short: `labwright restore vm/{vm}` goes on")
            }
            _ => Ok(()),
        }
    }
}

/// Behind the vm's name.
impl fmt::Display for Already {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "is in the queue already",
            Self::Runs => "runs already",
            Self::Off => "is off already",
        })
    }
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worked(worker) => write!(f, "it {worker}"),
            Self::Refused { vm, refusal } if refusal.address == crate::model::address::Address::vm(vm) => {
                refusal.why.fmt(f)
            }
            Self::Refused { refusal, .. } => write!(f, "{}: {}", refusal.address, refusal.why),
            Self::Waits(note) => write!(f, "it waits {}", note.what),
            Self::Noted(note) => note.what.fmt(f),
            Self::Unsaid => f.write_str("the plan has nothing to say about it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Note;

    #[test]
    fn a_note_has_a_code_its_fields_and_words() {
        // (as a kept plan has it, its code, its words)
        let table = [
            (
                r#"{"code":"for_host","host":"h1","leaving":true}"#,
                "for_host",
                "to leave the manifest, until h1 answers or `labwright host forget h1` is typed",
            ),
            (
                r#"{"code":"run_ended","run":"k3f9-1","reason":"guest"}"#,
                "run_ended",
                "its run k3f9-1 ended (the guest powered itself off)",
            ),
            (
                r#"{"code":"run_ended","run":"k3f9-1","reason":null}"#,
                "run_ended",
                "its run k3f9-1 ended without a word",
            ),
            (r#"{"code":"queued","reason":"no slots"}"#, "queued", "in the queue: no slots"),
            (
                r#"{"code":"disk_strange","disk":"/d","found":"lies over /x","base":null}"#,
                "disk_strange",
                "its disk /d lies over /x; our records say that it stands alone",
            ),
            (
                r#"{"code":"old_settings"}"#,
                "old_settings",
                "runs with its old settings; the new ones take effect at its next start",
            ),
            // Of before there were codes.
            (r#"{"text":"its host h1 does not answer"}"#, "other", "its host h1 does not answer"),
        ];
        for (fields, expected, words) in table {
            let kept = format!(r#"{{"address":"vm/a",{}"#, &fields[1..]);
            let note: Note = serde_json::from_str(&kept).unwrap();
            assert_eq!((code(&note.what).as_str(), note.what.to_string().as_str()), (expected, words));
            let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
            assert_eq!(serde_json::to_value(&note).unwrap(), kept);
        }
    }
}
