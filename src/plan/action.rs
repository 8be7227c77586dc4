//! The plan as a value: what a user reads of it (changes, notes, refusals), and what the executor walks (actions).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ground::Ground;
use super::reason::{self, Reason};
use super::remark::{Answer, Remark};
use crate::access::RightsChange;
use crate::model::address::Address;
use crate::model::disk::DiskOrigin;
use crate::model::id::{LabName, RunId, TemplateName, UserName, VmName};
use crate::model::job::TaskId;
use crate::model::reservation::Reservation;
use crate::model::seed::SeedDisk;
use crate::run::{BatchId, Clock, RunDisk, RunSpec, StopReason};
use crate::state::{Entry, Quota, Recorded, RecordedDisk, SET_ASIDE, StorageQuota};

/// What would change, and everything needed to change it. Fits only the state with this lineage and serial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a plan does nothing until it is applied"]
pub struct Plan {
    pub version: u32,
    pub lab: LabName,
    pub lineage: String,
    pub serial: u64,
    /// The lab's latest apply when it was made; kept plans of before this was written are made again anyway.
    #[serde(default)]
    pub after: i64,
    pub changes: Vec<Change>,
    /// What was found to be other than recorded.
    pub drift: Vec<Note>,
    /// What the plan waits for and does nothing about.
    pub waits: Vec<Note>,
    /// What else the user should know.
    pub notes: Vec<Note>,
    /// Why this plan, or what they name, must not be applied; empty on most days.
    pub refusals: Vec<Refusal>,
    /// What is as it should be.
    pub unchanged: Vec<Address>,
    /// How what people may do changes; plans of before this was told have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rights: Vec<RightsChange>,
    /// What becomes of each vm that something was asked of by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<VmName, Answer>,
    /// What those may run whose vms it starts. Not kept: a kept plan is made again.
    #[serde(skip)]
    pub quotas: Vec<Quota>,
    /// What those may store who get disks; not kept either.
    #[serde(skip)]
    pub storage: Vec<StorageQuota>,
}

impl Plan {
    /// How many of what, in one line.
    pub fn counts(&self) -> String {
        let mut by_verb: BTreeMap<Verb, usize> = BTreeMap::new();
        for change in &self.changes {
            *by_verb.entry(change.verb).or_default() += 1;
        }
        let mut parts: Vec<String> =
            by_verb.into_iter().map(|(verb, count)| format!("{count} to {}", verb.as_str())).collect();
        parts.push(format!("{} unchanged", self.unchanged.len()));
        parts.join(", ")
    }

    pub const VERSION: u32 = 1;

    /// One that changes nothing, of a lab as it is recorded.
    pub fn nothing(lab: LabName, recorded: &Recorded) -> Self {
        Self {
            version: Self::VERSION,
            lab,
            lineage: recorded.lineage.clone(),
            serial: recorded.serial,
            after: recorded.latest,
            changes: Vec::new(),
            drift: Vec::new(),
            waits: Vec::new(),
            notes: Vec::new(),
            refusals: Vec::new(),
            unchanged: Vec::new(),
            rights: Vec::new(),
            answers: BTreeMap::new(),
            quotas: Vec::new(),
            storage: Vec::new(),
        }
    }

    /// The vms that it starts.
    pub fn starts(&self) -> impl Iterator<Item = &VmName> {
        self.actions().filter_map(|(_, action)| match &action.effect {
            Effect::Start { spec, .. } => Some(&spec.vm),
            _ => None,
        })
    }

