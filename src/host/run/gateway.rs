//! Under which Ethernet addresses a guest's gateway, name servers and DHCP servers answer, so that its filter goes by these
//! and by no others. In: a run's network. Out: the same with every machine on the guest's wire that its rules name.
//!
//! ```text
//! the bridge's own address ─▶ the bridge's own Ethernet address
//! written in lab or site   ─▶ as written
//! found by this host       ─▶ /run/labwright/wire/<bridge>-<address>, the same for every later start
//! else                     ─▶ asked from 0.0.0.0, and kept there
//! ```
//!
//! What was found once is never replaced: a machine that answers in another's place would be believed. `host check` asks
//! again, and says who does not answer any more; whoever knows better removes the file.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::filter::wanted_stations;
use super::probe::{Probe, ProbeError};
use crate::model::id::{Mac, MacPrefix};
use crate::model::lab::Station;
use crate::run::RunNetwork;

/// How long a machine may take to answer. It takes milliseconds; a router that just comes up loses some questions.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// Folder below the run root of what was found.
const FOLDER: &str = "wire";
const NET: &str = "/sys/class/net";

#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} holds no Ethernet address: remove it, so that the next start asks again")]
    Garbled { path: PathBuf },
    #[error("cannot list this host's addresses")]
    Addresses(#[source] nix::Error),
    #[error(
        "the gateway {address} gives no answer on `{bridge}`, so that an isolated guest could not tell it from others; nothing \
         was started. See that it is up; or write its Ethernet address into the vm group: `gateway: {{ address: {address}, \
         mac: \"...\" }}`"
    )]
    Silent { address: Ipv4Addr, bridge: String },
    #[error(
        "no DHCP server answers on `{bridge}` under {}, so that the guest could not tell its answers from others'; nothing was \
         started. See that it is up; or write its Ethernet address into site.yaml: `dhcp_servers: [{{ address, mac }}]`",
        servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    NoServer { servers: Vec<Ipv4Addr>, bridge: String },
    #[error(
        "{} answer for {address} on `{bridge}`, and an isolated guest must know the right one; nothing was started. Write it into \
         the lab, such as `{{ address: {address}, mac: \"{}\" }}`",
        listed(macs), macs.first().map(ToString::to_string).unwrap_or_default()
    )]
    Several { address: Ipv4Addr, bridge: String, macs: Vec<Mac> },
}

