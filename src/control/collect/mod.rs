//! Files out of the disks of guests that are off: submissions. Nothing of a guest is changed, and nothing that was collected is
//! ever replaced. What is read was written by the guests' users; `volumes` reads it, in a process without rights for each disk.
//!
//! ```text
//! DIR/collected.csv           one line for each vm of each time
//! DIR/STUDENT/VM/             the submission, by candidate number where the roster has one; VM.2 what was collected later, VM.look what was read beside a running guest
//!     files/home/…            as they were on the disk; files.2 where another file system has the same names
//!     manifest.json           each file's size, time and sha256, and what was not taken and why
//!     receipt.txt             the same for people
//!     disk-0.qcow2            where files could not be read: the disk as it is
//! ```

mod folder;
mod receipt;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use jiff::Timestamp;

use super::pick;
use super::{Code, Context, ControlError};
use crate::disks::{self, DiskError, Owner};
use crate::error::chain;
use crate::files;
use crate::host::run::sealed::Sealed;
use crate::model::address::Address;
use crate::model::file_pattern::FilePattern;
use crate::model::id::{Candidate, LabName, UserName, VmName};
use crate::model::lab::{Desired, Particulars, Vm};
use crate::observe::{Observed, life};
use crate::state::{Intent, Outcome, Recorded, RecordedDisk, RecordedVm};
use crate::volumes::{self, HearError, Left, Order, Record};
use folder::MANIFEST;
use folder::{Folder, List, Place};
pub use receipt::{DiskRead, Kept, LeftThere, Newest, Receipt, Taken, Verdict, VolumeRead};

/// What is to be collected.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Names of vms, families and patterns.
    pub vms: Vec<String>,
    /// Which files; none: those that the manifest says.
    pub files: Vec<FilePattern>,
    /// Where it goes.
    pub into: PathBuf,
    /// Running guests, too; what comes of it is no submission.
    pub is_look: bool,
    /// Why, where there is a submission already.
    pub why: Option<String>,
}

/// How a receipt is told: what is in a cell of the list, and on a page.
#[derive(Clone, Copy)]
pub struct Words {
    pub note: fn(&Receipt) -> String,
    pub page: fn(&Receipt) -> String,
}

/// What came of one vm.
pub enum Told<'a> {
    /// This is in that folder now, or nowhere where there was no disk.
    Collected {
        vm: &'a VmName,
        receipt: &'a Receipt,
        folder: Option<&'a Path>,
    },
    /// It was collected before.
    Before {
        vm: &'a VmName,
        folder: &'a Path,
    },
    Not {
        vm: &'a VmName,
        error: &'a ControlError,
    },
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    pub done: usize,
    pub of: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Its files may be in its memory yet.
    #[error("vm `{vm}` is not off, and what it saved last may not be on its disk; nothing was read")]
    Running { vm: VmName },
    #[error("nothing says which files of `{vm}` are wanted; nothing was read")]
    NoPatterns { vm: VmName },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
}

impl CollectError {
    pub fn code(&self) -> Code {
        match self {
            Self::Running { .. } => Code::Refused,
            Self::NoPatterns { .. } => Code::Usage,
            _ => Code::Failed,
        }
    }
}

/// A vm that is meant: as it is wanted, as it is recorded.
struct Meant<'a> {
    name: &'a VmName,
    vm: &'a Vm,
    recorded: Option<&'a RecordedVm>,
}

/// What is the same for all.
struct Collect<'a> {
    context: &'a Context,
    lab: &'a LabName,
    wanted: &'a Wanted,
    words: Words,
    owner: Owner,
    recorded: &'a Recorded,
    particulars: BTreeMap<UserName, Particulars>,
    observed: &'a Observed,
    now: Timestamp,
}

/// What one vm came to, on its way to who tells it.
type Came<'a> = (&'a VmName, Result<Done, ControlError>);

enum Done {
    Collected { receipt: Box<Receipt>, folder: Option<PathBuf> },
    Before { folder: PathBuf },
}

