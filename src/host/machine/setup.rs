//! Prepares this machine for guests: bridges with their way out (`bridge`), the table that cuts off what has no filter, a DHCP server where the site
//! wants one here, and what `auto` means for the accelerator. Everything is repeatable: what stands as it should is left
//! alone, what is ours and differs is made anew, what is not ours is not touched.
//!
//! | made | ours by |
//! |---|---|
//! | bridge, tagged port | alias `labwright` |
//! | table `bridge labwright` | its name |
//! | table `inet labwright`, where the site says `vnc_allow` | its name |
//! | dnsmasq | pid file in its folder, named on its command line |
//! | `/run/labwright` | its name |
//! | a cgroup, where version 2 has the memory controller | its name, in `/run/labwright/cgroup` |
//!
//! A dhcpd that the site tells through OMAPI is its admins': nothing here starts, configures or ends it.
//! The service account is made too, and never removed: disks may belong to it.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{Group, Pid, User};

use super::bridge::{self, Bridge, BridgeError, bridges};
use super::screens;
use crate::dhcp::{Dnsmasq, HOSTS_FOLDER, LEASE_FILE, PID_FILE};
use crate::error::chain;
use crate::host::RUN_ROOT;
use crate::host::command::{self, CommandError};
use crate::host::run::accel::{self, AccelError};
use crate::host::run::bounds::{self, BoundsError};
use crate::host::run::filter::{HOST_TABLE, Turns, host_table, host_table_command};
use crate::host::run::sweep::{self, SweepError};
use crate::model::id::LabName;
use crate::model::lab::VmGroup;
use crate::model::site::{DhcpSettings, NetworkSettings, QemuSettings, Site};

/// How long dnsmasq may take to be there, or to be gone.
const DNSMASQ_WAIT: Duration = Duration::from_secs(5);
/// Addresses are reserved for the vm's life, so that this is only how often a guest says that it is still there.
const LEASE: &str = "1h";

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    Sweep(#[from] SweepError),
    #[error(transparent)]
    Accel(#[from] AccelError),
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot look up the account `{name}`")]
    Account { name: String, source: nix::Error },
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    #[error(transparent)]
    Bounds(#[from] BoundsError),
    #[error(
        "bridge {bridge} is another lab's already: the dnsmasq of {} gives out its addresses there, and guests of both could \
         get one address", folder.display()
    )]
    Taken { bridge: String, folder: PathBuf },
    #[error("cannot end dnsmasq (process {pid})")]
    Kill { pid: i32, source: nix::Error },
    #[error("dnsmasq (process {pid}) has not ended within {} s", DNSMASQ_WAIT.as_secs())]
    Undying { pid: i32 },
}

/// What a host is to offer.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub groups: &'a [VmGroup],
    pub network: &'a NetworkSettings,
    pub qemu: &'a QemuSettings,
    pub service_user: &'a str,
    pub run_root: &'a Path,
}

impl<'a> Wanted<'a> {
    pub fn new(groups: &'a [VmGroup], site: &'a Site) -> Self {
        let Site { network, qemu, service_user, .. } = site;
        Self { groups, network, qemu, service_user, run_root: Path::new(RUN_ROOT) }
    }
}

/// Makes it so, and says what was made; nothing to say means that all stood already.
pub fn setup(wanted: &Wanted<'_>) -> Result<Vec<String>, SetupError> {
    for bridge in bridges(wanted.groups, wanted.network) {
        if let Some(folder) = rival(wanted, &bridge) {
            return Err(SetupError::Taken { bridge: bridge.name.to_owned(), folder });
        }
    }
    let mut done = Vec::new();
    create_folder(wanted.run_root, 0o755)?;
    done.extend(ensure_service_user(wanted.service_user)?);
    done.extend(ensure_host_table(wanted.run_root)?);
    done.extend(screens::ensure(wanted.network, wanted.qemu)?);
    for bridge in bridges(wanted.groups, wanted.network) {
        done.extend(bridge.ensure()?);
    }
    if let DhcpSettings::Dnsmasq { folder } = &wanted.network.dhcp {
        done.extend(ensure_dnsmasq(wanted, folder)?);
    }
    // A container may not be allowed to. Guests run all the same.
    let bounded = bounds::ensure(wanted.run_root);
    done.extend(bounded.unwrap_or_else(|error| Some(format!("guests have no bounds of memory: {}", chain(&error)))));
    if accel::read(wanted.run_root)?.is_none() {
        let finding = accel::probe(&wanted.qemu.binary);
        accel::write(wanted.run_root, &finding)?;
        done.push(format!("guests run with {}: {}", finding.accel.as_str(), finding.reason));
    }
    Ok(done)
}

