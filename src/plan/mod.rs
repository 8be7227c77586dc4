//! Desired, Recorded and Observed in, a `Plan` out: ordered actions with everything decided, so that `apply` has nothing
//! to choose. Pure: no clock, file, process, environment or database; what it needs comes in as a value.

mod accommodations;
mod action;
mod addresses;
mod asks;
mod bases;
mod capacity;
mod check;
mod claims;
mod clocks;
mod disks;
mod ground;
mod guards;
mod held;
mod import;
mod moves;
mod objects;
mod power;
mod quotas;
mod reason;
mod reimage;
mod remark;
mod returning;
mod rights;
mod saved;
mod scope;
mod seeds;
mod spec;
mod storage;
mod templates;
mod unclean;
mod upkeep;
mod vms;

pub use action::{Action, ActionId, Change, Effect, Held, Note, Plan, PublishSource, Refusal, Touched, Verb};
pub use check::{Flaw, check};
pub use clocks::{Times, clock_in, times_of};
pub use ground::{DiskLoss, Disturbance, Ground, Leaves, SessionLoss};
pub use held::refuse_held;
pub use import::{FoundJob, import_job};
pub use objects::{as_applied, is_long, permission_address};
pub use reason::{Base, Reason};
pub use reimage::place_back;
pub use remark::{Already, Answer, NotDone, Remark};
pub use saved::{SavedPlan, Today};
pub use scope::{give_up_only, refresh_only, target, unknown_addresses};
pub use spec::{Seat, run_spec};
pub use upkeep::upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::address::{Address, AddressPattern, Kind};
use crate::model::id::{TemplateName, VmName};
use crate::model::job::TaskId;
use crate::model::lab::Desired;
use crate::model::site::Site;
use crate::observe::Observed;
use crate::state::Recorded;

/// All that a plan depends on.
pub struct Inputs<'a> {
    pub desired: &'a Desired,
    pub recorded: &'a Recorded,
    pub observed: &'a Observed,
    pub site: &'a Site,
    /// The controller's clock: sessions are open or not.
    pub now: jiff::Timestamp,
    /// What the user named on the command line as meant, although a guard stands before it.
    pub allow: &'a [AddressPattern],
    /// Vms that somebody asks something of; their manifest stays as it is.
    pub asks: &'a BTreeMap<VmName, Ask>,
    /// Who asks for this plan.
    pub by: &'a str,
    /// A host that an admin takes for lost: the runs on it that nobody hears of are over.
    pub lost_host: Option<&'a LostHost>,
}

/// What somebody asks of one vm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub wish: Wish,
    /// The vm itself was named, not its family or a pattern that it fits: whoever does that means it, in an open session too.
    pub by_name: bool,
    /// Who asks, where that is not who asks for the plan: several people's asks may be one plan.
    pub by: Option<String>,
    /// What the client calls this ask, so that it is known when it comes again.
    pub key: Option<String>,
    /// The CD from which a system is to be installed, in the drive for this one run.
    pub cdrom: Option<PathBuf>,
}

impl Ask {
    /// Of who asks for the plan.
    pub fn new(wish: Wish, by_name: bool) -> Self {
        Self { wish, by_name, by: None, key: None, cdrom: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    Start,
    Stop,
    Restart,
    /// New disks; the old ones are set aside.
    Reimage,
    /// The disks that were set aside last, in place of those of now.
    PutBack,
}

impl Wish {
    /// Whether other disks are asked for, and nothing else.
    pub fn is_about_disks(self) -> bool {
        matches!(self, Self::Reimage | Self::PutBack)
    }

    /// As it is typed.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reimage => "reimage",
            Self::PutBack => "reimage --undo",
        }
    }
}

/// A host that never comes back, or that must be taken for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostHost {
    pub name: String,
    /// It is without power for certain, so that nothing on it can still write.
    pub powered_off: bool,
}

impl LostHost {
    /// Whether a host of this name is meant: the batch system may write names with their domain, people without.
    fn is(&self, host: &str) -> bool {
        let first = |name: &str| name.split('.').next().map(str::to_owned);
        let one_is_short = !host.contains('.') || !self.name.contains('.');
        host == self.name || (one_is_short && first(host) == first(&self.name))
    }
}

