//! Submissions of a session: files of its vms, collected by themselves once a vm's own end and its grace are over and it is off.
//! In: what is recorded. Out: the files below the site's `submissions`, a row in the session's record for each vm, and how each
//! one stands. Nothing is held up by it, and nothing that was collected is replaced: `control::collect` does the reading.
//!
//! ```text
//! SUBMISSIONS/LAB/SESSION/   as `vm collect -o` fills a folder
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::super::collect::{self, Receipt, Told, Verdict, Words};
use super::super::view::{Moment, View};
use super::super::{Caller, Context, ControlError};
use super::session_of;
use crate::access::Person;
use crate::files;
use crate::model::address::Address;
use crate::model::hexadecimal;
use crate::model::id::{LabName, SessionName, UserName, VmName};
use crate::model::lab::{AtEnd, Desired, Session, Vm};
use crate::run::{REPORT, parse_report};
use crate::state::{Recorded, RecordedRun, RecordedVm, Store};

/// What could not be collected is tried again after so long.
const RETRY_SECONDS: i64 = 300;
/// Why there is a second submission of somebody.
const AGAIN: &str = "their time went on after the first";
/// Files that are named of a vm with none to submit.
const NEWEST_MAX: usize = 5;

/// What came of somebody's vm.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Submission {
    /// Whose it is.
    pub user: UserName,
    /// The vm.
    pub vm: VmName,
    /// How it stands.
    pub state: SubmissionState,
    /// How many files were taken.
    pub files: usize,
    /// And how large they are.
    pub bytes: u64,
    /// When they were.
    pub collected: Option<Moment>,
    /// When they will be, of one that has an end.
    pub due: Option<Moment>,
    /// Where they are.
    pub folder: Option<PathBuf>,
    /// What to know besides: the newest files of one who submitted nothing, why it could not be collected.
    pub note: Option<String>,
}

/// How a submission stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubmissionState {
    /// Its files were taken.
    Submitted,
    /// Its disks were read, and no file is what was asked for.
    Nothing,
    /// Its files could not be read, or not all; the disk itself was kept.
    Unreadable,
    /// It has no disk.
    Absent,
    /// It is not collected yet.
    Pending,
    /// It could not be collected, and is tried again.
    Failed,
}

impl From<Verdict> for SubmissionState {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Submitted => Self::Submitted,
            Verdict::Nothing => Self::Nothing,
            Verdict::Unreadable => Self::Unreadable,
            Verdict::Absent => Self::Absent,
        }
    }
}

/// How long after an own end the disk is read, once the guest is off.
fn grace(session: &Session) -> SignedDuration {
    let seconds = if session.is_exam() { session.grace_seconds } else { 0 };
    SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(0))
}

/// Vms whose time is over and whose files are not in, with their sessions, whether they are off or not.
fn over(recorded: &Recorded, now: Timestamp) -> impl Iterator<Item = (&str, &VmName, &RecordedVm)> {
    let sessions = recorded.sessions().filter(move |(_, session)| session.is_collected_by_now(now));
    sessions.flat_map(move |(address, session)| {
        let is_over = move |end: Timestamp| end.checked_add(grace(session)).is_ok_and(|due| due <= now);
        let waiting = recorded.unsubmitted(&address.name, session).filter(move |(.., end)| is_over(*end));
        waiting.map(|(vm, known, _)| (address.name.as_str(), vm, known))
    })
}

/// Whether somebody's files wait for their guest to be off, or to be collected.
pub fn is_waiting(recorded: &Recorded, now: Timestamp) -> bool {
    over(recorded, now).next().is_some()
}

/// Vms that are to be collected now, by session.
fn due(recorded: &Recorded, now: Timestamp) -> BTreeMap<SessionName, Vec<VmName>> {
    let mut due: BTreeMap<SessionName, Vec<VmName>> = BTreeMap::new();
    let is_off = |known: &RecordedVm| known.run.as_ref().is_none_or(RecordedRun::is_over);
    for (session, vm, _) in over(recorded, now).filter(|(.., known)| is_off(known)) {
        if let Ok(session) = SessionName::new(session) {
            due.entry(session).or_default().push(vm.clone());
        }
    }
    due
}

