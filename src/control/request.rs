//! What is asked of running guests: the request goes into a run's `control.json`, the answer comes in its report. It needs no
//! lock and no plan; who asked for what is in the history.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::permissions::Rights;
use super::pick::{each, one, recorded_vms};
use super::{Code, Context, ControlError};
use crate::disks::{self, DiskError, Snapshot};
use crate::host::RUN_ROOT;
use crate::host::run::run_folder::serial_socket;
use crate::model::address::Address;
use crate::model::id::{LabName, RunId, SnapshotName, VmName};
use crate::model::lab::{Desired, Object, Right};
use crate::observe::{Phase, fold};
use crate::resolve::with_claims;
use crate::run::{self, Control, Event, RequestKind, RunFileError, StopReason, Wanted};
use crate::state::{Intent, Outcome, Recorded, RecordedVm};

/// How long a starter may take to answer: it reads what is asked every second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// A snapshot writes or reads the guest's whole memory, perhaps over a network.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

/// Why nothing is asked of a guest that gets other disks.
const OTHER_DISKS: &str = "is off while it gets other disks";
/// A starter needs half a second on average until it looks; more looks would not be seen sooner.
const ANSWER_POLL: Duration = Duration::from_millis(250);

/// Why a guest did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("vm `{vm}` is not running; nothing was changed")]
    NotRunning { vm: VmName },
    /// Its guest has not begun yet.
    #[error("vm `{vm}` {phase}; nothing was changed")]
    Early { vm: VmName, phase: &'static str },
    #[error("vm `{vm}` is being stopped; nothing was changed")]
    Stopping { vm: VmName },
    #[error("vm `{vm}` has a snapshot `{snapshot}` already; nothing was changed")]
    SnapshotThere { vm: VmName, snapshot: String },
    #[error("vm `{vm}` has no snapshot `{snapshot}`; nothing was changed")]
    NoSnapshot { vm: VmName, snapshot: String, has: Vec<String> },
    #[error("cannot list the snapshots of `{vm}`")]
    Snapshots { vm: VmName, source: DiskError },
    /// What its starter says of it.
    #[error("`{vm}` could not do it: {why}")]
    NotDone { vm: VmName, why: String },
    /// It ended meanwhile.
    #[error("vm `{vm}` is not running: {reason}")]
    Ended { vm: VmName, reason: StopReason },
    #[error("the starter of `{vm}` did not answer within {seconds} s")]
    NoAnswer { vm: VmName, seconds: u64 },
    #[error("the picture {} is not there", file.display())]
    NoPicture { file: PathBuf },
    #[error("cannot write the picture to {}", file.display())]
    Picture { file: PathBuf, source: std::io::Error },
    #[error(transparent)]
    RunFile(#[from] RunFileError),
}

impl RequestError {
    pub fn code(&self) -> Code {
        match self {
            Self::NotRunning { .. }
            | Self::Early { .. }
            | Self::Stopping { .. }
            | Self::Ended { .. }
            | Self::NoAnswer { .. } => Code::NotReady,
            _ => Code::Failed,
        }
    }
}

/// Recorded vms of one lab.
pub struct Guests<'a> {
    context: &'a Context,
    lab: &'a LabName,
    pub guests: BTreeMap<VmName, Guest>,
}

impl<'a> Guests<'a> {
    /// Those that names, families and patterns mean.
    pub fn named(context: &'a Context, lab: &'a LabName, words: &[String]) -> Result<Self, ControlError> {
        let mut recorded = context.recorded(lab)?;
        let named = recorded_vms(lab, words, &recorded)?;
        let guests = named.into_iter().filter_map(|name| Guest::take(context, &mut recorded, name));
        Ok(Self { context, lab, guests: guests.map(|guest| (guest.name.clone(), guest)).collect() })
    }

    /// One vm of a lab, for somebody who may ask this of it.
    pub fn with_right(
        context: &'a Context,
        desired: &'a Desired,
        vm: &VmName,
        kind: &RequestKind,
    ) -> Result<Self, ControlError> {
        let mut recorded = context.recorded(&desired.lab)?;
        let lab = with_claims(desired, &recorded.claims);
        let rights = Rights::of(context, &lab, &recorded);
        let on = Object::Vm(vm.clone());
        let allowed = match kind {
            // Who may use it sees its screen anyway.
            RequestKind::Screen if rights.on(&on).contains(&Right::Run) => Ok(()),
            RequestKind::Screen => rights.require(Right::View, &on),
            RequestKind::Snapshot { .. } | RequestKind::Revert { .. } | RequestKind::DeleteSnapshot { .. } => {
                rights.require(Right::Modify, &on)
            }
            _ => rights.require(Right::Run, &on),
        };
        context.audited(Some(&desired.lab), allowed)?;
        let guest = Guest::take(context, &mut recorded, vm.clone()).ok_or_else(|| Rights::not_known(&on))?;
        Ok(Self { context, lab: &desired.lab, guests: [(vm.clone(), guest)].into() })
    }

    /// The only one.
    fn one(&self) -> &Guest {
        self.guests.first_key_value().expect("it is of one vm").1
    }

