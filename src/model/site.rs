//! One installation's settings, with every default filled in and every path absolute. `control::manifests` reads them from
//! `site.yaml`; without a file, `Site::embedded` serves: this machine alone, everything below the lab's `.labwright/`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::model::id::{LabName, Mac, TemplateName, UserName};
use crate::model::lab::{Limits, VmGroup};
use crate::model::share::LabShare;

/// Folder of the embedded default, inside the lab's folder.
pub const EMBEDDED_FOLDER: &str = ".labwright";

/// One installation, with every setting decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Where this came from, for messages: `site.yaml`'s path, or none for the embedded default.
    pub file: Option<PathBuf>,
    /// The site's SQLite file. Must be on a local file system.
    pub state: PathBuf,
    /// Runs, disks and templates: on a cluster, storage that every host shares.
    pub storage: Storage,
    pub admins: BTreeSet<UserName>,
    /// Whether owners of vms may let others use them.
    pub owners_may_share: bool,
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
    /// Days that runs which are over and applies are remembered, with all that they left.
    pub history_days: u32,
    /// The labs that have owners, each with its share of the site.
    #[serde(default)]
    pub labs: BTreeMap<LabName, LabShare>,
    /// Days that the audit is kept.
    #[serde(default = "audit_days")]
    pub audit_days: u32,
    /// Not in specs of runs that were written before it was there.
    #[serde(default)]
    pub daemon: DaemonSettings,
    /// Certificates that are trusted where images are fetched, in place of the system's.
    #[serde(default)]
    pub image_authorities: Option<PathBuf>,
}

/// How the site's daemon works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonSettings {
    /// How often the loop looks at every lab, at least.
    pub interval_seconds: u64,
    /// Who may read the numbers of the whole site besides root and its admins.
    #[serde(default)]
    pub metrics: BTreeSet<UserName>,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        Self { interval_seconds: 30, metrics: BTreeSet::new() }
    }
}

impl Site {
    /// The site of a lab that has no `site.yaml`: this machine alone, everything below the lab's `.labwright/`. What it
    /// takes to know of the machine comes in: its memory (`MemTotal`) and its processors. `lab_folder` is absolute.
    pub fn embedded(lab_folder: &Path, memory_mib: u64, cpus: u32) -> Self {
        let root = lab_folder.join(EMBEDDED_FOLDER);
        let memory_mib = guest_memory_mib(memory_mib);
        Self {
            file: None,
            state: root.join("state.db"),
            storage: Storage::below(&root),
            admins: BTreeSet::new(),
            owners_may_share: true,
            scheduler: SchedulerSettings::Local {
                folder: root.join("scheduler"),
                slots: local_slots(memory_mib, cpus),
                memory_mib,
            },
            network: NetworkSettings {
                gateway_on_host: true,
                dhcp: DhcpSettings::Dnsmasq { folder: root.join("dnsmasq") },
                dhcp_servers: Vec::new(),
                filter: Filter::default(),
                vnc_allow: Vec::new(),
                uplink: None,
                untagged_bridge: None,
                forwarding: None,
            },
            qemu: QemuSettings::default(),
            timing: Timing::default(),
            service_user: SERVICE_USER.to_owned(),
            default_limits: Limits::USER,
            all_vms: VmGroup::all_vms_of_one_machine(),
            retention_days: RETENTION_DAYS,
            history_days: HISTORY_DAYS,
            labs: BTreeMap::new(),
            audit_days: AUDIT_DAYS,
            daemon: DaemonSettings::default(),
            image_authorities: None,
        }
    }

    /// The same with what the service account must get to below `place`.
    #[must_use]
    pub fn reachable_at(mut self, place: &Path) -> Self {
        self.storage = Storage::below(place);
        self.network.dhcp = DhcpSettings::Dnsmasq { folder: place.join("dnsmasq") };
        self
    }