/// Another lab of the site, and what it has of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherLab {
    pub lab: LabName,
    pub groups: Vec<VmGroup>,
}

/// Takes away what `setup` made, where nobody else is on this host. Goes on past errors and returns them all.
pub fn teardown(wanted: &Wanted<'_>) -> Result<Vec<String>, Vec<SetupError>> {
    teardown_beside(wanted, &[])
}

/// The same beside other labs: what is shared goes with its last user, and what stays is said with who needs it.
pub fn teardown_beside(wanted: &Wanted<'_>, others: &[OtherLab]) -> Result<Vec<String>, Vec<SetupError>> {
    // First, so that nothing dead is taken for a user.
    let swept = sweep::sweep_all(wanted.run_root);
    let (mut done, mut errors) = (swept.removed, swept.errors.into_iter().map(SetupError::from).collect::<Vec<_>>());
    let bridges = bridges(wanted.groups, wanted.network);
    let users: Vec<Option<String>> = bridges.iter().map(|bridge| user_of(wanted, bridge, others)).collect();
    let of_dhcp = others.first().map(|other| format!("lab {} needs it", other.lab));
    let of_dhcp = of_dhcp.or_else(|| users.iter().flatten().next().cloned());
    let mut results = vec![take_down_dnsmasq(wanted, of_dhcp)];
    results.extend(bridges.iter().zip(users).map(|(bridge, user)| take_down_bridge(bridge, user)));
    results.extend(take_down_shared(wanted, others));
    for result in results {
        match result {
            Ok(text) => done.extend(text),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(done) } else { Err(errors) }
}

/// Who else needs a bridge.
fn user_of(wanted: &Wanted<'_>, bridge: &Bridge<'_>, others: &[OtherLab]) -> Option<String> {
    let other = others.iter().find(|other| other.groups.iter().any(|group| group.bridge == bridge.name));
    let lab = other.map(|other| format!("lab {} needs it", other.lab));
    let guest = || bridge.guest_port().map(|port| format!("{port} is on it"));
    let rival = || rival(wanted, bridge).map(|folder| format!("the dnsmasq of {} serves it", folder.display()));
    lab.or_else(guest).or_else(rival)
}

/// The dnsmasq of a lab outside this site that has the bridge for itself, by its folder.
fn rival(wanted: &Wanted<'_>, bridge: &Bridge<'_>) -> Option<PathBuf> {
    match &wanted.network.dhcp {
        DhcpSettings::Dnsmasq { folder } => Dnsmasq::new(folder).rival(bridge.name),
        DhcpSettings::Omapi(_) | DhcpSettings::None => None,
    }
}

fn take_down_dnsmasq(wanted: &Wanted<'_>, user: Option<String>) -> Result<Option<String>, SetupError> {
    let DhcpSettings::Dnsmasq { folder } = &wanted.network.dhcp else { return Ok(None) };
    let dnsmasq = Dnsmasq::new(folder);
    match user {
        Some(user) => Ok(dnsmasq.process().map(|_| format!("dnsmasq stays: {user}"))),
        None => Ok(end_dnsmasq(&dnsmasq)?.then(|| "dnsmasq ended".to_owned())),
    }
}

fn take_down_bridge(bridge: &Bridge<'_>, user: Option<String>) -> Result<Option<String>, SetupError> {
    match user {
        Some(user) => Ok(bridge.is_made().then(|| format!("bridge {} stays: {user}", bridge.name))),
        None => Ok(bridge.remove()?),
    }
}

/// What all guests of this host share, whatever their lab or site.
fn take_down_shared(wanted: &Wanted<'_>, others: &[OtherLab]) -> Vec<Result<Option<String>, SetupError>> {
    let lab = others.first().map(|other| format!("lab {} needs it", other.lab));
    let bridge = || bridge::made_here().first().map(|name| format!("guests join {name}"));
    let Some(user) = lab.or_else(bridge) else {
        // The cgroup after the sweep, which empties it.
        return vec![
            remove_host_table(wanted.run_root),
            screens::remove().map_err(SetupError::from),
            bounds::take_down(wanted.run_root).map_err(SetupError::from),
        ];
    };
    vec![has_host_table().map(|stands| stands.then(|| format!("table bridge {HOST_TABLE} stays: {user}")))]
}

fn has_host_table() -> Result<bool, SetupError> {
    let tables = command::run("nft", &["list", "tables", "bridge"], "")?;
    Ok(tables.lines().any(|line| line.trim() == format!("table bridge {HOST_TABLE}")))
}

fn remove_host_table(run_root: &Path) -> Result<Option<String>, SetupError> {
    if !has_host_table()? {
        return Ok(None);
    }
    let _turn = Turns::new(run_root).take();
    command::run("nft", &["delete", "table", "bridge", HOST_TABLE], "")?;
    Ok(Some(format!("table bridge {HOST_TABLE} removed")))
}

fn create_folder(path: &Path, mode: u32) -> Result<(), SetupError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| SetupError::Io { action: "create", path: path.to_owned(), source })
}