    /// The runs of one vm whose guests it begins.
    pub fn runs_of(&self, address: &Address) -> impl Iterator<Item = &RunId> {
        let of_it = self.changes.iter().filter(move |change| change.address == *address);
        of_it.flat_map(|change| &change.actions).filter_map(|action| action.effect.begins())
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether nothing of it may be done.
    pub fn is_refused(&self) -> bool {
        self.refusals.iter().any(|refusal| refusal.holds == Held::Everything)
    }

    /// Whether it does the same as a plan that was made before, and holds the same back. Which numbers its runs get does not
    /// matter, nor how long something has been waited for.
    pub fn does_the_same(&self, other: &Self) -> bool {
        let held = |plan: &Self| -> Vec<(Address, Held)> {
            plan.refusals.iter().map(|refusal| (refusal.address.clone(), refusal.holds.clone())).collect()
        };
        held(self) == held(other) && self.changes.iter().map(unnumbered).eq(other.changes.iter().map(unnumbered))
    }

    /// What `does_the_same` compares, as bytes to digest.
    pub fn deeds(&self) -> Vec<u8> {
        let held: Vec<_> = self.refusals.iter().map(|refusal| (&refusal.address, &refusal.holds)).collect();
        let changes: Vec<Change> = self.changes.iter().map(unnumbered).collect();
        serde_json::to_vec(&(held, changes)).expect("a plan has only string keys")
    }

    /// All actions in their order, each with the change that it belongs to.
    pub fn actions(&self) -> impl Iterator<Item = (&Change, &Action)> {
        self.changes.iter().flat_map(|change| change.actions.iter().map(move |action| (change, action)))
    }
}

/// A change without the numbers of its runs: any apply of the site uses some up.
fn unnumbered(change: &Change) -> Change {
    let mut change = change.clone();
    for action in &mut change.actions {
        if let Effect::Start { spec, .. } = &mut action.effect {
            spec.run = RunId::new(spec.run.site().clone(), 0);
            spec.seed = spec.seed.take().map(|_| PathBuf::new());
        }
    }
    change
}

/// What happens to one thing, as the user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub address: Address,
    pub verb: Verb,
    /// Why, what decided first in front.
    #[serde(alias = "reason", deserialize_with = "reason::read")]
    pub reasons: Vec<Reason>,
    /// The fields that differ, as they were and as they will be; all fields on creation.
    pub before: BTreeMap<String, String>,
    pub after: BTreeMap<String, String>,
    /// Who would notice; nobody where only our records change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub touches: Option<Touched>,
    pub actions: Vec<Action>,
}

/// Whose vm a change is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    pub owner: UserName,
    /// The vm is one of a family that is made for the members of a group.
    pub student: bool,
    /// Its guest runs now.
    pub in_use: bool,
}

/// What happens to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// It is new.
    Create,
    /// In place; a running guest does not notice.
    Update,
    /// Another name, nothing else.
    Move,
    /// New disks; the old ones are set aside.
    Replace,
    /// Its guest is started.
    Start,
    /// Its guest is asked to power itself off.
    Stop,
    /// Its guest is stopped, then started with what changed.
    Restart,
    /// Leaves the manifest; its disks are kept.
    SetAside,
    /// Leaves the manifest and held nothing of anybody.
    Delete,
    /// Only our records are brought in line with what is there.
    Record,
}

impl Verb {
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Create => "+",
            Self::Update => "~",
            Self::Move => "->",
            Self::Replace => "±",
            Self::Start => ">",
            Self::Stop => "<",
            Self::Restart => "<>",
            Self::SetAside | Self::Delete => "-",
            Self::Record => "=",
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Move => "move",
            Self::Replace => "replace",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::SetAside => "set aside",
            Self::Delete => "delete",
            Self::Record => "record",
        }
    }
}

/// Number of an action in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionId(pub u32);

/// One effect, and the actions that must be done before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    pub id: ActionId,
    pub needs: Vec<ActionId>,
    pub effect: Effect,
}

