//! `labwright vm vnc`: where a guest's screen is served, and the password that opens it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::context::of_known_lab;
use super::get::vms::{mapping, run_state};
use super::{Ended, LabOption, vm};
use crate::control::{Context, pick};
use crate::exit::Exit;
use crate::files;
use crate::host::machine::vnc::Place;
use crate::observe::Mapping;
use crate::report::table::{Format, Row, render};
use crate::report::{Failure, Ui};
use crate::run::{PASSWORD_BYTES_MAX, VNC_PASSWORD};
use crate::state::RecordedVm;

/// First port of vnc's displays: display 1 is port 5901.
const DISPLAY_0: u16 = 5900;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright vm vnc alice-exam
  labwright vm vnc exam                       # the whole family
  labwright vm vnc exam -o csv >slips.csv     # to print a slip for each student

Passwords are read from files of mode 0600 on the site's storage, so this takes root or the service account. Exit code 5:
one of the vms is not running.")]
pub(super) struct Arguments {
    /// Vms or families; `*` stands for anything.
    #[arg(value_name = vm::NAMES, required = true)]
    vms: Vec<String>,

    #[command(flatten)]
    lab: LabOption,

    /// How it is written; a single vm is told in words unless this is given.
    #[arg(long, short, value_enum)]
    output: Option<Format>,
}

/// One screen.
#[derive(Debug, Serialize)]
struct Screen {
    name: String,
    owner: String,
    state: &'static str,
    /// Where to connect; the host that runs the vm, where it listens on every address or on a socket.
    host: String,
    /// None where it is a socket.
    port: Option<u16>,
    /// As in the paper: the port counted from 5900.
    display: Option<u16>,
    password: String,
    /// What a viewer is started with.
    viewer: String,
    /// Host that runs the vm.
    runs_on: String,
    /// Where it listens, as its starter reported it.
    vnc: String,
}

impl Row for Screen {
    const COLUMNS: &'static [&'static str] =
        &["name", "owner", "host", "port", "display", "password", "viewer", "state", "runs_on", "vnc"];
    const WIDE: &'static [&'static str] = &["state", "runs_on", "vnc"];
    const YIELDING: &'static [&'static str] = &["viewer"];
    fn cells(&self) -> Vec<String> {
        let number = |number: Option<u16>| number.map(|number| number.to_string()).unwrap_or_default();
        vec![
            self.name.clone(),
            self.owner.clone(),
            self.host.clone(),
            number(self.port),
            number(self.display),
            self.password.clone(),
            self.viewer.clone(),
            self.state.into(),
            self.runs_on.clone(),
            self.vnc.clone(),
        ]
    }
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, desired) = of_known_lab(site, &arguments.lab.lab)?;
    let recorded = context.recorded(&desired.lab)?;
    let picked = pick::recorded_vms(&desired.lab, &arguments.vms, &recorded)?;
    let observed = context.observe(&desired, &recorded)?;
    let (mut screens, mut without) = (Vec::new(), Vec::new());
    for name in &picked {
        let vm = &recorded.vms[name];
        let state = run_state(vm, &observed, &context.site);
        match mapping(vm, &observed).filter(|_| !matches!(state, "off" | "gone" | "unknown")) {
            Some(mapping) => screens.push(screen(&context, name.to_string(), vm, mapping, state)?),
            None => without.push(format!("{name} ({state})")),
        }
    }
    match (&screens[..], arguments.output) {
        ([], _) => {}
        ([screen], None) if picked.len() == 1 => ui.data(&in_words(screen)),
        (screens, format) => ui.data(&render(screens, format.unwrap_or_default())),
    }
    if without.is_empty() {
        return Ok(Exit::Done);
    }
    Err(Failure::new(Exit::NotReady, format!("no screen to show: {}", without.join(", ")))
        .hint("a screen is there once `labwright status` shows the vm as booting or ready"))
}

fn screen(
    context: &Context,
    name: String,
    vm: &RecordedVm,
    mapping: &Mapping,
    state: &'static str,
) -> Result<Screen, Failure> {
    let run = vm.run.as_ref().map(|run| run.run.to_string()).unwrap_or_default();
    let password = password(&context.site.storage.runs.join(run).join(VNC_PASSWORD), &name)?;
    let (host, port) = match mapping.vnc.parse() {
        Ok(Place::Address(address)) if address.ip().is_unspecified() => (mapping.host.clone(), Some(address.port())),
        Ok(Place::Address(address)) => (address.ip().to_string(), Some(address.port())),
        Ok(Place::Socket(_)) | Err(_) => (mapping.host.clone(), None),
    };
    Ok(Screen {
        viewer: viewer(&host, port, mapping),
        name,
        owner: vm.vm.owner.to_string(),
        state,
        host,
        port,
        display: port.and_then(|port| port.checked_sub(DISPLAY_0)),
        password,
        runs_on: mapping.host.clone(),
        vnc: mapping.vnc.clone(),
    })
}

/// A line for a shell. `HOST:DISPLAY` is what every viewer takes.
fn viewer(host: &str, port: Option<u16>, mapping: &Mapping) -> String {
    match (port, mapping.vnc.strip_prefix("unix:")) {
        (Some(port), _) if port >= DISPLAY_0 => format!("vncviewer {host}:{}", port - DISPLAY_0),
        (Some(port), _) => format!("vncviewer {host}::{port}"),
        (None, Some(socket)) => format!("ssh -fNL {DISPLAY_0}:{socket} root@{} && vncviewer 127.0.0.1:0", mapping.host),
        (None, None) => String::new(),
    }
}

fn in_words(screen: &Screen) -> String {
    let Screen { name, state, host, password, viewer, runs_on, .. } = screen;
    let place = match (screen.port, screen.display) {
        (Some(port), Some(display)) => format!("host {host}, port {port}, display {display}"),
        (Some(port), None) => format!("host {host}, port {port}"),
        _ => format!("a socket on {runs_on}, for root: {}", screen.vnc.trim_start_matches("unix:")),
    };
    let first = format!("ssh -fNL {0}:{host}:{0} {runs_on}", screen.port.unwrap_or(DISPLAY_0));
    let elsewhere = if is_local(screen) {
        format!("  elsewhere  {first} before that: it listens on {host} alone, see `vnc_bind` of site.yaml\n")
    } else {
        String::new()
    };
    format!(
        "{name} is {state} on {runs_on}\n  vnc        {place}\n  password   {password}\n  viewer     {viewer}\n{elsewhere}"
    )
}

/// Whether only the host itself can connect.
fn is_local(screen: &Screen) -> bool {
    screen.vnc.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}

fn password(file: &Path, vm: &str) -> Result<String, Failure> {
    let read = files::read_bounded(file, PASSWORD_BYTES_MAX).map_err(|error| error.source);
    let text = read.and_then(|text| text.ok_or_else(|| std::io::ErrorKind::NotFound.into()));
    let text = text.map_err(|source| unreadable(source, file.to_owned(), vm))?;
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

fn unreadable(source: std::io::Error, file: PathBuf, vm: &str) -> Failure {
    let is_denied = source.kind() == std::io::ErrorKind::PermissionDenied;
    let failure = Failure::from_error(if is_denied { Exit::Refused } else { Exit::Failed }, &source)
        .within(format!("cannot read the vnc password of `{vm}` in {}", file.display()));
    if is_denied { failure.hint("only root and the service account may: `sudo labwright vm vnc …`") } else { failure }
}
