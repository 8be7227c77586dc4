//! The process inside a job: carries out one run. In: the run's folder. Out: a guest, its report, and at the end nothing
//! left on the host. It never talks to the state or the scheduler, and never decides what should run.
//!
//! ```text
//!            open             launch                    watch
//! (folder) ───────▶ prepared ───────▶ networked ─▶ running ─┬─▶ ready
//!    │                 │                  │            │    │
//!    │                 │                  │            ▼    ▼
//!    └── cannot ───────┴── cannot ────────┴──────────▶ stopping ─▶ stopped
//! ```
//!
//! * open: spec, control and disks were read from storage, and the host has what the run needs.
//! * launch: filter and tap stand, were read back, and the tap is on the bridge; qemu answers, the guest is not started.
//! * running: the guest's first instruction. It waits for a boot slot, so that a class boots in waves.
//! * stopped: the last record, written when qemu, tap and filter are gone.
//!
//! It is crash-only: everything a run holds is tied to the life of this process, so `kill -9` is one way to end it; only an
//! empty cgroup stays, for a sweep. It is synchronous, and starts qemu from its main thread, since a child's death signal
//! comes when the *thread* that started it ends. What is decided of a guest is decided by `machine`, which is pure; the main
//! thread tells it what was seen, does what it says, and waits for nobody. Whatever can wait has a thread of its own:
//! `storage` does all input and output on shared storage, `network` asks nft, one reads what qemu says, and one each comes
//! and goes with a request, with qemu joining its cgroup, and with a picture.

mod again;
mod guest;
mod inbox;
mod launch;
pub mod machine;
mod network;
mod report;
mod requests;
mod signals;
mod stderr;
mod storage;
mod task;
mod watch;

pub use task::{TaskError, run_of_task};

use std::path::PathBuf;

use crate::error::chain;
use crate::host::run::accel::AccelError;
use crate::host::run::confine::ConfineError;
use crate::host::run::filter::FilterError;
use crate::host::run::gateway::GatewayError;
use crate::host::run::port::PortError;
use crate::host::run::qmp::QmpError;
use crate::host::run::run_folder::RunFolderError;
use crate::host::run::screen::ScreenError;
use crate::host::run::tap::TapError;
use crate::run::{Event, StopReason};
use inbox::{Clock, Inbox};
use machine::End;
use signals::Signals;
use storage::{Opened, Ready, Storage, StorageError};

/// What the starter is told on its command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// The run's folder on shared storage.
    pub folder: PathBuf,
    /// Where host-local folders of runs are: `host::RUN_ROOT`.
    pub run_root: PathBuf,
}

/// Why a run could not be carried out. The text goes into the report: it says what is missing and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the starter needs root on the execution host, for tap, bridge and filter; it runs as user {uid}")]
    NotRoot { uid: u32 },
    #[error("the service user `{user}` does not exist on this host; make it with `useradd --system {user}`")]
    NoServiceUser { user: String },
    #[error("cannot look up the service user `{user}`")]
    ServiceUser { user: String, source: nix::Error },
    #[error("qemu is not at {path}; on Debian: `apt-get install qemu-system-x86`")]
    NoQemu { path: PathBuf },
    #[error("cannot start qemu")]
    Spawn(#[source] std::io::Error),
    #[error("qemu ended before its guest started ({exit}); it says: {log}")]
    QemuEnded { exit: String, log: String },
    #[error("cannot read signals")]
    Signals(#[source] nix::Error),
    #[error("cannot keep descriptors from qemu")]
    Descriptors(#[source] nix::Error),
    /// The guest ran by then.
    #[error(transparent)]
    Watch(Box<StartError>),
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Accel(#[from] AccelError),
    #[error(transparent)]
    Tap(#[from] TapError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Wire(#[from] GatewayError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Monitor(#[from] QmpError),
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    #[error(transparent)]
    Confine(#[from] ConfineError),
    #[error(transparent)]
    Screen(#[from] ScreenError),
}

impl StartError {
    /// Whether the host is the reason, and may not be one a moment later; nothing about the vm would make it differ.
    fn may_pass(&self) -> bool {
        use nix::errno::Errno;
        match self {
            Self::Filter(error) => !matches!(error, FilterError::HostTable { .. }),
            // A router or a server that comes up at this moment.
            Self::Wire(error) => matches!(error, GatewayError::Silent { .. } | GatewayError::NoServer { .. }),
            Self::Thread(_) | Self::Monitor(QmpError::Silent { .. }) => true,
            Self::Port(error) => !matches!(error, PortError::NoBridge { .. }),
            Self::Tap(TapError::Bind { source, .. }) => matches!(source, Errno::EBUSY | Errno::ENOMEM | Errno::EAGAIN),
            Self::Spawn(error) => matches!(error.raw_os_error(), Some(nix::libc::EAGAIN | nix::libc::ENOMEM)),
            _ => false,
        }
    }
}

/// Carries out the run in `options.folder` to its end. An error was written into the report too, where there is one.
pub fn carry_out(options: &Options) -> Result<StopReason, StartError> {
    // What the scheduler left open, such as the lock of a slot, must neither reach qemu nor outlive the starter in it.
    crate::host::sys::keep_descriptors_from_children().map_err(StartError::Descriptors)?;
    let signals = Signals::take().map_err(StartError::Signals)?;
    let inbox = Inbox::new().map_err(StartError::Descriptors)?;
    let clock = Clock::start();
    let (storage, opened) = Storage::open(&options.folder, inbox.post(), clock)?;
    let ended = run(options, opened, &Desk { storage: &storage, signals, inbox, clock });
    let (last, result) = match ended {
        Ok(end) => (Event::Stopped { reason: end.reason.clone(), exit: end.exit }, Ok(end.reason)),
        Err(error) => {
            let message = chain(&error);
            let reason = match &error {
                StartError::Watch(_) => StopReason::Broken { message },
                _ => StopReason::Failed { message },
            };
            (Event::Stopped { reason, exit: None }, Err(error))
        }
    };
    storage.finish(last);
    result
}

/// What every phase needs.
struct Desk<'a> {
    storage: &'a Storage,
    signals: Signals,
    inbox: Inbox,
    clock: Clock,
}

/// The phases, one after the other. When this returns, the host has nothing of the run any more.
fn run(options: &Options, opened: Opened, desk: &Desk<'_>) -> Result<End, StartError> {
    let Opened { spec, ready } = opened;
    let Ready { control, vnc_password, disks } = ready?;
    let password = vnc_password.as_deref();
    if let Some(reason) = machine::over(&spec, &control) {
        return Ok(End { reason, exit: None });
    }
    disks?;
    let prepared = launch::prepare(options, &spec, desk.storage)?;
    let reach = machine::Reach::first(&control);
    let begin = launch::Begin { password, reach: &reach };
    let launch = || launch::launch(&options.run_root, &prepared, &spec, &begin, desk.storage);
    let launched = match again::try_again(desk, &spec, launch)? {
        Ok(launched) => launched,
        Err(reason) => return Ok(End { reason, exit: None }),
    };
    watch::watch(watch::Given { spec: &spec, password, run_root: &options.run_root, desk }, prepared, launched, control)
}
