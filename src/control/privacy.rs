//! One person: all that the site has about them, for them; and their being forgotten, once nothing of theirs must be kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Context, ControlError};
use crate::disks::Owner;
use crate::model::address::{Address, Kind};
use crate::model::audit::{Asked, Verdict};
use crate::model::id::{LabName, SessionName, UserName, VmName};
use crate::model::lab::{Particulars, Subject};
use crate::state::{About, ActsOf, Left, OldRun, PastAct, PastClaim, Recorded, Someone, Store, Thing};

/// Of what `export` writes.
const EXPORT_VERSION: u32 = 1;
const SOMEBODY_ELSE: &str = "somebody else";
const ALL: u32 = u32::MAX;

/// Why somebody cannot be forgotten yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A roster, a vm, a template or a permission of the lab, as it was last applied, has them.
    InLab {
        lab: LabName,
        what: Address,
    },
    Running {
        lab: LabName,
        vm: VmName,
    },
    /// Somebody works on it.
    Worked {
        lab: LabName,
        vm: VmName,
    },
    /// It is open, or ahead.
    Session {
        lab: LabName,
        session: SessionName,
        until: Timestamp,
    },
    /// Disks that were set aside, and from when they may be deleted.
    Aside {
        lab: LabName,
        vm: VmName,
        until: Timestamp,
    },
    /// Disks that were put back for a vm that is not there.
    Waiting {
        lab: LabName,
        vm: VmName,
    },
}

/// What was forgotten.
#[derive(Debug)]
pub struct Erased {
    pub runs: usize,
    pub left: Left,
    /// Copies of the state beside it, made while they were in it.
    pub copies: Vec<PathBuf>,
}

/// All that a lab has about somebody.
#[derive(Serialize)]
struct OfLab {
    lab: LabName,
    /// As it was last applied.
    user: Option<Value>,
    roster: Option<Particulars>,
    vms: BTreeMap<VmName, Value>,
    disks: Vec<Value>,
    runs: Vec<Value>,
    sessions: Vec<Value>,
    permissions: Vec<Value>,
    claims: Vec<Value>,
    acts: Vec<Value>,
}

/// Writes all that the site has about somebody into a new file that only who asks can read. Nobody else is in it.
pub fn export(context: &Context, user: &UserName, file: &Path) -> Result<(), ControlError> {
    context.audit(None, vec![Address::new(Kind::User, user)])?;
    let mut store = context.known_store()?;
    let ever = store.vms_ever_of(user)?;
    let mut labs = Vec::new();
    for (lab, recorded) in store.recorded_of_all()? {
        labs.push(of_lab(&store, lab, &recorded, user, &ever)?);
    }
    let all = json!({ "version": EXPORT_VERSION, "user": user, "at": Timestamp::now(), "labs": labs });
    let text = serde_json::to_vec_pretty(&all).expect("an export has only string keys");
    let unwritable = |source| ControlError::Export { file: file.to_owned(), source };
    let mut options = OpenOptions::new();
    let mut new = options.write(true).create_new(true).mode(0o600).open(file).map_err(unwritable)?;
    new.write_all(&text).and_then(|()| new.sync_all()).map_err(unwritable)
}

fn of_lab(
    store: &Store,
    lab: LabName,
    recorded: &Recorded,
    user: &UserName,
    ever: &BTreeSet<(String, String)>,
) -> Result<OfLab, ControlError> {
    let ever: BTreeSet<&str> = ever.iter().filter(|(of, _)| *of == lab.as_str()).map(|(_, vm)| vm.as_str()).collect();
    let own: Vec<_> = recorded.vms.iter().filter(|(_, known)| known.vm.owner == *user).collect();
    let mut disks: Vec<Value> = own
        .iter()
        .flat_map(|(vm, known)| known.disks.iter().map(move |disk| json!({ "vm": vm, "path": disk.path })))
        .collect();
    let aside = recorded.aside.iter().flat_map(|(vm, sets)| sets.iter().map(move |set| (vm, set)));
    for (vm, set) in aside.filter(|(_, set)| set.owner.as_deref() == Some(user.as_str())) {
        disks.extend(set.disks.iter().map(|disk| json!({ "vm": vm, "path": disk.path, "set_aside": set.since })));
    }
    let mut runs = Vec::new();
    for vm in &ever {
        for run in store.runs(&lab, vm, ALL)? {
            let end = run.end();
            runs.push(json!({ "vm": vm, "run": run.run, "job": run.job, "since": run.created_at, "ended": run.ended_at, "end": end }));
        }
    }
    let things = || recorded.objects.iter().map(|(address, recorded)| (address, &recorded.thing));
    let user_row = things().find(|(address, _)| address.kind == Kind::User && address.name == user.as_str());
    let claims = store.all_claims(&lab)?.into_iter();
    let acts = store.acts(&lab, ActsOf::User(user), ALL)?.into_iter();
    Ok(OfLab {
        user: user_row.map(|(_, thing)| serde_json::from_str(&thing.body()).unwrap_or_default()),
        roster: store.particulars(&lab)?.remove(user),
        vms: own.into_iter().map(|(name, known)| (name.clone(), json!(known.vm))).collect(),
        disks,
        runs,
        sessions: things().filter_map(|(address, thing)| session(address, thing, &ever, user)).collect(),
        permissions: things().filter_map(|(_, thing)| permission(thing, user)).collect(),
        claims: claims.filter_map(|past| claim(&past, &ever, user)).collect(),
        acts: acts.map(|past| act(past, user)).collect(),
        lab,
    })
}

