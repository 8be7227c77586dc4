//! Why one thing is as it is, from its line in the manifest to its latest run and what the next plan would do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::origin;
use super::vms::of_phase;
use super::{Apply, Effect, Moment, View, VmState};
use crate::control::ControlError;
use crate::model::address::{Address, Kind};
use crate::model::claim::ClaimBody;
use crate::model::id::{Mac, UserName};
use crate::model::lab::Desired;
use crate::observe::{Observed, Phase};
use crate::plan::{Change, Note, Refusal};
use crate::state::{self, RecordedDisk, Store};

/// How much of the past is told.
const MOST: u32 = 5;

#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    pub address: Address,
    /// `file:line`; `None`: no line of the manifest is its own.
    pub manifest: Option<String>,
    pub recorded: RecordedAs,
    pub past: Past,
    /// What the starter of its run last said.
    pub said: Option<Said>,
    /// What a plan would do to it now.
    pub changes: Vec<Change>,
    /// What a plan has to say of it besides.
    pub notes: Vec<Note>,
    pub refusals: Vec<Refusal>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordedAs {
    Vm {
        owner: UserName,
        ip: Ipv4Addr,
        mac: Mac,
        disks: Vec<RecordedDisk>,
    },
    /// Anything else; a text where an older program wrote it in another shape than this one reads.
    Thing(Value),
    /// It was never applied.
    Nothing,
}

/// The latest of each, newest first.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Past {
    pub effects: Vec<Effect>,
    /// The last one that touched it.
    pub apply: Option<Apply>,
    pub claims: Vec<PastClaim>,
    pub runs: Vec<Run>,
}

/// What somebody asked for by command, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct PastClaim {
    pub id: i64,
    pub kind: String,
    /// As it is written.
    pub body: String,
    pub by: String,
    pub at: Moment,
    /// `None`: it stands.
    pub ended_at: Option<Moment>,
    /// Why it ended.
    pub ended: Option<String>,
}

/// One start of a vm.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub run: String,
    pub job: Option<String>,
    pub state: String,
    /// Why it ended, if it has.
    pub end: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Said {
    pub state: VmState,
    pub reason: Option<String>,
    pub host: Option<String>,
    pub vnc: Option<String>,
    pub last_heard_of: Moment,
}

