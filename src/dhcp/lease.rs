//! Leases of our dnsmasq, and how one ends before its time. dnsmasq gives an address to no other machine while somebody has
//! a lease of it, whatever the reservations say, and it keeps its leases over a restart. So an address that is released is
//! given back in its guest's name: the message that a guest sends when it leaves (RFC 2131, section 4.4.6). It needs no
//! client identifier, since dnsmasq then goes by the hardware address.
//!
//! The message goes to the address that dnsmasq serves the network from, an interface's of this machine. Nobody answers
//! it; that the lease is gone stands in dnsmasq's file. Where no dnsmasq runs, the file is all there is, and is mended.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;

use super::DhcpError;
use crate::files::{self, FileError};
use crate::model::id::Mac;

pub(crate) const LEASE_FILE: &str = "leases";

/// Some hundred bytes for each address of a site.
const LEASES_BYTES_MAX: u64 = 64 << 20;
/// dnsmasq writes its file with every message: some hundred a second.
const WAIT: Duration = Duration::from_secs(10);
/// A message can be lost where many arrive at once.
const ASK_AGAIN: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const SERVER_PORT: u16 = 67;

/// Who has which address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) mac: Mac,
    pub(super) ip: Ipv4Addr,
}

/// Ends every lease that is `over`, and returns when none is left.
pub(super) fn end(folder: &Path, is_running: bool, over: &dyn Fn(&Lease) -> bool) -> Result<(), DhcpError> {
    let path = folder.join(LEASE_FILE);
    if !is_running {
        return forget(&path, over);
    }
    let deadline = Instant::now() + WAIT;
    let mut last_asked = None;
    loop {
        let standing: Vec<Lease> = read(&path)?.lines().filter_map(lease).filter(over).collect();
        let Some(Lease { ip, .. }) = standing.first().copied() else { return Ok(()) };
        if Instant::now() > deadline {
            return Err(DhcpError::Lease { ip });
        }
        if last_asked.is_none_or(|at: Instant| at.elapsed() >= ASK_AGAIN) {
            standing.iter().try_for_each(give_back)?;
            last_asked = Some(Instant::now());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn read(path: &Path) -> Result<String, DhcpError> {
    let text = files::read_bounded(path, LEASES_BYTES_MAX)
        .map_err(|FileError { action, path, source }| DhcpError::Io { action, path, source })?;
    Ok(String::from_utf8_lossy(&text.unwrap_or_default()).into_owned())
}

/// A line holds when it ends, hardware address, address, name and client identifier.
fn lease(line: &str) -> Option<Lease> {
    let mut words = line.split(' ').skip(1);
    Some(Lease { mac: words.next()?.parse().ok()?, ip: words.next()?.parse().ok()? })
}

/// The file without them. Written in place, since it stays that of the account that dnsmasq runs as.
fn forget(path: &Path, over: &dyn Fn(&Lease) -> bool) -> Result<(), DhcpError> {
    let text = read(path)?;
    let kept: String =
        text.split_inclusive('\n').filter(|line| !lease(line).is_some_and(|lease| over(&lease))).collect();
    if kept == text {
        return Ok(());
    }
    std::fs::write(path, kept).map_err(|source| DhcpError::Io { action: "write", path: path.to_owned(), source })
}

fn give_back(lease: &Lease) -> Result<(), DhcpError> {
    let server = served_from(lease.ip)?.ok_or(DhcpError::NoServer { ip: lease.ip })?;
    let failed = |source| DhcpError::Release { ip: lease.ip, server, source };
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
    socket.send_to(&release_message(lease, server), SocketAddrV4::new(server, SERVER_PORT)).map_err(failed)?;
    Ok(())
}

/// The address of this machine in the network that an address is of.
fn served_from(ip: Ipv4Addr) -> Result<Option<Ipv4Addr>, DhcpError> {
    let all = getifaddrs().map_err(DhcpError::Interfaces)?;
    let mut of_network = all.filter_map(|interface| {
        let address = interface.address?.as_sockaddr_in()?.ip();
        let mask = u32::from(interface.netmask?.as_sockaddr_in()?.ip());
        (u32::from(address) & mask == u32::from(ip) & mask).then_some(address)
    });
    Ok(of_network.next())
}

/// RFC 2131, section 2: who leaves, which address, and which server gave it.
fn release_message(lease: &Lease, server: Ipv4Addr) -> Vec<u8> {
    const REQUEST: u8 = 1;
    const ETHERNET: [u8; 3] = [1, 6, 0];
    const COOKIE: [u8; 4] = [99, 130, 83, 99];
    const RELEASE: [u8; 3] = [53, 1, 7];
    const SERVER: [u8; 2] = [54, 4];
    const END: u8 = 255;
    const LENGTH_MIN: usize = 300;
    let mut message = vec![REQUEST];
    message.extend(ETHERNET);
    message.resize(12, 0);
    message.extend(lease.ip.octets());
    message.resize(28, 0);
    message.extend(lease.mac.0);
    message.resize(236, 0);
    message.extend(COOKIE.iter().chain(&RELEASE).chain(&SERVER).chain(&server.octets()).chain(&[END]));
    message.resize(LENGTH_MIN, 0);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_dnsmasq_the_file_is_mended_and_nothing_else_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LEASE_FILE);
        let line = |last: u8| format!("1800000000 de:af:de:af:64:{last:02x} 192.168.100.{last} vm{last} 01:de:af\n");
        let strange = "duid 00:01\n1800000000 06-aa:bb 192.168.100.3 * *\n";
        std::fs::write(&path, line(2) + strange + &line(3)).unwrap();
        let over = |lease: &Lease| lease.ip == Ipv4Addr::new(192, 168, 100, 3);
        end(folder.path(), false, &over).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line(2) + strange);
        std::fs::remove_file(&path).unwrap();
        end(folder.path(), false, &over).unwrap();
        assert!(!path.exists());
    }
}
