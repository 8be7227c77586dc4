//! Guests' screens: one in words, several as a table.

use std::net::SocketAddr;

use super::Failure;
use super::listings::shown;
use super::table::{Column, Format, Row, column, render, wide, word, yielding};
use crate::control::view::{Screen, Screens};
use crate::exit::Exit;

impl Row for Screen {
    const COLUMNS: &'static [Column<Self>] = &[
        column("name", |screen| screen.name.to_string()),
        column("owner", |screen| screen.owner.to_string()),
        column("host", |screen| screen.host.clone()),
        column("port", |screen| shown(screen.port.as_ref())),
        column("display", |screen| shown(screen.display.as_ref())),
        column("password", |screen| screen.password.clone()),
        yielding(1, "viewer", |screen| screen.viewer.clone()),
        wide("state", |screen| word(&screen.state)),
        wide("runs_on", |screen| screen.runs_on.clone()),
        wide("vnc", |screen| screen.vnc.clone()),
    ];
}

/// Those that are there; a single one that was asked for is told in words, unless a format is given.
pub fn text(Screens { shown, without }: &Screens, format: Option<Format>) -> String {
    match (&shown[..], format) {
        ([], _) => String::new(),
        ([screen], None) if without.is_empty() => in_words(screen),
        (screens, format) => render(screens, format.unwrap_or_default()),
    }
}

/// Those that are not, if any.
pub fn missing(Screens { without, .. }: &Screens) -> Option<Failure> {
    let names: Vec<String> = without.iter().map(|(name, state)| format!("{name} ({})", word(state))).collect();
    let failure = Failure::new(Exit::NotReady, format!("no screen to show: {}", names.join(", ")))
        .hint("a screen is there once `labwright status` shows the vm as booting or ready");
    (!names.is_empty()).then_some(failure)
}

/// One screen, for a person.
pub fn in_words(screen: &Screen) -> String {
    format!("{} is {} on {}\n", screen.name, word(&screen.state), screen.runs_on) + &lines(screen)
}

/// Where it is, and what opens it.
pub fn lines(screen: &Screen) -> String {
    let Screen { host, password, viewer, runs_on, .. } = screen;
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
    format!("  vnc        {place}\n  password   {password}\n  viewer     {viewer}\n{elsewhere}")
}

/// Whether only the host itself can connect.
fn is_local(screen: &Screen) -> bool {
    screen.vnc.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}
