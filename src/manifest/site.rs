//! `site.yaml`: one installation's settings, with the same reader and the same quality of errors as a lab's manifests.
//! What is not written takes its default; paths are relative to the file.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::Ipv4Net;
use schemars::{Schema, json_schema};

use super::compose::Manifest;
use super::decode::{Decode as _, Decoder, Entry, Mistake, Named, Room, Scalar, Spanned};
use super::files::{self, Budget, Files, LoadError, ManifestFile};
use super::language::{LimitsDecl, VmGroupDecl};
use super::record::{choice, record, text};
use super::stations::ServerDecl;
use super::tree;
use super::values::{Duration, Size, Text};
use super::words::{FilePath, InterfaceName, KeyName, Port};
use crate::model::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::model::id::{UserName, VmGroupName};
use crate::model::lab::{Limits, VmGroup};
use crate::model::rules::Rule;
use crate::model::site::{
    Accel, Algorithm, DhcpServer, DhcpSettings, Filter, GridEngineSettings, NetworkSettings, OmapiSettings,
    QemuSettings, RETENTION_DAYS, SERVICE_USER, SchedulerSettings, Site, Storage, Timing, VncBind, guest_memory_mib,
    local_slots,
};
use crate::resolve::resolve_vm_group;

/// Where a site's own files are unless it says otherwise. Local, because SQLite's journal cannot be shared.
const LOCAL_ROOT: &str = "/var/lib/labwright";

record! {
    /// Settings of one installation of labwright.
    pub struct SiteFile as "the site" {
        /// Users who may do everything, as root may.
        #[example(["badmin"])]
        pub admins: Vec<Spanned<UserName>>,
        /// SQLite file with what the site knows; on a local file system.
        #[example("/var/lib/labwright/state.db")]
        pub state: Option<Spanned<FilePath>>,
        /// Folders for disks and runs; on a cluster, storage that all hosts share.
        pub storage: Spanned<StorageDecl>,
        /// What runs the jobs.
        pub scheduler: Option<Spanned<SchedulerDecl>>,
        /// How hosts connect guests.
        pub network: Option<Spanned<NetworkDecl>>,
        /// How guests are run.
        pub qemu: Option<Spanned<QemuDecl>>,
        /// The clockwork of a run.
        pub timing: Option<Spanned<TimingDecl>>,
        /// Unprivileged account that owns the disks and runs qemu.
        #[example("labwright")]
        pub service_user: Option<Spanned<UserName>>,
        /// What a user may use at once where no lab says more.
        pub limits: Option<Spanned<LimitsDecl>>,
        /// Addresses of vms that name no vm group.
        pub all_vms: Option<VmGroupDecl>,
        /// How long disks set aside are kept before `purge` may take them.
        #[example("30d")]
        pub retention: Option<Spanned<Duration>>,
    }
}

record! {
    /// Folders for disks and runs.
    pub struct StorageDecl as "`storage`" {
        /// Folder that holds the others.
        #[example("/srv/labwright")]
        pub root: Spanned<FilePath>,
        /// Folders of runs; `runs` below the root if not written.
        pub runs: Option<Spanned<FilePath>>,
        /// Disks of templates; `templates` below the root if not written.
        pub templates: Option<Spanned<FilePath>>,
        /// Disks of vms; `vms` below the root if not written.
        pub vms: Option<Spanned<FilePath>>,
        /// Disks set aside; `aside` below the root if not written.
        pub aside: Option<Spanned<FilePath>>,
    }
}

record! {
    /// What runs the jobs.
    pub struct SchedulerDecl as "`scheduler`" {
        /// Jobs are processes of this machine.
        pub local: Option<Spanned<LocalDecl>>,
        /// Jobs go to a cluster.
        pub grid_engine: Option<Spanned<GridEngineDecl>>,
    }
}

