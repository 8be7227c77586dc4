//! From an opened run to a qemu that answers: what the host must have, then filter, tap and qemu. Filter and qemu come
//! up side by side, since each waits mostly for the kernel; the guest's first instruction comes after both.

use std::path::Path;
use std::sync::Arc;

use nix::unistd::{Uid, User};

use super::guest::{Guest, Host};
use super::machine::Reach;
use super::network::{is_silent, narrowed};
use super::storage::Storage;
use super::{Options, StartError};
use crate::error::chain;
use crate::host::run::bounds::Group;
use crate::host::run::filter::RunFilter;
use crate::host::run::port::{self, Port};
use crate::host::run::qemu::VncPassword;
use crate::host::run::run_folder::RunFolder;
use crate::host::run::screen::Screen;
use crate::host::run::tap::{self, Tap};
use crate::host::run::{accel, gateway, sweep};
use crate::model::site::Filter;
use crate::run::{Event, RunNetwork, RunSpec};

/// The host has what the run needs.
#[derive(Debug)]
pub(super) struct Prepared {
    pub host: Host,
    pub host_name: String,
    /// What bounds qemu, where the host allows it. It goes after qemu, and before the lock that keeps a sweep away.
    pub group: Option<Group>,
    /// Which bounds the guest goes without, and why.
    pub unbounded: Option<String>,
    /// Shared with the thread that receives a picture.
    pub folder: Arc<RunFolder>,
}

/// Filter and tap stand, and qemu answers. The order of the fields is the order in which they go: qemu first.
#[derive(Debug)]
pub(super) struct Launched {
    pub guest: Guest,
    pub screen: Screen,
    pub tap: Tap,
    pub filter: RunFilter,
    /// With what this host knows of its wire.
    pub network: RunNetwork,
}

/// Looks at everything a run needs before anything is made.
pub(super) fn prepare(options: &Options, spec: &RunSpec, storage: &Storage) -> Result<Prepared, StartError> {
    if !Uid::effective().is_root() {
        return Err(StartError::NotRoot { uid: Uid::effective().as_raw() });
    }
    if !spec.qemu.binary.exists() {
        return Err(StartError::NoQemu { path: spec.qemu.binary.clone() });
    }
    tap::ensure_possible(Path::new("/dev/net/tun"))?;
    port::ensure_bridge(&spec.network.bridge)?;
    let accel = accel::choose(spec.qemu.accel, &options.run_root)?;
    let name = &spec.service_user;
    let user = User::from_name(name)
        .map_err(|source| StartError::ServiceUser { user: name.clone(), source })?
        .ok_or_else(|| StartError::NoServiceUser { user: name.clone() })?;
    let folder = RunFolder::create(&options.run_root, &spec.run, user.uid, user.gid)?;
    if spec.network.filter == Filter::Ebtables {
        for error in sweep::remove_chains_of_the_killed(&options.run_root).errors {
            tracing::warn!(%error, "chains of a dead run stay behind, for the next sweep");
        }
    }
    let (group, unbounded) = Group::create(&options.run_root, &spec.run, &spec.hardware);
    let host_name = host_name();
    storage.record(Event::Prepared { host: host_name.clone() });
    Ok(Prepared {
        host: Host { uid: user.uid, gid: user.gid, accel },
        host_name,
        group,
        unbounded,
        folder: Arc::new(folder),
    })
}

/// The name under which batch systems know this host.
fn host_name() -> String {
    // Linux has no way to fail here but a name longer than it allows to set.
    nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a guest begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begin<'a> {
    pub password: Option<&'a str>,
    pub reach: &'a Reach,
}

/// Makes filter, tap and qemu.
pub(super) fn launch(
    run_root: &Path,
    prepared: &Prepared,
    spec: &RunSpec,
    begin: &Begin<'_>,
    storage: &Storage,
) -> Result<Launched, StartError> {
    let Begin { password, reach } = *begin;
    let screen = Screen::listen(spec.qemu.vnc_bind, prepared.folder.path())?;
    let pinned = gateway::pin(&spec.network, run_root)?;
    let warn = |message| storage.record(Event::Warning { message });
    pinned.silent.iter().for_each(|address| warn(is_silent(*address)));
    let network = narrowed(&pinned.network, reach, run_root, &warn);
    let mut filter = RunFilter::start(&spec.run, &network, run_root)?;
    let tap = Tap::open(&spec.run.tap())?;
    let mut guest = spawn(prepared, spec, &tap, password)?;
    if let Some(missed) = filter.stand()? {
        storage.record(Event::Warning { message: chain(&missed) });
    }
    if *reach != Reach::AsPlanned {
        storage.record(reach.clone().filtered(filter.rules().to_vec()));
    }
    let network = &spec.network;
    let alias = port::run_mark(&spec.run);
    let port =
        Port { tap: tap.name(), bridge: &network.bridge, mac: network.mac, isolated: network.isolated, alias: &alias };
    port.join()?;
    meet(prepared, &mut guest, password)?;
    storage.record(Event::Networked { tap: tap.name().to_owned(), gateway: pinned.gateway_mac() });
    Ok(Launched { guest, screen, tap, filter, network: pinned.network })
}

/// Starts qemu on the run's tap, also for another time after an early death. It may make its sockets.
pub(super) fn spawn(
    prepared: &Prepared,
    spec: &RunSpec,
    tap: &Tap,
    password: Option<&str>,
) -> Result<Guest, StartError> {
    let asked = if password.is_some() { VncPassword::Asked } else { VncPassword::None };
    prepared.folder.open()?;
    Guest::spawn(spec, prepared, tap, asked)
}

/// Waits for qemu, which has made its sockets then, and shuts the folder behind it.
pub(super) fn meet(prepared: &Prepared, guest: &mut Guest, password: Option<&str>) -> Result<(), StartError> {
    guest.meet(password)?;
    Ok(prepared.folder.close()?)
}
