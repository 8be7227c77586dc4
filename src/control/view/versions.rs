//! Published versions of templates: what each is, how it came about, and which vms stand on it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::disks::used_bytes;
use super::{Listed, Moment, View};
use crate::control::ControlError;
use crate::model::id::{TemplateName, VmName};
use crate::state::{PublishedDisk, RecordedVm, TemplateVersion};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// Of which.
    pub template: TemplateName,
    /// Counted from 1.
    pub version: u32,
    /// New vms come from it.
    pub is_latest: bool,
    /// When it was published.
    pub since: Moment,
    /// The vm of whose disks it was made; `None` where it was copied from images.
    pub made_of: Option<VmName>,
    /// Who made it so.
    pub by: Option<String>,
    /// In their words.
    pub note: Option<String>,
    /// Those whose disks derive from it.
    pub vms: Vec<VmName>,
    /// What it takes of its storage; `None` where that cannot be seen.
    pub used_bytes: Option<u64>,
    /// Where its images are, for the template's owner.
    pub disks: Vec<PathBuf>,
    /// What they hold, for the same.
    pub sha256: Vec<String>,
}

impl Listed for Version {
    const KIND: &'static str = "template";
    const IS_OWNED: bool = false;
    fn key(&self) -> &str {
        self.template.as_str()
    }
}

impl View<'_> {
    /// By template, oldest first.
    pub fn versions(&self) -> Result<Vec<Version>, ControlError> {
        let Some(store) = self.context.store_if_any()? else { return Ok(Vec::new()) };
        let mut since: BTreeMap<(String, u32), String> = store.published(&self.desired.lab)?;
        let latest = |template: &TemplateName| self.recorded.next_version(template) - 1;
        let of = |((template, version), content): (&(TemplateName, u32), &TemplateVersion)| {
            let first = content.disks.first().and_then(|disk| disk.made.clone());
            Version {
                is_latest: latest(template) == *version,
                since: Moment::read(since.remove(&(template.to_string(), *version)).unwrap_or_default()),
                made_of: first.as_ref().map(|made| made.vm.clone()),
                by: first.as_ref().map(|made| made.by.clone()),
                note: first.map(|made| made.note).filter(|note| !note.is_empty()),
                vms: self.vms_over(content),
                used_bytes: content.disks.iter().map(|disk| used_bytes(&disk.path)).sum(),
                disks: content.disks.iter().map(|disk| disk.path.clone()).collect(),
                sha256: content.disks.iter().map(|disk| disk.sha256.clone()).collect(),
                template: template.clone(),
                version: *version,
            }
        };
        Ok(self.recorded.versions.iter().map(of).collect())
    }

    fn vms_over(&self, version: &TemplateVersion) -> Vec<VmName> {
        let lies_over = |vm: &RecordedVm| {
            let is_below = |base: &PathBuf| version.disks.iter().any(|PublishedDisk { path, .. }| path == base);
            vm.disks.iter().filter_map(|disk| disk.base.as_ref()).any(is_below)
        };
        self.recorded.vms.iter().filter(|(_, vm)| lies_over(vm)).map(|(name, _)| name.clone()).collect()
    }
}