record! {
    /// A Grid Engine cluster (Oracle, Son of Grid Engine, Univa, Open Cluster Scheduler).
    pub struct GridEngineDecl as "`grid_engine`" {
        /// The cluster's folder, `SGE_ROOT`.
        #[example("/var/lib/gridengine")]
        pub root: Spanned<FilePath>,
        /// The cell, `SGE_CELL`; `default` if not written.
        #[example("default")]
        pub cell: Option<Spanned<Text>>,
        /// Folder of `qsub` and the other tools themselves, not of wrapper scripts.
        #[example("/usr/lib/gridengine")]
        pub binaries: Option<Spanned<FilePath>>,
        /// Port of the qmaster, where `/etc/services` does not name it.
        #[example(6444)]
        pub qmaster_port: Option<Spanned<u32>>,
        /// Port of the execution daemons, where `/etc/services` does not name it.
        #[example(6445)]
        pub execd_port: Option<Spanned<u32>>,
        /// Account that jobs belong to; whoever runs labwright if not written.
        #[example("labwright")]
        pub account: Option<Spanned<UserName>>,
        /// Queue that jobs ask for; any if not written.
        #[example("vm.q")]
        pub queue: Option<Spanned<Text>>,
        /// Project that jobs belong to.
        #[example("labs")]
        pub project: Option<Spanned<Text>>,
        /// Consumable resource that stands for a host's memory; `vm_mem` if not written.
        #[example("vm_mem")]
        pub memory_resource: Option<Spanned<Text>>,
        /// Further resources that every job asks for.
        #[example(["kvm=true"])]
        pub requests: Vec<Spanned<Text>>,
        /// How many vms of one submit may run at once; all if not written.
        #[example(40)]
        pub tasks_at_once: Option<Spanned<u32>>,
        /// How long a tool of Grid Engine may take to answer.
        #[example("60s")]
        pub answer_timeout: Option<Spanned<Duration>>,
    }
}

record! {
    /// Jobs as processes of this machine, which wait their turn.
    pub struct LocalDecl as "`local`" {
        /// Folder of the queue.
        pub folder: Option<Spanned<FilePath>>,
        /// How many jobs may run at once.
        #[example(64)]
        pub slots: Option<Spanned<u32>>,
        /// How much memory jobs may use together; four fifths of the machine's if not written.
        #[example("48G")]
        pub memory: Option<Spanned<Size>>,
    }
}

record! {
    /// How hosts connect guests.
    pub struct NetworkDecl as "`network`" {
        /// Whether `host setup` gives a bridge its group's gateway address, as on a single machine.
        pub gateway_on_host: Option<Spanned<bool>>,
        /// Interface through which hosts reach each other's guests; a vm group with a `vlan` gets a tagged port on it.
        #[example("eth1")]
        pub uplink: Option<Spanned<InterfaceName>>,
        /// Bridge of groups without a `vlan` that `uplink` itself joins; none if not written.
        #[example("vbr0")]
        pub untagged_bridge: Option<Spanned<InterfaceName>>,
        /// Whether a host forwards what its guests send beyond their bridge; left as it is if not written.
        pub forwarding: Option<Spanned<bool>>,
        /// Who tells guests their addresses.
        pub dhcp: Option<Spanned<DhcpKind>>,
        /// Who answers guests' DHCP questions besides `dnsmasq` on their own bridge: servers, and relays on the guests' wire.
        /// Guests get no other's answers. To be written with `dhcp: omapi` and `dhcp: none`; `[]` where nobody answers.
        #[example(["10.0.0.5", { "address": "192.168.100.1", "mac": "00:00:5e:00:01:01" }])]
        pub dhcp_servers: Vec<ServerDecl>,
        /// What holds each guest's packet filter; `nftables` if not written.
        pub filter: Option<Spanned<Filter>>,
        /// Folder of the reservations of `dhcp: dnsmasq`.
        pub dhcp_folder: Option<Spanned<FilePath>>,
        /// How `dhcp: omapi` reaches ISC dhcpd.
        pub omapi: Option<Spanned<OmapiDecl>>,
    }
}

