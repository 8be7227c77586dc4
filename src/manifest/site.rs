//! `site.yaml`: one installation's settings as written, with the same reader and the same quality of errors as a lab's
//! manifests. What they mean together, and what is not written, is said by `resolve`.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::Ipv4Net;
use schemars::{Schema, json_schema};

use super::compose::Manifest;
use super::containers::Named;
use super::decode::{Decode as _, Decoder, Spanned};
use super::files::{self, Budget, Files, LoadError, ManifestFile};
use super::language::{LimitsDecl, VmGroupDecl};
use super::record::{choice, record, text};
use super::room::Room;
use super::scalar::{Mistake, Scalar};
use super::shares::LabShareDecl;
use super::stations::ServerDecl;
use super::tree;
use super::values::{Duration, Size, Text};
use super::words::{FilePath, InterfaceName, KeyName, Port};
use crate::model::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::model::id::{LabName, UserName};
use crate::model::rules::Rule;
use crate::model::site::{Accel, Algorithm, Filter, VncBind};

record! {
    /// Settings of one installation of labwright.
    pub struct SiteFile as "the site" {
        /// Users who may do everything, as root may.
        #[example(["badmin"])]
        pub admins: Vec<Spanned<UserName>>,
        /// Whether owners of vms may let others use them (default: true); admins may at any rate.
        #[example(false)]
        pub owners_may_share: Option<Spanned<bool>>,
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
        /// How long what is over is remembered: runs with their reports, logs and answers, and what was applied.
        #[example("365d")]
        pub history: Option<Spanned<Duration>>,
        /// Labs that people plan and apply from their own accounts, each with what of the site is theirs.
        pub labs: Named<LabName, LabShareDecl>,
        /// How long it is kept who asked for what, was refused, or looked at a screen; a year if not written.
        #[example("365d")]
        pub audit: Option<Spanned<Duration>>,
        /// How `labwright serve` works.
        pub daemon: Option<Spanned<DaemonDecl>>,
        /// How images that labs name by `https://` are fetched.
        pub images: Option<Spanned<ImagesDecl>>,
    }
}

record! {
    /// How images that labs name by `https://` are fetched.
    pub struct ImagesDecl as "`images`" {
        /// Certificates to trust in place of the system's, such as a school's own: a file in PEM form.
        #[example("/etc/ssl/school.pem")]
        pub ca: Option<Spanned<FilePath>>,
    }
}

record! {
    /// How `labwright serve` works.
    pub struct DaemonDecl as "`daemon`" {
        /// How often it looks at every lab, at least; what people ask and what runs report is seen to at once.
        #[example("30s")]
        pub interval: Option<Spanned<Duration>>,
        /// Who may read `/metrics` besides root and the admins: the account that Prometheus runs as.
        #[example(["prometheus"])]
        pub metrics: Vec<Spanned<UserName>>,
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
        /// What is collected at the end of sessions, for root alone; `submissions` below the root if not written.
        pub submissions: Option<Spanned<FilePath>>,
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

/// A site as its file says it.
#[derive(Debug)]
#[must_use = "the findings are for the user: report them"]
pub struct LoadedSite {
    /// Absolute.
    pub path: PathBuf,
    /// The file itself, so that places in it can be shown; no lab is in it.
    pub manifest: Manifest,
    /// None where it cannot be read as a site's settings; the findings say why.
    pub file: Option<SiteFile>,
    pub diagnostics: Diagnostics,
}

/// Reads a site's settings as they are written.
pub fn load(path: &Path) -> Result<LoadedSite, LoadError> {
    let absolute = std::path::absolute(path).map_err(|source| LoadError::File { path: path.to_owned(), source })?;
    let mut diagnostics = Diagnostics::default();
    let name = path.display().to_string();
    let bytes = files::read_bytes(Files::Disk, &absolute, &name, &mut Budget::default(), &mut diagnostics)
        .map_err(|source| LoadError::File { path: path.to_owned(), source })?;
    let source = bytes.and_then(|bytes| files::text(&name, bytes, &mut diagnostics));
    let file = source.as_ref().and_then(|source| read(source, &mut diagnostics));
    let folder = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    let files = source.map(|source| ManifestFile { source, relative: name, folder: folder.clone() });
    let manifest = Manifest { folder, files: files.into_iter().collect(), ..Manifest::default() };
    Ok(LoadedSite { path: absolute, manifest, file, diagnostics })
}

fn read(source: &Arc<Source>, diagnostics: &mut Diagnostics) -> Option<SiteFile> {
    let root = match tree::parse(source) {
        Ok(Some(root)) => root,
        Ok(None) => {
            let message = "the site's settings are empty";
            let hint = "write at least `storage: { root: /srv/labwright }`";
            diagnostics.push(Diagnostic::new(Rule::MissingKey, message).at(Span::new(source, 0..1)).hint(hint));
            return None;
        }
        Err(finding) => {
            diagnostics.push(*finding);
            return None;
        }
    };
    let mut room = Room::default();
    let mut decoder = Decoder { file: 0, source, diagnostics, context: 0..1, room: &mut room };
    SiteFile::decode(&root, &mut decoder)
}
