//! What the state says we asked for: one lab's part of it, and the site-wide facts that a plan of that lab needs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AsideSet, ImageDigest, RecordedThing, Starting, Storing, Thing, Tried, WaitingDisks, Worker};
use crate::model::address::{Address, Kind};
use crate::model::claim::Claim;
use crate::model::id::{LabName, Mac, RunId, SessionName, SiteTag, TemplateName, VmGroupName, VmName};
use crate::model::job::JobId;
use crate::model::lab::{Desired, Hardware, Session, Vm, VmGroup, VmSource};
use crate::run::{BatchId, StopReason};

/// Everything recorded of one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub site: SiteTag,
    /// Drawn when the state was made: a plan fits only the state it was made from.
    pub lineage: String,
    /// Counts the changes of this lab.
    pub serial: u64,
    /// Somebody stopped all reconciling of this lab or of the site.
    pub frozen: Option<Frozen>,
    /// Number of its latest apply; 0 before the first.
    pub latest: i64,
    /// An apply of this lab never ended, since its controller died.
    pub cut_short: bool,
    /// What others work on just now. It may be otherwise at any moment, and nothing is planned for it.
    pub held: BTreeMap<Address, Worker>,
    /// Vms of the site that others start just now.
    pub starting: Vec<Starting>,
    /// Vms of the site for which others make disks just now.
    pub storing: Vec<Storing>,
    /// Number that the site's next run gets.
    pub next_run: u64,
    /// All that is neither a vm nor a disk.
    pub objects: BTreeMap<Address, RecordedThing>,
    pub versions: BTreeMap<(TemplateName, u32), TemplateVersion>,
    pub vms: BTreeMap<VmName, RecordedVm>,
    /// What people asked for by command, and what still stands of it, oldest first.
    pub claims: Vec<Claim>,
    /// When files of vms were collected last, by session.
    pub submitted: BTreeMap<SessionName, BTreeMap<VmName, Timestamp>>,
    /// Until when nothing purges the disks of vms, for the sake of which session.
    pub keeps: BTreeMap<String, (SessionName, Timestamp)>,
    /// Disks that were set aside, by the vm that they were of.
    pub aside: BTreeMap<VmName, Vec<AsideSet>>,
    /// Disks that were put back, of vms that are not recorded.
    pub waiting: BTreeMap<VmName, WaitingDisks>,
    /// Prefixes that paths had before the state was moved, and what became of each.
    pub former: Vec<(PathBuf, PathBuf)>,
    /// What images held when they were last read.
    pub digests: BTreeMap<PathBuf, ImageDigest>,
    /// Every address in use in the site, with its holder.
    pub taken: BTreeMap<Ipv4Addr, TakenAddress>,
    /// Addresses that a trial of the site's hosts uses just now.
    pub tried: Tried,
    /// Vm groups of the site's other labs.
    pub other_groups: Vec<(LabName, VmGroupName, VmGroup)>,
}

impl Recorded {
    /// What is recorded of any lab before its site has a state.
    pub fn nothing() -> Self {
        Self {
            site: SiteTag::new("0000").expect("four of the allowed letters"),
            lineage: String::new(),
            serial: 0,
            frozen: None,
            latest: 0,
            cut_short: false,
            held: BTreeMap::new(),
            starting: Vec::new(),
            storing: Vec::new(),
            next_run: 1,
            objects: BTreeMap::new(),
            versions: BTreeMap::new(),
            vms: BTreeMap::new(),
            claims: Vec::new(),
            submitted: BTreeMap::new(),
            keeps: BTreeMap::new(),
            aside: BTreeMap::new(),
            waiting: BTreeMap::new(),
            former: Vec::new(),
            digests: BTreeMap::new(),
            taken: BTreeMap::new(),
            tried: Tried::default(),
            other_groups: Vec::new(),
        }
    }
}

