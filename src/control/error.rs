//! Why a request was not carried out: one kind per thing that can be wrong, with what a client needs to tell it in its own words.

use std::io;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::aside::AsideError;
use super::collect::CollectError;
use super::host_labs::InUse;
use super::import::ImportError;
use super::pick::PickError;
use super::plan::NamedFor;
use super::privacy::Kept;
use super::request::RequestError;
use super::session::SessionError;
use super::template::TemplateError;
use crate::access::Refused;
use crate::apply::ClearError;
use crate::disks::DiskError;
use crate::host::machine::check::Line;
use crate::host::machine::embedded::PlaceError;
use crate::manifest::LoadError;
use crate::model::address::Address;
use crate::model::claim::ClaimId;
use crate::model::id::{LabName, UserGroupName, UserName, VmName};
use crate::model::lab::{Object, Right};
use crate::observe::ObserveError;
use crate::plan::SavedPlan;
use crate::run::RunFileError;
use crate::scheduler::SchedulerError;
use crate::state::{Frozen, StateError};
use crate::trial::OrderError;

/// Why a request was not carried out. What was done before is in the history, and none of these undoes it.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("cannot find the lab's folder {folder}")]
    NoFolder { folder: PathBuf, source: io::Error },
    #[error("the name of {path} is not UTF-8; nothing was changed")]
    NotText { path: PathBuf },
    #[error("cannot make the folder {folder}")]
    Folder { folder: PathBuf, source: io::Error },
    /// The listener has heard the findings.
    #[error("the manifest has errors; nothing was planned or changed")]
    InvalidManifest,
    /// The listener has heard the findings.
    #[error("{file} has errors; nothing was changed")]
    InvalidSite { file: PathBuf },
    #[error("the state speaks of {address}, which is not a name of its kind; nothing was changed")]
    NotUnderstood { address: Address },
    #[error("the service user `{name}` does not exist on this machine; nothing was changed")]
    NoServiceUser { name: String },
    #[error("`{pattern}` matches nothing in lab `{lab}`; nothing was changed")]
    UnknownAddress { named_for: NamedFor, pattern: String, lab: LabName, near: Option<String> },
    #[error("cannot read the image {image}")]
    Image { image: PathBuf, source: io::Error },
    #[error("the plan in {file} no longer fits; nothing was changed")]
    PlanMoved { file: PathBuf, moved: Vec<String> },
    #[error("cannot read {} as a plan; nothing was changed", file.display())]
    PlanUnread { file: PathBuf, source: io::Error },
    #[error("cannot read {} as a plan; nothing was changed", file.display())]
    NotAPlan { file: PathBuf, source: serde_json::Error },
    #[error("the plan in {} has format {found}, this labwright knows {} to {}; nothing was changed", file.display(), SavedPlan::VERSION_MIN, SavedPlan::VERSION)]
    PlanVersion { file: PathBuf, found: u32 },
    #[error("this plan must not be applied; nothing was changed")]
    PlanRefused,
    #[error("making disks and starting vms takes root; nothing was changed")]
    NotRoot,
    #[error("this machine is not ready for the plan; nothing was changed")]
    NotReady { lacking: Vec<Line> },
    #[error("not confirmed; nothing was changed")]
    NotConfirmed,
    #[error("there is nobody to ask; nothing was changed")]
    NobodyToAsk,
    #[error("cannot read a password of `{vm}` in {file}")]
    Password { vm: VmName, file: PathBuf, source: io::Error },
    #[error("{} of {asked} vms {failing}", failed.len())]
    OfVms { failing: &'static str, asked: usize, failed: Vec<(VmName, ControlError)> },
    #[error("no claim {claim} stands in lab `{lab}`; nothing was changed")]
    NoClaim { claim: ClaimId, lab: LabName },
    #[error("{user} cannot be forgotten yet; nothing was changed")]
    Kept { user: UserName, kept: Vec<Kept> },
    #[error("cannot write a new file {}", file.display())]
    Export { file: PathBuf, source: io::Error },
    #[error("who asked cannot be written down; nothing was done")]
    NotAudited { source: StateError },
    #[error("the batch system has no execution host")]
    NoHosts,
    #[error("`{host}` is not one of the site's execution hosts")]
    NoSuchHost { host: String, hosts: Vec<String> },
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error("the batch system has no host `{host}`, and no vm is recorded on it")]
    NoHost { host: String, hosts: Vec<String> },
    #[error("there is no file {}; nothing was changed", file.display())]
    NoFile { file: PathBuf },
    #[error("cannot see which runs there were in {}", folder.display())]
    Runs { folder: PathBuf, source: io::Error },
    #[error("frozen by {} since {:.0}: {}; nothing was changed", frozen.who, frozen.since, frozen.why)]
    Frozen { frozen: Frozen },
    #[error("{}", not_allowed(*right, on, *refused))]
    NotAllowed { right: Option<Right>, on: Object, refused: Refused },
    #[error("lab `{lab}` has no user `{user}`; nothing was changed")]
    NoUser { user: UserName, lab: LabName },
    #[error("there is no lab `{lab}` that you may know of")]
    NoSuchLab { lab: LabName },
    #[error("there is no lab `{lab}` that you may plan and apply; nothing was done")]
    NotOwner { lab: LabName },
    #[error("the folder {} is another lab's; nothing was done", folder.display())]
    FolderTaken { folder: PathBuf },
    #[error("the lab's files were not understood; nothing was done")]
    Unclear { source: io::Error },
    #[error("no site.yaml says which site this is; nothing was done")]
    NoSite,
    /// The paper's words.
    #[error("You don't have permission to run this vm unisolated.")]
    Unisolated { vm: VmName },
    #[error("vm `{vm}` was not made to run isolated, and a start alone does not make it so; nothing was changed")]
    NotMadeIsolated { vm: VmName },
    #[error("vm `{vm}` is to stand still: its manifest says `state: stopped`; nothing was changed")]
    StandsStill { vm: VmName },
    #[error("{running} vms of {user} run or are about to, and {user} may run {limit} at once; nothing was changed")]
    RunningLimit { user: UserName, running: usize, limit: u32 },
    #[error("vms for somebody else are made by admins; nothing was changed")]
    ForOthers,
    #[error("a computer with {what} cannot be built; nothing was changed")]
    Hardware { what: String },
    #[error("lab `{lab}` has no user group `{group}`; nothing was changed")]
    NoUserGroup { group: UserGroupName, lab: LabName },
    #[error("there is a vm `{name}` already; nothing was changed")]
    NameTaken { name: VmName },
    #[error("vm `{vm}` is in the lab because its manifest says so; nothing was changed")]
    OfManifest { vm: VmName },
    #[error("vm `{vm}` is what its manifest says; nothing was changed")]
    SetInManifest { vm: VmName },
    #[error("nobody gave the permission `{name}` by command; nothing was changed")]
    NoGrant { name: String },
    #[error("the permission `{name}` stands in the manifest; nothing was changed")]
    WrittenPermission { name: String, place: String },
    #[error(transparent)]
    Aside(#[from] AsideError),
    #[error(transparent)]
    Collect(#[from] CollectError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("lab `{lab}` has no {address}, and never had")]
    Unheard { lab: LabName, address: Address, near: Option<Address> },
    #[error("lab `{lab}` has no apply {apply}")]
    UnknownApply { lab: LabName, apply: i64 },
    #[error("no lab is named")]
    NoLab,
    #[error(transparent)]
    InUse(#[from] InUse),
    #[error("a {kind} has no owner to pick it by")]
    NotOwned { kind: &'static str },
    #[error(transparent)]
    Pick(#[from] PickError),
    #[error(transparent)]
    Accounts(nix::errno::Errno),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("cannot make the storage folder {folder}")]
    Storage { folder: PathBuf, source: io::Error },
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Observe(#[from] ObserveError),
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    #[error(transparent)]
    Clear(#[from] ClearError),
    #[error(transparent)]
    RunFile(#[from] RunFileError),
}

/// What kind of no a request got. A client turns it into an exit code or a status of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Something failed while acting.
    Failed,
    /// The manifest or the site's settings have errors.
    Invalid,
    /// A guard, a stale plan, a lock, a missing right.
    Refused,
    /// A guest is not, or not yet, where it would have to be.
    NotReady,
    /// What was asked for makes no sense, whatever the lab is like.
    Usage,
}

impl ControlError {
    /// What kind of an end that is, for exit codes and for HTTP.
    pub fn code(&self) -> Code {
        match self {
            Self::InvalidManifest | Self::InvalidSite { .. } => Code::Invalid,
            Self::Password { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Code::Refused,
            Self::State(error) => Code::of_state(error),
            Self::Pick(error) => error.code(),
            Self::Request(error) => error.code(),
            Self::Aside(error) => error.code(),
            Self::NoHosts => Code::NotReady,
            Self::NoSuchHost { .. } => Code::Usage,
            Self::Collect(error) => error.code(),
            Self::Import(error) => error.code(),
            Self::Template(error) => error.code(),
            Self::Session(error) => error.code(),
            Self::OfVms { failed, .. } => failed.first().map_or(Code::Failed, |(_, error)| error.code()),
            Self::NotOwned { .. } | Self::NoLab | Self::NoSite | Self::Hardware { .. } => Code::Usage,
            Self::PlanMoved { .. }
            | Self::NotAudited { .. }
            | Self::Kept { .. }
            | Self::PlanVersion { .. }
            | Self::PlanRefused
            | Self::NotRoot
            | Self::NotAllowed { .. }
            | Self::NotOwner { .. }
            | Self::FolderTaken { .. }
            | Self::NameTaken { .. }
            | Self::Unisolated { .. }
            | Self::StandsStill { .. }
            | Self::NotMadeIsolated { .. }
            | Self::RunningLimit { .. }
            | Self::ForOthers
            | Self::NotReady { .. }
            | Self::Frozen { .. }
            | Self::InUse(_)
            | Self::NotConfirmed
            | Self::NobodyToAsk => Code::Refused,
            _ => Code::Failed,
        }
    }
}

impl Code {
    /// What is refused for the state's sake, and what only failed.
    pub fn of_state(error: &StateError) -> Self {
        match error {
            StateError::Locked { .. }
            | StateError::Stale { .. }
            | StateError::Held { .. }
            | StateError::Given { .. }
            | StateError::OverQuota { .. }
            | StateError::OverStorage { .. }
            | StateError::TrialUnderWay { .. }
            | StateError::InUse { .. }
            | StateError::Replaced { .. }
            | StateError::Frozen { .. }
            | StateError::Traces { .. }
            | StateError::Copy { .. }
            | StateError::Exists { .. } => Self::Refused,
            _ => Self::Failed,
        }
    }
}

/// In the paper's words.
fn not_allowed(right: Option<Right>, on: &Object, refused: Refused) -> String {
    let action = match right {
        Some(Right::View) => "look at the screen of".to_owned(),
        Some(right) => right.to_string(),
        None => "let others use".to_owned(),
    };
    match refused {
        Refused::NotKnown => format!("there is no {on} that you may know of; nothing was changed"),
        Refused::NoRight => format!("you don't have permission to {action} {on}; nothing was changed"),
        Refused::NotReimaged => {
            format!("the manifest does not say `may_reimage: true` of {on}, so it keeps its disks; nothing was changed")
        }
        Refused::NotInSession => {
            format!(
                "you may look at the screen of {on} in a session alone, or if its owner lets you; nothing was changed"
            )
        }
    }
}
