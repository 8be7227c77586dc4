//! Who may connect to guests' screens over the network: with `vnc_allow` in site.yaml, a table of this host's own that
//! drops everybody else but this host itself. It judges nothing but TCP to the vnc ports of the address that vnc is bound to.

use std::net::Ipv4Addr;

use crate::host::command::{self, CommandError};
use crate::host::run::qemu::{VNC_PORT_FIRST, VNC_PORT_LAST};
use crate::model::site::{NetworkSettings, QemuSettings, VncBind};

/// Name of the table, in the `inet` family.
const TABLE: &str = "labwright";

/// How far a screen can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// A socket in the run's folder: root.
    Socket,
    /// Whoever is logged in on this host.
    Host,
    /// Whoever reaches the address.
    Network(Ipv4Addr),
}

pub(super) fn reach(qemu: &QemuSettings) -> Reach {
    match qemu.vnc_bind {
        VncBind::Socket => Reach::Socket,
        VncBind::Address(address) if address.is_loopback() => Reach::Host,
        VncBind::Address(address) => Reach::Network(address),
    }
}

/// The rules that the site asks for, as nft lists them; none where nothing is to be installed.
fn rules(network: &NetworkSettings, qemu: &QemuSettings) -> Option<Vec<String>> {
    let Reach::Network(address) = reach(qemu) else { return None };
    if network.vnc_allow.is_empty() {
        return None;
    }
    let ports = format!("tcp dport {VNC_PORT_FIRST}-{VNC_PORT_LAST}");
    let to = if address.is_unspecified() { String::new() } else { format!("ip daddr {address} ") };
    let others = if to.is_empty() { "meta nfproto ipv4 " } else { &to };
    let allowed = network.vnc_allow.iter().map(|net| match net.prefix_len() {
        // nft lists it so: all of IPv4, and a single address.
        0 => format!("{others}{ports} accept"),
        32 => format!("{to}ip saddr {} {ports} accept", net.addr()),
        _ => format!("{to}ip saddr {net} {ports} accept"),
    });
    // From this host itself, as through a tunnel of ssh: whoever is logged in here reaches a loopback address too.
    let here = "iifname \"lo\" accept".to_owned();
    Some([here].into_iter().chain(allowed).chain([format!("{others}{ports} drop")]).collect())
}

/// The hook of the table's only chain, as nft lists it.
const HOOK: &str = "type filter hook input priority filter; policy accept;";

fn command(rules: &[String]) -> String {
    let rules = rules.join("; ");
    format!(
        "add table inet {TABLE}; delete table inet {TABLE}; table inet {TABLE} {{ chain vnc {{ {HOOK} {rules}; }}; }}\n"
    )
}

fn stands_in(rules: &[String], listing: &str) -> bool {
    let head = [format!("table inet {TABLE} {{"), "chain vnc {".to_owned(), HOOK.to_owned()];
    let expected = head.iter().chain(rules).map(String::as_str).chain(["}", "}"]);
    // A comment such as `# progname nft` is nft's own.
    let lines = listing.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).eq(expected)
}

/// The table as it stands, if there is one.
fn listing() -> Result<Option<String>, CommandError> {
    let tables = command::run("nft", &["list", "tables", "inet"], "")?;
    if !tables.lines().any(|line| line.trim() == format!("table inet {TABLE}")) {
        return Ok(None);
    }
    command::run("nft", &["list", "table", "inet", TABLE], "").map(Some)
}

/// Whether the table is as the site asks; also where it asks for none.
pub(super) fn stands(network: &NetworkSettings, qemu: &QemuSettings) -> Result<bool, CommandError> {
    Ok(match (rules(network, qemu), listing()?) {
        (None, None) => true,
        (Some(rules), Some(listing)) => stands_in(&rules, &listing),
        _ => false,
    })
}

/// Makes it so, and says what was done.
pub(super) fn ensure(network: &NetworkSettings, qemu: &QemuSettings) -> Result<Option<String>, CommandError> {
    if stands(network, qemu)? {
        return Ok(None);
    }
    let Some(rules) = rules(network, qemu) else { return remove() };
    command::run("nft", &["-f", "-"], &command(&rules))?;
    let networks: Vec<String> = network.vnc_allow.iter().map(ToString::to_string).collect();
    Ok(Some(format!("table inet {TABLE} made: vnc only from {}", networks.join(", "))))
}

/// Takes the table away, if there is one.
pub(super) fn remove() -> Result<Option<String>, CommandError> {
    if listing()?.is_none() {
        return Ok(None);
    }
    command::run("nft", &["delete", "table", "inet", TABLE], "")?;
    Ok(Some(format!("table inet {TABLE} removed")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::site::Site;

    fn asked(bind: &str, allow: &[&str]) -> Option<String> {
        let mut network = Site::embedded(Path::new("/srv"), 1024, 1).network;
        network.vnc_allow = allow.iter().map(|net| net.parse().unwrap()).collect();
        let qemu = QemuSettings { vnc_bind: bind.parse().unwrap(), ..QemuSettings::default() };
        rules(&network, &qemu).map(|rules| command(&rules))
    }

    #[test]
    fn only_what_the_site_asks_for() {
        assert_eq!(asked("socket", &["10.0.0.0/24"]), None);
        assert_eq!(asked("127.0.0.1", &["10.0.0.0/24"]), None);
        assert_eq!(asked("10.0.0.1", &[]), None);
        insta::assert_snapshot!(asked("10.0.0.1", &["10.0.0.0/24", "10.9.0.7/32"]).unwrap());
        insta::assert_snapshot!(asked("0.0.0.0", &["10.0.0.0/24"]).unwrap());
    }
}