    /// A picture of the one screen, PNG; that somebody looked is written down first.
    pub fn picture(&self) -> Result<Vec<u8>, ControlError> {
        self.audit()?;
        Ok(self.one().screen()?)
    }

    /// What it can go back to.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, ControlError> {
        Ok(self.one().snapshots()?)
    }

    /// Asks the same of all, and writes into the history who did it. `told` hears of each that has done it.
    pub fn ask(&self, kind: &RequestKind, told: &mut dyn FnMut(&VmName)) -> Result<(), ControlError> {
        self.audit()?;
        let (effect, mut effects) = (effect(kind), Vec::new());
        let ended = self.each(|guest| {
            let done = guest.carry_out(kind);
            let outcome = match &done {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Failed { detail: error.to_string() },
            };
            effects.push((Intent { address: Address::vm(&guest.name), effect }, outcome));
            done.map(|()| told(&guest.name))
        });
        if effects.iter().any(|(_, outcome)| *outcome == Outcome::Done) {
            self.context.note(self.lab, &effects);
        }
        ended
    }

    /// A picture of one screen at `place`; of several, or where that is a folder, one of each vm's name in there, as PNG. `told`
    /// hears of each.
    pub fn pictures(&self, place: &Path, told: &mut dyn FnMut(&VmName, &Path)) -> Result<(), ControlError> {
        self.audit()?;
        let files: BTreeMap<&VmName, PathBuf> = picture_files(self.guests.keys(), place)?.into_iter().collect();
        self.each(|guest| {
            let name = &guest.name;
            let file = files[name].clone();
            let written = std::fs::write(&file, guest.screen()?);
            written.map_err(|source| RequestError::Picture { file: file.clone(), source }).map(|()| told(name, &file))
        })
    }

    fn audit(&self) -> Result<(), ControlError> {
        self.context.audit(Some(self.lab), self.guests.keys().map(Address::vm).collect())
    }

    fn each(&self, mut act: impl FnMut(&Guest) -> Result<(), RequestError>) -> Result<(), ControlError> {
        let names = self.guests.keys().cloned().collect();
        each(&names, "did not do it", |name| Ok(act(&self.guests[name])?))
    }
}

/// Where the pictures of these screens go: below a folder, which is made, where there are several or `place` is one.
pub fn picture_files<'v>(
    vms: impl ExactSizeIterator<Item = &'v VmName>,
    place: &Path,
) -> Result<Vec<(&'v VmName, PathBuf)>, ControlError> {
    let is_folder = vms.len() > 1 || place.is_dir();
    if is_folder {
        let no_folder = |source| ControlError::Folder { folder: place.to_owned(), source };
        std::fs::create_dir_all(place).map_err(no_folder)?;
    }
    let file = |vm: &VmName| if is_folder { place.join(format!("{}.png", vm.file_name())) } else { place.to_owned() };
    Ok(vms.map(|vm| (vm, file(vm))).collect())
}

/// What a snapshot is called that nobody gave a name: one for all vms of a family, so that they can be taken back to it together.
pub fn snapshot_name() -> SnapshotName {
    let name = jiff::ZonedDateTime::now().strftime("at-%Y-%m-%d-%H%M%S").to_string();
    SnapshotName::new(name).expect("a moment is a name")
}

/// For the history.
pub fn effect(kind: &RequestKind) -> &'static str {
    match kind {
        RequestKind::Screen => "screen",
        RequestKind::Suspend => "suspend",
        RequestKind::Resume => "resume",
        RequestKind::Reset => "reset",
        RequestKind::Snapshot { .. } => "snapshot",
        RequestKind::Revert { .. } => "revert",
        RequestKind::DeleteSnapshot { .. } => "delete-snapshot",
        RequestKind::Other(_) => "request",
    }
}

/// A recorded vm, and where runs are.
pub struct Guest {
    pub name: VmName,
    vm: RecordedVm,
    runs: PathBuf,
}

impl Guest {
    /// The one recorded vm that a word means.
    pub fn named(context: &Context, lab: &LabName, word: &str) -> Result<Self, ControlError> {
        let mut recorded = context.recorded(lab)?;
        let name = one(lab, word, &recorded)?;
        Ok(Self::take(context, &mut recorded, name).expect("it was picked from there"))
    }

    fn take(context: &Context, recorded: &mut Recorded, name: VmName) -> Option<Self> {
        let vm = recorded.vms.remove(&name)?;
        Some(Self { name, vm, runs: context.site.storage.runs.clone() })
    }

    /// The run that is not over, by the records.
    pub fn run(&self) -> Result<&RunId, RequestError> {
        let run = self.vm.run.as_ref().filter(|run| !run.is_over());
        run.map(|run| &run.run).ok_or_else(|| self.not_running())
    }

    /// The socket of its serial line, on the host that runs it.
    pub fn serial_line(&self) -> Result<PathBuf, RequestError> {
        Ok(serial_socket(&Path::new(RUN_ROOT).join(self.run()?.to_string())))
    }