record! {
    /// How ISC dhcpd is told about reservations: its control port, and the key it takes orders with.
    pub struct OmapiDecl as "`omapi`" {
        /// Address of the machine that runs dhcpd.
        #[example("10.0.0.5")]
        pub server: Spanned<Ipv4Addr>,
        /// Port that dhcpd.conf names with `omapi-port`; no guest reaches this port, whatever the machine.
        #[example(7911)]
        pub port: Option<Spanned<Port>>,
        /// Name of the key that dhcpd.conf names with `omapi-key`.
        #[example("labwright")]
        pub key_name: Spanned<KeyName>,
        /// How messages are signed, as the key in dhcpd.conf says; `hmac-sha256` if not written.
        #[example("hmac-sha256")]
        pub algorithm: Option<Spanned<Algorithm>>,
        /// File with the key's secret alone, in base64; nobody but its owner may read it.
        #[example("/etc/labwright/omapi.key")]
        pub key_file: Spanned<FilePath>,
    }
}

choice!(Algorithm as "an algorithm of dhcpd" {
    "hmac-md5" => HmacMd5 "what old configurations have",
    "hmac-sha256" => HmacSha256 "the usual choice today",
    "hmac-sha512" => HmacSha512 "longer signatures",
});

choice!(Filter as "a packet filter" {
    "nftables" => Nftables "a table of its own for each run, which goes when its starter does",
    "ebtables" => Ebtables "chains of `ebtables-nft` for each run; it cannot look into DHCP, nor judge every fragment",
});

/// Who tells guests their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DhcpKind {
    Dnsmasq,
    Omapi,
    None,
}

choice!(DhcpKind as "a kind of DHCP" {
    "dnsmasq" => Dnsmasq "dnsmasq on this machine, started by `host setup`",
    "omapi" => Omapi "an ISC dhcpd of yours, told through its control port; see `omapi:`",
    "none" => None "somebody else sees to it",
});

record! {
    /// How guests are run.
    pub struct QemuDecl as "`qemu`" {
        /// The program.
        #[example("/usr/bin/qemu-system-x86_64")]
        pub binary: Option<Spanned<FilePath>>,
        /// Whether guests use the processor directly.
        pub accel: Option<Spanned<Accel>>,
        /// Arguments that are added as they are; with `-S` guests stay paused until somebody resumes them.
        pub extra_args: Vec<Spanned<Text>>,
        /// Address that vnc listens on; `socket` for a socket on the guest's host that root alone may open.
        #[example("127.0.0.1")]
        pub vnc_bind: Option<Spanned<VncBind>>,
        /// Networks that may connect to vnc where others can reach it; any if not written. `host setup` sees to it.
        #[example(["10.0.0.0/24"])]
        pub vnc_allow: Vec<Spanned<Ipv4Net>>,
    }
}

impl Scalar for VncBind {
    fn parse(text: &str) -> Result<Self, Mistake> {
        if text == Self::SOCKET {
            return Ok(Self::Socket);
        }
        Ipv4Addr::parse(text)
            .map(Self::Address)
            .map_err(|mistake| mistake.hint("write an address of the hosts, like `127.0.0.1`, or `socket`"))
    }

    fn schema() -> Schema {
        json_schema!({ "anyOf": [<Ipv4Addr as Scalar>::schema(), { "type": "string", "const": Self::SOCKET }] })
    }
}
text!(VncBind, "an address or `socket`");

choice!(Accel as "an accelerator" {
    "kvm" => Kvm "the processor's own",
    "tcg" => Tcg "none: slow, but it works everywhere",
    "auto" => Auto "kvm where `host setup` saw a guest boot under it, else tcg",
});

