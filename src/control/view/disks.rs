//! What guests are made of: templates, disks, and disks that were set aside.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Listed, Moment, View, sorted};
use crate::control::{ControlError, hold};
use crate::model::id::{TemplateName, UserName, VmGroupName, VmName};
use crate::model::lab::{self, DiskSource, VmSource};
use crate::state::{AsideDisk, RecordedDisk, RecordedVm};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Template {
    /// As its manifest calls it.
    pub name: TemplateName,
    /// As it is recorded. What is in it may be another with each version of the program.
    #[serde(serialize_with = "sorted")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub value: lab::Template,
    /// Whose it is.
    pub owner: UserName,
    /// The network of vms that come from it.
    pub vm_group: VmGroupName,
    /// The latest that is published; none can be derived from before the first.
    pub version: Option<u32>,
    /// Vms that come from it.
    pub vms: usize,
    /// What a vm gets unless it says otherwise.
    pub memory_mib: u32,
    /// What a vm gets unless it says otherwise.
    pub cpus: u32,
    /// Where each comes from, in words.
    pub disks: Vec<String>,
    /// In the words of the manifest.
    pub description: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Disk {
    pub vm: VmName,
    pub slot: u32,
    pub path: PathBuf,
    pub base: Option<PathBuf>,
    pub owner: String,
    /// What it takes of its storage; `None` where that cannot be seen.
    pub used_bytes: Option<u64>,
}

/// A disk that was set aside, and for how long it has been.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Aside {
    /// Whose disk it was.
    pub vm: String,
    /// What `restore --set` calls it.
    pub set: String,
    /// Which of the vm's.
    pub slot: u32,
    /// When that was.
    pub since: Moment,
    /// For how long it has been.
    pub age_days: i64,
    /// Where it is.
    pub path: PathBuf,
    /// Where it was.
    pub was: PathBuf,
    /// What it lies over.
    pub base: Option<PathBuf>,
    /// `None` where that was not recorded yet.
    pub owner: Option<String>,
    /// Who set it aside, and by which command, as the history tells it.
    pub by: Option<String>,
    /// See `by`.
    pub command: Option<String>,
    /// The session that its vm was in when it was set aside, or that was over then.
    pub session: Option<String>,
    /// Until when it is held, and why.
    pub held: Option<String>,
    /// What it takes of its storage; `None` where that cannot be seen.
    pub used_bytes: Option<u64>,
}

impl Listed for Template {
    const KIND: &'static str = "template";
    const IS_OWNED: bool = true;
    fn key(&self) -> &str {
        self.name.as_str()
    }
    fn owner(&self) -> Option<&str> {
        Some(self.owner.as_str())
    }
}

impl Listed for Disk {
    const KIND: &'static str = "vm";
    const IS_OWNED: bool = true;
    fn key(&self) -> &str {
        self.vm.as_str()
    }
    fn owner(&self) -> Option<&str> {
        Some(&self.owner)
    }
}

impl Listed for Aside {
    const KIND: &'static str = "vm";
    const IS_OWNED: bool = true;
    fn key(&self) -> &str {
        &self.vm
    }
    fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }
}

impl Template {
    /// For those who only use it: where its images lie is its owner's to know.
    pub(super) fn without_places(mut self) -> Self {
        for disk in &mut self.value.disks {
            match disk {
                DiskSource::Image { path, sha256 } => (*path, *sha256) = (PathBuf::new(), None),
                DiskSource::Fetched { url, .. } => url.clear(),
                DiskSource::Empty { .. } => {}
            }
        }
        self.value.hardware.cdrom = None;
        let words = |disk: &DiskSource| match disk {
            DiskSource::Image { .. } | DiskSource::Fetched { .. } => "an image".to_owned(),
            DiskSource::Empty { .. } => disk.to_string(),
        };
        self.disks = self.value.disks.iter().map(words).collect();
        self
    }
}

