//! Why a plan, or a part of it, must not be applied, as values: each has a code and its fields. `report` has the words, and
//! what to do next.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::claim::ClaimId;
use crate::model::disk::Spoilt;
use crate::model::id::{LabName, TemplateName, UserName, VmGroupName, VmName};
use crate::state::{FreezeScope, Worker};

/// In JSON, `code` tells which it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Ground {
    /// Somebody stopped all reconciling.
    Frozen { who: String, since: Timestamp, why: String, scope: FreezeScope },
    /// So many members would leave that their roster is hardly whole.
    RosterShrinks { lost: usize, members: usize, percent_max: usize, first: Vec<UserName> },
    /// People would lose what they need of a session's time: half a file looks like a whole one.
    AccommodationsShrink { lost: usize, recorded: usize },
    /// An edit would take an open session away, or a part of it.
    SessionEdited { until: Timestamp, loss: SessionLoss },
    /// An exam that has been held would be held again.
    SessionHeld { ended: Timestamp },
    /// A vm of an open session would be disturbed.
    DuringSession { session: String, until: Timestamp, disturbance: Disturbance },
    /// Files of its vms are still to be collected.
    SubmissionsPending { waiting: usize },
    /// A vm would be disturbed whose files are still to be collected after a session.
    NotCollected { session: String, disturbance: Disturbance },
    /// Somebody's disks would be taken out of use.
    DisksReplaced { owner: UserName },
    /// The guest of a lost run may still write. `None`: its starter never wrote.
    MayStillWrite { host: String, silent_seconds: Option<u64>, fenced_seconds: u64 },
    /// Somebody works on what is meant.
    Worked { worker: Worker },
    /// Two labs of the site would share addresses.
    RangeOverlaps { range: (Ipv4Addr, Ipv4Addr), lab: LabName, group: VmGroupName, other: (Ipv4Addr, Ipv4Addr) },
    /// The same, told to those who may not know of the other lab.
    RangeTaken { range: (Ipv4Addr, Ipv4Addr) },
    /// More is to run than the site has room for.
    NoRoom {
        without: usize,
        slots: u32,
        memory_mib: u64,
        wanted_slots: usize,
        wanted_mib: u64,
        fitting_mib: Option<u64>,
    },
    /// Some vm needs more memory than the site has.
    TooBig { wanted_mib: u64, others: usize, memory_mib: u64, most_mib: u64 },
    /// Its owner would store more than they may.
    OverStorage { owner: UserName, limit_bytes: u64, used_bytes: u64, wanted_bytes: u64 },
    /// More of the lab would run at once than the site lets it.
    OverShare { running: usize, starts: usize, vms_max: Option<u32>, wanted_mib: u64, memory_mib_max: Option<u64> },
    /// Its owner would run more vms at once than they may: here, and in so many cases in other labs.
    OverQuota {
        owner: UserName,
        limit: u32,
        running: Vec<VmName>,
        #[serde(default)]
        elsewhere: usize,
        starts: usize,
    },
    /// What a person made by command would leave.
    MadeByCommand { leaves: Leaves, by: String, at: Timestamp, claim: ClaimId },
    /// What somebody else asked to run would be stopped.
    WantedByOthers { by: String, since: Timestamp, claim: ClaimId },
    /// A disk is another than the recorded one.
    DiskStrange { disk: PathBuf },
    /// The published image that disks lie over is not what was published.
    BaseSpoilt { image: PathBuf, how: Spoilt },
    /// A disk is not there.
    DiskGone { disk: PathBuf, loss: DiskLoss },
    /// Disks that were put back are not its owner's.
    DisksOfOther { theirs: String, owner: UserName },
    /// Its disks of before are set aside; `latest` names the last of several sets.
    WasHereBefore { sets: Vec<String>, latest: Option<String> },
    /// None of its disks is set aside that could come back.
    NothingAside,
    /// It is made with an empty disk, which nothing could make anew.
    BeginsEmpty,
    /// There is nothing to derive from.
    NoVersion { template: TemplateName },
    /// There is nothing to publish.
    ImageMissing,
    /// Its image is another than the one that vms derive from.
    ImageChanged { derived: usize, version: u32 },
    /// Nobody knows its vm group.
    NoGroup { group: VmGroupName },
    /// All addresses of its vm group are in use.
    NoAddress { group: VmGroupName, addresses: u64 },
    /// The plan breaks a rule of all plans.
    Bug { flaw: String, more: usize },
    /// Of a plan that was kept before grounds had codes.
    #[serde(untagged)]
    Other { text: String, hint: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionLoss {
    Leaves,
    EndsEarlier,
    StartsLater,
    LosesVms,
}

/// What the owner of a vm would notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disturbance {
    Stopped,
    Restarted,
    Readdressed,
    Rebuilt,
    /// It leaves, with its disks or after a stop.
    Leaves {
        why: Leaves,
        runs: bool,
    },
}

/// Why something leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaves {
    WithItsLab,
    Manifest,
    OwnerLeft { owner: String },
    GroupLeft,
}

/// What would be lost with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskLoss {
    Forgotten,
    PutBack,
    MadeAnew,
}