record! {
    /// The clockwork of a run.
    pub struct TimingDecl as "`timing`" {
        /// How often a starter says that it lives.
        #[example("10s")]
        pub heartbeat: Option<Spanned<Duration>>,
        /// How long a starter goes on without storage before it suspends its guest.
        #[example("60s")]
        pub self_fence: Option<Spanned<Duration>>,
        /// How long a guest may take to power itself off.
        #[example("30s")]
        pub grace: Option<Spanned<Duration>>,
        /// A guest that ends within this time died early and is started again.
        #[example("15s")]
        pub early_exit: Option<Spanned<Duration>>,
        /// How many starts in all an early death may cost.
        #[example(3)]
        pub start_attempts: Option<Spanned<u32>>,
        /// A qemu that has not answered for this long, while storage did, is ended.
        #[example("60s")]
        pub hung: Option<Spanned<Duration>>,
    }
}

/// Why there is no site.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Findings for `report::diagnostics`.
    #[error("the site's settings have errors")]
    Invalid(Diagnostics),
}

/// What a default takes from the machine it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    pub memory_mib: u64,
    pub cpus: u32,
}

impl Machine {
    /// This machine: `MemTotal` of `/proc/meminfo`, and the processors this process may use.
    pub fn here() -> Result<Self, LoadError> {
        let path = Path::new("/proc/meminfo");
        let error = |source| LoadError::File { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(error)?;
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib: Option<u64> = total.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok());
        let kib = kib.ok_or_else(|| error(std::io::Error::other("it has no line `MemTotal`")))?;
        let cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        Ok(Self { memory_mib: kib >> 10, cpus })
    }
}

/// Reads a site's settings; the warnings come with it.
pub fn load(path: &Path) -> Result<(Site, Diagnostics), SiteError> {
    let machine = Machine::here()?;
    let absolute = std::path::absolute(path).map_err(|source| LoadError::File { path: path.to_owned(), source })?;
    let mut diagnostics = Diagnostics::default();
    let name = path.display().to_string();
    let bytes = files::read_bytes(Files::Disk, &absolute, &name, &mut Budget::default(), &mut diagnostics)
        .map_err(|source| LoadError::File { path: path.to_owned(), source })?;
    let site = bytes.and_then(|bytes| read(&absolute, &name, bytes, machine, &mut diagnostics));
    diagnostics.sort();
    match site {
        Some(site) if !diagnostics.has_errors() => Ok((site, diagnostics)),
        _ => Err(SiteError::Invalid(diagnostics)),
    }
}

fn read(path: &Path, name: &str, bytes: Vec<u8>, machine: Machine, diagnostics: &mut Diagnostics) -> Option<Site> {
    let source = files::text(name, bytes, diagnostics)?;
    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    let manifest = Manifest {
        folder: folder.clone(),
        files: vec![ManifestFile { source: Arc::clone(&source), relative: name.to_owned(), folder }],
        ..Manifest::default()
    };
    let root = match tree::parse(&source) {
        Ok(Some(root)) => root,
        Ok(None) => {
            let message = "the site's settings are empty";
            let hint = "write at least `storage: { root: /srv/labwright }`";
            diagnostics.push(Diagnostic::new(Rule::MissingKey, message).at(Span::new(&source, 0..1)).hint(hint));
            return None;
        }
        Err(finding) => {
            diagnostics.push(*finding);
            return None;
        }
    };
    let mut room = Room::default();
    let mut decoder = Decoder { file: 0, source: &source, diagnostics, context: 0..1, room: &mut room };
    let file = SiteFile::decode(&root, &mut decoder)?;
    let mut builder = Builder { manifest, diagnostics };
    builder.check(&file);
    Some(builder.site(path, file, machine))
}

struct Builder<'a> {
    manifest: Manifest,
    diagnostics: &'a mut Diagnostics,
}

