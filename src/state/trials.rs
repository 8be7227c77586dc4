//! A trial of the site's hosts, and the addresses that it uses: nobody else is given one meanwhile, and no second trial is under
//! way. Nothing of it is in the state: each is a byte of the lock's file (see `operations`), which the kernel frees with the
//! process.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::StateError;
use super::in_use::users;
use super::operations::{lock_path, open};
use crate::files::ranges;
use crate::model::id::Mac;

const TRIAL: Range<u64> = 1..2;
const FIRST_IP: u64 = 1 << 41;
const IPS: Range<u64> = FIRST_IP..FIRST_IP + (1 << 32);
const FIRST_MAC: u64 = 1 << 50;
const MACS: Range<u64> = FIRST_MAC..FIRST_MAC + (1 << 48);

/// What trials of others use just now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    pub ips: BTreeSet<Ipv4Addr>,
    pub macs: BTreeSet<Mac>,
}

impl Tried {
    /// Who may not look at the lock gives out no address either.
    pub(super) fn look(state: &Path) -> Result<Self, StateError> {
        let failed = |source| StateError::Io { action: "look at", path: lock_path(state), source };
        let file = match File::open(lock_path(state)) {
            Err(error) if [ErrorKind::NotFound, ErrorKind::PermissionDenied].contains(&error.kind()) => {
                return Ok(Self::default());
            }
            opened => opened.map_err(failed)?,
        };
        let locked = |all: &Range<u64>| ranges::locked(&file, all).map_err(failed);
        let ips = locked(&IPS)?.into_iter().flatten().filter_map(|byte| u32::try_from(byte - FIRST_IP).ok());
        let macs = locked(&MACS)?.into_iter().flatten().map(|byte| {
            let [_, _, mac @ ..] = (byte - FIRST_MAC).to_be_bytes();
            Mac(mac)
        });
        Ok(Self { ips: ips.map(Ipv4Addr::from_bits).collect(), macs: macs.collect() })
    }
}

/// Kept as long as the trial lasts.
#[derive(Debug)]
pub struct TrialPlace {
    file: File,
    path: PathBuf,
}

impl TrialPlace {
    /// The only one of the site.
    pub fn begin(state: &Path) -> Result<Self, StateError> {
        let place = Self { file: open(state)?, path: lock_path(state) };
        if place.lock(&TRIAL)? {
            return Ok(place);
        }
        let mut by = users(&place.path);
        by.retain(|command| command.contains("--exam"));
        Err(StateError::TrialUnderWay { by })
    }

    /// Uses an address from now on; `false` where somebody else does.
    pub fn take(&self, (ip, mac): (Ipv4Addr, Mac)) -> Result<bool, StateError> {
        let [ip, mac] = bytes(ip, mac);
        if !self.lock(&ip)? {
            return Ok(false);
        }
        let is_free = self.lock(&mac)?;
        if !is_free {
            self.unlock(&ip)?;
        }
        Ok(is_free)
    }

    pub fn let_go(&self, (ip, mac): (Ipv4Addr, Mac)) -> Result<(), StateError> {
        bytes(ip, mac).iter().try_for_each(|byte| self.unlock(byte))
    }

    fn lock(&self, byte: &Range<u64>) -> Result<bool, StateError> {
        ranges::lock(&self.file, byte).map_err(|source| self.failed("lock", source))
    }

    fn unlock(&self, byte: &Range<u64>) -> Result<(), StateError> {
        ranges::unlock(&self.file, byte).map_err(|source| self.failed("unlock", source))
    }

    fn failed(&self, action: &'static str, source: std::io::Error) -> StateError {
        StateError::Io { action, path: self.path.clone(), source }
    }
}

fn bytes(ip: Ipv4Addr, Mac([a, b, c, d, e, f]): Mac) -> [Range<u64>; 2] {
    let ip = FIRST_IP + u64::from(ip.to_bits());
    let mac = FIRST_MAC + u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    [ip..ip + 1, mac..mac + 1]
}
