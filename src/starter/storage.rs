//! Everything on shared storage, in a thread of its own: a file server that hangs blocks this thread and nothing else.
//! In: records and answers to write. Out: `control.json` whenever it was read, and when storage last did what was asked.
//!
//! The thread acts as the owner of the run's folder, because a file server may give root no rights at all.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use nix::unistd::{Gid, Uid};

use super::inbox::{Clock, Post};
use super::machine::{Input, Reply};
use super::report::{Order, Pulse, Writer};
use crate::error::chain;
use crate::files::{self, FileError};
use crate::run::{Control, Event, PASSWORD_BYTES_MAX, REPORT, RunFileError, RunSpec, VNC_PASSWORD, Wanted, last_beat};

/// How often `control.json` is read, and what could not be written is tried again.
const TICK: Duration = Duration::from_secs(1);
/// The same while the guest is to be off: somebody waits for its next disks.
const SHORT_TICK: Duration = Duration::from_millis(100);
/// How long before an end whether anybody could move it is looked at: each look is one more for the file server.
const BEAT_LOOKED_AT: SignedDuration = SignedDuration::from_secs(60);
/// How long a starter waits for storage before it gives up a run that has not begun.
const OPEN_SECONDS_MAX: u64 = 60;
/// How long the end of a run waits for its last records to be written.
const FINISH_SECONDS_MAX: u64 = 60;

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error(transparent)]
    File(#[from] RunFileError),
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} is missing: the run was never written, or was purged")]
    Missing { path: PathBuf },
    #[error(
        "{path} exists: another starter carries out or has carried out this run; a run is carried out once, \
         `labwright apply` makes a new one"
    )]
    Begun { path: PathBuf },
    #[error("the folder of the run, {path}, cannot be written by its owner (uid {uid})")]
    Unwritable { path: PathBuf, uid: u32, source: std::io::Error },
    #[error("the disk {path} does not exist; `labwright plan` shows what is missing")]
    NoDisk { path: PathBuf },
    #[error("the disk {path} is not a qcow2 image of version 2 or 3: it starts with {found}")]
    NotQcow2 { path: PathBuf, found: String },
    #[error("{path}: storage gave no answer within {OPEN_SECONDS_MAX} s")]
    Silent { path: PathBuf },
}

/// What was read when the run was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub spec: RunSpec,
    /// An error here stands in the report.
    pub ready: Result<Ready, StorageError>,
}

/// What the run begins with.
#[derive(Debug)]
pub(super) struct Ready {
    pub control: Control,
    pub vnc_password: Option<String>,
    /// What a look at the disks found; of no interest to a run that is over.
    pub disks: Result<(), StorageError>,
}

/// The starter's handle on the thread.
#[derive(Debug)]
pub(super) struct Storage {
    orders: Sender<Order>,
    pulse: Arc<Pulse>,
    done: Receiver<()>,
}

impl Storage {
    /// Reads the run and becomes its one writer.
    pub(super) fn open(folder: &Path, post: Post, clock: Clock) -> Result<(Self, Opened), StorageError> {
        let (orders, inbox) = channel();
        let (finished, done) = channel();
        let (first, opened) = channel();
        let pulse = Arc::new(Pulse { written: Mutex::new(Instant::now()), clock_offset_ms: AtomicI64::new(0) });
        let (path, shared) = (folder.to_owned(), Arc::clone(&pulse));
        std::thread::spawn(move || {
            let writer = match open(&path, shared) {
                Ok((writer, opened)) => {
                    // The receiver is gone only if opening took too long, and then so is the run.
                    if first.send(Ok(opened)).is_err() {
                        return;
                    }
                    writer
                }
                Err(error) => return drop(first.send(Err(error))),
            };
            serve(writer, &inbox, &post, clock);
            // Nobody waits any more when this took longer than the end of a run may.
            let _ = finished.send(());
        });
        let silent = |_| StorageError::Silent { path: folder.to_owned() };
        let opened = opened.recv_timeout(Duration::from_secs(OPEN_SECONDS_MAX)).map_err(silent)??;
        Ok((Self { orders, pulse, done }, opened))
    }

    /// Says something in the report. Returns at once.
    pub(super) fn record(&self, event: Event) {
        tracing::info!("{}", serde_json::to_string(&event).unwrap_or_default());
        self.order(Order::Record(event));
    }

    /// Answers a request.
    pub(super) fn answer(&self, number: u64, result: Reply) {
        self.order(Order::Answer { number, result });
    }

    /// When the last write of the report began: whoever else counts from it starts later, when the server stamps it.
    pub(super) fn written(&self) -> Instant {
        *self.pulse.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This host's clock minus the storage server's.
    pub(super) fn clock_offset_ms(&self) -> i64 {
        self.pulse.clock_offset_ms.load(Ordering::Relaxed)
    }

    /// The storage server's time.
    pub(super) fn server(&self) -> Timestamp {
        self.pulse.server()
    }

    /// Writes the last record and waits until it is written, or until there is no more hope.
    pub(super) fn finish(self, last: Event) {
        self.order(Order::Finish(last));
        if self.done.recv_timeout(Duration::from_secs(FINISH_SECONDS_MAX)).is_err() {
            tracing::warn!("the end of the run could not be written into its report");
        }
    }

    /// The thread lives until `finish`, so that an order always has a taker.
    fn order(&self, order: Order) {
        self.orders.send(order).expect("the storage thread ends only after the last order");
    }
}

/// Makes the run this starter's, then looks at what must be right before it begins: what was wanted before the claim is
/// seen by the look, and what is wanted later by the next one.
fn open(folder: &Path, pulse: Arc<Pulse>) -> Result<(Writer, Opened), StorageError> {
    let metadata = std::fs::metadata(folder).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => StorageError::Missing { path: folder.to_owned() },
        _ => StorageError::Io { action: "look at", path: folder.to_owned(), source },
    })?;
    act_as(Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    let spec = RunSpec::read(folder)?.ok_or_else(|| StorageError::Missing { path: folder.join(crate::run::SPEC) })?;
    let report = folder.join(REPORT);
    OpenOptions::new().write(true).create_new(true).mode(0o640).open(&report).map_err(|source| {
        match source.kind() {
            std::io::ErrorKind::AlreadyExists => StorageError::Begun { path: report.clone() },
            _ => StorageError::Unwritable { path: folder.to_owned(), uid: metadata.uid(), source },
        }
    })?;
    let writer = Writer::new(folder, &spec, pulse);
    let ready = look(folder, &spec);
    Ok((writer, Opened { spec, ready }))
}

