//! The bridges that guests join on this host, and their way out of it: the uplink, tagged where a vm group has a `vlan`, and
//! whether the host forwards. What is to be is computed first (pure) and then made so; what stands already is left alone.
//!
//! ```text
//! tap ─┐                                 tap ─┐
//! tap ─┴─ vbr0 ─── eth1                  tap ─┴─ vbr120 ─── eth1.120 ─── eth1
//!         `uplink: eth1, untagged_bridge: vbr0`   a group with `vlan: 120`, and `uplink: eth1`
//! ```
//!
//! A bridge that somebody else made is theirs to configure, whole: its addresses, its uplink, its forwarding.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::host::command::{self, CommandError};
use crate::host::run::sweep::run_of_tap;
use crate::model::id::{Mac, RunId};
use crate::model::lab::VmGroup;
use crate::model::site::NetworkSettings;

/// Alias that says that we made an interface.
const MARK: &str = "labwright";
const NET: &str = "/sys/class/net";

#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("there is a network interface `{name}` that is not a bridge; give the vm group another `bridge:`")]
    NotABridge { name: String },
    #[error("there is a network interface `{name}` that labwright did not make; vlan {vlan} needs that name")]
    PortTaken { name: String, vlan: u16 },
    #[error("this host has no network interface `{uplink}`, which site.yaml names as `network: {{ uplink }}`")]
    NoUplink { uplink: String },
    #[error(
        "`{uplink}` has the address {address}, which it would lose as a port of `{bridge}`; it was left as it is. Move it to \
         `{bridge}`, which then is your bridge and stays as you make it, or name an interface without addresses as `uplink`"
    )]
    UplinkInUse { uplink: String, bridge: String, address: String },
    #[error("`{uplink}` is a port of `{master}` already; it was left as it is")]
    UplinkElsewhere { uplink: String, master: String },
    #[error(
        "cannot make the tagged port `{name}`; does this kernel have 802.1Q (`modprobe 8021q`)? Without it no vm group can have \
         a `vlan:`"
    )]
    Vlan { name: String, source: CommandError },
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
}

/// A bridge as it is to be on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge<'a> {
    pub name: &'a str,
    /// The gateways' addresses that it gets here.
    pub addresses: Vec<String>,
    pub way_out: WayOut<'a>,
    /// `None`: as the machine has it.
    pub forwarding: Option<bool>,
}

