//! A tap as a port of its group's bridge. The tap joins while it is down and goes up as the last step, so that not one
//! frame sees a port without its flags.

use std::path::{Path, PathBuf};

use super::sweep::TAP_MARK;
use crate::host::command::{self, CommandError};
use crate::model::id::{Mac, RunId};

#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("this host has no bridge `{bridge}`; make it with `labwright host setup --lab FOLDER`")]
    NoBridge { bridge: String },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// What a port is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port<'a> {
    pub tap: &'a str,
    pub bridge: &'a str,
    /// The guest's address, not the tap's.
    pub mac: Mac,
    pub isolated: bool,
    /// Says whose it is: `run_mark` of a run.
    pub alias: &'a str,
}

/// A run's mark on its tap.
pub fn run_mark(run: &RunId) -> String {
    format!("{TAP_MARK}{run}")
}

const NET: &str = "/sys/class/net";

/// Says early that a bridge is missing.
pub fn ensure_bridge(bridge: &str) -> Result<(), PortError> {
    if Path::new(NET).join(bridge).join("bridge").exists() {
        Ok(())
    } else {
        Err(PortError::NoBridge { bridge: bridge.to_owned() })
    }
}

impl Port<'_> {
    /// Puts the tap on the bridge.
    pub fn join(&self) -> Result<(), PortError> {
        let path = Path::new(NET).join(self.bridge).join("mtu");
        let mtu = std::fs::read_to_string(&path).map_err(|source| PortError::Read { path, source })?;
        for (program, commands) in self.batches(mtu.trim()) {
            command::run(program, &["-batch", "-"], &commands)?;
        }
        Ok(())
    }

    /// Whether the tap is on its bridge.
    pub fn stands(&self) -> bool {
        let master = std::fs::read_link(Path::new(NET).join(self.tap).join("master"));
        master.is_ok_and(|master| master.file_name().is_some_and(|name| name == self.bridge))
    }

    /// Puts a tap back that has lost its bridge; down first, as a new one is.
    pub fn join_again(&self) -> Result<(), PortError> {
        ensure_bridge(self.bridge)?;
        command::run("ip", &["link", "set", "dev", self.tap, "down"], "")?;
        self.join()
    }

    /// What joins the tap, as batches of `ip` and `bridge`, in order.
    pub(in crate::host) fn batches(&self, mtu: &str) -> [(&'static str, String); 3] {
        let up = format!("link set dev {} up\n", self.tap);
        [("ip", self.link_commands(mtu)), ("bridge", self.address_commands()), ("ip", up)]
    }

    /// The tap's own address starts with `fe`, so that it is the highest on the bridge: a bridge takes over the lowest
    /// address of its ports, and the guests' gateway must not change its address. `addrgenmode none` keeps the host
    /// from speaking IPv6 on the port itself. Frames to the link-local groups 01:80:c2:00:00:0x do not pass the filter on
    /// their way: the bridge hands them to the port, where the host's own IP would take an IPv4 packet out of them.
    /// `group_fwd_mask` has them take the way of all others (but pause frames, which are dropped anyhow).
    fn link_commands(&self, mtu: &str) -> String {
        let Self { tap, bridge, alias, .. } = self;
        let Mac([_, b, c, d, e, f]) = self.mac;
        let address = Mac([0xfe, b, c, d, e, f]);
        let (isolated, multicast) = if self.isolated { ("on", "off") } else { ("off", "on") };
        format!(
            "link set dev {tap} alias {alias}\n\
             link set dev {tap} address {address} mtu {mtu} addrgenmode none\n\
             link set dev {tap} master {bridge}\n\
             link set dev {tap} type bridge_slave isolated {isolated} learning off flood off mcast_flood {multicast} \
             group_fwd_mask 0xfffd\n"
        )
    }

    /// The bridge learns nothing from the port, so it is told the one address behind it. Without that every answer to
    /// the guest would be flooded to all guests. It sticks: who sends under this address from another port, such as a machine
    /// on the wire, does not get the guest's frames.
    fn address_commands(&self) -> String {
        format!("fdb replace {} dev {} master static sticky\n", self.mac, self.tap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::SiteTag;

    #[test]
    fn the_commands_of_an_isolated_port() {
        let run = RunId::new(SiteTag::new("k3f9").unwrap(), 104);
        let tap = run.tap();
        let mac = "de:af:de:af:64:02".parse().unwrap();
        let port = Port { tap: &tap, bridge: "vbr0", mac, isolated: true, alias: &run_mark(&run) };
        insta::assert_snapshot!(port.link_commands("1500") + &port.address_commands(), @r"
        link set dev lwk3f9104 alias labwright:k3f9-104
        link set dev lwk3f9104 address fe:af:de:af:64:02 mtu 1500 addrgenmode none
        link set dev lwk3f9104 master vbr0
        link set dev lwk3f9104 type bridge_slave isolated on learning off flood off mcast_flood off group_fwd_mask 0xfffd
        fdb replace de:af:de:af:64:02 dev lwk3f9104 master static sticky
        ");
    }

    #[test]
    fn a_missing_bridge_is_told_with_its_mend() {
        let error = ensure_bridge("nobr0").unwrap_err();
        assert_eq!(
            error.to_string(),
            "this host has no bridge `nobr0`; make it with `labwright host setup --lab FOLDER`"
        );
    }
}
