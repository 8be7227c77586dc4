//! Why a thing changes, as values: each has a code and its fields. `report` has the words.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::Leaves;
use crate::model::address::Address;
use crate::model::claim::{ClaimId, ClaimedPower};
use crate::model::id::{SessionName, TemplateName, UserName};
use crate::model::job::TaskId;
use crate::model::lab::{PowerState, VmSource};
use crate::run::StopReason;

/// In JSON, `code` tells which it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Reason {
    /// It stands in the manifest, and no record knows it.
    New,
    /// The same of a vm.
    NewVm { from: Base, owner: UserName },
    /// Disks that were put back for it become its own.
    TakesBack,
    /// It is started, too.
    Starts,
    /// It had this address before.
    Was { address: Address },
    /// A short value of it differs; `None`: it has none.
    Edited { field: String, before: Option<String>, after: Option<String> },
    /// A long one does.
    EditedAtLength { field: String },
    /// It is wanted no more.
    Leaves { why: Leaves },
    /// Somebody gave their own vm up.
    GivenUp,
    /// How long its disks can be restored.
    DisksKept { days: u32 },
    /// What was published of it stays.
    VersionsKept,
    /// Somebody asks for it by name now.
    Asked,
    /// Somebody asks for new disks.
    Reimaged,
    /// Somebody asks for the disks of before.
    PutBack { set: String },
    /// The manifest says so.
    Wanted { state: PowerState },
    /// A session boots its vms.
    ForSession { session: SessionName },
    /// Somebody asked for it before.
    Claimed { by: String, wanted: ClaimedPower, claim: ClaimId },
    /// Somebody asks for what is so already, which becomes a claim.
    WantedToRun { by: String },
    /// A claim counts no more.
    ClaimEnds { why: String },
    /// An apply that was cut short had told its guest to stop.
    ToldToStop,
    /// The same to be off until it gets other disks.
    ToldToBeOff,
    /// Its run ended; `None`: without a word.
    RunEnded { reason: Option<StopReason> },
    /// The submit of its run was accepted after all.
    SubmitUnconfirmed { task: TaskId },
    /// A lost run is given up.
    FencedOff,
    /// Its guest is to keep other times than it was told; without an end, for as long as it likes.
    OtherTimes { session: Option<SessionName>, end: Option<Timestamp> },
    /// Its file says another thing of what people need; so many have something now, and had it before.
    Accommodations { people: usize, were: usize },
    /// Its address never had a reservation.
    Unreserved,
    /// The DHCP server has lost its reservation.
    ReservationGone,
    /// A disk is given up and made anew.
    DiskGivenUp { disk: PathBuf },
    /// Its image is published for the first time.
    Published,
    /// Its image changed, and a new version is published.
    PublishedAnew { version: u32 },
    /// Its image was touched and is the same.
    ImageTouched,
    /// Nothing else is to be done than that records tell what is there.
    Refreshed,
    /// Words of a labwright that had no codes.
    Other { text: String },
}

/// What a new vm's disks are made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    Derived(TemplateName),
    Cloned(TemplateName),
    OwnDisks,
}

impl From<&VmSource> for Base {
    fn from(source: &VmSource) -> Self {
        match source {
            VmSource::Derive(template) => Self::Derived(template.clone()),
            VmSource::Clone(template) => Self::Cloned(template.clone()),
            VmSource::Disks(_) => Self::OwnDisks,
        }
    }
}

/// In plans that were kept before there were codes, a half-sentence stands in the place of all reasons.
pub(super) fn read<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Vec<Reason>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    match value {
        serde_json::Value::String(text) => Ok(vec![Reason::Other { text }]),
        reasons => serde_json::from_value(reasons).map_err(serde::de::Error::custom),
    }
}