/// What must be done, in which order, and why.
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let mut planner = Planner::new(inputs);
    planner.guard_freeze();
    planner.guard_rosters();
    planner.guard_sessions();
    planner.guard_accommodations();
    planner.guard_held_exams();
    planner.note_new_sessions();
    planner.plan_collisions_with_other_labs();
    planner.report_strange_jobs();
    planner.plan_objects();
    planner.plan_templates();
    planner.plan_leavers();
    planner.plan_vms();
    planner.guard_storage();
    planner.guard_quotas();
    planner.guard_share();
    planner.guard_capacity();
    planner.plan_gone_objects();
    let whole = planner.plan.deciding_rights();
    let mut plan = scope::hold_back(planner.plan);
    plan.tell_rights(inputs, whole);
    plan.answers = asks::answers(&plan, inputs);
    refuse_flaws(plan, inputs)
}

/// A plan that breaks a rule of all plans is our bug, and nothing of it is done: not even the part that looks sound.
pub fn refuse_flaws(mut plan: Plan, inputs: &Inputs<'_>) -> Plan {
    let flaws = check(&plan, inputs);
    if let Some(first) = flaws.first() {
        plan.refusals.push(Refusal {
            address: Address::new(Kind::Lab, &plan.lab),
            why: Ground::Bug { flaw: first.to_string(), more: flaws.len() - 1 },
            holds: Held::Everything,
        });
    }
    plan
}

/// The plan under construction, and what it hands out on the way.
struct Planner<'a> {
    inputs: &'a Inputs<'a>,
    addresses: addresses::Addresses<'a>,
    next_action: u32,
    next_run: u64,
    current_versions: BTreeMap<TemplateName, templates::CurrentVersion>,
    /// What records users and vm groups that are new or edited: their vms come after them.
    pending: BTreeMap<Address, ActionId>,
    moves: moves::Moves,
    /// Folders of disks that bear another name than their vm's.
    kept_folders: BTreeSet<&'a Path>,
    /// Places that disks which come back get.
    given_back: BTreeSet<PathBuf>,
    open_sessions: Vec<guards::OpenSession>,
    /// Jobs of ours that belong to no run we know.
    strays: Vec<TaskId>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(inputs: &'a Inputs<'a>) -> Self {
        let Inputs { desired, recorded, .. } = inputs;
        Self {
            inputs,
            addresses: addresses::Addresses::new(recorded),
            next_action: 0,
            next_run: recorded.next_run,
            current_versions: BTreeMap::new(),
            pending: BTreeMap::new(),
            moves: moves::Moves::new(desired, recorded),
            kept_folders: disks::kept_folders(recorded),
            given_back: BTreeSet::new(),
            open_sessions: guards::open_sessions(desired, recorded, inputs.now),
            strays: guards::strays(inputs),
            plan: Plan::nothing(desired.lab.clone(), recorded),
        }
    }

    /// An action that starts when all of `needs` are done.
    fn action(&mut self, needs: Vec<ActionId>, effect: impl Into<Effect>) -> Action {
        let id = ActionId(self.next_action);
        self.next_action += 1;
        Action { id, needs, effect: effect.into() }
    }

    /// Something that the plan does nothing about until something else happens.
    fn wait(&mut self, address: &Address, what: Remark) {
        self.plan.waits.push(Note { address: address.clone(), what });
    }

    fn note(&mut self, address: &Address, what: Remark) {
        self.plan.notes.push(Note { address: address.clone(), what });
    }

    /// Something is not as it was recorded.
    fn drift(&mut self, address: &Address, what: Remark) {
        self.plan.drift.push(Note { address: address.clone(), what });
    }

    fn refuse(&mut self, address: &Address, why: Ground) {
        self.refuse_with(address, why, []);
    }

    /// The same, where it holds back other things too. One about the lab or the site holds back everything.
    fn refuse_with(&mut self, address: &Address, why: Ground, others: impl IntoIterator<Item = Address>) {
        let holds = match address.kind {
            Kind::Lab | Kind::Site => Held::Everything,
            _ => Held::Only(std::iter::once(address.clone()).chain(others).collect()),
        };
        self.plan.refusals.push(Refusal { address: address.clone(), why, holds });
    }

    fn allowed(&self, address: &Address) -> bool {
        self.inputs.allow.iter().any(|pattern| pattern.matches(address))
    }
}
