//! What systemd is told where it started us: that we serve, that we live, that we end (sd_notify(3)). Elsewhere nobody listens.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Its socket, where there is one.
pub(super) struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that we live.
    pub(super) watchdog: Option<Duration>,
}

impl Notify {
    /// As the environment says.
    pub(super) fn new(socket: Option<&str>, watchdog_micros: Option<&str>) -> Self {
        let address = socket.and_then(|name| match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).ok(),
            None => SocketAddr::from_pathname(name).ok(),
        });
        let to = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let micros = watchdog_micros.and_then(|micros| micros.parse().ok()).filter(|micros| *micros > 0);
        // Twice in the time that it waits: one of them may be late.
        Self { to, watchdog: micros.map(|micros: u64| Duration::from_micros(micros / 2)) }
    }

    pub(super) fn tell(&self, what: &str) {
        let Some((socket, to)) = &self.to else { return };
        if let Err(error) = socket.send_to_addr(what.as_bytes(), to) {
            tracing::warn!(%error, what, "systemd does not hear us");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_hears_what_we_tell() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::new(path.to_str(), Some("20000000"));
        notify.tell("READY=1");
        let mut heard = [0; 32];
        let length = systemd.recv(&mut heard).unwrap();
        assert_eq!((&heard[..length], notify.watchdog), (&b"READY=1"[..], Some(Duration::from_secs(10))));
        let nobody = Notify::new(None, None);
        nobody.tell("READY=1");
        assert_eq!(nobody.watchdog, None);
    }
}