fn session(address: &Address, thing: &Thing, ever: &BTreeSet<&str>, user: &UserName) -> Option<Value> {
    let Thing::Session(session) = thing else { return None };
    let vms: Vec<&VmName> = session.vms.iter().filter(|vm| ever.contains(vm.as_str())).collect();
    let extra = session.extra_time_percent.get(user);
    let (added, needs) = (session.added.users.get(user), session.added.accommodated.get(user));
    (!vms.is_empty() || extra.is_some()).then(|| {
        json!({ "session": address.name, "start": session.start, "end": session.end, "vms": vms,
                "extra_time_percent": extra, "added_seconds": added,
                "accommodation": needs })
    })
}

fn permission(thing: &Thing, user: &UserName) -> Option<Value> {
    match thing {
        Thing::Permission(permission) if permission.to == Subject::User(user.clone()) => Some(json!(permission)),
        _ => None,
    }
}

/// Theirs, or on a vm of theirs. Whom they let in, and who else asked, is not theirs to know.
fn claim(past: &PastClaim, ever: &BTreeSet<&str>, user: &UserName) -> Option<Value> {
    let is_own = past.by == user.as_str();
    // Of a grant, whom and what it joins.
    let on = past.name.rsplit_once(",vm:").map_or(past.name.as_str(), |(_, vm)| vm);
    let is_about_own = ever.contains(on);
    if !is_own && !is_about_own {
        return None;
    }
    let about = if is_about_own { on } else { "something of others" };
    let body: Option<Value> = is_about_own.then(|| serde_json::from_str(&past.body).unwrap_or_default());
    let body = body.filter(|_| matches!(past.kind.as_str(), "vm" | "power"));
    let by = if is_own { user.as_str() } else { SOMEBODY_ELSE };
    Some(json!({ "kind": past.kind, "about": about, "wants": body, "by": by, "at": past.at, "ended": past.ended_at }))
}

fn act(past: PastAct, user: &UserName) -> Value {
    let PastAct { at, who, behind, via, asked, about, verdict, apply, outcome, .. } = past;
    let Asked { command, options } = asked;
    let name = |someone: &Someone| match someone.login.as_deref() {
        Some(login) if login == user.as_str() || login == "root" => login.to_owned(),
        _ => SOMEBODY_ELSE.to_owned(),
    };
    let is_own = who.login.as_deref() == Some(user.as_str());
    let about: Vec<String> = about
        .iter()
        .filter_map(|about| match about {
            About::Person(someone) if someone.login.as_deref() == Some(user.as_str()) => Some(format!("user/{user}")),
            About::Vm { name, owner, .. } if owner.as_deref() == Some(user.as_str()) => {
                name.as_ref().map(|name| format!("vm/{name}"))
            }
            About::Thing(address) if is_own => Some(address.clone()),
            _ => None,
        })
        .collect();
    let refused = match verdict {
        Verdict::Refused { why } => Some(why),
        Verdict::Begun | Verdict::Other => None,
    };
    json!({ "at": at, "who": name(&who), "behind": behind.as_ref().map(name), "via": via, "command": command,
            "options": options, "about": about, "refused": refused, "apply": apply, "outcome": outcome })
}

/// Why somebody cannot be forgotten yet, in all labs of the site.
pub fn kept(context: &Context, user: &UserName) -> Result<Vec<Kept>, ControlError> {
    let labs = context.known_store()?.recorded_of_all()?;
    Ok(labs.iter().flat_map(|(lab, recorded)| kept_in(context, lab, recorded, user)).collect())
}

