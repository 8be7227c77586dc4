//! A qemu process and its monitor, from its start until it is reaped.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::unistd::{Gid, Uid};
use serde_json::{Value, json};

use super::StartError;
use super::launch::Prepared;
use super::stderr::LastWords;
use crate::host::run::accel::Accelerator;
use crate::host::run::bounds::Joining;
use crate::host::run::qemu::{self, VncPassword};
use crate::host::run::qmp::{Monitor, QmpError};
use crate::host::run::tap::{Inherit, Tap, inherit};
use crate::run::RunSpec;

/// How long qemu may take to come up. It takes milliseconds; a host on which it needs longer than this cannot run it.
const START_WAIT: Duration = Duration::from_secs(20);
/// How long one waits for an answer of a qemu that is up.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Who qemu runs as, and what it runs with.
#[derive(Debug)]
pub(super) struct Host {
    pub uid: Uid,
    pub gid: Gid,
    pub accel: Accelerator,
}

#[derive(Debug)]
pub(super) struct Guest {
    child: Child,
    said: LastWords,
    /// On its way into its cgroup, where it has one.
    joining: Option<Joining>,
    /// Why qemu is not in the cgroup that it should be in.
    pub unbounded: Option<String>,
    pub monitor: Monitor,
}

impl Guest {
    /// Starts qemu; its guest stands before the first instruction. Nothing is waited for.
    pub(super) fn spawn(
        spec: &RunSpec,
        prepared: &Prepared,
        tap: &Tap,
        password: VncPassword<'_>,
    ) -> Result<Self, StartError> {
        let Prepared { host, group, folder, .. } = prepared;
        let (monitor, monitor_end) = Monitor::pair()?;
        let descriptors = |source| StartError::Descriptors(source);
        let hold = qemu::Hold::Starter {
            tap: tap.inherit(Inherit::Shared)?,
            monitor: inherit(&monitor_end, Inherit::Shared).map_err(descriptors)?,
        };
        let given = qemu::Given { accel: host.accel, hold, folder: folder.path(), vnc_password: password };
        let (stderr, said) = LastWords::listen().map_err(StartError::Spawn)?;
        let child = Command::new("/proc/self/exe")
            .args(confinement(spec, prepared))
            .arg(&spec.qemu.binary)
            .args(qemu::arguments(spec, &given))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(StartError::Spawn)?;
        let joining = group.as_ref().map(|group| group.let_in(child.id()));
        tap.inherit(Inherit::Private)?;
        Ok(Self { child, said, joining, unbounded: None, monitor })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until qemu takes commands and is within its bounds; sets the password of vnc.
    pub(super) fn meet(&mut self, password: Option<&str>) -> Result<(), StartError> {
        let met =
            self.monitor.greet(START_WAIT).and_then(|()| self.monitor.execute("query-status", Value::Null, START_WAIT));
        match met {
            Ok(_) => {}
            Err(QmpError::Closed) => {
                let exit = describe(self.end().ok());
                return Err(StartError::QemuEnded { exit, log: self.said.last_words() });
            }
            Err(error) => return Err(error.into()),
        }
        if let Some(joining) = self.joining.take() {
            self.unbounded = joining.wait().err().map(|error| format!("qemu cannot join its cgroup: {error}"));
        }
        if let Some(password) = password {
            self.ask("set_password", json!({ "protocol": "vnc", "password": password }))?;
        }
        Ok(())
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.monitor.execute(command, arguments, ANSWER_WAIT)
    }

    /// The end of what a qemu has said that has ended.
    pub(super) fn last_words(&self) -> String {
        self.said.last_words()
    }

    /// How qemu ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        // `wait` cannot fail for a child that nobody else waits for.
        self.child.try_wait().unwrap_or(None)
    }

    /// Ends qemu, and waits for nothing.
    pub(super) fn kill(&mut self) {
        // An error means that it has ended and was reaped.
        drop(self.child.kill());
    }

    fn end(&mut self) -> std::io::Result<ExitStatus> {
        self.kill();
        self.child.wait()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // An error means that it has ended and was reaped.
        drop(self.end());
    }
}

/// An end of qemu in words.
pub(super) fn describe(status: Option<ExitStatus>) -> String {
    match status {
        None => "unknown".to_owned(),
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => status.to_string(),
        },
    }
}

/// The arguments of `labwright confine` before the command.
fn confinement(spec: &RunSpec, prepared: &Prepared) -> Vec<OsString> {
    let Prepared { host, folder, .. } = prepared;
    let mut list: Vec<OsString> = vec!["confine".into()];
    let mut pair = |option: &str, value: OsString| list.extend([option.into(), value]);
    pair("--parent", std::process::id().to_string().into());
    pair("--uid", host.uid.to_string().into());
    pair("--gid", host.gid.to_string().into());
    if let (Accelerator::Kvm, Ok(device)) = (host.accel, std::fs::metadata("/dev/kvm")) {
        pair("--group", device.gid().to_string().into());
    }
    for disk in &spec.disks {
        pair("--write", disk.path.clone().into());
        for image in &disk.backing {
            pair("--read", image.clone().into());
        }
    }
    for image in spec.hardware.cdrom.iter().chain(&spec.seed) {
        pair("--read", image.clone().into());
    }
    pair("--write", folder.path().as_os_str().to_owned());
    list.push("--".into());
    list
}
