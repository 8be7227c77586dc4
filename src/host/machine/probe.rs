//! A port on a guests' bridge as a plain guest has it, filter included, with us behind it in place of a guest. What it
//! asks and hears shows whether an isolated guest is, without any help of that guest.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid};

use crate::disks::Owner;
use crate::host::command::{self, CommandError};
use crate::host::run::filter::{FilterError, RunFilter};
use crate::host::run::frames::who_has;
use crate::host::run::gateway::{self, GatewayError};
use crate::host::run::port::{self, Port, PortError};
use crate::host::run::run_folder::{RunFolder, RunFolderError};
use crate::host::run::tap::{Tap, TapError};
use crate::model::id::{Mac, RunId};
use crate::run::RunNetwork;

/// A bridge whose ports learn their way for some seconds first is well too.
const JOIN_WAIT: Duration = Duration::from_secs(20);
/// How long a guest gets to answer. It takes milliseconds, where it is answered at all.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(300);

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Wire(#[from] GatewayError),
    #[error(transparent)]
    Tap(#[from] TapError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("cannot send or receive on the network interface `{tap}`")]
    Frame { tap: String, source: std::io::Error },
    #[error("cannot send as the gateway {gateway}")]
    Gateway { gateway: Ipv4Addr, source: std::io::Error },
}

/// What two neighbours found out about a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// One heard the other's question; the guest answered none, and nothing of it was heard.
    Isolated,
    /// The guest answered, or was heard.
    Heard,
    /// The neighbours do not even hear each other: nothing is proved.
    Deaf,
}

/// Gone when dropped. The order of the fields is the order in which they go: a tap never outlives its filter.
#[derive(Debug)]
pub struct Neighbour {
    tap: Tap,
    _filter: RunFilter,
    /// Its lock tells a sweep that this lives.
    _folder: RunFolder,
    ip: Ipv4Addr,
    mac: Mac,
}

impl Neighbour {
    /// Joins the bridge in the order in which a starter does.
    pub fn join(
        run: &RunId,
        network: &RunNetwork,
        run_root: &std::path::Path,
        owner: Owner,
    ) -> Result<Self, ProbeError> {
        let folder = RunFolder::create(run_root, run, Uid::from_raw(owner.uid), Gid::from_raw(owner.gid))?;
        let pinned = gateway::pin(network, run_root)?;
        let mut filter = RunFilter::start(run, &pinned.network, run_root)?;
        let tap = Tap::open(&run.tap())?;
        // Out of turn is as good for a visitor.
        let _missed = filter.stand()?;
        let (bridge, mac, isolated) = (network.bridge.as_str(), network.mac, network.isolated);
        Port { tap: tap.name(), bridge, mac, isolated, alias: &port::run_mark(run) }.join()?;
        Ok(Self { tap, _filter: filter, _folder: folder, ip: network.ip, mac })
    }

    fn ask_for(&self, ip: Ipv4Addr) -> Result<(), ProbeError> {
        self.tap.send(&who_has(self.mac, self.ip, ip)).map_err(|source| self.frame_error(source))
    }

    /// Whether a frame from `sender` comes in time.
    fn hears(&self, sender: Mac, wait: Duration) -> Result<bool, ProbeError> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.tap.receive(left).map_err(|source| self.frame_error(source))? {
                Some(frame) if frame.get(6..12) == Some(&sender.0[..]) => return Ok(true),
                None => return Ok(false),
                // What waits already is read to its end, but not what a flood adds.
                Some(_) if until.elapsed() > ASK_EVERY => return Ok(false),
                Some(_) => {}
            }
        }
    }

    fn frame_error(&self, source: std::io::Error) -> ProbeError {
        ProbeError::Frame { tap: self.tap.name().to_owned(), source }
    }
}

/// First the neighbours must hear each other, so that silence means something; then one asks the guest the same way.
pub fn sight(one: &Neighbour, other: &Neighbour, (ip, mac): (Ipv4Addr, Mac)) -> Result<Sight, ProbeError> {
    let began = Instant::now();
    loop {
        one.ask_for(other.ip)?;
        if other.hears(one.mac, ASK_EVERY)? {
            break;
        }
        if began.elapsed() > JOIN_WAIT {
            return Ok(Sight::Deaf);
        }
    }
    let began = Instant::now();
    while began.elapsed() < ANSWER_WAIT {
        one.ask_for(ip)?;
        if one.hears(mac, ASK_EVERY)? || other.hears(mac, Duration::ZERO)? {
            return Ok(Sight::Heard);
        }
    }
    Ok(Sight::Isolated)
}

/// Whether the guest answers its gateway, which is this host: a packet to it makes the kernel ask for it by ARP. No guest's
/// firewall is in the way of that.
pub fn answers_gateway(gateway: Ipv4Addr, bridge: &str, (ip, mac): (Ipv4Addr, Mac)) -> Result<bool, ProbeError> {
    const DISCARD: u16 = 9;
    let address = ip.to_string();
    command::run("ip", &["neigh", "flush", "to", &address, "dev", bridge], "")?;
    let began = Instant::now();
    while began.elapsed() < ANSWER_WAIT {
        let sent = UdpSocket::bind((gateway, 0)).and_then(|socket| socket.send_to(b"labwright", (ip, DISCARD)));
        sent.map_err(|source| ProbeError::Gateway { gateway, source })?;
        std::thread::sleep(ASK_EVERY);
        let known = command::run("ip", &["neigh", "show", "to", &address, "dev", bridge], "")?;
        if known.contains(&format!("lladdr {mac}")) {
            return Ok(true);
        }
    }
    Ok(false)
}
