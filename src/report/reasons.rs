//! The words for why a thing changes: half-sentences in a row.

use std::fmt;

use super::times;
use crate::model::claim::ClaimedPower;
use crate::model::lab::PowerState;
use crate::plan::{Base, Change, Reason};

impl Change {
    /// Why, in half a sentence for each reason.
    pub fn reason(&self) -> String {
        joined(self.reasons.iter().map(ToString::to_string))
    }
}

/// Why a vm changes, in words that are the same for the vms of others.
pub(super) fn of_many(change: &Change) -> String {
    joined(change.reasons.iter().map(|reason| match reason {
        Reason::NewVm { from, owner: _ } => format!("new: {from}"),
        reason => reason.to_string(),
    }))
}

fn joined(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join("; ")
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewVm { from, owner } => write!(f, "new: {from} for {owner}"),
            Self::Was { address } => write!(f, "was {address}"),
            Self::Edited { field, before, after } => {
                let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
                write!(f, "{field} {} -> {}", value(before), value(after))
            }
            Self::EditedAtLength { field } => write!(f, "{field} changed"),
            Self::Leaves { why } => why.fmt(f),
            Self::DisksKept { days } => write!(f, "its disks are kept for {days} days"),
            Self::PublishedAnew { version } => {
                write!(f, "its image changed: version {version} is published, existing vms keep theirs")
            }
            Self::DiskGivenUp { disk } => write!(f, "{} is given up and made anew", disk.display()),
            Self::PutBack { set } => write!(f, "{set} comes back, and the disks of now are set aside"),
            Self::Other { text } => f.write_str(text),
            Self::ForSession { session } => write!(f, "session `{session}` needs it"),
            Self::OtherTimes { session: Some(session), end: Some(end) } => {
                write!(f, "its time ends {} with session `{session}`", times::local(*end))
            }
            Self::OtherTimes { session: Some(session), end: None } => {
                write!(f, "session `{session}` sets it no end now")
            }
            Self::Accommodations { people, were } => {
                write!(f, "its accommodations change: {were} before, {people} now")
            }
            Self::OtherTimes { session: None, .. } => f.write_str("no session sets it an end any more"),
            Self::Wanted { .. }
            | Self::Claimed { .. }
            | Self::WantedToRun { .. }
            | Self::ClaimEnds { .. }
            | Self::RunEnded { .. }
            | Self::SubmitUnconfirmed { .. } => self.fmt_power(f),
            _ => f.write_str(self.fixed()),
        }
    }
}

impl Reason {
    fn fmt_power(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wanted { state: PowerState::Running } => f.write_str("wanted: running"),
            Self::Wanted { state: PowerState::Stopped } => f.write_str("wanted: stopped"),
            Self::Claimed { by, wanted, claim } => {
                let what = match wanted {
                    ClaimedPower::Running => "run",
                    ClaimedPower::Stopped => "stop",
                };
                write!(f, "{by} wants it to {what} (claim {claim})")
            }
            Self::WantedToRun { by } => write!(f, "{by} wants it to run"),
            Self::ClaimEnds { why } => write!(f, "the claim on it ends: {why}"),
            Self::RunEnded { reason: None } => f.write_str("its run ended without a word"),
            Self::RunEnded { reason: Some(reason) } => write!(f, "its run ended: {reason}"),
            Self::SubmitUnconfirmed { task } => write!(f, "its submit was never confirmed and is job {task}"),
            _ => Ok(()),
        }
    }

    /// What has no fields.
    fn fixed(&self) -> &'static str {
        match self {
            Self::New => "new in the manifest",
            Self::TakesBack => "takes back its disks",
            Self::Starts => "starts",
            Self::GivenUp => "given up by command",
            Self::VersionsKept => "its published versions stay for the disks that need them",
            Self::Asked => "asked for",
            Self::Reimaged => "new disks are asked for; the old ones are kept",
            Self::ToldToStop => "an apply that was cut short had told it to stop",
            Self::ToldToBeOff => "an apply that was cut short had turned its guest off",
            Self::FencedOff => "its run is taken for over, and fenced off in case it is still alive",
            Self::Unreserved => "its address is to be reserved",
            Self::ReservationGone => "its DHCP reservation is missing",
            Self::Published => "its image is published",
            Self::ImageTouched => "its image was touched and holds the same bytes",
            Self::Refreshed => "our records are brought in line with what is there",
            _ => "",
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Derived(template) => write!(f, "derived from `{template}`"),
            Self::Cloned(template) => write!(f, "cloned from `{template}`"),
            Self::OwnDisks => f.write_str("with disks of its own"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::remarks::code;
    use super::*;

    #[test]
    fn a_reason_has_a_code_its_fields_and_words() {
        // (as a kept plan has it, its code, its words)
        let table = [
            (r#"{"code":"new_vm","from":{"derived":"gsr"},"owner":"al"}"#, "new_vm", "new: derived from `gsr` for al"),
            (r#"{"code":"new_vm","from":"own_disks","owner":"al"}"#, "new_vm", "new: with disks of its own for al"),
            (
                r#"{"code":"edited","field":"memory","before":null,"after":"2048 MiB"}"#,
                "edited",
                "memory none -> 2048 MiB",
            ),
            (r#"{"code":"leaves","why":"with_its_lab"}"#, "leaves", "the lab is taken down"),
            (r#"{"code":"wanted","state":"stopped"}"#, "wanted", "wanted: stopped"),
            (
                r#"{"code":"claimed","by":"al","wanted":"stopped","claim":3}"#,
                "claimed",
                "al wants it to stop (claim 3)",
            ),
            (r#"{"code":"run_ended","reason":null}"#, "run_ended", "its run ended without a word"),
            (r#"{"code":"unreserved"}"#, "unreserved", "its address is to be reserved"),
        ];
        for (kept, expected, words) in table {
            let reason: Reason = serde_json::from_str(kept).unwrap();
            assert_eq!((code(&reason).as_str(), reason.to_string().as_str()), (expected, words));
            let kept: serde_json::Value = serde_json::from_str(kept).unwrap();
            assert_eq!(serde_json::to_value(&reason).unwrap(), kept);
        }
    }

    /// A plan that was kept before there were codes has a half-sentence.
    #[test]
    fn a_kept_plan_without_codes_says_what_it_said() {
        let kept = r#"{"address":"vm/a","verb":"start","reason":"wanted: running; asked for","before":{},"after":{},"actions":[]}"#;
        let change: Change = serde_json::from_str(kept).unwrap();
        assert_eq!(change.reason(), "wanted: running; asked for");
        assert_eq!(
            serde_json::to_value(&change.reasons).unwrap(),
            serde_json::json!([{"code": "other", "text": "wanted: running; asked for"}])
        );
    }
}
