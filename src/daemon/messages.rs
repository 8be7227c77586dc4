//! What goes over the wire, as JSON, for both ends. Listings are the values of `control::view`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::control::restore::Which;
use crate::control::{Code, edit, hold, own};
use crate::disks;
use crate::model::id::{InvalidName, LabName, SnapshotName, TemplateName, UserName, VmName};
use crate::model::permission::{Object, Right, Subject};
use crate::plan::Wish;
use crate::run::RequestKind;

/// A lab in which who asks may see something.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Lab {
    /// As its manifest calls it.
    pub name: LabName,
}

/// A vm that somebody wants for themselves.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Derive {
    /// What it comes from.
    pub template: TemplateName,
    /// Without the owner's name.
    pub name: VmName,
    /// Somebody else, for admins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<UserName>,
    /// Other than the template's, where they may modify what is theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Other than the template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// It is to run isolated whenever it runs.
    #[serde(default)]
    pub isolated: bool,
    /// A full copy, which needs no template any more.
    #[serde(default)]
    pub clone: bool,
}

impl Derive {
    /// For `caller`, unless it is for somebody else.
    pub fn wanted(self, caller: &str) -> Result<own::Wanted, InvalidName> {
        let Self { template, name, owner, memory_mib, cpus, isolated, clone } = self;
        let owner = owner.map_or_else(|| UserName::new(caller), Ok)?;
        Ok(own::Wanted { template, owner, name, memory_mib, cpus, isolated, is_clone: clone, key: None })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// What is to become of it.
    pub wanted: Wish,
    /// They know that it runs isolated, and want it so.
    #[serde(default)]
    pub isolated: bool,
    /// The vm itself was named, not its family or a pattern that it fits: in an open session, whoever does that means it.
    #[serde(default)]
    pub by_name: bool,
    /// Of a start: the CD from which its empty disk is installed, as an absolute path; see `Edit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cdrom: Option<PathBuf>,
}

/// How a template is installed by hand.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// The CD, as an absolute path; see `Edit`.
    pub cdrom: PathBuf,
    /// No traffic but to the gateway.
    #[serde(default)]
    pub isolated: bool,
}

/// What becomes a template's next version.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The vm whose disks are copied; it is off.
    pub vm: VmName,
    /// What people should know of this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Which disks are to come back.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// A set, by its name or the beginning of its date; needed where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// What was put back and waits for its vm is set aside again.
    #[serde(default)]
    pub undo: bool,
}

impl From<Restore> for Which {
    fn from(Restore { set, undo }: Restore) -> Self {
        match set {
            _ if undo => Self::Undo,
            None => Self::Only,
            Some(set) => Self::Set(set),
        }
    }
}

/// Whether disks are kept from every purge.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Hold {
    /// In place of what held them before.
    Hold {
        /// The last day; without it, until they are released.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>", extend("format" = "date"))]
        until: Option<jiff::civil::Date>,
        /// For those who would delete them.
        why: String,
    },
    /// They are held no more.
    Release,
}

impl From<Hold> for hold::Wanted {
    fn from(wanted: Hold) -> Self {
        match wanted {
            Hold::Hold { until, why } => Self::Hold { until, why },
            Hold::Release => Self::Release,
        }
    }
}

/// What was done.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Acted {
    /// Its full name.
    pub vm: VmName,
    /// Whether anything had to be done.
    pub changed: bool,
    /// In words, as the command line shows it: what was planned for this vm, or why nothing had to be done.
    pub plan: String,
    /// In words: how that went.
    pub outcome: String,
}

/// What was not done, and why.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// What kind of no.
    pub code: Code,
    /// What was not done, as a sentence for people.
    pub message: String,
    /// What led to it, the nearest first.
    #[serde(default)]
    pub causes: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
}

/// What somebody may do with a thing. Taken back is all that was given by command on it, whatever is allowed here.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Whom.
    pub to: Subject,
    /// The thing.
    pub on: Object,
    /// What they may do with it.
    #[serde(default)]
    pub allow: BTreeSet<Right>,
    /// Whatever they run of it runs isolated.
    #[serde(default)]
    pub force_isolated: bool,
}

/// What is to be otherwise about a vm; all else stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Its memory, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// How many processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// A CD for its drive, as an absolute path of its host: below the lab's image roots, where none but root can change it. Any, for
    /// admins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cdrom: Option<PathBuf>,
    /// What lies in its drive is taken out.
    #[serde(default)]
    pub ejects: bool,
    /// Its new name, without the owner's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<VmName>,
}

impl From<Edit> for edit::Edit {
    fn from(Edit { memory_mib, cpus, cdrom, ejects, name }: Edit) -> Self {
        Self { memory_mib, cpus, cdrom, ejects, name }
    }
}

/// What is asked of a guest that runs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum GuestAsk {
    /// It stands still, in memory.
    Suspend,
    /// It goes on.
    Resume,
    /// As by the button of a computer.
    Reset,
    /// Its memory and disks of now are kept, to go back to.
    Snapshot {
        /// What to call it.
        name: SnapshotName,
    },
    /// It goes back to a snapshot; what it did since is lost.
    Revert {
        /// Which.
        name: SnapshotName,
    },
    /// A snapshot is given up.
    DeleteSnapshot {
        /// Which.
        name: SnapshotName,
    },
}

impl From<GuestAsk> for RequestKind {
    fn from(ask: GuestAsk) -> Self {
        match ask {
            GuestAsk::Suspend => Self::Suspend,
            GuestAsk::Resume => Self::Resume,
            GuestAsk::Reset => Self::Reset,
            GuestAsk::Snapshot { name } => Self::Snapshot { name: name.to_string() },
            GuestAsk::Revert { name } => Self::Revert { name: name.to_string() },
            GuestAsk::DeleteSnapshot { name } => Self::DeleteSnapshot { name: name.to_string() },
        }
    }
}

/// What a vm can go back to.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// What it is called.
    pub name: String,
    /// When it was taken.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub taken: jiff::Timestamp,
    /// What the guest's memory takes in its disk.
    pub memory_bytes: u64,
}

impl From<disks::Snapshot> for Snapshot {
    fn from(disks::Snapshot { name, taken, memory_bytes }: disks::Snapshot) -> Self {
        Self { name, taken, memory_bytes }
    }
}

impl From<Snapshot> for disks::Snapshot {
    fn from(Snapshot { name, taken, memory_bytes }: Snapshot) -> Self {
        Self { name, taken, memory_bytes }
    }
}
