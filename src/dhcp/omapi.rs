//! ISC dhcpd through its control protocol, OMAPI: one TCP connection for a batch, every message signed with the site's
//! key. dhcpd keeps what it is told in its leases file, also over a restart and a crash; its configuration is never
//! touched. It does not look whether an address is taken: that each is given once is the plan's doing.
//!
//! ```text
//! connection   one logged-in conversation
//! wire         its messages as bytes
//! key          the shared key, read anew for each batch
//! ```

use std::time::{Duration, Instant};

mod connection;
mod error;
mod key;
#[cfg(test)]
mod tests;
mod wire;

pub use error::{OmapiError, Problem};
pub use key::KeyError;

use connection::{Connection, Found};
use key::Key;

use super::{Dhcp, DhcpError};
use crate::model::reservation::Reservation;
use crate::model::site::OmapiSettings;

/// A healthy dhcpd answers in some milliseconds; one that writes a large leases file anew in some seconds.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long a dhcpd that broke off in the middle may take to be back. It reads its leases in that time: 10,000 take less
/// than a second.
const RESTART_WAIT: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The dhcpd that the site names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Omapi {
    settings: OmapiSettings,
    answer_wait: Duration,
    restart_wait: Duration,
}

impl Omapi {
    pub fn new(settings: &OmapiSettings) -> Self {
        Self { settings: settings.clone(), answer_wait: ANSWER_WAIT, restart_wait: RESTART_WAIT }
    }

    /// Whether dhcpd answers and takes our key; nothing is asked of it.
    pub fn probe(&self) -> Result<(), OmapiError> {
        self.batch(|_| Ok(()))
    }

    /// Does `work` on a connection, and all of it again where dhcpd was restarted in between: an admin who adds a host
    /// to its configuration must restart it.
    fn batch<T>(&self, work: impl Fn(&mut Connection<'_>) -> Result<T, OmapiError>) -> Result<T, OmapiError> {
        let key = Key::read(&self.settings)?;
        let attempt = || work(&mut Connection::open(&self.settings, &key, self.answer_wait)?);
        let mut result = attempt();
        if !result.as_ref().is_err_and(OmapiError::is_broken) {
            return result;
        }
        let deadline = Instant::now() + self.restart_wait;
        while result.as_ref().is_err_and(OmapiError::may_pass) && Instant::now() < deadline {
            std::thread::sleep(RETRY_PAUSE);
            result = attempt();
        }
        result
    }
}

fn stands(found: &Found, reservation: &Reservation) -> bool {
    found.mac == reservation.mac.0 && found.ip == reservation.ip.octets()
}

fn reserve(connection: &mut Connection<'_>, reservations: &[Reservation]) -> Result<(), OmapiError> {
    let found = connection.find(reservations)?;
    for (reservation, found) in reservations.iter().zip(found) {
        match found {
            Some(found) if stands(&found, reservation) => continue,
            // The name carries our mark: an earlier address of the same vm.
            Some(found) => connection.delete(&found, reservation)?,
            None => {}
        }
        connection.create(reservation)?;
    }
    Ok(())
}

fn release(connection: &mut Connection<'_>, reservations: &[Reservation]) -> Result<(), OmapiError> {
    let found = connection.find(reservations)?;
    for (reservation, found) in reservations.iter().zip(found) {
        if let Some(found) = found {
            connection.delete(&found, reservation)?;
        }
    }
    Ok(())
}

impl Dhcp for Omapi {
    fn reserve(&self, reservations: &[Reservation]) -> Result<(), DhcpError> {
        Ok(self.batch(|connection| reserve(connection, reservations))?)
    }

    fn release(&self, reservations: &[Reservation]) -> Result<(), DhcpError> {
        Ok(self.batch(|connection| release(connection, reservations))?)
    }

    fn present(&self, reservations: &[Reservation]) -> Result<Vec<bool>, DhcpError> {
        let found = self.batch(|connection| connection.find(reservations))?;
        let stand = |(found, reservation): (Option<Found>, _)| found.is_some_and(|found| stands(&found, reservation));
        Ok(found.into_iter().zip(reservations).map(stand).collect())
    }
}
