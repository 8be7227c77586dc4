//! Where guests' screens are served, and the passwords that open them. Passwords are read from files that root and the service
//! account may read.

use std::collections::BTreeSet;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{View, VmState, mapping, state};
use crate::control::ControlError;
use crate::files;
use crate::host::machine::vnc::Place;
use crate::model::address::Address;
use crate::model::id::{UserName, VmName};
use crate::observe::Mapping;
use crate::run::{PASSWORD_BYTES_MAX, VNC_PASSWORD};
use crate::state::RecordedVm;

/// First port of vnc's displays: display 1 is port 5901.
const DISPLAY_0: u16 = 5900;

/// One screen.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Screen {
    /// The vm's full name.
    pub name: VmName,
    /// Whose it is.
    pub owner: UserName,
    /// Where it stands.
    pub state: VmState,
    /// Where to connect; the host that runs the vm, where it listens on every address or on a socket.
    pub host: String,
    /// None where it is a socket.
    pub port: Option<u16>,
    /// As in the paper: the port counted from 5900.
    pub display: Option<u16>,
    /// What the viewer asks for; it is another one with each start.
    pub password: String,
    /// A line for a shell that starts a viewer.
    pub viewer: String,
    /// Host that runs the vm.
    pub runs_on: String,
    /// Where it listens, as its starter reported it.
    pub vnc: String,
}

/// Screens, and the vms that have none now.
#[derive(Debug, Clone, Default)]
pub struct Screens {
    pub shown: Vec<Screen>,
    pub without: Vec<(VmName, VmState)>,
}

impl View<'_> {
    /// The screens of vms that are recorded; that somebody looks at them is written down first.
    pub fn screens(&self, of: &BTreeSet<VmName>) -> Result<Screens, ControlError> {
        let observed = self.observed()?;
        let mut screens = Screens::default();
        for name in of {
            let vm = &self.recorded.vms[name];
            let state = state(vm, &observed, &self.context.site);
            let is_over = matches!(state, VmState::Off | VmState::Gone | VmState::Unknown);
            match mapping(vm, &observed).filter(|_| !is_over) {
                Some(mapping) => screens.shown.push(self.screen(name, vm, mapping, state)?),
                None => screens.without.push((name.clone(), state)),
            }
        }
        if !screens.shown.is_empty() {
            self.audit_look(screens.shown.iter().map(|screen| &screen.name))?;
        }
        Ok(screens)
    }

    /// That somebody looks at screens, or is told what opens them.
    pub(super) fn audit_look<'a>(&self, at: impl IntoIterator<Item = &'a VmName>) -> Result<(), ControlError> {
        self.context.audit(Some(&self.desired.lab), at.into_iter().map(Address::vm).collect())
    }

    pub(super) fn screen(
        &self,
        name: &VmName,
        vm: &RecordedVm,
        mapping: &Mapping,
        state: VmState,
    ) -> Result<Screen, ControlError> {
        let run = vm.run.as_ref().map(|run| run.run.to_string()).unwrap_or_default();
        let password = password(&self.context.site.storage.runs.join(run).join(VNC_PASSWORD), name)?;
        let (host, port) = match mapping.vnc.parse() {
            Ok(Place::Address(address)) if address.ip().is_unspecified() => {
                (mapping.host.clone(), Some(address.port()))
            }
            Ok(Place::Address(address)) => (address.ip().to_string(), Some(address.port())),
            Ok(Place::Socket(_)) | Err(_) => (mapping.host.clone(), None),
        };
        Ok(Screen {
            viewer: viewer(&host, port, mapping),
            name: name.clone(),
            owner: vm.vm.owner.clone(),
            state,
            host,
            port,
            display: port.and_then(|port| port.checked_sub(DISPLAY_0)),
            password,
            runs_on: mapping.host.clone(),
            vnc: mapping.vnc.clone(),
        })
    }
}

/// `HOST:DISPLAY` is what every viewer takes.
fn viewer(host: &str, port: Option<u16>, mapping: &Mapping) -> String {
    match (port, mapping.vnc.strip_prefix("unix:")) {
        (Some(port), _) if port >= DISPLAY_0 => format!("vncviewer {host}:{}", port - DISPLAY_0),
        (Some(port), _) => format!("vncviewer {host}::{port}"),
        (None, Some(socket)) => format!("ssh -fNL {DISPLAY_0}:{socket} root@{} && vncviewer 127.0.0.1:0", mapping.host),
        (None, None) => String::new(),
    }
}

fn password(file: &Path, vm: &VmName) -> Result<String, ControlError> {
    let read = files::read_bounded(file, PASSWORD_BYTES_MAX).map_err(|error| error.source);
    let text = read.and_then(|text| text.ok_or_else(|| std::io::ErrorKind::NotFound.into()));
    let unreadable = |source| ControlError::Password { vm: vm.clone(), file: file.to_owned(), source };
    Ok(String::from_utf8_lossy(&text.map_err(unreadable)?).trim_end().to_owned())
}