impl Builder<'_> {
    fn path(&self, written: Option<&Spanned<FilePath>>, default: PathBuf) -> PathBuf {
        written.map_or(default, |written| self.manifest.path(written))
    }

    fn note<T>(&mut self, place: &Spanned<T>, message: &str, hint: &str) {
        let place = self.manifest.span(place.at);
        self.diagnostics.push(Diagnostic::new(Rule::SiteSetting, message).at(place).hint(hint));
    }

    /// Settings that would not work together, or at all.
    fn check(&mut self, file: &SiteFile) {
        if let Some(local) = file.scheduler.as_ref().and_then(|scheduler| scheduler.local.as_ref()) {
            if let Some(slots) = local.slots.as_ref().filter(|slots| slots.value == 0) {
                self.note(
                    slots,
                    "without slots no vm would ever start",
                    "write how many jobs may run at once, such as `64`",
                );
            }
            if let Some(memory) = local.memory.as_ref().filter(|memory| memory.mib() < 64) {
                self.note(memory, "with so little memory no vm would ever start", "write a size such as `16G`");
            }
        }
        if let Some(scheduler) = &file.scheduler {
            self.check_cluster(scheduler);
        }
        if let Some(retention) = file.retention.as_ref().filter(|retention| retention.0 < 86_400) {
            self.note(
                retention,
                "disks set aside would be purged within a day",
                "write at least `1d`; the default is `30d`",
            );
        }
        let timing = timing(file);
        if let Some(written) = &file.timing {
            if timing.heartbeat_seconds == 0 || timing.start_attempts_max == 0 {
                self.note(
                    written,
                    "`heartbeat` and `start_attempts` cannot be zero",
                    "leave them out for the defaults",
                );
            }
            if let Some(hung) = written.hung.as_ref().filter(|hung| hung.value.0 < 2 * Timing::SILENT_SECONDS) {
                let message = "a guest on a busy host would be ended for a short silence";
                self.note(hung, message, "write at least `20s`; the default is `60s`");
            }
            if timing.self_fence_seconds < 2 * timing.heartbeat_seconds {
                let message = "a starter would suspend its guest after one late heartbeat";
                self.note(written, message, "write a `self_fence` of at least two heartbeats");
            }
        }
        if let Some(network) = &file.network {
            self.check_dhcp(network);
            self.check_uplink(network);
        }
        if let Some(qemu) = &file.qemu {
            self.check_vnc(qemu);
        }
        if let Some(service) = file.service_user.as_ref().filter(|user| user.as_str() == "root") {
            self.note(service, "guests must not run as root", "name an unprivileged account, such as `labwright`");
        }
    }

    fn check_cluster(&mut self, scheduler: &Spanned<SchedulerDecl>) {
        let Some(cluster) = &scheduler.grid_engine else { return };
        if scheduler.local.is_some() {
            self.note(cluster, "jobs go either to this machine or to a cluster", "remove `local` or `grid_engine`");
        }
        for port in [&cluster.qmaster_port, &cluster.execd_port].into_iter().flatten() {
            if !(1..=65_535).contains(&port.value) {
                self.note(port, "this is no port", "write a number from 1 to 65535");
            }
        }
        if let Some(none) = cluster.tasks_at_once.as_ref().filter(|tasks| tasks.value == 0) {
            self.note(none, "no vm would ever start", "leave it out for no bound");
        }
        if let Some(timeout) = cluster.answer_timeout.as_ref().filter(|timeout| timeout.0 < 15) {
            let message = "the tools themselves wait 10 s for a qmaster that cannot be reached";
            self.note(timeout, message, "write at least `15s`; the default is `60s`");
        }
    }

    fn check_uplink(&mut self, network: &NetworkDecl) {
        // An interface name has 15 bytes, and the longest tag takes five: `.4094`.
        if let Some(uplink) = network.uplink.as_ref().filter(|uplink| uplink.value.0.len() > 10) {
            let message = "this name leaves no room for a tag: a tagged port is called `UPLINK.VLAN`, in 15 characters";
            self.note(
                uplink,
                message,
                "give the interface a name of at most 10 characters, as with `ip link set NAME name eth1`",
            );
        }
        if let (Some(bridge), None) = (&network.untagged_bridge, &network.uplink) {
            self.note(bridge, "nothing says which interface joins it", "write `uplink: eth1` beside it, or remove it");
        }
    }

    /// `vnc_allow` says nothing where nobody else could connect anyway.
    fn check_vnc(&mut self, qemu: &QemuDecl) {
        let unreachable = match qemu.vnc_bind.as_ref().map(|bind| bind.value).unwrap_or_default() {
            VncBind::Socket => "vnc is on a socket, which no network reaches",
            VncBind::Address(address) if address.is_loopback() => "vnc listens on this host's own address alone",
            VncBind::Address(_) => return,
        };
        if let Some(network) = qemu.vnc_allow.first() {
            self.note(network, unreachable, "write `vnc_bind: 0.0.0.0` or an address of the hosts, or remove it");
        }
    }

    /// `dhcp: omapi` and `omapi:` say nothing without each other.
    fn check_dhcp(&mut self, network: &NetworkDecl) {
        let omapi = network.dhcp.as_ref().filter(|kind| kind.value == DhcpKind::Omapi);
        if let (Some(kind), None) = (omapi, network.key("omapi")) {
            let hint = "write `omapi: { server: 10.0.0.5, key_name: labwright, key_file: omapi.key }` beside it";
            self.note(kind, "nothing says where dhcpd is and which key it takes", hint);
        }
        if let (None, Some(written)) = (omapi, &network.omapi) {
            let hint = "write `dhcp: omapi` beside it, or remove it";
            self.note(written, "nobody would use this: the site's DHCP is not `omapi`", hint);
        }
        if let (Some(kind), None) = (&network.dhcp, network.key("dhcp_servers"))
            && (kind.value == DhcpKind::None || network.omapi.is_some() && omapi.is_some())
        {
            self.note_unsaid_servers(kind);
        }
    }

    /// Guests hear of DHCP what named servers say, and nothing else.
    fn note_unsaid_servers(&mut self, kind: &Spanned<DhcpKind>) {
        let (message, hint) = match kind.value {
            DhcpKind::Omapi => (
                "nothing says from which addresses guests get their DHCP answers; `omapi: { server }` is taken for the only one",
                "write `dhcp_servers: [...]`: what dhcpd answers from on the guests' network, and each relay there",
            ),
            DhcpKind::Dnsmasq | DhcpKind::None => (
                "nothing says who answers guests' DHCP questions, so that no guest gets an answer",
                "write `dhcp_servers: [...]` with each server and relay, or `[]` where guests have fixed addresses",
            ),
        };
        let place = self.manifest.span(kind.at);
        self.diagnostics.push(Diagnostic::new(Rule::DhcpServersUnsaid, message).at(place).hint(hint));
    }

    fn site(mut self, path: &Path, file: SiteFile, machine: Machine) -> Site {
        let local_root = Path::new(LOCAL_ROOT);
        let below = Storage::below(&self.manifest.path(&file.storage.root));
        let storage = Storage {
            runs: self.path(file.storage.runs.as_ref(), below.runs),
            templates: self.path(file.storage.templates.as_ref(), below.templates),
            vms: self.path(file.storage.vms.as_ref(), below.vms),
            aside: self.path(file.storage.aside.as_ref(), below.aside),
        };
        let limits = file.limits.as_ref();
        let default_limits = Limits {
            running_vms: limits.and_then(|l| l.running_vms.as_ref()).map_or(Limits::USER.running_vms, |n| n.value),
            storage_bytes: limits.and_then(|l| l.storage.as_ref()).map_or(Limits::USER.storage_bytes, |size| size.0),
        };
        let (scheduler, network) = (self.scheduler(&file, local_root, machine), self.network(&file, local_root));
        let all_vms = predefined_group(&scheduler, &network);
        Site {
            file: Some(path.to_owned()),
            state: self.path(file.state.as_ref(), local_root.join("state.db")),
            storage,
            admins: file.admins.iter().map(|admin| admin.value.clone()).collect(),
            scheduler,
            network,
            qemu: self.qemu(&file),
            timing: timing(&file),
            service_user: file.service_user.as_ref().map_or(SERVICE_USER.to_owned(), |user| user.to_string()),
            default_limits,
            retention_days: file.retention.as_ref().map_or(RETENTION_DAYS, |retention| days(retention.value)),
            all_vms: file.all_vms.map_or(all_vms, |decl| self.all_vms(decl)),
        }
    }

    fn scheduler(&self, file: &SiteFile, local_root: &Path, machine: Machine) -> SchedulerSettings {
        if let Some(cluster) = file.scheduler.as_ref().and_then(|scheduler| scheduler.grid_engine.as_ref()) {
            return SchedulerSettings::GridEngine(self.cluster(cluster));
        }
        let local = file.scheduler.as_ref().and_then(|scheduler| scheduler.local.as_ref());
        let own = guest_memory_mib(machine.memory_mib);
        let memory_mib = local.and_then(|local| local.memory.as_ref()).map_or(own, |memory| memory.mib());
        let slots = local.and_then(|local| local.slots.as_ref()).map(|slots| slots.value);
        SchedulerSettings::Local {
            folder: self.path(local.and_then(|local| local.folder.as_ref()), local_root.join("scheduler")),
            slots: slots.unwrap_or_else(|| local_slots(memory_mib, machine.cpus)),
            memory_mib,
        }
    }

    fn cluster(&self, cluster: &GridEngineDecl) -> GridEngineSettings {
        let defaults = GridEngineSettings::new(self.manifest.path(&cluster.root));
        let text = |written: &Option<Spanned<Text>>| written.as_ref().map(|text| text.0.clone());
        let port = |written: &Option<Spanned<u32>>| written.as_ref().and_then(|port| u16::try_from(port.value).ok());
        GridEngineSettings {
            cell: text(&cluster.cell).unwrap_or(defaults.cell),
            binaries: self.path(cluster.binaries.as_ref(), defaults.binaries),
            qmaster_port: port(&cluster.qmaster_port),
            execd_port: port(&cluster.execd_port),
            account: cluster.account.as_ref().map(|account| account.to_string()),
            queue: text(&cluster.queue),
            project: text(&cluster.project),
            memory_resource: text(&cluster.memory_resource).unwrap_or(defaults.memory_resource),
            requests: cluster.requests.iter().map(|request| request.0.clone()).collect(),
            tasks_at_once: cluster.tasks_at_once.as_ref().map(|tasks| tasks.value),
            answer_seconds: cluster.answer_timeout.as_ref().map_or(defaults.answer_seconds, |timeout| timeout.0),
            root: defaults.root,
        }
    }

    fn network(&self, file: &SiteFile, local_root: &Path) -> NetworkSettings {
        let network = file.network.as_ref();
        let folder = self.path(network.and_then(|n| n.dhcp_folder.as_ref()), local_root.join("dnsmasq"));
        let dhcp = match network.and_then(|n| n.dhcp.as_ref()).map(|kind| kind.value) {
            Some(DhcpKind::None) => DhcpSettings::None,
            // One without the other was told by `check`, and no site comes of it.
            Some(DhcpKind::Omapi) => {
                let decl = network.and_then(|n| n.omapi.as_ref());
                decl.map_or(DhcpSettings::None, |decl| DhcpSettings::Omapi(self.omapi(decl)))
            }
            Some(DhcpKind::Dnsmasq) | None => DhcpSettings::Dnsmasq { folder },
        };
        let gateway_on_host = network.and_then(|n| n.gateway_on_host.as_ref()).is_none_or(|on_host| on_host.value);
        let filter = network.and_then(|n| n.filter.as_ref()).map(|filter| filter.value).unwrap_or_default();
        let name = |written: Option<&Spanned<InterfaceName>>| written.map(|name| name.value.0.clone());
        NetworkSettings {
            gateway_on_host,
            dhcp_servers: dhcp_servers(network.map(|network| &network.value), &dhcp),
            dhcp,
            filter,
            vnc_allow: file.qemu.iter().flat_map(|qemu| &qemu.vnc_allow).map(|network| network.value).collect(),
            uplink: name(network.and_then(|n| n.uplink.as_ref())),
            untagged_bridge: name(network.and_then(|n| n.untagged_bridge.as_ref())),
            forwarding: network.and_then(|n| n.forwarding.as_ref()).map(|on| on.value),
        }
    }

    fn omapi(&self, decl: &OmapiDecl) -> OmapiSettings {
        OmapiSettings {
            server: decl.server.value,
            port: decl.port.as_ref().map_or(DhcpSettings::CONTROL_PORT, |port| port.value.0),
            key_name: decl.key_name.value.0.clone(),
            algorithm: decl.algorithm.as_ref().map_or(Algorithm::HmacSha256, |algorithm| algorithm.value),
            key_file: self.manifest.path(&decl.key_file),
        }
    }

    fn qemu(&self, file: &SiteFile) -> QemuSettings {
        let defaults = QemuSettings::default();
        let Some(qemu) = &file.qemu else { return defaults };
        QemuSettings {
            binary: self.path(qemu.binary.as_ref(), defaults.binary),
            accel: qemu.accel.as_ref().map_or(defaults.accel, |accel| accel.value),
            extra_args: qemu.extra_args.iter().map(|argument| argument.0.clone()).collect(),
            vnc_bind: qemu.vnc_bind.as_ref().map_or(defaults.vnc_bind, |address| address.value),
        }
    }

    /// The predefined vm group, judged like any other.
    fn all_vms(&mut self, decl: VmGroupDecl) -> VmGroup {
        let at = decl.ip_range.at;
        let name = VmGroupName::new("site").expect("it is a valid name");
        let key = Spanned { value: name, at };
        self.manifest.vm_groups = Named(vec![Entry { key, value: Some(decl) }]);
        let (group, findings) = resolve_vm_group(&self.manifest);
        self.diagnostics.append(findings);
        group.unwrap_or_else(VmGroup::all_vms)
    }
}

