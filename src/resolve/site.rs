//! A site's settings as written, judged and with every default filled in. What of its values does not fit together becomes a
//! finding; the predefined vm group is judged like any other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::resolve_vm_group;
use crate::manifest::site::{
    DhcpKind, GridEngineDecl, LoadedSite, Machine, NetworkDecl, OmapiDecl, QemuDecl, SchedulerDecl, SiteFile,
};
use crate::manifest::{
    Duration, Entry, FilePath, InterfaceName, Manifest, Named, ServerDecl, Spanned, Text, VmGroupDecl,
};
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::id::VmGroupName;
use crate::model::lab::{Limits, VmGroup};
use crate::model::rules::Rule;
use crate::model::site::{
    AUDIT_DAYS, Algorithm, DaemonSettings, DhcpServer, DhcpSettings, GridEngineSettings, HISTORY_DAYS, NetworkSettings,
    OmapiSettings, QemuSettings, RETENTION_DAYS, SERVICE_USER, SchedulerSettings, Site, Storage, Timing, VncBind,
    guest_memory_mib, local_slots,
};

/// Where a site's own files are unless it says otherwise. Local, because SQLite's journal cannot be shared.
const LOCAL_ROOT: &str = "/var/lib/labwright";

/// The site that its file means on a machine; none where there are errors.
pub fn resolve_site(loaded: LoadedSite, machine: Machine) -> (Option<Site>, Diagnostics) {
    let LoadedSite { path, manifest, file, diagnostics } = loaded;
    let mut builder = Builder { manifest, diagnostics };
    let site = file.map(|file| {
        builder.check(&file);
        builder.site(path, file, machine)
    });
    let mut diagnostics = builder.diagnostics;
    diagnostics.sort();
    let is_whole = !diagnostics.has_errors();
    (site.filter(|_| is_whole), diagnostics)
}

pub(super) struct Builder {
    manifest: Manifest,
    diagnostics: Diagnostics,
}

impl Builder {
    pub(super) fn path(&self, written: Option<&Spanned<FilePath>>, default: PathBuf) -> PathBuf {
        written.map_or(default, |written| self.manifest.path(written))
    }

    pub(super) fn note<T>(&mut self, place: &Spanned<T>, message: &str, hint: &str) {
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
        if let Some(history) = file.history.as_ref().filter(|history| history.0 < 86_400) {
            let message = "a run would be forgotten before anybody could ask why it ended";
            self.note(history, message, "write at least `1d`; the default is `365d`");
        }
        if let Some(audit) = file.audit.as_ref().filter(|audit| audit.0 < 86_400) {
            let message = "what people did would be forgotten before anybody could ask";
            self.note(audit, message, "write at least `1d`; the default is `365d`");
        }
        self.check_daemon(file);
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

    fn image_authorities(&self, file: &SiteFile) -> Option<PathBuf> {
        Some(self.manifest.path(file.images.as_ref()?.ca.as_ref()?))
    }

    fn check_daemon(&mut self, file: &SiteFile) {
        let interval = file.daemon.as_ref().and_then(|daemon| daemon.interval.as_ref());
        if let Some(interval) = interval.filter(|interval| !(1..=3600).contains(&interval.value.0)) {
            let message =
                if interval.value.0 == 0 { "it would never rest" } else { "a lost vm would be down for so long" };
            self.note(interval, message, "write a time from `1s` to `1h`; the default is `30s`");
        }
    }

    fn check_cluster(&mut self, scheduler: &Spanned<SchedulerDecl>) {
        let Some(cluster) = &scheduler.grid_engine else { return };
        if scheduler.local.is_some() {
            self.note(cluster, "jobs go either to this machine or to a cluster", "remove `local` or `grid_engine`");
        }
        for port in [&cluster.qmaster_port, &cluster.execd_port].into_iter().flatten() {
            if !(1..=65_535).contains(&port.value) {
                self.note(port, "this is not a port", "write a number from 1 to 65535");
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

    fn site(&mut self, path: PathBuf, mut file: SiteFile, machine: Machine) -> Site {
        let labs = std::mem::take(&mut file.labs);
        let local_root = Path::new(LOCAL_ROOT);
        let below = Storage::below(&self.manifest.path(&file.storage.root));
        let storage = Storage {
            runs: self.path(file.storage.runs.as_ref(), below.runs),
            templates: self.path(file.storage.templates.as_ref(), below.templates),
            vms: self.path(file.storage.vms.as_ref(), below.vms),
            aside: self.path(file.storage.aside.as_ref(), below.aside),
            submissions: self.path(file.storage.submissions.as_ref(), below.submissions),
        };
        let limits = file.limits.as_ref();
        let default_limits = Limits {
            running_vms: limits.and_then(|l| l.running_vms.as_ref()).map_or(Limits::USER.running_vms, |n| n.value),
            storage_bytes: limits.and_then(|l| l.storage.as_ref()).map_or(Limits::USER.storage_bytes, |size| size.0),
        };
        let (scheduler, network) = (self.scheduler(&file, local_root, machine), self.network(&file, local_root));
        let all_vms = predefined_group(&scheduler, &network);
        let mut site = Site {
            file: Some(path),
            state: self.path(file.state.as_ref(), local_root.join("state.db")),
            storage,
            owners_may_share: file.owners_may_share.as_ref().is_none_or(|may| may.value),
            admins: file.admins.iter().map(|admin| admin.value.clone()).collect(),
            scheduler,
            network,
            qemu: self.qemu(&file),
            timing: timing(&file),
            service_user: file.service_user.as_ref().map_or(SERVICE_USER.to_owned(), |user| user.to_string()),
            default_limits,
            retention_days: file.retention.as_ref().map_or(RETENTION_DAYS, |retention| days(retention.value)),
            history_days: file.history.as_ref().map_or(HISTORY_DAYS, |history| days(history.value)),
            audit_days: file.audit.as_ref().map_or(AUDIT_DAYS, |audit| days(audit.value)),
            daemon: daemon(&file),
            image_authorities: self.image_authorities(&file),
            all_vms: file.all_vms.map_or(all_vms, |decl| self.all_vms(decl)),
            labs: BTreeMap::new(),
        };
        self.shares(&labs, &mut site);
        site
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

fn daemon(file: &SiteFile) -> DaemonSettings {
    let defaults = DaemonSettings::default();
    let Some(written) = &file.daemon else { return defaults };
    DaemonSettings {
        interval_seconds: written.interval.as_ref().map_or(defaults.interval_seconds, |length| length.0),
        metrics: written.metrics.iter().map(|user| user.value.clone()).collect(),
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