/// An account that can do nothing but own files and run qemu.
fn ensure_service_user(name: &str) -> Result<Option<String>, SetupError> {
    let failed = |source| SetupError::Account { name: name.to_owned(), source };
    if User::from_name(name).map_err(failed)?.is_some() {
        return Ok(None);
    }
    // Its group may be there before it, for people who may look.
    let group: &[&str] = match Group::from_name(name).map_err(failed)? {
        Some(_) => &["--gid", name],
        None => &["--user-group"],
    };
    let options = ["--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name];
    command::run("useradd", &[group, &options].concat(), "")?;
    Ok(Some(format!("account {name} made: it owns the disks and runs qemu")))
}

fn ensure_host_table(run_root: &Path) -> Result<Option<String>, SetupError> {
    let _turn = Turns::new(run_root).take();
    // Refused where the table is missing, which is what is mended next.
    let listing = command::run("nft", &["-y", "list", "table", "bridge", HOST_TABLE], "").unwrap_or_default();
    if host_table().stands_in(&listing) {
        return Ok(None);
    }
    command::run("nft", &["-f", "-"], &format!("{}\n", host_table_command()))?;
    Ok(Some(format!("table bridge {HOST_TABLE} made: it cuts off guests without a filter")))
}

/// Ours with the same settings is left alone; with others it is started anew.
fn ensure_dnsmasq(wanted: &Wanted<'_>, folder: &Path) -> Result<Option<String>, SetupError> {
    create_folder(&folder.join(HOSTS_FOLDER), 0o755)?;
    let dnsmasq = Dnsmasq::new(folder);
    let arguments = dnsmasq_arguments(wanted, folder);
    if let Some(pid) = dnsmasq.process() {
        if runs_with(pid, &arguments) {
            return Ok(None);
        }
        end_dnsmasq(&dnsmasq)?;
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    command::run("dnsmasq", &arguments, "")?;
    Ok(Some(format!("dnsmasq started, reservations in {}", folder.join(HOSTS_FOLDER).display())))
}

fn runs_with(pid: Pid, arguments: &[String]) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let running = command.split(|b| *b == 0).skip(1).filter(|argument| !argument.is_empty());
    running.eq(arguments.iter().map(String::as_bytes))
}

/// No name service, no dynamic range: only who has a reservation gets an address.
fn dnsmasq_arguments(wanted: &Wanted<'_>, folder: &Path) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut arguments = vec![
        "--conf-file=/dev/null".to_owned(),
        "--port=0".to_owned(),
        "--bind-dynamic".to_owned(),
        "--except-interface=lo".to_owned(),
        "--dhcp-authoritative".to_owned(),
        "--no-ping".to_owned(),
        format!("--user={}", wanted.service_user),
        format!("--pid-file={}", path(PID_FILE)),
        format!("--dhcp-leasefile={}", path(LEASE_FILE)),
        format!("--dhcp-hostsdir={}", path(HOSTS_FOLDER)),
    ];
    let bridges = bridges(wanted.groups, wanted.network);
    arguments.extend(bridges.iter().map(|bridge| format!("--interface={}", bridge.name)));
    for (number, group) in wanted.groups.iter().enumerate() {
        let tag = format!("group{number}");
        let subnet = group.subnet.trunc();
        arguments.push(format!("--dhcp-range=set:{tag},{},static,{},{LEASE}", subnet.network(), subnet.netmask()));
        arguments.extend(group.gateway.map(|ip| format!("--dhcp-option=tag:{tag},option:router,{ip}")));
        if !group.dns.is_empty() {
            let servers: Vec<String> = group.dns.iter().map(ToString::to_string).collect();
            arguments.push(format!("--dhcp-option=tag:{tag},option:dns-server,{}", servers.join(",")));
        }
        arguments.extend(group.domain.iter().map(|name| format!("--dhcp-option=tag:{tag},option:domain-name,{name}")));
    }
    arguments
}

/// Whether there was one to end.
fn end_dnsmasq(dnsmasq: &Dnsmasq) -> Result<bool, SetupError> {
    let ended = dnsmasq.signal(Signal::SIGTERM);
    let Some(pid) = ended.map_err(|(pid, source)| SetupError::Kill { pid: pid.as_raw(), source })? else {
        return Ok(false);
    };
    let deadline = Instant::now() + DNSMASQ_WAIT;
    while dnsmasq.process().is_some() {
        if Instant::now() > deadline {
            return Err(SetupError::Undying { pid: pid.as_raw() });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}
