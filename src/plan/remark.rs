//! What a plan says of a thing beside what it changes, as values: each has a code and its fields. `report` has the words.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Note, Refusal};
use crate::model::address::Address;
use crate::model::disk::Spoilt;
use crate::model::id::{RunId, TemplateName, UserName, VmGroupName, VmName};
use crate::model::job::TaskId;
use crate::model::site::Site;
use crate::observe::{Life, fenced_after};
use crate::run::StopReason;
use crate::state::Worker;

/// Drift, waits and notes. In JSON, `code` tells which it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Remark {
    /// Drift: the host of its run does not answer.
    HostSilent { host: String },
    /// Drift: its job is gone, and whether its starter is, nobody can know yet.
    StarterSilent { host: String, seconds: u64 },
    /// Drift: its run ended; `None`: without a word.
    RunEnded { run: RunId, reason: Option<StopReason> },
    /// Drift: the submit of its run was accepted after all.
    SubmitUnconfirmed { run: RunId, task: TaskId },
    /// Drift: a disk is not where it was recorded.
    DiskGone { disk: PathBuf },
    /// Drift: a disk is another than the recorded one, which lies over `base` or stands alone.
    DiskStrange { disk: PathBuf, found: String, base: Option<PathBuf> },
    /// Drift: a published image is not what was published.
    BaseSpoilt { image: PathBuf, how: Spoilt },
    /// Drift: the DHCP server has no reservation of it.
    ReservationGone,
    /// Drift: a job with our mark is another account's.
    JobForeign { name: String, owner: String },
    /// Drift: a job with our mark is of no run we know.
    JobUnknown { name: String, task: TaskId },
    /// Waits until the host of its run answers, or is given up.
    ForHost { host: String, leaving: bool },
    /// Waits until its starter has been silent for so long that it is over.
    ForSilence { seconds: u64, leaving: bool },
    /// Waits since somebody works on it.
    Worked { worker: Worker },
    /// Waits for something that it needs, and that somebody works on.
    NeedWorked { thing: Address, worker: Worker },
    /// To be forgotten, and needed until then.
    StillNeeded { by: Address },
    /// Waits for its template.
    TemplateUnpublished { template: TemplateName },
    /// A template that waits to be installed.
    NotInstalled { template: TemplateName },
    /// Waits in the queue, which may say why.
    Queued { reason: Option<String> },
    /// Waits in the queue, where somebody holds it.
    QueueHeld,
    /// Waits for its job, which is suspended.
    JobSuspended,
    /// Waits for its job to go.
    JobDeleting,
    /// Waits for an admin to look after its job.
    JobError { reason: Option<String> },
    /// Waits for its guest, which stands still.
    Paused { reason: String },
    /// Waits until disks are put back.
    Restoring { vm: VmName, set: String },
    /// Waits until it is known whose a job is.
    MayRunUnknown { vm: VmName, task: TaskId },
    /// Runs with what it was started with, while something else is wanted.
    OldSettings,
    /// Somebody starts it, and its manifest does not want it to run.
    StopsAgain,
    /// Stays off, since its guest powered itself off.
    PoweredOff { vm: VmName },
    /// Vms of it stand on older versions than its latest.
    Behind { template: TemplateName, vms: usize, version: u32 },
    /// Gets new disks, although its guest was never restarted.
    NeverRestarted { vm: VmName },
    /// Begins anew, and what was set aside stays there.
    NewDisks { aside: Vec<String> },
    /// The image of a published version is not there any more.
    ImageGone { version: u32 },
    /// Waits for an address that a vm which leaves has.
    AddressHeld { group: VmGroupName, held: usize },
    /// An exam of people who sat one before; their disks of then are not those of now.
    SitsAgain { users: Vec<UserName> },
    /// What people need of a session's time cannot be read by who plans; what is recorded of it stays.
    AccommodationsUnread { recorded: usize, why: String },
    /// A session that is over as soon as it is applied.
    SessionPast { ended: Timestamp },
    /// Of a plan that was kept before remarks had codes.
    #[serde(untagged)]
    Other { text: String },
}

impl Remark {
    /// What is wrong with a vm of which nothing is heard, and until when nothing is done about it.
    pub fn of_unknown(life: &Life, site: &Site, leaving: bool) -> Option<(Self, Self)> {
        let Life::Unknown { host, silent_seconds, in_queue } = life else { return None };
        let host = host.clone();
        Some(if *in_queue {
            (Self::HostSilent { host: host.clone() }, Self::ForHost { host, leaving })
        } else {
            let seconds = silent_seconds.unwrap_or(0);
            let until = Self::ForSilence { seconds: fenced_after(site), leaving };
            (Self::StarterSilent { host, seconds }, until)
        })
    }
}

/// What becomes of what was asked of a vm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// This plan does it.
    Planned,
    /// Nothing is to be done.
    Already(Already),
    /// It cannot be done now.
    NotDone(Box<NotDone>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Already {
    Queued,
    Runs,
    Off,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotDone {
    Worked(Worker),
    /// It, or what holds it back, is refused.
    Refused {
        vm: VmName,
        refusal: Refusal,
    },
    Waits(Note),
    Noted(Note),
    Unsaid,
}