/// What the executor does; nothing in it is left to choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Copies a template's images to where they never change again.
    Publish {
        template: TemplateName,
        version: u32,
        disks: Vec<PublishSource>,
    },
    /// Makes a disk where there is none; one that is there with the same base is taken as it is.
    MakeDisk {
        vm: VmName,
        disk: RecordedDisk,
        origin: DiskOrigin,
    },
    /// Moves a vm's disks to where nothing touches them; `lost` ones are not there and are forgotten.
    SetAside {
        vm: VmName,
        disks: Vec<PathBuf>,
        folder: PathBuf,
        lost: Vec<PathBuf>,
    },
    /// Moves disks back that were set aside.
    PutBack {
        vm: VmName,
        moves: Vec<(PathBuf, PathBuf)>,
    },
    /// Makes another file of each disk, since its lost host may still write to the one of now, which is set aside.
    Renew {
        vm: VmName,
        disks: Vec<RecordedDisk>,
        folder: PathBuf,
    },
    /// Sees that disks are whole whose guest did not end as a guest should.
    CheckDisks {
        vm: VmName,
        disks: Vec<PathBuf>,
    },
    Reserve {
        vm: VmName,
        reservation: Reservation,
    },
    Release {
        vm: VmName,
        reservation: Reservation,
    },
    /// Asks a guest to power off and waits until its starter says that it did.
    Stop {
        vm: VmName,
        run: RunId,
        generation: u64,
        task: Option<TaskId>,
    },
    /// The same of a guest whose run goes on without it, for other disks.
    TurnOff {
        vm: VmName,
        run: RunId,
        generation: u64,
        task: Option<TaskId>,
    },
    /// It begins again in its run, with these disks.
    TurnOn {
        vm: VmName,
        run: RunId,
        generation: u64,
        disks: Vec<RunDisk>,
        started: String,
        /// What it learns of itself then, where its run has a seed disk.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seed: Option<Box<SeedDisk>>,
    },
    /// Submits a run. `supersedes` is the vm's run before this one.
    Start {
        spec: Box<RunSpec>,
        started: String,
        memory_mib: u64,
        supersedes: Option<RunId>,
        /// The times that it keeps; kept plans of before sessions had any have none.
        #[serde(default, skip_serializing_if = "is_nothing")]
        clock: Clock,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seed: Option<Box<SeedDisk>>,
    },
    /// Tells a run other times, which its guest keeps from then on. It does not notice.
    Tell {
        vm: VmName,
        run: RunId,
        clock: Clock,
        /// What it was told before; whoever tells it something else meanwhile knows better.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        told: Option<Box<Clock>>,
    },
    /// A submit whose answer was lost is in the queue after all.
    Adopt {
        vm: VmName,
        run: RunId,
        task: TaskId,
    },
    /// A run is taken for over without its starter having said so: should it live or begin after all, it reads that it
    /// must end. Its job, where there is one, is asked to go, which it may do only when its host is heard of again.
    Fence {
        vm: VmName,
        run: RunId,
        generation: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
    },
    /// A run ended by itself; `None`: without a word, so that the batch system's books are asked for task `task` of `batch`.
    RecordEnd {
        vm: VmName,
        run: RunId,
        batch: BatchId,
        task: u32,
        reason: Option<StopReason>,
    },
    /// Done by being recorded.
    #[serde(untagged)]
    Record(Entry),
}

fn is_nothing(clock: &Clock) -> bool {
    *clock == Clock::default()
}

impl From<Entry> for Effect {
    fn from(entry: Entry) -> Self {
        Self::Record(entry)
    }
}