impl View<'_> {
    /// Nothing can be said of what neither the manifest nor the state has ever heard of.
    pub fn explain(&self, address: &Address) -> Result<Explanation, ControlError> {
        let store = self.context.store_if_any()?;
        self.refuse_unknown(address, store.as_ref())?;
        let manifest = origin::place(&self.context.lab_folder, &self.desired, address);
        let past = store.map(|store| self.past(&store, address)).transpose()?.unwrap_or_default();
        let observed = Arc::unwrap_or_clone(self.observed()?);
        let said = self.said(address, &observed);
        let (desired, recorded) = (&self.desired, &self.recorded);
        let plan = self.context.plan_from(observed, None, desired, recorded, &[], &BTreeMap::new())?;
        let notes = plan.drift.into_iter().chain(plan.waits).chain(plan.notes);
        Ok(Explanation {
            address: address.clone(),
            manifest,
            recorded: self.recorded_as(address),
            past,
            said,
            changes: plan.changes.into_iter().filter(|change| change.address == *address).collect(),
            notes: notes.filter(|note| note.address == *address).collect(),
            refusals: plan.refusals.into_iter().filter(|refusal| refusal.address == *address).collect(),
        })
    }

    fn refuse_unknown(&self, address: &Address, past: Option<&Store>) -> Result<(), ControlError> {
        let wanted = addresses(&self.desired);
        let is_known = wanted.contains(address)
            || self.recorded.objects.contains_key(address)
            || (address.kind == Kind::Vm && self.recorded.vms.contains_key(address.name.as_str()));
        let had = |store: &Store| store.last_apply_of(&self.desired.lab, &address.to_string());
        if is_known || past.map(had).transpose()?.flatten().is_some() {
            return Ok(());
        }
        let likeness = |known: &Address| strsim::jaro_winkler(&known.name, &address.name);
        let near = wanted.into_iter().filter(|known| known.kind == address.kind);
        let near = near.max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
        Err(ControlError::Unheard { lab: self.desired.lab.clone(), address: address.clone(), near })
    }

    fn recorded_as(&self, address: &Address) -> RecordedAs {
        if let Some(vm) = self.recorded.vms.get(address.name.as_str()).filter(|_| address.kind == Kind::Vm) {
            return RecordedAs::Vm { owner: vm.vm.owner.clone(), ip: vm.ip, mac: vm.mac, disks: vm.disks.clone() };
        }
        let Some(recorded) = self.recorded.objects.get(address) else { return RecordedAs::Nothing };
        let value = serde_json::from_str(&recorded.body).ok().filter(Value::is_object);
        RecordedAs::Thing(value.unwrap_or_else(|| recorded.body.clone().into()))
    }

    fn past(&self, store: &Store, address: &Address) -> Result<Past, ControlError> {
        let (lab, name) = (&self.desired.lab, address.to_string());
        let effects = store.effects(lab, &name, MOST)?;
        let apply = match store.last_apply_of(lab, &name)? {
            Some(id) => store.past_apply(lab, id)?.map(Apply::from),
            None => None,
        };
        let (mut claims, mut runs) = (Vec::new(), Vec::new());
        if address.kind == Kind::Vm {
            claims = store.claims_on(lab, &address.name, MOST)?;
            runs = store.runs(lab, &address.name, MOST)?;
        }
        Ok(Past {
            effects: effects.into_iter().map(|effect| Effect::of_address(effect, name.clone())).collect(),
            apply,
            claims: claims.into_iter().map(PastClaim::from).collect(),
            runs: runs.into_iter().map(Run::from).collect(),
        })
    }

    fn said(&self, address: &Address, observed: &Observed) -> Option<Said> {
        let vm = self.recorded.vms.get(address.name.as_str()).filter(|_| address.kind == Kind::Vm);
        let report = observed.runs.get(&vm?.run.as_ref()?.run)?;
        let reason = match &report.phase {
            Phase::Paused { reason } | Phase::CutOff { reason } => Some(reason.clone()),
            phase => phase.end(),
        };
        let (host, vnc) = report.mapping.clone().map(|mapping| (mapping.host, mapping.vnc)).unzip();
        Some(Said { state: of_phase(&report.phase), reason, host, vnc, last_heard_of: report.last_beat.into() })
    }
}

/// All that the lab asks for.
fn addresses(desired: &Desired) -> BTreeSet<Address> {
    fn of<'n, N: ToString + 'n>(kind: Kind, names: impl Iterator<Item = &'n N>) -> impl Iterator<Item = Address> {
        names.map(move |name| Address::new(kind, name.to_string()))
    }
    of(Kind::UserGroup, desired.user_groups.keys())
        .chain(of(Kind::User, desired.users.keys()))
        .chain(of(Kind::VmGroup, desired.vm_groups.keys()))
        .chain(of(Kind::Template, desired.templates.keys()))
        .chain(of(Kind::Vm, desired.vms.keys()))
        .chain(of(Kind::Session, desired.sessions.keys()))
        .collect()
}

impl From<state::PastClaim> for PastClaim {
    fn from(claim: state::PastClaim) -> Self {
        let state::PastClaim { id, kind, body, by, at, ended_at, ended, .. } = claim;
        let body = if kind == ClaimBody::ACCOMMODATION { ClaimBody::shown(&kind, &body).to_string() } else { body };
        Self { id, kind, body, by, at: Moment::read(at), ended_at: ended_at.map(Moment::read), ended }
    }
}

impl From<state::PastRun> for Run {
    fn from(past: state::PastRun) -> Self {
        let end = past.end();
        Self { run: past.run, job: past.job.map(|job| format!("{job}.{}", past.task)), state: past.state, end }
    }
}