    /// What the meaning of a lab's manifests depends on.
    pub fn context(&self) -> SiteContext {
        let Self { all_vms, default_limits, admins, labs, .. } = self;
        SiteContext {
            all_vms: all_vms.clone(),
            default_limits: *default_limits,
            admins: admins.clone(),
            labs: labs.clone(),
        }
    }
}

/// What a lab's meaning depends on besides its own files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteContext {
    /// The predefined vm group.
    pub all_vms: VmGroup,
    pub default_limits: Limits,
    pub admins: BTreeSet<UserName>,
    /// The labs that have owners, each with what it may have.
    #[serde(default)]
    pub labs: BTreeMap<LabName, LabShare>,
}

/// Unprivileged account of a site that names none.
pub const SERVICE_USER: &str = "labwright";
/// Days that disks set aside are kept, unless the site says otherwise.
pub const RETENTION_DAYS: u32 = 30;
/// Days that what is over is remembered, unless the site says otherwise: until the same course is held again.
pub const HISTORY_DAYS: u32 = 365;
/// Days that the audit is kept, unless the site says otherwise: as long as what was done.
pub const AUDIT_DAYS: u32 = HISTORY_DAYS;

fn audit_days() -> u32 {
    AUDIT_DAYS
}

/// How much of a machine's memory its guests may take: the host itself and the page cache need the rest.
pub fn guest_memory_mib(machine_mib: u64) -> u64 {
    machine_mib * 4 / 5
}

/// How many jobs may run on this machine at once: memory is what guests use up, so slots only keep a machine with much
/// memory and few processors from being buried.
pub fn local_slots(memory_mib: u64, cpus: u32) -> u32 {
    const SLOTS_PER_CPU: u32 = 64;
    const MEMORY_MIB_MIN: u64 = 64;
    let by_memory = u32::try_from(memory_mib / MEMORY_MIB_MIN).unwrap_or(u32::MAX);
    cpus.saturating_mul(SLOTS_PER_CPU).min(by_memory).max(1)
}

impl QemuSettings {
    /// Whether a guest is to stand before its first instruction until somebody resumes it: `-S` in qemu's words.
    pub fn keeps_guests_paused(&self) -> bool {
        self.extra_args.iter().any(|argument| argument == "-S" || argument == "--S")
    }
}

impl Default for QemuSettings {
    fn default() -> Self {
        Self {
            binary: PathBuf::from("/usr/bin/qemu-system-x86_64"),
            accel: Accel::Auto,
            extra_args: Vec::new(),
            vnc_bind: VncBind::default(),
        }
    }
}

/// Folders of a site. `labwright state init` makes them; what is missing is made by whoever first needs it.
///
/// ```text
/// runs/<run>/          one run's folder: the protocol between controller and starter (see `run`)
/// runs/batches/<id>.json   immutable index of one submitted array: task number -> run
/// templates/<template>/<version>/disk-<n>.qcow2   read-only, mode 0444
/// vms/<lab>/<vm>/disk-<n>.qcow2                   copy-on-write disks
/// templates/.fetched/<digest>                     images from the web, as they came
/// aside/<lab>/<vm>/<when>/                        disks set aside
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    pub runs: PathBuf,
    pub templates: PathBuf,
    pub vms: PathBuf,
    pub aside: PathBuf,
    /// What is collected at the end of sessions; nobody's but root's.
    pub submissions: PathBuf,
}

impl Storage {
    /// All of it in one folder.
    pub fn below(root: &Path) -> Self {
        Self {
            runs: root.join("runs"),
            templates: root.join("templates"),
            vms: root.join("vms"),
            aside: root.join("aside"),
            submissions: root.join("submissions"),
        }
    }

    /// Where a disk of a template's version is published.
    pub fn published_disk(&self, lab: &LabName, template: &TemplateName, version: u32, slot: usize) -> PathBuf {
        let folder = self.templates.join(lab.as_str()).join(template.as_str()).join(format!("v{version}"));
        folder.join(format!("disk-{slot}.qcow2"))
    }