/// Collects, as many side by side as there are cores. `told` hears of each, in the order in which they are done.
pub fn collect(
    context: &Context,
    desired: &Desired,
    wanted: &Wanted,
    words: Words,
    told: &mut dyn FnMut(Told<'_>, Progress),
) -> Result<BTreeMap<Verdict, usize>, ControlError> {
    let view = context.view(desired)?;
    let (lab, recorded) = (&desired.lab, &view.recorded);
    let meant = meant(&view.desired, recorded, wanted)?;
    context.audit(Some(lab), meant.iter().map(|meant| Address::vm(meant.name)).collect())?;
    let observed = view.observed()?;
    let (list, owner, now) = (List::open(&wanted.into)?, context.owner()?, Timestamp::now());
    let particulars = context.store_if_any()?.map(|store| store.particulars(lab)).transpose()?.unwrap_or_default();
    let collect = Collect { context, lab, wanted, words, owner, recorded, particulars, observed: &observed, now };
    let mut tally = Tally::default();
    let mut progress = Progress { done: 0, of: meant.len() };
    let ended = side_by_side(&collect, &meant, &mut |(vm, came)| {
        progress.done += 1;
        if let Ok(Done::Collected { receipt, .. }) = &came {
            list.add(receipt, words.note)?;
        }
        told(
            match &came {
                Ok(Done::Collected { receipt, folder }) => Told::Collected { vm, receipt, folder: folder.as_deref() },
                Ok(Done::Before { folder }) => Told::Before { vm, folder },
                Err(error) => Told::Not { vm, error },
            },
            progress,
        );
        tally.add(vm, came);
        Ok(())
    });
    if !tally.counts.is_empty() {
        context.note(lab, &tally.effects);
    }
    ended?;
    list.end()?;
    match tally.failed.len() {
        0 => Ok(tally.counts),
        1 if progress.of == 1 => Err(tally.failed.remove(0).1),
        _ => Err(ControlError::OfVms { failing: "were not collected", asked: progress.of, failed: tally.failed }),
    }
}

/// What came of all, for the history and in the end.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<Verdict, usize>,
    effects: Vec<(Intent, Outcome)>,
    failed: Vec<(VmName, ControlError)>,
}

impl Tally {
    fn add(&mut self, vm: &VmName, came: Result<Done, ControlError>) {
        let intent = Intent { address: Address::vm(vm), effect: "collect" };
        match came {
            Ok(Done::Collected { receipt, .. }) => {
                *self.counts.entry(receipt.verdict).or_insert(0) += 1;
                self.effects.push((intent, Outcome::Done));
            }
            Ok(Done::Before { .. }) => {}
            Err(error) => {
                self.effects.push((intent, Outcome::Failed { detail: error.to_string() }));
                self.failed.push((vm.clone(), error));
            }
        }
    }
}

fn meant<'a>(desired: &'a Desired, recorded: &'a Recorded, wanted: &Wanted) -> Result<Vec<Meant<'a>>, ControlError> {
    let mut known: BTreeMap<&VmName, Meant<'a>> = BTreeMap::new();
    for (name, vm) in &desired.vms {
        known.insert(name, Meant { name, vm, recorded: None });
    }
    for (name, vm) in &recorded.vms {
        known.entry(name).or_insert(Meant { name, vm: &vm.vm, recorded: None }).recorded = Some(vm);
    }
    let names = known.values().map(|meant| (meant.name, Some(&meant.vm.family)));
    let picked = pick::vms(&desired.lab, &wanted.vms, names)?;
    Ok(known.into_values().filter(|meant| picked.contains(meant.name)).collect())
}

/// Every vm, taken by whoever is free, and told in their order; who hears of them may have enough.
fn side_by_side<'a>(
    collect: &Collect<'_>,
    meant: &'a [Meant<'a>],
    each: &mut dyn FnMut(Came<'a>) -> Result<(), ControlError>,
) -> Result<(), ControlError> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = channel();
    let take = |sender: Sender<(usize, Came<'a>)>| {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(one) = meant.get(at) else { return };
            if sender.send((at, (one.name, collect.one(one)))).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(meant.len()) {
            let sender = sender.clone();
            scope.spawn(|| take(sender));
        }
        drop(sender);
        let (mut early, mut turn) = (BTreeMap::new(), 0);
        for (at, came) in receiver {
            early.insert(at, came);
            while let Some(came) = early.remove(&turn) {
                turn += 1;
                each(came)?;
            }
        }
        Ok(())
    })
}