fn listed(macs: &[Mac]) -> String {
    macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// A run's network with what this host knows of its wire.
#[derive(Debug)]
pub struct Pinned {
    pub network: RunNetwork,
    /// Who gave no answer; the guest does not get through to them.
    pub silent: Vec<Ipv4Addr>,
}

impl Pinned {
    /// The gateway's Ethernet address, where the guest's rules go by it.
    pub fn gateway_mac(&self) -> Option<Mac> {
        let gateway = self.network.gateway?;
        self.network.stations.iter().find(|station| station.address == gateway).map(|station| station.mac)
    }
}

/// Finds the Ethernet address of everything on the wire that the run's rules name.
pub fn pin(network: &RunNetwork, run_root: &Path) -> Result<Pinned, GatewayError> {
    let mut network = network.clone();
    let own = own_stations(&network.bridge)?;
    if network.dhcp_on_bridge {
        let servers = network.dhcp_servers.get_or_insert_default();
        servers.extend(own.iter().map(|station| station.address));
        servers.dedup();
    }
    network.stations.retain(|station| own.iter().all(|own| own.address != station.address));
    network.stations.extend(own);
    let known: BTreeSet<Ipv4Addr> =
        network.stations.iter().chain(&network.routers).map(|station| station.address).collect();
    let unknown: Vec<Ipv4Addr> = wanted_stations(&network).into_iter().filter(|ip| !known.contains(ip)).collect();
    let found = find(&network.bridge, &unknown, &network.lab_mac_prefixes, run_root)?;
    network.stations.extend(&found);
    let silent: Vec<Ipv4Addr> =
        unknown.into_iter().filter(|ip| found.iter().all(|station| station.address != *ip)).collect();
    if let Some(address) = network.gateway.filter(|gateway| network.isolated && silent.contains(gateway)) {
        return Err(GatewayError::Silent { address, bridge: network.bridge });
    }
    let servers = network.dhcp_servers.as_deref().unwrap_or_default();
    if !servers.is_empty() && servers.iter().all(|server| silent.contains(server)) {
        return Err(GatewayError::NoServer { servers: servers.to_vec(), bridge: network.bridge });
    }
    Ok(Pinned { network, silent })
}

/// The bridge's own addresses.
pub(in crate::host) fn own_stations(bridge: &str) -> Result<Vec<Station>, GatewayError> {
    let path = Path::new(NET).join(bridge).join("address");
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(|source| GatewayError::Io { action: "read", path: path.clone(), source })?;
    let mac = text.trim().parse().map_err(|_| GatewayError::Garbled { path })?;
    let all = nix::ifaddrs::getifaddrs().map_err(GatewayError::Addresses)?;
    // A second address may have a label of its own behind the name.
    let on_bridge = all.filter(|interface| interface.interface_name.split(':').next() == Some(bridge));
    let addresses = on_bridge.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    Ok(addresses.map(|address| Station { address, mac }).collect())
}

/// What this host found before, and what it finds now.
fn find(
    bridge: &str,
    addresses: &[Ipv4Addr],
    guests: &[MacPrefix],
    run_root: &Path,
) -> Result<Vec<Station>, GatewayError> {
    let mut found = Vec::new();
    let mut unknown = Vec::new();
    for address in addresses.iter().copied() {
        match read(run_root, bridge, address)? {
            Some(mac) => found.push(Station { address, mac }),
            None => unknown.push(address),
        }
    }
    if unknown.is_empty() {
        return Ok(found);
    }
    let answers = ask(bridge, &unknown, guests)?;
    for (address, macs) in unknown.into_iter().zip(answers) {
        match macs.as_slice() {
            [] => {}
            [mac] => found.push(Station { address, mac: keep(run_root, bridge, address, *mac)? }),
            _ => return Err(GatewayError::Several { address, bridge: bridge.to_owned(), macs }),
        }
    }
    Ok(found)
}

/// Who answers for each address. A guest of a lab is none of them, whatever it says.
pub(in crate::host) fn ask(
    bridge: &str,
    addresses: &[Ipv4Addr],
    guests: &[MacPrefix],
) -> Result<Vec<Vec<Mac>>, ProbeError> {
    let mut answers = Probe::join(bridge)?.who_answers(addresses, ANSWER_WAIT)?;
    for macs in &mut answers {
        macs.retain(|mac| !guests.iter().any(|prefix| mac.0.starts_with(prefix.bytes())));
    }
    Ok(answers)
}

/// Where it is kept which Ethernet address was found.
pub(in crate::host) fn file(run_root: &Path, bridge: &str, address: Ipv4Addr) -> PathBuf {
    run_root.join(FOLDER).join(format!("{bridge}-{address}"))
}

/// The Ethernet address that was found before.
pub(in crate::host) fn read(run_root: &Path, bridge: &str, address: Ipv4Addr) -> Result<Option<Mac>, GatewayError> {
    let path = file(run_root, bridge, address);
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| GatewayError::Garbled { path }),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(GatewayError::Io { action: "read", path, source }),
    }
}

/// Keeps it for later starts. Many may ask at once; the first one's answer is everybody's.
fn keep(run_root: &Path, bridge: &str, address: Ipv4Addr, mac: Mac) -> Result<Mac, GatewayError> {
    let path = file(run_root, bridge, address);
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| GatewayError::Io { action, path, source }
    };
    std::fs::create_dir_all(run_root.join(FOLDER)).map_err(io("create", &run_root.join(FOLDER)))?;
    std::fs::write(&draft, format!("{mac}\n")).map_err(io("write", &draft))?;
    let linked = std::fs::hard_link(&draft, &path);
    // One that stays behind is never read.
    drop(std::fs::remove_file(&draft));
    match linked {
        Ok(()) => Ok(mac),
        Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {
            let first = read(run_root, bridge, address)?.unwrap_or(mac);
            if first == mac {
                return Ok(mac);
            }
            Err(GatewayError::Several { address, bridge: bridge.to_owned(), macs: vec![first, mac] })
        }
        Err(source) => Err(io("create", &path)(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_first_stays() {
        let root = tempfile::tempdir().unwrap();
        let (ip, one): (Ipv4Addr, Mac) = ([10, 0, 0, 1].into(), "02:00:00:00:00:01".parse().unwrap());
        assert_eq!(read(root.path(), "vbr0", ip).unwrap(), None);
        assert_eq!(keep(root.path(), "vbr0", ip, one).unwrap(), one);
        assert_eq!(keep(root.path(), "vbr0", ip, one).unwrap(), one);
        let other = keep(root.path(), "vbr0", ip, "02:00:00:00:00:02".parse().unwrap()).unwrap_err();
        insta::assert_snapshot!(other, @r#"02:00:00:00:00:01 and 02:00:00:00:00:02 answer for 10.0.0.1 on `vbr0`, and an isolated guest must know the right one; nothing was started. Write it into the lab, such as `{ address: 10.0.0.1, mac: "02:00:00:00:00:01" }`"#);
        assert_eq!(read(root.path(), "vbr0", ip).unwrap(), Some(one));
        assert_eq!(std::fs::read_dir(root.path().join(FOLDER)).unwrap().count(), 1, "no draft stays");
    }
}
