//! A port of ours on a bridge, without a guest and without a guest's filter: through it we ask who is there. It goes with
//! the value. Its name is not one of guests' taps, whose frames a host drops without a filter.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::frames::{Arp, read_arp, who_has};
use super::tap::{Tap, TapError};
use crate::host::command::{self, CommandError};
use crate::model::id::Mac;

/// A bridge with the spanning tree protocol lets a new port send after this long.
const JOIN_WAIT: Duration = Duration::from_secs(35);
/// State of a port that sends and gets.
const FORWARDING: &str = "3";
/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// A second machine that answers does so within moments of the first.
const SECOND_WAIT: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Tap(#[from] TapError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the bridge `{bridge}` is down; `ip link set dev {bridge} up`, or `labwright host setup`")]
    Down { bridge: String },
    #[error("the bridge `{bridge}` lets a new port send nothing within {} s", JOIN_WAIT.as_secs())]
    Blocked { bridge: String },
    #[error("cannot send or receive on the network interface `{tap}`")]
    Frame { tap: String, source: std::io::Error },
}

#[derive(Debug)]
pub struct Probe {
    tap: Tap,
    mac: Mac,
}

impl Probe {
    /// Joins a bridge, and waits until frames pass.
    pub fn join(bridge: &str) -> Result<Self, ProbeError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // A bridge takes over the smallest MTU of its ports'.
        let (flags, mtu) = (read(bridge, "flags")?, read(bridge, "mtu")?);
        let flags = flags.strip_prefix("0x").and_then(|flags| i32::from_str_radix(flags, 16).ok());
        if flags.is_some_and(|flags| flags & nix::libc::IFF_UP == 0) {
            return Err(ProbeError::Down { bridge: bridge.to_owned() });
        }
        let (process, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed) % 100);
        let tap = Tap::open(&format!("probe{}-{number}", process % 10_000_000))?;
        let [a, b, c, d] = process.to_be_bytes();
        let mac = Mac([0x02, u8::try_from(number).expect("it is below 100"), a, b, c, d]);
        // The highest address on the bridge, so that the bridge does not take it over.
        let own = Mac([0xfe, mac.0[1], a, b, c, d]);
        let name = tap.name();
        let commands = format!(
            "link set dev {name} address {own} mtu {mtu} addrgenmode none\nlink set dev {name} master {bridge}\n\
             link set dev {name} up\n"
        );
        command::run("ip", &["-batch", "-"], &commands)?;
        let began = Instant::now();
        while read(name, "brport/state")? != FORWARDING {
            if began.elapsed() > JOIN_WAIT {
                return Err(ProbeError::Blocked { bridge: bridge.to_owned() });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { tap, mac })
    }

    pub fn mac(&self) -> Mac {
        self.mac
    }

    pub fn send(&self, frame: &[u8]) -> Result<(), ProbeError> {
        self.tap.send(frame).map_err(|source| self.frame_error(source))
    }

    /// The next frame; `None` when none comes in time.
    pub fn receive(&self, wait: Duration) -> Result<Option<Vec<u8>>, ProbeError> {
        self.tap.receive(wait).map_err(|source| self.frame_error(source))
    }

    /// Who answers for each of some addresses: asked from 0.0.0.0, which no machine takes for a neighbour (RFC 5227).
    /// Over as soon as all have answered, and others had their moment.
    pub fn who_answers(&self, addresses: &[Ipv4Addr], wait: Duration) -> Result<Vec<Vec<Mac>>, ProbeError> {
        let mut found = vec![Vec::new(); addresses.len()];
        let began = Instant::now();
        let mut complete = None;
        let mut asked: Option<Instant> = None;
        loop {
            let last = complete.map_or(began + wait, |at: Instant| at + SECOND_WAIT);
            let now = Instant::now();
            if now >= last {
                return Ok(found);
            }
            if asked.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
                asked = Some(now);
                addresses
                    .iter()
                    .try_for_each(|wanted| self.send(&who_has(self.mac, Ipv4Addr::UNSPECIFIED, *wanted)))?;
            }
            let Some(frame) = self.receive(ASK_EVERY.min(last - now))? else { continue };
            let Some(Arp { is_question: false, mac, ip, .. }) = read_arp(&frame) else { continue };
            for (macs, _) in found.iter_mut().zip(addresses).filter(|(_, wanted)| **wanted == ip) {
                if !macs.contains(&mac) {
                    macs.push(mac);
                }
            }
            if complete.is_none() && found.iter().all(|macs| !macs.is_empty()) {
                complete = Some(Instant::now());
            }
        }
    }

    fn frame_error(&self, source: std::io::Error) -> ProbeError {
        ProbeError::Frame { tap: self.tap.name().to_owned(), source }
    }
}

/// What the kernel says of an interface.
fn read(interface: &str, what: &str) -> Result<String, ProbeError> {
    let path = Path::new("/sys/class/net").join(interface).join(what);
    let text = std::fs::read_to_string(&path).map_err(|source| ProbeError::Read { path, source })?;
    Ok(text.trim().to_owned())
}
