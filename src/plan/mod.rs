//! Desired, Recorded and Observed in, a `Plan` out: ordered actions with everything decided, so that `apply` has nothing
//! to choose. Pure: no clock, file, process, environment or database; what it needs comes in as a value.

mod action;
mod addresses;
mod check;
mod disks;
mod guards;
mod import;
mod life;
mod moves;
mod objects;
mod power;
mod returning;
mod saved;
mod scope;
mod spec;
mod templates;
mod vms;

pub use action::{Action, ActionId, Change, Effect, Note, Plan, PublishSource, Refusal, Touched, Verb};
pub use check::{Flaw, check};
pub use import::{FoundJob, import_job};
pub use life::{Life, is_fenced, life};
pub use objects::{as_applied, is_long, permission_address};
pub use power::{Started, job_memory_mib};
pub use saved::{SavedPlan, Today};
pub use scope::{give_up_only, refresh_only, target};
pub use spec::{Seat, run_spec};

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::address::{Address, AddressPattern};
use crate::id::{TemplateName, VmName};
use crate::observe::Observed;
use crate::resolve::{Desired, PowerState};
use crate::scheduler::TaskId;
use crate::site::Site;
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
    /// Vms that somebody starts or stops by name; their manifest stays as it is.
    pub power: &'a BTreeMap<VmName, PowerState>,
    /// A host that an admin takes for lost: the runs on it that nobody hears of are over.
    pub lost_host: Option<&'a LostHost>,
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
    planner.plan_collisions_with_other_labs();
    planner.report_strange_jobs();
    planner.plan_objects();
    planner.plan_templates();
    planner.plan_leavers();
    planner.plan_vms();
    let plan = planner.plan;
    debug_assert_eq!(check(&plan, inputs), Vec::new(), "a plan that breaks its own rules is our bug");
    plan
}

/// The plan under construction, and what it hands out on the way.
struct Planner<'a> {
    inputs: &'a Inputs<'a>,
    addresses: addresses::Addresses<'a>,
    next_action: u32,
    next_run: u64,
    current_versions: BTreeMap<TemplateName, templates::CurrentVersion>,
    moves: moves::Moves,
    /// Folders of disks that bear another name than their vm's.
    kept_folders: BTreeSet<&'a Path>,
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
            addresses: addresses::Addresses::new(&recorded.taken),
            next_action: 0,
            next_run: recorded.next_run,
            current_versions: BTreeMap::new(),
            moves: moves::Moves::new(desired, recorded),
            kept_folders: disks::kept_folders(recorded),
            open_sessions: guards::open_sessions(desired, recorded, inputs.now),
            strays: guards::strays(inputs),
            plan: Plan {
                version: Plan::VERSION,
                lab: desired.lab.clone(),
                lineage: recorded.lineage.clone(),
                serial: recorded.serial,
                changes: Vec::new(),
                drift: Vec::new(),
                waits: Vec::new(),
                notes: Vec::new(),
                refusals: Vec::new(),
                unchanged: Vec::new(),
            },
        }
    }

    /// An action that starts when all of `needs` are done.
    fn action(&mut self, needs: Vec<ActionId>, effect: Effect) -> Action {
        let id = ActionId(self.next_action);
        self.next_action += 1;
        Action { id, needs, effect }
    }

    /// Something that the plan does nothing about until something else happens.
    fn wait(&mut self, address: &Address, text: impl Into<String>) {
        self.plan.waits.push(Note { address: address.clone(), text: text.into() });
    }

    fn note(&mut self, address: &Address, text: impl Into<String>) {
        self.plan.notes.push(Note { address: address.clone(), text: text.into() });
    }

    /// Something is not as it was recorded.
    fn drift(&mut self, address: &Address, text: impl Into<String>) {
        self.plan.drift.push(Note { address: address.clone(), text: text.into() });
    }

    fn refuse(&mut self, address: &Address, text: impl Into<String>, hint: impl Into<String>) {
        self.plan.refusals.push(Refusal { address: address.clone(), text: text.into(), hint: hint.into() });
    }

    fn allowed(&self, address: &Address) -> bool {
        self.inputs.allow.iter().any(|pattern| pattern.matches(address))
    }
}
