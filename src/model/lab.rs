//! The lab as its manifest asks for it, every name bound, every student's vm written out. A plain value: nothing here
//! looks at files, the clock or the state. `plan` compares it with what is recorded and observed.
//!
//! The state keeps these values as JSON and outlives the program that wrote them. So a field that is added has a default,
//! which is what it meant before there was a choice: otherwise an upgrade would find every guest started with something else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::accommodation::AccommodationFile;
use super::address::Address;
use super::claim::PowerWish;
use super::disk::size;
use super::file_pattern::FilePattern;
use super::id::{
    Candidate, FamilyName, LabName, Mac, MacPrefix, SessionName, TemplateName, UserGroupName, UserName, VmGroupName,
    VmName,
};
pub use super::permission::{InvalidObject, Object, Permission, Right, Subject};
use super::seed::{Seed, SshKey};
pub use super::session::{AddedTime, AtEnd, Egress, Late, Protocol, Session, SessionKind, SessionState};

/// Everything one lab wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub lab: LabName,
    pub users: BTreeMap<UserName, User>,
    pub user_groups: BTreeMap<UserGroupName, UserGroup>,
    pub vm_groups: BTreeMap<VmGroupName, VmGroup>,
    pub templates: BTreeMap<TemplateName, Template>,
    pub vms: BTreeMap<VmName, Vm>,
    pub permissions: Vec<Permission>,
    pub sessions: BTreeMap<SessionName, Session>,
    pub moved: Vec<Moved>,
    /// What people want of vms' power beside the manifest, each vm by the name under which it is recorded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub power: BTreeMap<VmName, PowerWish>,
    /// Where each permission is written, by whom and what it joins. For people alone: nobody keeps it.
    #[serde(skip)]
    pub written_permissions: BTreeMap<(Subject, Object), Origin>,
    /// Who people are, by the lab's rosters; `None` where these were not read. It is in no plan and in no kept one.
    #[serde(skip)]
    pub particulars: Option<BTreeMap<UserName, Particulars>>,
    /// What the files say that sessions name; in no plan either.
    #[serde(skip)]
    pub accommodations: BTreeMap<SessionName, AccommodationFile>,
}

/// What a roster says of somebody besides their account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Particulars {
    pub name: Option<String>,
    pub student_id: Option<String>,
    /// Stands for their name on what they submit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Candidate>,
}

impl Desired {
    /// Whether it is a lab that wants nothing, as `destroy` does. What people want besides is no matter of the lab's.
    pub fn is_nothing(&self) -> bool {
        let Self { lab: _, users, user_groups, vm_groups, templates, vms, permissions, sessions, moved, .. } = self;
        let no_people = users.is_empty() && user_groups.is_empty() && permissions.is_empty();
        no_people
            && vm_groups.is_empty()
            && templates.is_empty()
            && vms.is_empty()
            && sessions.is_empty()
            && moved.is_empty()
    }

    /// A lab that wants nothing.
    pub fn nothing(lab: LabName) -> Self {
        Self {
            lab,
            users: BTreeMap::new(),
            user_groups: BTreeMap::new(),
            vm_groups: BTreeMap::new(),
            templates: BTreeMap::new(),
            vms: BTreeMap::new(),
            permissions: Vec::new(),
            sessions: BTreeMap::new(),
            moved: Vec::new(),
            power: BTreeMap::new(),
            written_permissions: BTreeMap::new(),
            particulars: None,
            accommodations: BTreeMap::new(),
        }
    }
}

/// Where in the manifest something was written, or by which claim somebody asked for it (line 0); `explain` shows it. Paths are
/// relative to the lab's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// Relative to the lab's folder.
    pub file: String,
    /// 0: it is of a claim.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// Somebody whom the lab knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: Option<u32>,
    /// The groups that list this user, without the predefined ones.
    #[serde(default)]
    pub groups: BTreeSet<UserGroupName>,
    pub limits: Limits,
    pub storage_folder: Option<PathBuf>,
    /// How much longer this user's sessions are, in percent.
    #[serde(default)]
    pub extra_time_percent: u32,
    /// With which they log in to guests that have a seed, in the order in which they are written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<SshKey>,
    /// No group and no `users:` has this user, only a thing that is theirs or a permission: `all_users` is not about them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_mentioned_only: bool,
}

impl User {
    /// One that is there already stays where it is.
    pub fn add_key(&mut self, key: SshKey) {
        if !self.ssh_keys.contains(&key) {
            self.ssh_keys.push(key);
        }
    }
}