/// How a bridge is joined to the network outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayOut<'a> {
    None,
    Untagged { uplink: &'a str },
    Tagged { uplink: &'a str, vlan: u16 },
}

/// Each bridge of these groups once.
pub fn bridges<'a>(groups: &'a [VmGroup], network: &'a NetworkSettings) -> Vec<Bridge<'a>> {
    let mut bridges: BTreeMap<&str, Bridge<'_>> = BTreeMap::new();
    for group in groups {
        let bridge = bridges.entry(&group.bridge).or_insert_with(|| Bridge {
            name: &group.bridge,
            addresses: Vec::new(),
            way_out: way_out(group, network),
            forwarding: network.forwarding,
        });
        if let (Some(gateway), true) = (group.gateway, network.gateway_on_host) {
            bridge.addresses.push(format!("{gateway}/{}", group.subnet.prefix_len()));
        }
    }
    bridges.into_values().collect()
}

/// Groups on one bridge have one vlan or none; `resolve` has seen to that.
fn way_out<'a>(group: &'a VmGroup, network: &'a NetworkSettings) -> WayOut<'a> {
    match (&network.uplink, group.vlan) {
        (Some(uplink), Some(vlan)) => WayOut::Tagged { uplink, vlan },
        (Some(uplink), None) if network.untagged_bridge.as_ref() == Some(&group.bridge) => WayOut::Untagged { uplink },
        _ => WayOut::None,
    }
}

impl Bridge<'_> {
    /// Makes it so, and says what was made.
    pub fn ensure(&self) -> Result<Option<String>, BridgeError> {
        let exists = interface(self.name).exists();
        if exists && !interface(self.name).join("bridge").exists() {
            return Err(BridgeError::NotABridge { name: self.name.to_owned() });
        }
        if exists && !is_ours(self.name) {
            return Ok(None);
        }
        let port = self.port_to_make()?;
        let host = nix::unistd::gethostname().unwrap_or_default();
        command::run("ip", &["-batch", "-"], &self.commands(exists, &host.to_string_lossy()))?;
        if let Some(port) = &port {
            let made = command::run("ip", &["-batch", "-"], &self.port_commands(interface(port).exists()));
            made.map_err(|source| match self.way_out {
                WayOut::Tagged { .. } => BridgeError::Vlan { name: port.clone(), source },
                _ => source.into(),
            })?;
        }
        let forwarding = self.set_forwarding()?;
        let mut done = Vec::new();
        done.extend((!exists).then(|| format!("bridge {} made", self.name)));
        done.extend(port.map(|port| format!("{port} joined {}", self.name)));
        done.extend(forwarding.map(|state| format!("forwarding on {} turned {state}", self.name)));
        Ok((!done.is_empty()).then(|| done.join(", ")))
    }

    /// Whether it is there, and we made it.
    pub(super) fn is_made(&self) -> bool {
        is_ours(self.name)
    }

    /// Something that is joined to it besides its way out: a guest, most of the time.
    pub(super) fn guest_port(&self) -> Option<String> {
        let own = self.port();
        ports(self.name).into_iter().find(|port| Some(port) != own.as_ref())
    }

    /// Takes away what is ours of it; an uplink that was there before stays.
    pub fn remove(&self) -> Result<Option<String>, BridgeError> {
        if !is_ours(self.name) {
            return Ok(None);
        }
        if let Some(port) = self.port()
            && is_ours(&port)
        {
            command::run("ip", &["link", "del", "dev", &port], "")?;
        }
        command::run("ip", &["link", "del", "dev", self.name], "")?;
        Ok(Some(format!("bridge {} removed", self.name)))
    }

    /// What makes all of it where none of it is, as one batch of `ip`.
    pub(super) fn all_commands(&self, host: &str) -> String {
        self.commands(false, host) + &self.port_commands(false)
    }

    /// Name of the port towards the outside.
    fn port(&self) -> Option<String> {
        match self.way_out {
            WayOut::None => None,
            WayOut::Untagged { uplink } => Some(uplink.to_owned()),
            WayOut::Tagged { uplink, vlan } => Some(format!("{uplink}.{vlan}")),
        }
    }

    /// The port, if it is not there yet and nothing speaks against it.
    fn port_to_make(&self) -> Result<Option<String>, BridgeError> {
        let (Some(port), WayOut::Untagged { uplink } | WayOut::Tagged { uplink, .. }) = (self.port(), self.way_out)
        else {
            return Ok(None);
        };
        if !interface(uplink).exists() {
            return Err(BridgeError::NoUplink { uplink: uplink.to_owned() });
        }
        let master = master(&port);
        if master.as_deref() == Some(self.name) {
            return Ok(None);
        }
        match (self.way_out, master) {
            (WayOut::Tagged { vlan, .. }, _) if interface(&port).exists() && !is_ours(&port) => {
                Err(BridgeError::PortTaken { name: port, vlan })
            }
            (WayOut::Untagged { .. }, Some(master)) => Err(BridgeError::UplinkElsewhere { uplink: port, master }),
            (WayOut::Untagged { .. }, None) => match address_of(uplink)? {
                Some(address) => Err(BridgeError::UplinkInUse { uplink: port, bridge: self.name.to_owned(), address }),
                None => Ok(Some(port)),
            },
            _ => Ok(Some(port)),
        }
    }

    /// The address is pinned: left to itself a bridge takes the lowest of its ports', and guests would lose their gateway
    /// with every tap that comes and goes.
    fn commands(&self, exists: bool, host: &str) -> String {
        let name = self.name;
        let mut lines = Vec::new();
        if !exists {
            let mac = self.mac(host);
            lines.push(format!(
                "link add name {name} address {mac} type bridge forward_delay 0 stp_state 0 mcast_snooping 0"
            ));
            lines.push(format!("link set dev {name} alias {MARK}"));
        }
        lines.extend(self.addresses.iter().map(|address| format!("addr replace {address} dev {name}")));
        lines.push(format!("link set dev {name} up\n"));
        lines.join("\n")
    }

    /// A locally administered address outside every lab's prefix, the same each time: isolated guests hear nothing from
    /// addresses with a lab's prefix. A bridge that is no gateway is one of many with its name, on as many hosts.
    fn mac(&self, host: &str) -> Mac {
        let gateway: Option<Ipv4Addr> = self.addresses.first().and_then(|a| a.split('/').next()?.parse().ok());
        let sum = |sum: u32, byte: u8| sum.wrapping_mul(31).wrapping_add(byte.into());
        let [a, b, c, d] = match gateway {
            Some(ip) => ip.octets(),
            None => host.bytes().chain(self.name.bytes()).fold(0, sum).to_be_bytes(),
        };
        Mac([0x02, if gateway.is_some() { 0x6c } else { 0x6d }, a, b, c, d])
    }

    /// What joins the port to the bridge. A tagged one is made down, so that no frame passes it before it is a port.
    fn port_commands(&self, exists: bool) -> String {
        let name = self.name;
        let mut lines = Vec::new();
        match self.way_out {
            WayOut::None => {}
            WayOut::Untagged { uplink } => lines.push(format!("link set dev {uplink} master {name}")),
            WayOut::Tagged { uplink, vlan } => {
                let port = format!("{uplink}.{vlan}");
                if !exists {
                    lines.push(format!("link add link {uplink} name {port} type vlan id {vlan}"));
                    lines.push(format!("link set dev {port} alias {MARK}"));
                }
                lines.push(format!("link set dev {port} master {name}"));
                lines.push(format!("link set dev {port} up"));
            }
        }
        if let WayOut::Untagged { uplink } | WayOut::Tagged { uplink, .. } = self.way_out {
            lines.push(format!("link set dev {uplink} up\n"));
        }
        lines.join("\n")
    }

    /// Only for what comes in from this bridge. Whether answers come back is the other interface's setting, and its owner's.
    fn set_forwarding(&self) -> Result<Option<&'static str>, BridgeError> {
        let Some(wanted) = self.forwarding else { return Ok(None) };
        let path = Path::new("/proc/sys/net/ipv4/conf").join(self.name).join("forwarding");
        let io = |action| {
            let path = path.clone();
            move |source| BridgeError::Io { action, path, source }
        };
        let found = std::fs::read_to_string(&path).map_err(io("read"))?.trim() == "1";
        if found == wanted {
            return Ok(None);
        }
        std::fs::write(&path, if wanted { "1" } else { "0" }).map_err(io("write"))?;
        Ok(Some(if wanted { "on" } else { "off" }))
    }
}