/// Collects what is due in a lab; answers how many vms that were.
pub fn collect_due(context: &Context, lab: &LabName, words: Words) -> Result<usize, ControlError> {
    let (context, desired, recorded) = context.of_recorded_lab(lab)?;
    let now = Timestamp::now();
    let (mut collected, mut failed) = (0, None);
    for (session, vms) in due(&recorded, now) {
        let store = context.known_store()?;
        let mut patient = Vec::new();
        for vm in vms {
            if !failed_lately(&store, lab, &vm, now)? {
                patient.push(vm);
            }
        }
        drop(store);
        if patient.is_empty() {
            continue;
        }
        let earlier = recorded.submitted.get(&session);
        let (again, first): (Vec<VmName>, Vec<VmName>) =
            patient.into_iter().partition(|vm| earlier.is_some_and(|earlier| earlier.contains_key(vm)));
        for (vms, why) in
            [(first, None), (again, Some(AGAIN.to_owned()))].into_iter().filter(|(vms, _)| !vms.is_empty())
        {
            match collect_of(&context, &desired, &session, (&vms, why), words) {
                Ok(number) => collected += number,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
    }
    failed.map_or(Ok(collected), Err)
}

fn failed_lately(store: &Store, lab: &LabName, vm: &VmName, now: Timestamp) -> Result<bool, ControlError> {
    Ok(failure(store, lab, vm)?.is_some_and(|(at, _)| now.as_second() - at.as_second() < RETRY_SECONDS))
}

/// When and why a vm could not be collected, if that is the last thing that is known of it.
fn failure(store: &Store, lab: &LabName, vm: &VmName) -> Result<Option<(Timestamp, String)>, ControlError> {
    let last = store.effects(lab, &Address::vm(vm).to_string(), 1)?.pop();
    let failed = last.filter(|last| last.effect == "collect" && last.outcome.as_deref() == Some("failed"));
    Ok(failed.and_then(|last| Some((last.intended_at.parse().ok()?, last.detail.unwrap_or_default()))))
}

fn folder_of(context: &Context, lab: &LabName, session: &SessionName) -> PathBuf {
    context.site.storage.submissions.join(lab.as_str()).join(session.as_str())
}

fn collect_of(
    context: &Context,
    desired: &Desired,
    session: &SessionName,
    (vms, why): (&[VmName], Option<String>),
    words: Words,
) -> Result<usize, ControlError> {
    let command = format!("session submissions {session}");
    let context = &context.with_caller(Caller { person: Person::Nobody, command, ..context.caller.clone() });
    let wanted = collect::Wanted {
        vms: vms.iter().map(ToString::to_string).collect(),
        files: desired.sessions[session].collect.clone(),
        into: folder_of(context, &desired.lab, session),
        is_look: false,
        why,
    };
    let mut came: Vec<(VmName, Map<String, Value>)> = Vec::new();
    let collected = collect::collect(context, desired, &wanted, words, &mut |told, _| match told {
        Told::Collected { vm, receipt, folder } => came.push((vm.clone(), row(receipt, folder))),
        // It was cut short before it could be recorded.
        Told::Before { vm, folder } => {
            let read = collect::read_receipt(folder);
            came.extend(read.map(|receipt| (vm.clone(), row(&receipt, Some(folder)))));
        }
        Told::Not { .. } => {}
    });
    let mut store = context.known_store()?;
    let recorded = store.recorded(&desired.lab)?;
    for (vm, row) in &mut came {
        row.extend(run_row(context, &recorded, vm));
    }
    store.submitted(&desired.lab, session, &came, Timestamp::now())?;
    collected.map(|_| came.len())
}

/// A submission in the record: by the checksum of its manifest, which has those of all its files.
fn row(receipt: &Receipt, folder: Option<&Path>) -> Map<String, Value> {
    let manifest = folder.and_then(collect::manifest_in);
    let row = json!({
        "what": "submission",
        "verdict": receipt.verdict,
        "files": receipt.files.len(),
        "bytes": receipt.bytes(),
        "manifest_sha256": manifest.map(|text| sha256(&text)),
    });
    row.as_object().cloned().unwrap_or_default()
}

/// What the starter of the vm's last run has said, by its checksum, and how it went.
fn run_row(context: &Context, recorded: &Recorded, vm: &VmName) -> Option<(String, Value)> {
    let run = &recorded.vms.get(vm)?.run.as_ref()?.run;
    let folder = context.site.storage.runs.join(run.to_string());
    // The guests' account can put anything there.
    let text = files::Folder::open(&folder).ok()??.read(REPORT, files::BYTES_MAX).ok()??;
    let events: Vec<Value> = parse_report(&text, &folder.join(REPORT))
        .ok()?
        .iter()
        .filter_map(|record| {
            let mut event = serde_json::to_value(record).ok()?;
            let fields = event.as_object_mut()?;
            let kind = fields.get("event")?.as_str()?;
            if ["heartbeat", "answer"].contains(&kind) {
                return None;
            }
            ["run", "generation", "version", "obeys"].iter().for_each(|field| drop(fields.remove(*field)));
            Some(event)
        })
        .collect();
    Some(("run".to_owned(), json!({ "run": run.to_string(), "report_sha256": sha256(&text), "events": events })))
}

fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// How everybody's submission stands; for those who may plan and apply the lab.
pub fn submissions(view: &View<'_>, name: &SessionName) -> Result<Vec<Submission>, ControlError> {
    view.require_all()?;
    let lab = view.applied()?;
    let session = session_of(&lab, name)?;
    let store = view.context.known_store()?;
    let particulars = store.particulars(&lab.lab)?;
    let folder = folder_of(view.context, &lab.lab, name);
    let is_in = |vm: &VmName| view.recorded.submitted.get(name).is_some_and(|vms| vms.contains_key(vm));
    let mut list = Vec::new();
    for (name_of_vm, vm) in session.vms.iter().filter_map(|name| Some((name, lab.vms.get(name)?))) {
        let candidate = particulars.get(&vm.owner).and_then(|of| of.candidate.as_ref());
        let standing = collect::standing(&folder, name_of_vm, &vm.owner, candidate);
        let mut of = unsubmitted(session, name_of_vm, vm);
        match standing {
            Some((folder, receipt)) => submit(&mut of, &receipt, folder),
            None if is_in(name_of_vm) => of.state = SubmissionState::Absent,
            None => {
                if let Some((_, why)) = failure(&store, &lab.lab, name_of_vm)? {
                    (of.state, of.note) = (SubmissionState::Failed, Some(why));
                }
            }
        }
        list.push(of);
    }
    list.sort_by(|one, other| (&one.user, &one.vm).cmp(&(&other.user, &other.vm)));
    Ok(list)
}

fn unsubmitted(session: &Session, name: &VmName, vm: &Vm) -> Submission {
    let note = match session.at_end {
        _ if session.collected(vm).is_empty() => Some("nothing says which files of it are collected"),
        AtEnd::Keep => Some("it runs on at its end: it is collected once somebody stops it"),
        AtEnd::Stop | AtEnd::Collect => None,
    };
    Submission {
        user: vm.owner.clone(),
        vm: name.clone(),
        state: SubmissionState::Pending,
        files: 0,
        bytes: 0,
        collected: None,
        due: session.end_of(&vm.owner).and_then(|end| end.checked_add(grace(session)).ok()).map(Moment::from),
        folder: None,
        note: note.map(str::to_owned),
    }
}

fn submit(of: &mut Submission, receipt: &Receipt, folder: PathBuf) {
    of.state = receipt.verdict.into();
    (of.files, of.bytes) = (receipt.files.len(), receipt.bytes());
    (of.collected, of.due, of.folder) = (Some(receipt.collected.into()), None, Some(folder));
    let newest: Vec<&str> = receipt.newest.iter().take(NEWEST_MAX).map(|file| file.path.as_str()).collect();
    of.note = (!newest.is_empty()).then(|| format!("written last: {}", newest.join(", ")));
}