    /// Where the state is copied to while sessions are open. No lab is called so.
    pub fn state_copies(&self) -> PathBuf {
        self.submissions.join(".state")
    }

    /// Where images from the web are kept, for all labs. No lab is called so.
    pub fn fetched(&self) -> PathBuf {
        self.templates.join(".fetched")
    }
}

/// Who runs jobs, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchedulerSettings {
    /// Jobs are processes of this machine, waiting their turn on locked slots below `folder`.
    Local { folder: PathBuf, slots: u32, memory_mib: u64 },
    /// Jobs go to a cluster.
    GridEngine(GridEngineSettings),
}

impl SchedulerSettings {
    /// Whether a job that is not in the queue is certainly over. Local jobs are kernel locks; a cluster can lose a job whose
    /// host is only cut off.
    pub fn knows_every_death(&self) -> bool {
        self.is_this_machine()
    }

    /// Whether jobs are processes of this machine, and no other host is concerned.
    pub fn is_this_machine(&self) -> bool {
        matches!(self, Self::Local { .. })
    }
}

/// How to reach a Grid Engine cluster, and what its jobs ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridEngineSettings {
    /// `SGE_ROOT`.
    pub root: PathBuf,
    /// `SGE_CELL`.
    pub cell: String,
    /// Folder of the tools themselves, not of wrapper scripts.
    pub binaries: PathBuf,
    /// Where `/etc/services` does not name them.
    pub qmaster_port: Option<u16>,
    pub execd_port: Option<u16>,
    /// Account that jobs belong to; whoever runs labwright where none is named.
    pub account: Option<String>,
    /// Queue that jobs ask for; any where none is named.
    pub queue: Option<String>,
    pub project: Option<String>,
    /// Consumable resource that stands for a host's memory.
    pub memory_resource: String,
    /// Further `-l` requests of every job.
    pub requests: Vec<String>,
    /// How many tasks of one array may run at once; no bound where none is named.
    pub tasks_at_once: Option<u32>,
    /// How long a tool may take to answer. Its own patience with a qmaster that cannot be reached is 10 s.
    pub answer_seconds: u64,
}

impl GridEngineSettings {
    /// The cell of a cluster that has only one.
    pub const CELL: &str = "default";
    /// Where Debian puts Grid Engine's own programs.
    pub const BINARIES: &str = "/usr/lib/gridengine";
    /// The consumable that hosts have their memory in.
    pub const MEMORY_RESOURCE: &str = "vm_mem";
    /// How long a tool may take to answer where nothing else is written.
    pub const ANSWER_SECONDS: u64 = 60;

    /// The cluster of an `SGE_ROOT`, with every default.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            cell: Self::CELL.to_owned(),
            binaries: PathBuf::from(Self::BINARIES),
            qmaster_port: None,
            execd_port: None,
            account: None,
            queue: None,
            project: None,
            memory_resource: Self::MEMORY_RESOURCE.to_owned(),
            requests: Vec::new(),
            tasks_at_once: None,
            answer_seconds: Self::ANSWER_SECONDS,
        }
    }
}

/// How guests reach each other and the world, and who tells them their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSettings {
    /// Whether `host setup` gives a group's bridge the group's gateway address, as on a single machine.
    pub gateway_on_host: bool,
    pub dhcp: DhcpSettings,
    /// Who answers guests' DHCP questions besides the bridge itself, which does so under `Dnsmasq`: servers and relays.
    #[serde(default)]
    pub dhcp_servers: Vec<DhcpServer>,
    pub filter: Filter,
    /// Who may connect to a screen whose address can be reached; everybody where none is named.
    pub vnc_allow: Vec<Ipv4Net>,
    /// Interface through which bridges reach other hosts: tagged where a vm group has a vlan.
    pub uplink: Option<String>,
    /// The bridge without a vlan that `uplink` itself joins.
    pub untagged_bridge: Option<String>,
    /// Whether this host forwards what comes in from its bridges; `None` leaves that as it is.
    pub forwarding: Option<bool>,
}

