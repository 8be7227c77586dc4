//! How a session stands: each machine of those who take part, and the time that faults have taken from them. In: the lab as seen,
//! and what the starters of all its runs said. Out: values; nothing here changes anything.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::view::{Moment, View, VmState, vms};
use super::lost::lost;
use super::people::{Sitter, Sitting, sitters};
use super::{ControlError, session_of};
use crate::control::Context;
use crate::model::id::{LabName, RunId, SessionName, VmName};
use crate::model::lab::{Session, SessionState};
use crate::run::{Dropped, Event, Lock, PAUSED_BY_SESSION, Record, read_report};
use crate::state::Store;

/// The latest runs of a machine that are looked at.
const RUNS_MAX: u32 = 50;

/// How a session stands.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Which one it is.
    pub session: SessionName,
    /// How this moment stands to it.
    pub state: SessionState,
    /// How many machines are to be ready: of those whose time is not over.
    pub wanted: usize,
    /// How many of these are.
    pub ready: usize,
    /// Whether all are ready, or none has to be yet.
    pub is_ready: bool,
    /// Each machine, by its owner.
    pub machines: Vec<Machine>,
}

/// Somebody's machine in it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// Whose it is, and how their time stands.
    #[serde(flatten)]
    pub sitter: Sitter,
    /// Which one it is.
    pub vm: VmName,
    /// Where it stands.
    pub machine: VmState,
    /// Why it is not what was wanted of it.
    pub why: Option<String>,
    /// Where it runs.
    pub host: Option<String>,
    /// Whether its owner could work with it, were it their time.
    pub is_ready: bool,
    /// How long its owner could not work in their own time, in seconds by cause.
    pub lost_seconds: BTreeMap<String, u64>,
    /// When its starter was heard of last, by its host's clock.
    pub last_seen: Option<Moment>,
    /// Whether its screen is shut, and why; none of one that is open, or off.
    pub locked: Option<Lock>,
    /// Of which time that was left its guest was warned last, in seconds.
    pub warned_seconds: Option<u64>,
    /// How many look at its screen.
    pub viewers: Option<u32>,
    /// Frames that its filter has dropped, by reason.
    pub dropped: Option<Dropped>,
}

/// For those who may plan and apply the lab.
pub fn status(view: &View<'_>, name: &SessionName) -> Result<Status, ControlError> {
    let sitters = sitters(view, name)?;
    let lab = view.applied()?;
    let (session, now) = (session_of(&lab, name)?, Timestamp::now());
    let look = Look { view, session, now, store: view.context.store_if_any()? };
    let machines: BTreeMap<VmName, _> = vms(&view.recorded, &*view.observed()?, &view.context.site)
        .into_iter()
        .map(|vm| (vm.name.clone(), vm))
        .collect();
    let mut rows = Vec::new();
    for sitter in sitters {
        for name in &sitter.vms {
            if let Some(vm) = machines.get(name) {
                rows.push(look.machine(&sitter, vm)?);
            }
        }
    }
    let state = session.state(now);
    let wanted = || rows.iter().filter(|row| row.sitter.state != Sitting::Over);
    let (wanted, ready) = (wanted().count(), wanted().filter(|row| row.is_ready).count());
    let is_due = session.boots() && matches!(state, SessionState::Preparing | SessionState::Running);
    Ok(Status { session: name.clone(), state, wanted, ready, is_ready: !is_due || ready == wanted, machines: rows })
}

struct Look<'a> {
    view: &'a View<'a>,
    session: &'a Session,
    now: Timestamp,
    store: Option<Store>,
}

impl Look<'_> {
    fn machine(&self, sitter: &Sitter, vm: &super::super::view::Vm) -> Result<Machine, ControlError> {
        let reports = match &self.store {
            Some(store) => reports(self.view.context, store, &self.view.desired.lab, &vm.name, self.session.opens())?,
            None => Vec::new(),
        };
        let current = self.view.recorded.vms.get(&vm.name).and_then(|known| known.run.as_ref());
        let current = current.filter(|run| !run.is_over()).map(|run| &run.run);
        let of_current = reports.iter().find(|(run, _)| Some(run) == current);
        let records = of_current.map(|(_, records)| records.as_slice()).unwrap_or_default();
        let last = |of: fn(&Event) -> bool| records.iter().rev().map(|record| &record.event).find(|event| of(event));
        let locked = match last(|event| matches!(event, Event::Locked { .. } | Event::Opened)) {
            Some(Event::Locked { reason }) => Some(reason.clone()),
            _ => None,
        };
        let warned_seconds = match last(|event| matches!(event, Event::Warned { .. })) {
            Some(Event::Warned { left_seconds, .. }) => Some(*left_seconds),
            _ => None,
        };
        let viewers = records.iter().rev().find_map(|record| match &record.event {
            Event::LookedAt { viewers, .. } => Some(*viewers),
            _ => None,
        });
        let dropped = records.iter().rev().find_map(|record| match &record.event {
            Event::Dropped(dropped) => Some(*dropped),
            _ => None,
        });
        let end = self.session.end_of(&sitter.user).unwrap_or(self.now).min(self.now);
        let all: Vec<&[Record]> = reports.iter().map(|(_, records)| records.as_slice()).collect();
        let own = (self.session.start_of(&sitter.user), end);
        let pauses = self.session.pauses_of(&sitter.user);
        let boots = self.session.boots();
        Ok(Machine {
            vm: vm.name.clone(),
            machine: vm.state,
            why: vm.why.clone(),
            host: vm.host.clone(),
            is_ready: vm.state == VmState::Ready || is_paused_by_session(vm),
            lost_seconds: if boots || !all.is_empty() { lost(&all, own, &pauses) } else { BTreeMap::new() },
            last_seen: records.last().map(|record| record.at.into()),
            locked,
            warned_seconds,
            viewers,
            dropped,
            sitter: sitter.clone(),
        })
    }
}

fn is_paused_by_session(vm: &super::super::view::Vm) -> bool {
    matches!(vm.state, VmState::Suspended | VmState::Paused) && vm.why.as_deref() == Some(PAUSED_BY_SESSION)
}

/// What the starters of a machine's runs said, of those that were not over before `since`, oldest first.
pub(super) fn reports(
    context: &Context,
    store: &Store,
    lab: &LabName,
    vm: &VmName,
    since: Timestamp,
) -> Result<Vec<(RunId, Vec<Record>)>, ControlError> {
    let is_meant = |ended: Option<&str>| ended.and_then(|at| at.parse().ok()).is_none_or(|at: Timestamp| at >= since);
    let mut reports = Vec::new();
    for past in store.runs(lab, vm.as_str(), RUNS_MAX)?.into_iter().rev() {
        let Ok(run) = past.run.parse::<RunId>() else { continue };
        if is_meant(past.ended_at.as_deref()) {
            // One whose folder was cleared away says nothing more.
            let folder = context.site.storage.runs.join(run.to_string());
            reports.push((run, read_report(&folder).unwrap_or_default()));
        }
    }
    Ok(reports)
}