impl Collect<'_> {
    fn one(&self, meant: &Meant<'_>) -> Result<Done, ControlError> {
        let Meant { name, vm, recorded } = meant;
        let patterns = if self.wanted.files.is_empty() { vm.collect.clone() } else { self.wanted.files.clone() };
        if patterns.is_empty() {
            return Err(CollectError::NoPatterns { vm: (*name).clone() }.into());
        }
        self.recorded.refuse_held(&Address::vm(name))?;
        let is_off = recorded.is_none_or(|vm| life(vm, self.observed, &self.context.site).is_off());
        if !is_off && !self.wanted.is_look {
            return Err(CollectError::Running { vm: (*name).clone() }.into());
        }
        let mut receipt = self.receipt(name, vm, *recorded, patterns);
        let disks: Vec<_> = recorded.iter().flat_map(|vm| &vm.disks).filter(|disk| disk.made).collect();
        let student = self.wanted.into.join(&receipt.student);
        let place = Place::of(&student, &folder_name(&receipt.vm), self.wanted.is_look);
        if let (Some(folder), None, false) = (&place.earlier, &self.wanted.why, self.wanted.is_look) {
            return Ok(Done::Before { folder: folder.clone() });
        }
        let mut folder = Folder::begin(&student, place, self.context.caller.process)?;
        let mut missing = 0;
        for disk in &disks {
            match self.read(&mut folder, disk, &mut receipt) {
                Err(ControlError::Disk(DiskError::Missing { .. })) => missing += 1,
                read => read?,
            }
        }
        receipt.judge();
        if disks.len() == missing {
            receipt.verdict = Verdict::Absent;
            return Ok(Done::Collected { receipt: Box::new(receipt), folder: None });
        }
        let folder = folder.end(&receipt, self.words.page)?;
        Ok(Done::Collected { receipt: Box::new(receipt), folder: Some(folder) })
    }

    fn receipt(&self, name: &VmName, vm: &Vm, recorded: Option<&RecordedVm>, patterns: Vec<FilePattern>) -> Receipt {
        let candidate = self.particulars.get(&vm.owner).and_then(|of| of.candidate.as_ref());
        let (student, vm_of_student) = named(name, &vm.owner, candidate);
        Receipt {
            format: Receipt::FORMAT,
            lab: self.lab.clone(),
            vm: vm_of_student,
            student: student.to_owned(),
            is_submission: !self.wanted.is_look,
            verdict: Verdict::Nothing,
            collected: self.now,
            by: self.context.caller.name.clone(),
            why: self.wanted.why.clone(),
            patterns,
            template_version: recorded.and_then(|vm| vm.version),
            files: Vec::new(),
            left: Vec::new(),
            newest: Vec::new(),
            disks: Vec::new(),
        }
    }
}

/// Candidate number or login name of a vm's owner, and what the vm is called with it.
fn named<'a>(name: &VmName, owner: &'a UserName, candidate: Option<&'a Candidate>) -> (&'a str, String) {
    let student = candidate.map_or(owner.as_str(), Candidate::as_str);
    (student, name.as_str().replace(owner.as_str(), student))
}

fn folder_name(vm: &str) -> String {
    vm.replace('/', "~")
}

/// The latest submission of a vm that stands in a folder, if there is one.
pub(super) fn standing(
    into: &Path,
    name: &VmName,
    owner: &UserName,
    candidate: Option<&Candidate>,
) -> Option<(PathBuf, Receipt)> {
    let (student, vm) = named(name, owner, candidate);
    let (student, first) = (into.join(student), folder_name(&vm));
    let later = (2..).map(|number| student.join(format!("{first}.{number}")));
    let all = std::iter::once(student.join(&first)).chain(later);
    all.map_while(|folder| Some((read_receipt(&folder)?, folder))).last().map(|(receipt, folder)| (folder, receipt))
}

/// What was written of a submission, where it can be read.
pub(super) fn read_receipt(folder: &Path) -> Option<Receipt> {
    serde_json::from_slice(&manifest_in(folder)?).ok()
}

/// The same as it stands there.
pub(super) fn manifest_in(folder: &Path) -> Option<Vec<u8>> {
    files::Folder::open(folder).ok()??.read(MANIFEST, files::BYTES_MAX).ok()?
}