impl Recorded {
    /// Vms of a session whose files are collected after their owners' own ends and are not in yet, each with that end.
    pub fn unsubmitted<'r>(
        &'r self,
        name: &'r str,
        session: &'r Session,
    ) -> impl Iterator<Item = (&'r VmName, &'r RecordedVm, Timestamp)> {
        session.vms.iter().filter_map(move |vm| {
            let known = self.vms.get(vm).filter(|known| !session.collected(&known.vm).is_empty())?;
            let end = session.end_of(&known.vm.owner)?;
            // Who was given more time since then has another end.
            let is_in = self.submitted.get(name).and_then(|vms| vms.get(vm)).is_some_and(|at| end <= *at);
            (!is_in).then_some((vm, known, end))
        })
    }

    /// What a path that was written before a move is called now.
    pub fn now_at(&self, path: PathBuf) -> PathBuf {
        self.former
            .iter()
            .fold(path, |path, (from, to)| path.strip_prefix(from).map(|rest| to.join(rest)).unwrap_or(path.clone()))
    }

    /// The sessions as they were last applied.
    pub fn sessions(&self) -> impl Iterator<Item = (&Address, &Session)> {
        self.objects.iter().filter_map(|(address, recorded)| match &recorded.thing {
            Thing::Session(session) => Some((address, session)),
            _ => None,
        })
    }

    /// The version that disks lie over; `None` of those that lie over none we know.
    pub fn version_below(&self, disks: &[RecordedDisk]) -> Option<u32> {
        let bases: BTreeSet<&PathBuf> = disks.iter().filter_map(|disk| disk.base.as_ref()).collect();
        let is_below = |version: &TemplateVersion| version.disks.iter().any(|disk| bases.contains(&disk.path));
        self.versions.iter().find(|(_, version)| is_below(version)).map(|((_, number), _)| *number)
    }

    /// What a guest is called that boots from these disks: its first one tells. Other disks are another guest, as far as
    /// cloud-init goes.
    pub fn instance(&self, lab: &LabName, name: &VmName, disks: &[RecordedDisk]) -> String {
        let first = disks.iter().min_by_key(|disk| disk.slot);
        first.and_then(|disk| disk.instance.clone()).unwrap_or_else(|| self.named_instance(lab, name))
    }

    /// What the guests of a vm's next disks are called.
    pub fn next_instance(&self, lab: &LabName, name: &VmName) -> String {
        format!("{}-{}", self.named_instance(lab, name), self.serial)
    }

    fn named_instance(&self, lab: &LabName, name: &VmName) -> String {
        format!("{}-{lab}-{}", self.site, name.file_name())
    }

    /// The vms that derive from an older version of a template than this.
    pub fn behind(&self, template: &TemplateName, version: u32) -> impl Iterator<Item = &VmName> {
        let derives = move |vm: &RecordedVm| matches!(&vm.vm.source, VmSource::Derive(from) if from == template);
        let is_behind = move |vm: &RecordedVm| derives(vm) && vm.version.is_some_and(|has| has < version);
        self.vms.iter().filter(move |(_, vm)| is_behind(vm)).map(|(name, _)| name)
    }

    /// The latest version of a template that is wanted, by its name now or before a rename.
    pub fn latest_version(&self, desired: &Desired, template: &TemplateName) -> Option<&TemplateVersion> {
        let latest = |name: &str| {
            let mut versions = self.versions.iter().filter(|((known, _), _)| known.as_str() == name);
            versions.next_back().map(|(_, version)| version)
        };
        let renamed =
            desired.moved.iter().filter(|moved| moved.to.kind == Kind::Template && moved.to.name == template.as_str());
        latest(template.as_str()).or_else(|| renamed.into_iter().find_map(|moved| latest(&moved.from.name)))
    }

    /// The number after the latest version of a template by this name.
    pub fn next_version(&self, template: &TemplateName) -> u32 {
        let versions = (template.clone(), 0)..=(template.clone(), u32::MAX);
        self.versions.range(versions).next_back().map_or(1, |((_, number), _)| number + 1)
    }
}

