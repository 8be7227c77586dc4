//! Guests' screens: one in words, several as a table.

use std::net::SocketAddr;

use super::listings::shown;
use super::table::{Row, word};
use crate::control::view::Screen;

impl Row for Screen {
    const COLUMNS: &'static [&'static str] =
        &["name", "owner", "host", "port", "display", "password", "viewer", "state", "runs_on", "vnc"];
    const WIDE: &'static [&'static str] = &["state", "runs_on", "vnc"];
    const YIELDING: &'static [&'static str] = &["viewer"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            self.owner.to_string(),
            self.host.clone(),
            shown(self.port.as_ref()),
            shown(self.display.as_ref()),
            self.password.clone(),
            self.viewer.clone(),
            word(&self.state),
            self.runs_on.clone(),
            self.vnc.clone(),
        ]
    }
}

/// One screen, for a person.
pub fn in_words(screen: &Screen) -> String {
    let Screen { name, host, password, viewer, runs_on, .. } = screen;
    let state = word(&screen.state);
    let place = match (screen.port, screen.display) {
        (Some(port), Some(display)) => format!("host {host}, port {port}, display {display}"),
        (Some(port), None) => format!("host {host}, port {port}"),
        _ => format!("a socket on {runs_on}, for root: {}", screen.vnc.trim_start_matches("unix:")),
    };
    let elsewhere = match screen.port.filter(|_| is_local(screen)) {
        Some(port) => format!(
            "  elsewhere  ssh -fNL {port}:{host}:{port} {runs_on} before that: it listens on {host} alone, see `vnc_bind` of \
             site.yaml\n"
        ),
        None => String::new(),
    };
    format!(
        "{name} is {state} on {runs_on}\n  vnc        {place}\n  password   {password}\n  viewer     {viewer}\n{elsewhere}"
    )
}

/// Whether only the host itself can connect.
fn is_local(screen: &Screen) -> bool {
    screen.vnc.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}