fn interface(name: &str) -> PathBuf {
    Path::new(NET).join(name)
}

fn is_ours(name: &str) -> bool {
    std::fs::read_to_string(interface(name).join("ifalias")).is_ok_and(|alias| alias.trim() == MARK)
}

/// Bridges of this host that we made.
pub(super) fn made_here() -> Vec<String> {
    entries(Path::new(NET))
        .into_iter()
        .filter(|name| interface(name).join("bridge").exists() && is_ours(name))
        .collect()
}

/// What is joined to a bridge.
fn ports(bridge: &str) -> Vec<String> {
    entries(&interface(bridge).join("brif"))
}

/// The runs whose guests are on a bridge.
pub fn runs_on(bridge: &str) -> Vec<RunId> {
    ports(bridge).iter().filter_map(|port| run_of_tap(port)).collect()
}

/// Names in a folder of the kernel's, sorted; none where it is not there.
fn entries(folder: &Path) -> Vec<String> {
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The bridge that an interface is a port of.
fn master(name: &str) -> Option<String> {
    let link = std::fs::read_link(interface(name).join("master")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// An IPv4 address of an interface, if it has one.
fn address_of(name: &str) -> Result<Option<String>, BridgeError> {
    let listing = command::run("ip", &["-o", "-4", "addr", "show", "dev", name], "")?;
    Ok(listing.split_whitespace().skip_while(|word| *word != "inet").nth(1).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::site::{DhcpSettings, Filter};

    fn network() -> NetworkSettings {
        NetworkSettings {
            vnc_allow: Vec::new(),
            gateway_on_host: true,
            dhcp: DhcpSettings::None,
            dhcp_servers: Vec::new(),
            filter: Filter::Nftables,
            uplink: Some("eth1".to_owned()),
            untagged_bridge: Some("vbr0".to_owned()),
            forwarding: Some(true),
        }
    }

    fn group(third: u8, bridge: &str, vlan: Option<u16>) -> VmGroup {
        let address = |last| [192, 168, third, last].into();
        let mut group = VmGroup::all_vms();
        group.range.first = address(2);
        group.range.last = address(254);
        group.subnet = format!("192.168.{third}.0/24").parse().unwrap();
        group.gateway = Some(address(1));
        (group.bridge, group.vlan) = (bridge.to_owned(), vlan);
        group
    }

    fn all_commands(network: &NetworkSettings) -> String {
        let groups = [group(100, "vbr0", None), group(101, "vbr0", None), group(120, "vbr120", Some(120))];
        let text = |bridge: &Bridge<'_>| {
            format!("# {}\n{}{}", bridge.name, bridge.commands(false, "h1"), bridge.port_commands(false))
        };
        bridges(&groups, network).iter().map(text).collect()
    }

    /// What cannot be tried where the kernel has no 802.1Q.
    #[test]
    fn the_commands_of_a_plain_and_a_tagged_bridge() {
        insta::assert_snapshot!(all_commands(&network()));
    }

    #[test]
    fn without_an_uplink_every_bridge_stays_on_its_host() {
        let network = NetworkSettings { uplink: None, untagged_bridge: None, gateway_on_host: false, ..network() };
        insta::assert_snapshot!(all_commands(&network));
    }

    #[test]
    fn bridges_of_one_name_on_two_hosts_have_two_addresses() {
        let bridge = Bridge { name: "vbr0", addresses: Vec::new(), way_out: WayOut::None, forwarding: None };
        assert_ne!(bridge.mac("h1"), bridge.mac("h2"));
    }
}