    /// A picture of its screen, PNG.
    pub fn screen(&self) -> Result<Vec<u8>, RequestError> {
        let folder = self.folder()?;
        let file = self.ask(&folder, &RequestKind::Screen)?.unwrap_or_default();
        let picture = run::answer(&folder, &file)?;
        picture.ok_or_else(|| RequestError::NoPicture { file: folder.join(run::ANSWERS).join(file) })
    }

    /// What the first disk has, which holds the memory; only what all disks have can be gone back to.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, RequestError> {
        let mut lists = Vec::new();
        for disk in self.vm.disks.iter().filter(|disk| disk.made) {
            let list = disks::snapshots(&disk.path);
            lists.push(list.map_err(|source| RequestError::Snapshots { vm: self.name.clone(), source })?);
        }
        let Some((first, others)) = lists.split_first() else { return Ok(Vec::new()) };
        let everywhere = |snapshot: &&Snapshot| others.iter().all(|list| list.iter().any(|o| o.name == snapshot.name));
        Ok(first.iter().filter(everywhere).cloned().collect())
    }

    fn folder(&self) -> Result<PathBuf, RequestError> {
        Ok(self.runs.join(self.run()?.to_string()))
    }

    fn carry_out(&self, kind: &RequestKind) -> Result<(), RequestError> {
        self.refuse_snapshot(kind)?;
        self.ask(&self.folder()?, kind).map(drop)
    }

    /// A new snapshot replaces none, and one that is to be used is there.
    fn refuse_snapshot(&self, kind: &RequestKind) -> Result<(), RequestError> {
        let (RequestKind::Snapshot { name } | RequestKind::Revert { name } | RequestKind::DeleteSnapshot { name }) =
            kind
        else {
            return Ok(());
        };
        let has: Vec<String> = self.snapshots()?.into_iter().map(|snapshot| snapshot.name).collect();
        let (vm, snapshot) = (self.name.clone(), name.clone());
        match (has.contains(name), matches!(kind, RequestKind::Snapshot { .. })) {
            (true, true) => Err(RequestError::SnapshotThere { vm, snapshot }),
            (false, false) => Err(RequestError::NoSnapshot { vm, snapshot, has }),
            (true, false) | (false, true) => Ok(()),
        }
    }

    /// Puts a request into the run's folder and waits for its answer: the name of a file, where it is one.
    fn ask(&self, folder: &Path, kind: &RequestKind) -> Result<Option<String>, RequestError> {
        let records = run::read_report(folder)?;
        self.refuse_unless_it_runs(fold(&records).map(|report| report.phase).as_ref())?;
        let answered = records.iter().filter_map(|record| match record.event {
            Event::Answer { number, .. } => Some(number),
            _ => None,
        });
        let (answered, stopping) = (answered.max().unwrap_or(0), self.stopping());
        let turned_off = RequestError::Early { vm: self.name.clone(), phase: OTHER_DISKS };
        let timeout = match kind {
            RequestKind::Snapshot { .. } | RequestKind::Revert { .. } | RequestKind::DeleteSnapshot { .. } => {
                SNAPSHOT_TIMEOUT
            }
            _ => ANSWER_TIMEOUT,
        };
        let number = Control::change(folder, |control| match control.wanted {
            Wanted::Running | Wanted::Other(_) => Ok(control.ask(kind.clone(), answered)),
            Wanted::Stopped => Err(stopping),
            Wanted::Off => Err(turned_off),
        })?;
        let number = number.ok_or_else(|| self.not_running())??;
        self.wait(folder, number, timeout)
    }

    fn not_running(&self) -> RequestError {
        RequestError::NotRunning { vm: self.name.clone() }
    }

    fn stopping(&self) -> RequestError {
        RequestError::Stopping { vm: self.name.clone() }
    }

    fn refuse_unless_it_runs(&self, phase: Option<&Phase>) -> Result<(), RequestError> {
        let early = |phase| Err(RequestError::Early { vm: self.name.clone(), phase });
        match phase {
            Some(Phase::Running | Phase::Ready | Phase::Paused { .. } | Phase::CutOff { .. }) => Ok(()),
            None => early("waits in the queue"),
            Some(Phase::Starting) => early("is being started"),
            Some(Phase::Off) => early(OTHER_DISKS),
            Some(Phase::Stopping) => Err(self.stopping()),
            Some(Phase::Stopped { .. }) => Err(self.not_running()),
        }
    }

    fn wait(&self, folder: &Path, number: u64, timeout: Duration) -> Result<Option<String>, RequestError> {
        let vm = &self.name;
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            for record in run::read_report(folder)? {
                match record.event {
                    Event::Answer { number: n, error: Some(why), .. } if n == number => {
                        return Err(RequestError::NotDone { vm: vm.clone(), why });
                    }
                    Event::Answer { number: n, file, .. } if n == number => return Ok(file),
                    Event::Stopped { reason, .. } => return Err(RequestError::Ended { vm: vm.clone(), reason }),
                    _ => {}
                }
            }
            std::thread::sleep(ANSWER_POLL);
        }
        Err(RequestError::NoAnswer { vm: vm.clone(), seconds: timeout.as_secs() })
    }
}
