//! One installation's settings, with every default filled in and every path absolute. `manifest::site` reads them from
//! `site.yaml`; without a file, `Site::embedded` serves: this machine alone, everything below the lab's `.labwright/`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::id::UserName;
use crate::resolve::{Limits, VmGroup};

/// Folder of the embedded default, inside the lab's folder.
pub const EMBEDDED_FOLDER: &str = ".labwright";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Where this came from, for messages: `site.yaml`'s path, or none for the embedded default.
    pub file: Option<PathBuf>,
    /// The site's SQLite file. Must be on a local file system.
    pub state: PathBuf,
    /// Runs, disks and templates: on a cluster, storage that every host shares.
    pub storage: Storage,
    pub admins: BTreeSet<UserName>,
    pub scheduler: SchedulerSettings,
    pub network: NetworkSettings,
    pub qemu: QemuSettings,
    pub timing: Timing,
    /// Unprivileged account that owns the disks and runs qemu.
    pub service_user: String,
    pub default_limits: Limits,
    /// The predefined vm group `all_vms`.
    pub all_vms: VmGroup,
    /// Days that disks set aside are kept before `purge` may take them.
    pub retention_days: u32,
}

/// Folders of a site. `labwright state init` makes them.
///
/// ```text
/// runs/<run>/          one run's folder: the protocol between controller and starter (see `run`)
/// runs/batches/<id>.json   immutable index of one submitted array: task number -> run
/// templates/<template>/<version>/disk-<n>.qcow2   read-only, mode 0444
/// vms/<lab>/<vm>/disk-<n>.qcow2                   copy-on-write disks
/// aside/<lab>/<vm>/<when>/                        disks set aside
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    pub runs: PathBuf,
    pub templates: PathBuf,
    pub vms: PathBuf,
    pub aside: PathBuf,
}

impl Storage {
    pub fn below(root: &Path) -> Self {
        Self {
            runs: root.join("runs"),
            templates: root.join("templates"),
            vms: root.join("vms"),
            aside: root.join("aside"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchedulerSettings {
    /// Jobs are processes of this machine, waiting their turn on locked slots below `folder`.
    Local { folder: PathBuf, slots: u32, memory_mib: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Whether `host setup` gives a group's bridge the group's gateway address, as on a single machine.
    pub gateway_on_host: bool,
    pub dhcp: DhcpSettings,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DhcpSettings {
    /// dnsmasq on this machine, started by `host setup`; one file per reservation in `<folder>/hosts`.
    Dnsmasq { folder: PathBuf },
    /// Somebody else sees to it that guests get their planned addresses.
    None,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QemuSettings {
    pub binary: PathBuf,
    pub accel: Accel,
    /// Appended to qemu's arguments as they are.
    pub extra_args: Vec<String>,
    /// Address that vnc listens on.
    pub vnc_bind: Ipv4Addr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    Kvm,
    Tcg,
    /// KVM where `host setup` saw a guest boot under it, else TCG.
    Auto,
}

/// The clockwork of a run, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// How often a starter says that it lives.
    pub heartbeat_seconds: u64,
    /// A starter that cannot write for this long suspends its guest (design, rule 6).
    pub self_fence_seconds: u64,
    /// How long a guest may take to power itself off.
    pub grace_seconds: u64,
    /// A guest that ends within this time of its start died early and is started again.
    pub early_exit_seconds: u64,
    /// How many starts in all an early death may cost.
    pub start_attempts_max: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_seconds: 10,
            self_fence_seconds: 60,
            grace_seconds: 30,
            early_exit_seconds: 15,
            start_attempts_max: 3,
        }
    }
}
