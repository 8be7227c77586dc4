//! What a start needs of this host before anything of it is done: the account, qemu, the accelerator, the drop table,
//! bridges, DHCP, and folders that the account can enter. `host check` shows these lines among its own; whoever is to
//! start guests here looks at them first, since each would fail for the same reason a minute later, and all the others
//! with it. Looks alone, and quickly: nothing is tried that takes more than some milliseconds.

use std::net::Ipv4Addr;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::unistd::User;

use super::account::closed_to;
use super::check::{self, Line, failed, ok};
use super::setup::Wanted;
use crate::dhcp::{Dnsmasq, Omapi, OmapiError};
use crate::error::chain;
use crate::host::run::filter::{FilterError, Session};
use crate::model::lab::VmGroup;
use crate::model::site::DhcpSettings;

pub(super) const SETUP: &str = "run `labwright host setup`";

/// What is to happen on this host.
#[derive(Debug, Clone, Copy)]
pub struct Needs<'a> {
    /// With the vm groups whose guests are to start, or get their addresses.
    pub wanted: Wanted<'a>,
    /// Folders and files that the guests' account must get to.
    pub paths: &'a [&'a Path],
    /// Whether guests start on this very host: a submit host has neither their bridges nor their filters.
    pub starts_here: bool,
}

/// What is missing, a line each; nothing where all is well.
pub fn lacks(needs: &Needs<'_>) -> Vec<Line> {
    let wanted = &needs.wanted;
    let mut lines = vec![service_user(wanted.service_user)];
    if needs.starts_here {
        lines.push(check::qemu(&wanted.qemu.binary));
        lines.push(check::accelerator(wanted));
        lines.extend(drop_table());
        lines.extend(check::bridges(wanted));
    }
    lines.push(dhcp(wanted));
    lines.extend(closed_paths(wanted.service_user, needs.paths));
    lines.retain(|line| line.verdict == check::Verdict::Failed);
    lines
}

pub(super) fn service_user(name: &str) -> Line {
    match User::from_name(name) {
        Ok(Some(user)) => ok("service account", format!("{name} (uid {})", user.uid)),
        Ok(None) => failed(
            "service account",
            format!("there is no account `{name}`, which owns the disks and runs qemu"),
            "`labwright host setup` makes it; or name another as `service_user:` in site.yaml",
        ),
        Err(error) => failed("service account", error.to_string(), "see that `getent passwd` works"),
    }
}

fn drop_table() -> Option<Line> {
    match Session::start() {
        // What is wrong with nft itself, its first user says better.
        Err(error) => Some(failed("filter", chain(&error), "on Debian: `apt-get install nftables`")),
        Ok(mut session) => Some(of_drop_table(&mut session)),
    }
}

pub(super) fn of_drop_table(session: &mut Session) -> Line {
    match session.verify_host_table() {
        Ok(()) => ok("drop table", "a guest without a filter is cut off"),
        Err(FilterError::HostTable { state }) => failed("drop table", format!("it is {state}"), SETUP),
        Err(error) => failed("drop table", error.to_string(), SETUP),
    }
}

pub(super) fn dhcp(wanted: &Wanted<'_>) -> Line {
    const WHAT: &str = "dhcp";
    match &wanted.network.dhcp {
        DhcpSettings::Dnsmasq { folder } => match Dnsmasq::new(folder).process() {
            Some(pid) => unserved(wanted.groups)
                .unwrap_or_else(|| ok(WHAT, format!("dnsmasq (process {pid}) serves {}", folder.display()))),
            None => failed(WHAT, format!("no dnsmasq of labwright serves {}", folder.display()), SETUP),
        },
        DhcpSettings::Omapi(settings) => match Omapi::new(settings).probe() {
            Ok(()) => ok(WHAT, format!("dhcpd at {}:{} takes orders", settings.server, settings.port)),
            Err(OmapiError::Key(error)) if error.is_absent() => check::warning(
                WHAT,
                chain(&error),
                "a machine that only runs guests needs none; the one that runs `labwright apply` does",
            ),
            Err(error) => failed(WHAT, chain(&error), "see dhcpd.conf there, and `network:` in site.yaml"),
        },
        DhcpSettings::None => {
            let servers: Vec<String> =
                wanted.network.dhcp_servers.iter().map(|server| server.address.to_string()).collect();
            let servers = if servers.is_empty() { "nobody".to_owned() } else { servers.join(", ") };
            ok(WHAT, format!("the site leaves it to others; guests get the answers of {servers}"))
        }
    }
}

/// dnsmasq serves a network from an address in it, which a bridge without a gateway does not have.
fn unserved(groups: &[VmGroup]) -> Option<Line> {
    // Where interfaces cannot be listed, that is no vm group's fault.
    let addresses: Vec<(String, Ipv4Addr)> = getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|found| Some((found.interface_name, found.address?.as_sockaddr_in()?.ip())))
        .collect();
    let is_served = |group: &VmGroup| {
        addresses.iter().any(|(name, address)| *name == group.bridge && group.subnet.contains(address))
    };
    let group = groups.iter().find(|group| interface_exists(&group.bridge) && !is_served(group))?;
    let found = format!("{} has no address in {}, so that dnsmasq cannot serve its guests", group.bridge, group.subnet);
    let mend = match group.gateway {
        Some(_) => "run `labwright host setup`; a bridge that you made is yours to give an address".to_owned(),
        None => "write a `gateway:` for the vm group, outside its `ip_range`; then `labwright host setup`".to_owned(),
    };
    Some(failed("dhcp", found, mend))
}

fn interface_exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

fn closed_paths(account: &str, paths: &[&Path]) -> Vec<Line> {
    const WHAT: &str = "folders";
    // An account that is not there has its line.
    let Ok(Some(user)) = User::from_name(account) else { return Vec::new() };
    let closed = match closed_to(&user, paths) {
        Ok(closed) => closed,
        Err(error) => {
            return vec![failed(WHAT, format!("cannot look as {account}: {error}"), "see that /bin/sh is there")];
        }
    };
    let line = |path: &std::path::PathBuf| {
        let path = path.display();
        let mend = format!("`chmod o+x {path}` (a file: `o+r`), or keep storage and images where {account} gets to");
        failed(WHAT, format!("{account}, which runs the guests, cannot enter {path}"), mend)
    };
    closed.iter().map(line).collect()
}