/// What one user may use at once. The paper's figures (section V.A) are the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    /// Vms that run or are about to.
    pub running_vms: u32,
    /// What their disks take.
    pub storage_bytes: u64,
}

impl Limits {
    /// What a user may have where nothing else is written: 13 GiB of disks.
    pub const USER: Self = Self { running_vms: 2, storage_bytes: 13 << 30 };
    /// What a site's admin may have: 133 GiB of disks.
    pub const ADMIN: Self = Self { running_vms: 1000, storage_bytes: 133 << 30 };
}

/// Several users under one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserGroup {
    pub members: BTreeSet<UserName>,
    pub limits: Option<Limits>,
}

/// An address range and its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmGroup {
    pub range: AddressRange,
    pub subnet: Ipv4Net,
    pub gateway: Option<Ipv4Addr>,
    /// The routers that stand behind the gateway's address, where these are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routers: Vec<Station>,
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    /// Whose Ethernet addresses are written, of the gateway and the name servers; others are asked for on each host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stations: Vec<Station>,
    pub domain: Option<String>,
    /// Linux bridge that the guests' taps join.
    pub bridge: String,
    /// 802.1Q tag; the group then has a bridge of its own on a tagged sub-interface.
    pub vlan: Option<u16>,
    pub mac_prefix: MacPrefix,
}

/// A machine on the guests' wire that is no guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Station {
    pub address: Ipv4Addr,
    pub mac: Mac,
}

impl VmGroup {
    /// The predefined group as the paper has it (section V.A): 192.168.0.1-192.168.0.254 on the bridge `vbr0`.
    pub fn all_vms() -> Self {
        let ip = |last| Ipv4Addr::new(192, 168, 0, last);
        Self {
            range: AddressRange { first: ip(1), last: ip(254), exclude: BTreeSet::new() },
            subnet: Ipv4Net::new(ip(0), 24).expect("24 is a length of prefixes"),
            gateway: None,
            routers: Vec::new(),
            dns: Vec::new(),
            stations: Vec::new(),
            domain: None,
            bridge: "vbr0".to_owned(),
            vlan: None,
            mac_prefix: MacPrefix::default(),
        }
    }

    /// The same where the bridge is the machine's own: it gets the last address, from which it serves DHCP. Its guests
    /// could have none otherwise, since the range takes the whole network.
    pub fn all_vms_of_one_machine() -> Self {
        let mut group = Self::all_vms();
        group.gateway = Some(group.range.last);
        group.range.exclude.insert(group.range.last);
        group
    }

    /// What the bridge of a vlan is called unless somebody says otherwise.
    pub fn bridge_of_vlan(vlan: u16) -> String {
        format!("vbr{vlan}")
    }

    /// The Ethernet address that belongs to an address of the group.
    pub fn mac(&self, ip: Ipv4Addr) -> Mac {
        self.mac_prefix.mac(ip)
    }
}

/// Addresses `first` to `last`, both included, without `exclude`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRange {
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
    #[serde(default)]
    pub exclude: BTreeSet<Ipv4Addr>,
}

impl AddressRange {
    /// Whether a vm may have this address.
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        self.first <= ip && ip <= self.last && !self.exclude.contains(&ip)
    }

    /// All addresses a vm can get, lowest first.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.addresses_from(self.first)
    }

    /// The addresses a vm can get from `floor` on, lowest first.
    pub fn addresses_from(&self, floor: Ipv4Addr) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let first = self.first.max(floor);
        (u32::from(first)..=u32::from(self.last)).map(Ipv4Addr::from).filter(|ip| !self.exclude.contains(ip))
    }

    /// How many addresses there are.
    pub fn count(&self) -> u64 {
        let span = (u64::from(u32::from(self.last)) + 1).saturating_sub(u64::from(u32::from(self.first)));
        let excluded = self.exclude.iter().filter(|ip| self.first <= **ip && **ip <= self.last).count();
        span - excluded as u64
    }
}

/// A vm whose disks others derive from. It never runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    pub description: Option<String>,
    pub owner: UserName,
    pub vm_group: VmGroupName,
    pub disks: Vec<DiskSource>,
    pub hardware: Hardware,
    /// Of vms that are made from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
    /// For how long disks of its vms are kept once they are set aside; `None`: as the site has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_days: Option<u32>,
    #[serde(default)]
    pub origin: Origin,
}