fn look(folder: &Path, spec: &RunSpec) -> Result<Ready, StorageError> {
    let control =
        Control::read(folder)?.ok_or_else(|| StorageError::Missing { path: folder.join(crate::run::CONTROL) })?;
    let vnc_password = read_password(&folder.join(VNC_PASSWORD))?;
    Ok(Ready { control, vnc_password, disks: check_disks(spec) })
}

/// Root needs the rights of the folder's owner where it has none of its own; anybody else has only their own anyway.
fn act_as(uid: Uid, gid: Gid) {
    nix::unistd::setfsgid(gid);
    nix::unistd::setfsuid(uid);
}

fn read_password(path: &Path) -> Result<Option<String>, StorageError> {
    let text = files::read_bounded(path, PASSWORD_BYTES_MAX)
        .map_err(|FileError { action, path, source }| StorageError::Io { action, path, source })?;
    Ok(text.map(|text| String::from_utf8_lossy(&text).trim_end().to_owned()))
}

/// A look at each disk of the run and all below it: qemu's own words for these two errors help nobody.
fn check_disks(spec: &RunSpec) -> Result<(), StorageError> {
    let images = spec.disks.iter().flat_map(|disk| std::iter::once(&disk.path).chain(&disk.backing));
    images.into_iter().try_for_each(|path| check_qcow2(path))
}

/// qcow2's header: `QFI\xfb`, then the version.
fn check_qcow2(path: &Path) -> Result<(), StorageError> {
    const MAGIC: [u8; 4] = *b"QFI\xfb";
    let io = |action, source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => StorageError::NoDisk { path: path.to_owned() },
        _ => StorageError::Io { action, path: path.to_owned(), source },
    };
    let mut header = Vec::new();
    let file = File::open(path).map_err(|source| io("open", source))?;
    file.take(8).read_to_end(&mut header).map_err(|source| io("read", source))?;
    match header.split_at_checked(MAGIC.len()) {
        Some((magic, [0, 0, 0, 2 | 3])) if magic == MAGIC => Ok(()),
        _ => {
            let found: Vec<String> = header.iter().map(|byte| format!("{byte:02x}")).collect();
            let found = if found.is_empty() { "nothing, it is empty".to_owned() } else { found.join(" ") };
            Err(StorageError::NotQcow2 { path: path.to_owned(), found })
        }
    }
}

/// Works until the last record is written.
fn serve(mut writer: Writer, inbox: &Receiver<Order>, post: &Post, clock: Clock) {
    let mut waiting: VecDeque<Order> = VecDeque::new();
    let mut next_tick = Instant::now();
    loop {
        match inbox.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
            Ok(order) => waiting.push_back(order),
            Err(RecvTimeoutError::Timeout) => {
                let is_to_be_off = read_control(&writer, post, clock) == Some(Wanted::Off);
                next_tick = Instant::now() + if is_to_be_off { SHORT_TICK } else { TICK };
                if writer.pulse_age() >= writer.heartbeat {
                    waiting.push_back(Order::Record(Event::Heartbeat));
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(order) = waiting.front() {
            if let Err(error) = writer.carry_out(order) {
                tracing::warn!(%error, "the report could not be written; trying again");
                // A heartbeat that could not be written is no news later.
                waiting.retain(|order| !matches!(order, Order::Record(Event::Heartbeat)));
                break;
            }
            if matches!(waiting.pop_front(), Some(Order::Finish(_))) {
                return;
            }
        }
    }
}

/// A file that is gone, or cannot be reached, says nothing: the fence sees to that. Answers what is wanted of the guest.
fn read_control(writer: &Writer, post: &Post, clock: Clock) -> Option<Wanted> {
    // Whatever was written after this moment may not be in what is read.
    let looked = clock.now();
    match Control::read(&writer.folder) {
        Ok(Some(control)) => {
            let counts = control.clock().is_some_and(|clock| clock.offline_grace_seconds.is_some());
            let is_near = control.end().is_some_and(|end| end.duration_since(writer.server()) < BEAT_LOOKED_AT);
            if let (true, Some(runs)) = (counts && is_near, writer.folder.parent()) {
                last_beat(runs).map(|beat| post.tell(Input::Beat(beat))).unwrap_or_default();
            }
            let wanted = control.wanted.clone();
            post.tell(Input::Control { control: Box::new(control), looked });
            return Some(wanted);
        }
        Ok(None) | Err(RunFileError::Io { .. }) => {}
        Err(error) => {
            tracing::warn!(%error, "control.json is not obeyed");
            post.tell(Input::Unreadable(format!("control.json is not obeyed: {}", chain(&error))));
        }
    }
    None
}