impl View<'_> {
    /// By name.
    pub fn templates(&self) -> Result<Vec<Template>, ControlError> {
        Ok(self.applied()?.templates.into_iter().map(|(name, template)| self.template(name, template)).collect())
    }

    fn template(&self, name: TemplateName, value: lab::Template) -> Template {
        let is_from_it = |vm: &&RecordedVm| match &vm.vm.source {
            VmSource::Derive(template) | VmSource::Clone(template) => *template == name,
            VmSource::Disks(_) => false,
        };
        Template {
            owner: value.owner.clone(),
            vm_group: value.vm_group.clone(),
            version: self.recorded.next_version(&name).checked_sub(1).filter(|version| *version > 0),
            vms: self.recorded.vms.values().filter(is_from_it).count(),
            memory_mib: value.hardware.memory_mib,
            cpus: value.hardware.cpus,
            disks: value.disks.iter().map(ToString::to_string).collect(),
            description: value.description.clone(),
            name,
            value,
        }
    }

    /// Of every vm, and those that were put back for vms that are not recorded.
    pub fn disks(&self) -> Vec<Disk> {
        let of_vms = self.recorded.vms.iter().map(|(name, vm)| (name, vm.vm.owner.as_str(), &vm.disks));
        let waiting =
            self.recorded.waiting.iter().map(|(name, waiting)| (name, waiting.owner.as_str(), &waiting.disks));
        let of = |(name, owner, disks): (&VmName, &str, &Vec<RecordedDisk>)| {
            disks.iter().map(|disk| of_disk(name, owner, disk)).collect::<Vec<_>>()
        };
        of_vms.chain(waiting).flat_map(of).collect()
    }

    /// Oldest first.
    pub fn aside(&self) -> Result<Vec<Aside>, ControlError> {
        let Some(store) = self.context.store_if_any()? else { return Ok(Vec::new()) };
        let (now, held) = (Timestamp::now(), hold::counting(&self.recorded));
        let mut causes = store.causes_of_aside(&self.desired.lab)?;
        let of = |disk: AsideDisk| {
            let held = held.get(&disk.vm).map(ToString::to_string);
            let (by, command) = causes.remove(&disk.path).unzip();
            let session = self.session_of_aside(&disk);
            Aside { by, command: command.flatten(), held, session, ..of_aside(disk, now) }
        };
        Ok(store.aside(&self.desired.lab)?.into_iter().map(of).collect())
    }

    /// Of those that its vm is in, the latest that had begun by then.
    fn session_of_aside(&self, disk: &AsideDisk) -> Option<String> {
        let since: Timestamp = disk.since.parse().ok()?;
        let with_it = self.recorded.sessions().filter(|(_, session)| session.vms.contains(disk.vm.as_str()));
        let begun = with_it.filter(|(_, session)| session.window().0 <= since);
        Some(begun.max_by_key(|(_, session)| session.window().0)?.0.name.clone())
    }
}

fn of_disk(vm: &VmName, owner: &str, disk: &RecordedDisk) -> Disk {
    Disk {
        vm: vm.clone(),
        slot: disk.slot,
        path: disk.path.clone(),
        base: disk.base.clone(),
        owner: owner.to_owned(),
        used_bytes: used_bytes(&disk.path),
    }
}

fn of_aside(disk: AsideDisk, now: Timestamp) -> Aside {
    const DAY_SECONDS: i64 = 24 * 60 * 60;
    let set = disk.set();
    let since = Moment::read(disk.since);
    let age_seconds = match &since {
        Moment::At(since) => now.as_second() - since.as_second(),
        Moment::AsWritten(_) => 0,
    };
    Aside {
        vm: disk.vm,
        set,
        slot: disk.slot,
        since,
        age_days: age_seconds / DAY_SECONDS,
        used_bytes: used_bytes(&disk.path),
        path: disk.path,
        was: disk.was,
        base: disk.base,
        owner: disk.owner,
        by: None,
        command: None,
        session: None,
        held: None,
    }
}

pub(super) fn used_bytes(path: &Path) -> Option<u64> {
    const BLOCK: u64 = 512;
    Some(path.symlink_metadata().ok()?.blocks() * BLOCK)
}