/// Who stopped all reconciling, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    pub who: String,
    pub since: Timestamp,
    pub why: String,
    /// Not kept in the note: where the note stands says it.
    #[serde(skip)]
    pub scope: FreezeScope,
}

/// What stands still.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreezeScope {
    #[default]
    Lab,
    Site,
}

/// Who has an address of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenAddress {
    pub lab: LabName,
    pub vm: VmName,
    pub mac: Mac,
}

/// One published version of a template's disks; vms derive from it and it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateVersion {
    pub disks: Vec<PublishedDisk>,
}

/// A disk of a template's version, as it was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedDisk {
    pub path: PathBuf,
    pub sha256: String,
    /// What the image held, where it was made into another format on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_sha256: Option<String>,
    /// The image it was copied from, as it was then: a change of size or mtime asks for another look.
    pub source: PathBuf,
    pub source_bytes: u64,
    pub source_mtime_ns: i64,
    /// Size and mtime of what was stored; versions of before this was recorded have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<(u64, i64)>,
    /// How it came about, where it was not copied from an image that a manifest names; then `source` is the stored file itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Making>,
}

/// A version that was made of a vm's disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Making {
    pub vm: VmName,
    pub by: String,
    /// What people should know of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl PublishedDisk {
    /// Digest of the image it was made of.
    pub fn source_sha256(&self) -> &str {
        self.source_sha256.as_ref().unwrap_or(&self.sha256)
    }

    /// Size and mtime of the stored image, where they are known.
    pub fn stored(&self) -> Option<(u64, i64)> {
        self.stored.or_else(|| self.made.is_some().then_some((self.source_bytes, self.source_mtime_ns)))
    }

    /// What its source held.
    pub fn digest(&self) -> ImageDigest {
        ImageDigest {
            bytes: self.source_bytes,
            mtime_ns: self.source_mtime_ns,
            sha256: self.source_sha256().to_owned(),
        }
    }
}

/// A vm as it was last applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedVm {
    pub vm: Vm,
    pub ip: Ipv4Addr,
    pub mac: Mac,
    /// Number of its latest run; 0 before the first.
    pub generation: u64,
    /// Version of the template that its disks derive from.
    pub version: Option<u32>,
    pub disks: Vec<RecordedDisk>,
    /// Its latest run.
    pub run: Option<RecordedRun>,
}

/// A disk of a vm, by its place among the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedDisk {
    pub slot: u32,
    pub path: PathBuf,
    pub base: Option<PathBuf>,
    /// Not yet, while the apply that makes it is under way or was cut short.
    pub made: bool,
    /// Where it is being set aside; whether it is there already, only the storage knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_to: Option<PathBuf>,
    /// Digest of the image that it was copied from, where that is no template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What its guest is called that boots from it: the same for as long as the disk is. None of those that were made before this
    /// was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

/// One start of a vm, as far as its controller knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRun {
    pub run: RunId,
    pub batch: BatchId,
    pub task: u32,
    /// `None` while the submit's answer is open.
    pub job: Option<JobId>,
    pub started: Started,
    pub state: RunState,
}

impl RecordedRun {
    /// Whether its end is recorded.
    pub fn is_over(&self) -> bool {
        matches!(self.state, RunState::Ended { .. })
    }
}

/// What a guest was started with; where this differs from what is wanted, it must be restarted for it to take effect. It is
/// compared as a value, and a field that its record does not have takes its default: an upgrade restarts nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub hardware: Hardware,
    pub isolated: bool,
    pub ip: Ipv4Addr,
    pub mac: Mac,
    pub bridge: String,
    pub disks: Vec<PathBuf>,
    /// With a seed disk.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seeded: bool,
}

/// How far a run is, by the records alone: what it does on its host, only its starter knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    Intended,
    Submitted,
    /// `None`: nobody said why.
    Ended {
        reason: Option<StopReason>,
    },
}