/// What ended the reading of a disk.
enum Cut {
    /// Its reader.
    Reader(HearError),
    /// What is not the disk's fault.
    Here(CollectError),
}

impl From<HearError> for Cut {
    fn from(error: HearError) -> Self {
        Self::Reader(error)
    }
}

impl Collect<'_> {
    /// Reads one disk. Where its files cannot be read, the disk itself is what is kept.
    fn read(&self, folder: &mut Folder, disk: &RecordedDisk, receipt: &mut Receipt) -> Result<(), ControlError> {
        let file = disks::open_disk(&disk.path)?;
        let reading = |source| CollectError::Read { path: disk.path.clone(), source };
        let before = stamp(&file).map_err(reading)?;
        let (files_before, left_before) = (receipt.files.len(), receipt.left.len());
        let mut read =
            DiskRead { slot: disk.slot, base: disk.base.clone(), volumes: Vec::new(), fault: None, kept: None };
        match self.hear(folder, disk, receipt, &mut read) {
            Ok(()) => {}
            Err(Cut::Reader(error)) => read.fault = Some(chain(&error)),
            Err(Cut::Here(error)) => return Err(error.into()),
        }
        if !self.wanted.is_look {
            if stamp(&file).map_err(reading)? != before {
                read.fault = Some("it was written to while it was read".to_owned());
            }
            let is_unseen = read.fault.is_some() || receipt.left[left_before..].iter().any(LeftThere::is_unseen);
            if is_unseen || (receipt.files.len() == files_before && read.is_unreadable()) {
                read.kept = Some(folder.keep(&file, disk)?);
            }
        }
        receipt.disks.push(read);
        Ok(())
    }

    /// Has a process without rights read the disk, and writes down what it says.
    fn hear(
        &self,
        folder: &mut Folder,
        disk: &RecordedDisk,
        receipt: &mut Receipt,
        read: &mut DiskRead,
    ) -> Result<(), Cut> {
        let failed = |source| Cut::Here(CollectError::Read { path: disk.path.clone(), source });
        let files = [Some(disk.path.as_path()), disk.base.as_deref()];
        let order = Order { patterns: receipt.patterns.clone(), lists: false };
        let mut sealed = reader(self.context, self.owner, files, &order).map_err(failed)?;
        volumes::hear(&mut sealed.from, &mut |record, content| match record {
            Record::Volume { place, holds } => {
                folder.next_volume();
                read.add(VolumeRead { place, holds });
                Ok(())
            }
            Record::File { path, bytes, modified } => {
                match folder.take(&path, bytes, content).map_err(Cut::Here)? {
                    Some((path, sha256)) => receipt.files.push(Taken { path, bytes, modified, sha256 }),
                    None => receipt.left.push(LeftThere { path, why: Left::Name }),
                }
                Ok(())
            }
            Record::Left { path, why } => {
                let left = LeftThere { path, why };
                if !receipt.left.contains(&left) {
                    receipt.left.push(left);
                }
                Ok(())
            }
            Record::Newest { path, bytes, modified } => {
                receipt.newest.push(Newest { path, bytes, modified });
                Ok(())
            }
            Record::Listed { .. } | Record::End => Ok(()),
        })
    }
}

/// A process without rights that reads a disk by its files, each over the next.
pub(super) fn reader(
    context: &Context,
    owner: Owner,
    files: [Option<&Path>; 2],
    order: &Order,
) -> std::io::Result<Sealed> {
    let mut job: Vec<&OsStr> = vec!["read-disk".as_ref()];
    for file in files.into_iter().flatten() {
        job.extend(["--file".as_ref(), file.as_os_str()]);
    }
    let mut sealed = Sealed::start(&context.caller.program, &job, (owner.uid, owner.gid), Stdio::null())?;
    let order = serde_json::to_vec(order).expect("patterns are text");
    // One that ends without reading its order says why it does when it is heard.
    drop(sealed.to.take().map(|mut to| to.write_all(&order)));
    Ok(sealed)
}

/// What tells whether a disk was written to.
fn stamp(file: &File) -> std::io::Result<(u64, i64, i64)> {
    let found = file.metadata()?;
    Ok((found.len(), found.mtime(), found.mtime_nsec()))
}
