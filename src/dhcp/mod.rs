//! Reservations: which address the DHCP server gives to which vm. Per vm, not per run: the controller makes one before
//! the first start and takes it away when the address is released.

mod dnsmasq;
mod lease;
mod omapi;

pub(crate) use dnsmasq::line as hosts_line;
pub use dnsmasq::{Dnsmasq, HOSTS_FOLDER, PID_FILE};
pub(crate) use lease::LEASE_FILE;
pub use omapi::{KeyError, Omapi, OmapiError, Problem};

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::model::reservation::Reservation;

/// A DHCP server that takes reservations. All calls are repeatable.
pub trait Dhcp: Send + Sync {
    /// Makes reservations; one that exists as asked is left alone, one of the same vm with another address is replaced.
    fn reserve(&self, reservations: &[Reservation]) -> Result<(), DhcpError>;

    /// Takes reservations away, and the leases of their addresses; one that is not there is no error.
    fn release(&self, reservations: &[Reservation]) -> Result<(), DhcpError>;

    /// Which of the reservations stand exactly as given.
    fn present(&self, reservations: &[Reservation]) -> Result<Vec<bool>, DhcpError>;
}

/// Where somebody else sees to it that guests get their planned addresses: everything is as it should be.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere;

impl Dhcp for Elsewhere {
    fn reserve(&self, _: &[Reservation]) -> Result<(), DhcpError> {
        Ok(())
    }

    fn release(&self, _: &[Reservation]) -> Result<(), DhcpError> {
        Ok(())
    }

    fn present(&self, reservations: &[Reservation]) -> Result<Vec<bool>, DhcpError> {
        Ok(vec![true; reservations.len()])
    }
}

/// What went wrong with reservations. What was asked may have been done all the same; it is safe to ask again.
#[derive(Debug, thiserror::Error)]
pub enum DhcpError {
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{folder} does not exist: no dnsmasq of labwright serves from it; run `labwright host setup`")]
    NotSetUp { folder: PathBuf },
    #[error("cannot tell dnsmasq (process {pid}) to read its reservations again")]
    Signal { pid: i32, source: nix::Error },
    #[error(
        "dnsmasq still has a lease of {ip} for the machine that had this address before; no other gets it until that ends, \
         within an hour. Its log says why; try again"
    )]
    Lease { ip: Ipv4Addr },
    #[error(
        "no interface of this machine is in the network of {ip}, so that its lease cannot be ended; run `labwright host setup`"
    )]
    NoServer { ip: Ipv4Addr },
    #[error("cannot tell dnsmasq at {server} that {ip} is free")]
    Release { ip: Ipv4Addr, server: Ipv4Addr, source: std::io::Error },
    #[error("cannot list this machine's interfaces")]
    Interfaces(#[source] nix::Error),
    #[error(transparent)]
    Omapi(#[from] OmapiError),
}