/// Where a disk's first content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskSource {
    /// A qcow2 image or a raw disk, absolute path; `sha256` in lower-case hexadecimal where the manifest states it.
    Image { path: PathBuf, sha256: Option<String> },
    /// A new empty disk.
    Empty { size_bytes: u64 },
    /// An image from the web, known by its digest in lower-case hexadecimal.
    Fetched { url: String, sha256: String },
}

impl fmt::Display for DiskSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { path, .. } => path.display().fmt(f),
            Self::Empty { size_bytes } => write!(f, "empty, {}", size(*size_bytes)),
            Self::Fetched { url, .. } => f.write_str(url),
        }
    }
}

/// What the guest's computer looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    pub memory_mib: u32,
    pub cpus: u32,
    #[serde(default)]
    pub firmware: Firmware,
    #[serde(default)]
    pub nic: NicModel,
    #[serde(default)]
    pub display: DisplayModel,
    /// Image in the cd drive, absolute path.
    pub cdrom: Option<PathBuf>,
}

/// qemu beside its guest's memory and screen: 57 to 69 MiB were measured, with viewers, a snapshot and TCG's cache. The rest
/// is for what the host caches of its disks, which the kernel takes back first.
const QEMU_MIB: u64 = 128;
/// Page tables and the like grow with the guest's memory: by 1/256 under KVM, twice that where both sides keep some.
const TABLES_DIVISOR: u64 = 64;

impl Hardware {
    /// How much memory a guest can have, in MiB.
    pub const MEMORY_MIB: RangeInclusive<u64> = 16..=4 << 20;
    /// How many processors a guest can have.
    pub const CPUS: RangeInclusive<u32> = 1..=255;

    /// What such a guest costs its host: its job asks for it, its cgroup is bounded by it, and a plan counts with it.
    pub fn host_memory_mib(&self) -> u64 {
        let guest = u64::from(self.memory_mib);
        // The devices' own defaults; virtio's guest keeps its pictures in the host besides.
        let video = match self.display {
            DisplayModel::Std => 16,
            DisplayModel::Cirrus => 4,
            DisplayModel::Virtio => 8 + 256,
            DisplayModel::Qxl => 64 + 64 + 16,
        };
        guest + guest / TABLES_DIVISOR + video + QEMU_MIB
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    #[default]
    Bios,
    Uefi,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NicModel {
    #[default]
    Virtio,
    E1000,
    Rtl8139,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisplayModel {
    #[default]
    Std,
    Cirrus,
    Virtio,
    Qxl,
}

/// A vm with all that is decided of it before it has an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    pub owner: UserName,
    pub vm_group: VmGroupName,
    pub description: Option<String>,
    /// The key under `vms:` that this vm comes from.
    pub family: FamilyName,
    /// The group whose members have a vm each, this one among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_each: Option<UserGroupName>,
    pub source: VmSource,
    pub hardware: Hardware,
    pub isolated: bool,
    #[serde(default)]
    pub state: PowerState,
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Its owner may have new disks for it, also where it is one of a family that members of a group have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_reimage: bool,
    /// Files that are read out of its disk when it is collected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collect: Vec<FilePattern>,
    /// What its guest learns of itself at its disk's first boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
    #[serde(default)]
    pub origin: Origin,
}

impl Vm {
    /// A vm of which nothing is said but what must be.
    pub fn new(
        owner: UserName,
        vm_group: VmGroupName,
        family: FamilyName,
        source: VmSource,
        hardware: Hardware,
    ) -> Self {
        Self {
            owner,
            vm_group,
            description: None,
            family,
            for_each: None,
            source,
            hardware,
            isolated: false,
            state: PowerState::default(),
            restart: RestartPolicy::default(),
            may_reimage: false,
            collect: Vec::new(),
            seed: None,
            origin: Origin::default(),
        }
    }
}

/// Where the disks of a vm come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmSource {
    /// Copy-on-write disks over the template's.
    Derive(TemplateName),
    /// Full copies of the template's disks.
    Clone(TemplateName),
    /// Disks of its own.
    Disks(Vec<DiskSource>),
}

/// Only a written `running` or `stopped` is reconciled; `on_demand` leaves the vm to people and sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PowerState {
    Running,
    Stopped,
    #[default]
    OnDemand,
}

/// What happens to a `running` vm whose guest powered itself off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// It stays off: its user meant it.
    #[default]
    OnFailure,
    /// The next apply starts it again.
    Always,
}

/// A rename that keeps disks, address and history.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moved {
    pub from: Address,
    pub to: Address,
}