/// As written; else the server that is told about reservations, which may answer itself.
fn dhcp_servers(network: Option<&NetworkDecl>, dhcp: &DhcpSettings) -> Vec<DhcpServer> {
    let written = network.filter(|network| network.key("dhcp_servers").is_some());
    match (written, dhcp) {
        (Some(network), _) => {
            let server = |server: &ServerDecl| DhcpServer {
                address: server.address().value,
                mac: server.mac().map(|mac| mac.value),
            };
            network.dhcp_servers.iter().map(server).collect()
        }
        (None, DhcpSettings::Omapi(settings)) => vec![DhcpServer { address: settings.server, mac: None }],
        (None, _) => Vec::new(),
    }
}

/// Where this machine is the site, it is its guests' gateway. On a cluster somebody else is, or nobody.
fn predefined_group(scheduler: &SchedulerSettings, network: &NetworkSettings) -> VmGroup {
    let is_one_machine = matches!(scheduler, SchedulerSettings::Local { .. });
    match &network.dhcp {
        DhcpSettings::Dnsmasq { .. } if is_one_machine && network.gateway_on_host => VmGroup::all_vms_of_one_machine(),
        _ => VmGroup::all_vms(),
    }
}

fn days(retention: Duration) -> u32 {
    u32::try_from(retention.0 / 86_400).unwrap_or(u32::MAX)
}

fn timing(file: &SiteFile) -> Timing {
    let defaults = Timing::default();
    let Some(written) = &file.timing else { return defaults };
    let seconds = |written: Option<&Spanned<Duration>>, default| written.map_or(default, |length| length.0);
    Timing {
        heartbeat_seconds: seconds(written.heartbeat.as_ref(), defaults.heartbeat_seconds),
        self_fence_seconds: seconds(written.self_fence.as_ref(), defaults.self_fence_seconds),
        grace_seconds: seconds(written.grace.as_ref(), defaults.grace_seconds),
        early_exit_seconds: seconds(written.early_exit.as_ref(), defaults.early_exit_seconds),
        start_attempts_max: written.start_attempts.as_ref().map_or(defaults.start_attempts_max, |n| n.value),
        hung_seconds: seconds(written.hung.as_ref(), defaults.hung_seconds),
    }
}