/// What holds a run's packet filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    #[default]
    Nftables,
    Ebtables,
}

impl Filter {
    /// Whether it counts the frames that it drops, by why.
    pub fn counts_dropped(self) -> bool {
        self == Self::Nftables
    }
}

/// Who tells guests their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DhcpSettings {
    /// dnsmasq on this machine, started by `host setup`; one file per reservation in `<folder>/hosts`.
    Dnsmasq { folder: PathBuf },
    /// An ISC dhcpd that the lab's admins run, on this machine or another; it is told through its control port.
    Omapi(OmapiSettings),
    /// Somebody else sees to it that guests get their planned addresses.
    None,
}

/// A DHCP server or relay whose answers guests get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpServer {
    /// What its answers come from.
    pub address: Ipv4Addr,
    /// Its Ethernet address, where it is on the guests' wire. Asked for on each host where it is not written.
    pub mac: Option<Mac>,
}

impl DhcpSettings {
    /// TCP port where ISC dhcpd takes orders, unless its configuration says otherwise.
    pub const CONTROL_PORT: u16 = 7911;

    /// TCP port that guests must not reach. Also where the site leaves DHCP to others: it may be a dhcpd of theirs.
    pub fn control_port(&self) -> u16 {
        match self {
            Self::Omapi(settings) => settings.port,
            Self::Dnsmasq { .. } | Self::None => Self::CONTROL_PORT,
        }
    }
}

/// Where dhcpd listens, and the key that it takes orders with (`omapi-port`, `key` and `omapi-key` of dhcpd.conf).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OmapiSettings {
    pub server: Ipv4Addr,
    pub port: u16,
    pub key_name: String,
    pub algorithm: Algorithm,
    /// Holds the key's secret alone. It is read when it is needed, so that a host without it can read the settings.
    pub key_file: PathBuf,
}

/// How a message is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    HmacMd5,
    HmacSha256,
    HmacSha512,
}

impl Algorithm {
    /// As site.yaml and dhcpd.conf have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HmacMd5 => "hmac-md5",
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha512 => "hmac-sha512",
        }
    }
}

/// How guests are run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QemuSettings {
    pub binary: PathBuf,
    pub accel: Accel,
    /// Appended to qemu's arguments as they are. `-S` keeps guests paused: they run, and take no boot slot.
    pub extra_args: Vec<String>,
    pub vnc_bind: VncBind,
}

/// Where a guest's screen is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum VncBind {
    /// On a port of this address.
    Address(Ipv4Addr),
    /// On a socket in the run's folder on its host, for root alone.
    Socket,
}

impl VncBind {
    /// As site.yaml and a run's spec have the second kind.
    pub const SOCKET: &str = "socket";
}

impl Default for VncBind {
    fn default() -> Self {
        Self::Address(Ipv4Addr::LOCALHOST)
    }
}

impl std::str::FromStr for VncBind {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == Self::SOCKET { Ok(Self::Socket) } else { text.parse().map(Self::Address) }
    }
}

impl TryFrom<String> for VncBind {
    type Error = std::net::AddrParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<VncBind> for String {
    fn from(bind: VncBind) -> Self {
        match bind {
            VncBind::Address(address) => address.to_string(),
            VncBind::Socket => VncBind::SOCKET.to_owned(),
        }
    }
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
    /// A qemu that has not answered for this long, while storage did, is ended.
    #[serde(default = "Timing::hung_seconds")]
    pub hung_seconds: u64,
}

impl Timing {
    /// After how much silence a report says that qemu does not answer.
    pub const SILENT_SECONDS: u64 = 10;

    /// Long enough for a host that swaps; a guest whose qemu stands still that long is lost to its student anyway.
    fn hung_seconds() -> u64 {
        60
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_seconds: 10,
            self_fence_seconds: 60,
            grace_seconds: 30,
            early_exit_seconds: 15,
            start_attempts_max: 3,
            hung_seconds: Self::hung_seconds(),
        }
    }
}