fn kept_in(context: &Context, lab: &LabName, recorded: &Recorded, user: &UserName) -> Vec<Kept> {
    let (now, lab) = (Timestamp::now(), lab.clone());
    let mut kept = Vec::new();
    let own: BTreeSet<&VmName> =
        recorded.vms.iter().filter(|(_, known)| known.vm.owner == *user).map(|(name, _)| name).collect();
    for name in &own {
        let known = &recorded.vms[*name];
        let (lab, vm) = (lab.clone(), VmName::clone(name));
        kept.push(match &known.run {
            Some(run) if !run.is_over() => Kept::Running { lab, vm },
            _ => Kept::InLab { lab, what: Address::vm(&vm) },
        });
    }
    let worked = recorded.held.keys().filter(|address| address.kind == Kind::Vm);
    let worked = worked.filter_map(|address| VmName::new(&address.name).ok()).filter(|vm| own.contains(vm));
    kept.extend(worked.map(|vm| Kept::Worked { lab: lab.clone(), vm }));
    for (address, recorded) in &recorded.objects {
        match &recorded.thing {
            Thing::Session(session) if session.window().1 > now && session.vms.iter().any(|vm| own.contains(vm)) => {
                let session_name = SessionName::new(&address.name).ok();
                kept.extend(session_name.map(|session_name| Kept::Session {
                    lab: lab.clone(),
                    session: session_name,
                    until: session.window().1,
                }));
            }
            _ if names(&recorded.body, address, user) => {
                kept.push(Kept::InLab { lab: lab.clone(), what: address.clone() });
            }
            _ => {}
        }
    }
    for (vm, sets) in &recorded.aside {
        for set in sets.iter().filter(|set| set.owner.as_deref() == Some(user.as_str())) {
            let since = set.since.parse::<Timestamp>().unwrap_or(now);
            let base = set.disks.first().and_then(|disk| disk.base.as_deref());
            let days = recorded.keep_days(vm.as_str(), base).unwrap_or(context.site.retention_days);
            let until =
                since.saturating_add(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(Timestamp::MAX);
            kept.push(Kept::Aside { lab: lab.clone(), vm: vm.clone(), until });
        }
    }
    let waiting = recorded.waiting.iter().filter(|(_, waiting)| waiting.owner == user.as_str());
    kept.extend(waiting.map(|(vm, _)| Kept::Waiting { lab: lab.clone(), vm: vm.clone() }));
    kept
}

/// Whether a thing of a lab is theirs or has them in it.
fn names(body: &str, address: &Address, user: &UserName) -> bool {
    fn has(value: &Value, name: &str) -> bool {
        match value {
            Value::String(text) => text == name,
            Value::Array(values) => values.iter().any(|value| has(value, name)),
            Value::Object(fields) => fields.iter().any(|(key, value)| key == name || has(value, name)),
            _ => false,
        }
    }
    let is_theirs = address.kind == Kind::User && address.name == user.as_str();
    is_theirs || serde_json::from_str(body).is_ok_and(|body| has(&body, user.as_str()))
}

/// Forgets somebody. What was done stays in history and audit, by somebody without a name.
pub fn erase(context: &Context, user: &UserName) -> Result<Erased, ControlError> {
    context.audited(None, forget(context, user))
}

fn forget(context: &Context, user: &UserName) -> Result<Erased, ControlError> {
    let mut store = context.known_store()?;
    let _lock = context.lock("privacy erase".to_owned())?;
    let kept = kept(context, user)?;
    if !kept.is_empty() {
        return Err(ControlError::Kept { user: user.clone(), kept });
    }
    context.audit(None, vec![Address::new(Kind::User, user)])?;
    let vms = store.vms_ever_of(user)?;
    let runs = forget_runs(context, &store, &vms)?;
    let left = store.erase(user, &vms)?;
    remove_empty_folders(context, &vms);
    Ok(Erased { runs, left, copies: copies(&context.site.state) })
}

/// Folders of runs first: a kill in between leaves rows, by which the next try finds the rest.
fn forget_runs(context: &Context, store: &Store, vms: &BTreeSet<(String, String)>) -> Result<usize, ControlError> {
    let folders = context.runs(Owner { uid: 0, gid: 0 });
    let mut number = 0;
    for (lab, vm) in vms {
        let Ok(lab) = LabName::new(lab) else { continue };
        let runs: Vec<OldRun> = store.ended_runs_of(&lab, vm)?;
        for run in &runs {
            folders.forget(&run.run)?;
            if let Some(job) = run.job {
                folders.forget_log(job, run.task, Timestamp::now())?;
            }
        }
        for batch in store.batches_without(&lab, &runs)? {
            folders.forget_batch(&batch)?;
        }
        number += runs.len();
    }
    Ok(number)
}

/// The folders of vms bear their names, and are left when their disks are gone. What holds anything is somebody else's and stays;
/// so does what a link leads to.
fn remove_empty_folders(context: &Context, vms: &BTreeSet<(String, String)>) {
    for (lab, vm) in vms {
        let Ok(name) = VmName::new(vm) else { continue };
        for root in [&context.site.storage.vms, &context.site.storage.aside] {
            let Ok(root) = root.canonicalize() else { continue };
            let folder = root.join(lab).join(&*name.file_name());
            if !folder.canonicalize().is_ok_and(|real| real == folder) {
                continue;
            }
            let sets = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
            for empty in sets.chain([folder.clone()]) {
                drop(std::fs::remove_dir(empty));
            }
        }
    }
}

/// Copies of the state that stand beside it: made by upgrades and restores, they have what it had then.
fn copies(state: &Path) -> Vec<PathBuf> {
    let name = state.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_copy = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let suffix = file.strip_prefix(&name).and_then(|rest| rest.strip_prefix('.'));
        suffix.is_some_and(|suffix| !matches!(suffix, "lock" | "checked"))
    };
    let folder = state.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    let mut copies: Vec<PathBuf> =
        folder.into_iter().flatten().flatten().map(|entry| entry.path()).filter(is_copy).collect();
    copies.sort();
    copies
}
