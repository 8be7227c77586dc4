//! `spec.json`: all a starter needs to know of its run, decided by the plan. Immutable once written.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RunFileError, SPEC, open_folder, read_json};
use crate::files::{Flush, Folder};
use crate::model::id::{LabName, Mac, MacPrefix, RunId, UserName, VmName};
use crate::model::lab::{Egress, Hardware, Station};
use crate::model::site::{Filter, QemuSettings, Timing};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    pub version: u32,
    pub run: RunId,
    pub lab: LabName,
    pub vm: VmName,
    pub owner: UserName,
    /// Counts the starts of this vm; a starter refuses to go on once `control.json` names a higher one.
    pub generation: u64,
    pub hardware: Hardware,
    /// The guest looks at its CD only where its disks have nothing to boot, so that it boots what it has installed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub installs: bool,
    /// In the order of the guest's bus.
    pub disks: Vec<RunDisk>,
    /// What the guest learns of itself at its disk's first boot, where it has that: a disk that it only reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<PathBuf>,
    pub network: RunNetwork,
    pub qemu: QemuSettings,
    pub service_user: String,
    pub timing: Timing,
}

/// One disk, its whole chain named, because a disk's own header is never believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunDisk {
    /// The layer that the guest writes to.
    pub path: PathBuf,
    /// The read-only images below it, nearest first.
    pub backing: Vec<PathBuf>,
}

/// What a run has of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunNetwork {
    pub bridge: String,
    pub ip: Ipv4Addr,
    pub mac: Mac,
    pub subnet: Ipv4Net,
    pub gateway: Option<Ipv4Addr>,
    /// The routers behind the gateway's address: they send from their own, and ask for the guest.
    #[serde(default)]
    pub routers: Vec<Station>,
    pub dns: Vec<Ipv4Addr>,
    /// Whose Ethernet addresses on the guest's wire are known: as written, and in a starter those that its host found.
    #[serde(default)]
    pub stations: Vec<Station>,
    /// Who may answer the guest's DHCP questions, besides the bridge: servers and relays. `None` in specs of before these
    /// were named: whoever answers.
    #[serde(default)]
    pub dhcp_servers: Option<Vec<Ipv4Addr>>,
    /// Whether the bridge itself answers them, as under the built-in DHCP.
    #[serde(default)]
    pub dhcp_on_bridge: bool,
    pub isolated: bool,
    /// Every address range of the site's labs, which an isolated guest must not reach.
    pub lab_ranges: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Every mac prefix of the site's labs: an isolated guest hears nothing from these but its gateway.
    pub lab_mac_prefixes: Vec<MacPrefix>,
    pub egress: Vec<Egress>,
    /// TCP port where the DHCP server takes orders, which no guest may give.
    pub dhcp_control_port: u16,
    /// Specs of before there was a choice mean nftables.
    #[serde(default)]
    pub filter: Filter,
}

impl RunSpec {
    pub const VERSION: u32 = 1;

    pub fn write(&self, folder: &Path) -> Result<(), RunFileError> {
        let text = serde_json::to_vec_pretty(self).expect("a run's spec has only string keys");
        Ok(open_folder(folder)?.write(SPEC, &text, 0o640, Flush::Now)?)
    }

    /// For many specs at once: whoever writes them flushes the file system before the submit.
    pub(super) fn write_unflushed(&self, folder: &Folder) -> Result<(), RunFileError> {
        let text = serde_json::to_vec(self).expect("a run's spec has only string keys");
        Ok(folder.write(SPEC, &text, 0o640, Flush::Later)?)
    }

    /// `None` where the folder has no spec.
    pub fn read(folder: &Path) -> Result<Option<Self>, RunFileError> {
        let spec: Option<Self> = read_json(folder, SPEC)?;
        match spec {
            Some(spec) if spec.version != Self::VERSION => {
                Err(RunFileError::Version { path: folder.join(SPEC), found: spec.version, known: Self::VERSION })
            }
            spec => Ok(spec),
        }
    }
}