impl Effect {
    /// For the journal and for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Record(entry) => entry.name(),
            Self::Adopt { .. } => "adopt the job",
            Self::RecordEnd { .. } => "record the end of the run",
            Self::Fence { .. } => "fence the lost run off",
            Self::Publish { .. } => "publish the image",
            Self::MakeDisk { .. } => "make the disk",
            Self::SetAside { .. } => SET_ASIDE,
            Self::PutBack { .. } => "put the disks back",
            Self::Renew { .. } => "renew the disks",
            Self::CheckDisks { .. } => "check the disks",
            Self::Reserve { .. } => "reserve the address",
            Self::Release { .. } => "release the address",
            Self::Stop { .. } => "stop the vm",
            Self::TurnOff { .. } => "turn the guest off",
            Self::TurnOn { .. } => "turn the guest on",
            Self::Start { .. } => "submit the run",
            Self::Tell { .. } => "tell the run its times",
        }
    }

    /// The run whose guest begins with it.
    pub fn begins(&self) -> Option<&RunId> {
        match self {
            Self::Start { spec, .. } => Some(&spec.run),
            Self::TurnOn { run, .. } => Some(run),
            _ => None,
        }
    }

    /// The run that it begins.
    pub fn starts(&self) -> Option<&RunSpec> {
        match self {
            Self::Start { spec, .. } => Some(spec),
            _ => None,
        }
    }

    /// The vm that it is about.
    pub fn vm(&self) -> Option<&VmName> {
        match self {
            Self::Record(entry) => entry.vm(),
            Self::MakeDisk { vm, .. }
            | Self::SetAside { vm, .. }
            | Self::PutBack { vm, .. }
            | Self::Renew { vm, .. }
            | Self::CheckDisks { vm, .. }
            | Self::Reserve { vm, .. }
            | Self::Release { vm, .. }
            | Self::Stop { vm, .. }
            | Self::TurnOff { vm, .. }
            | Self::TurnOn { vm, .. }
            | Self::Tell { vm, .. }
            | Self::Adopt { vm, .. }
            | Self::Fence { vm, .. }
            | Self::RecordEnd { vm, .. } => Some(vm),
            Self::Start { spec, .. } => Some(&spec.vm),
            Self::Publish { .. } => None,
        }
    }
}

/// An image to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishSource {
    pub image: PathBuf,
    pub path: PathBuf,
    /// What the manifest says its bytes must be.
    pub sha256: Option<String>,
    /// Where it is fetched from, if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// Something to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub address: Address,
    #[serde(flatten)]
    pub what: Remark,
}

/// Something that forbids this plan, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub address: Address,
    #[serde(flatten)]
    pub why: Ground,
    #[serde(default)]
    pub holds: Held,
}

impl Refusal {
    /// Whether it holds this back.
    pub fn holds(&self, address: &Address) -> bool {
        match &self.holds {
            Held::Everything => true,
            Held::Only(addresses) => addresses.contains(address),
        }
    }
}

/// What a refusal holds back. The plan has no change of it; where everything is held, changes are there to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// Also in a kept plan of before there was a choice.
    #[default]
    Everything,
    Only(BTreeSet<Address>),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plans that were kept before entries had a type of their own.
    #[test]
    fn effects_are_called_in_a_kept_plan_what_they_always_were() {
        let vm = r#"{"owner":"al","vm_group":"lab1","description":null,"family":"a","source":{"derive":"gsr"},
            "hardware":{"memory_mib":512,"cpus":1,"firmware":"bios","nic":"virtio","display":"std","cdrom":null},
            "isolated":true,"state":"running","restart":"on_failure","origin":{"file":"lab.yaml","line":7}}"#;
        let reservation = r#"{"mark":"lw-k3f9-x-a","vm":"a","mac":"de:af:de:af:00:02","ip":"10.0.0.2"}"#;
        let entries = [
            r#""record_object","address":"user/al","body":"{}""#.to_owned(),
            r#""record_object","address":"user/al","body":null"#.to_owned(),
            format!(r#""record_vm","name":"a","vm":{vm},"ip":"10.0.0.2","mac":"de:af:de:af:00:02","version":1"#),
            r#""forget_vm","name":"a""#.to_owned(),
            r#""rename_vm","from":"a","to":"b""#.to_owned(),
            r#""rename_template","from":"a","to":"b""#.to_owned(),
            r#""record_image","template":"a","version":1,"slot":0,"bytes":7,"mtime_ns":-7"#.to_owned(),
        ];
        let others = [
            r#""adopt","vm":"a","run":"k3f9-1","task":{"job":7,"task":1}"#.to_owned(),
            format!(r#""release","vm":"a","reservation":{reservation}"#),
        ];
        let texts = entries.map(|text| (text, true)).into_iter().chain(others.map(|text| (text, false)));
        for (text, is_entry) in texts {
            let kept: serde_json::Value = serde_json::from_str(&format!(r#"{{"effect":{text}}}"#)).unwrap();
            let effect = Effect::deserialize(&kept).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(matches!(effect, Effect::Record(_)), is_entry, "{text}");
            assert_eq!(serde_json::to_value(&effect).unwrap(), kept);
        }
    }
}
