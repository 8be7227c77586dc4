//! Where each vm of a lab stands at one moment, for those who wait for one.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{VmState, vms};
use crate::control::{Context, ControlError};
use crate::model::id::{LabName, VmName};
use crate::model::job::{Task, TaskId, TaskState};
use crate::observe::Observed;
use crate::resolve::with_claims;
use crate::run::Dropped;
use crate::scheduler::Seen;
use crate::state::RecordedVm;

/// Where a vm stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Standing {
    /// In a word.
    pub state: VmState,
    /// Why it waits, stands still, or ended.
    pub why: Option<String>,
    /// Where it runs.
    pub host: Option<String>,
    /// Of one that waits in the queue: how many of the site's are to begin before it, and it.
    pub place: Option<usize>,
}

/// All of the site that waits in the queue, in its order.
pub(super) struct Queue(Vec<TaskId>);

impl Queue {
    pub(super) fn of(observed: &Observed) -> Self {
        let all = observed.tasks.values().chain(observed.tasks_elsewhere.values());
        let waits = |task: &&Task| matches!(task.state, TaskState::Pending { .. });
        let mut waiting: Vec<TaskId> = all.filter(waits).map(|task| task.id).collect();
        waiting.sort_unstable();
        Self(waiting)
    }

    pub(super) fn place(&self, vm: &RecordedVm, observed: &Observed) -> Option<usize> {
        let run = vm.run.as_ref()?;
        let task = observed.tasks.get(&(run.batch.clone(), run.task))?;
        self.0.binary_search(&task.id).ok().map(|at| at + 1)
    }
}

/// All vms of a lab.
pub fn standings(context: &Context, lab: &LabName) -> Result<BTreeMap<VmName, Standing>, ControlError> {
    let (context, desired, recorded) = context.of_recorded_lab(lab)?;
    let observed = context.observe(&with_claims(&desired, &recorded.claims), &recorded)?;
    let waiting = Queue::of(&observed);
    let standing = |vm: super::Vm| {
        let place = recorded.vms.get(&vm.name).and_then(|known| waiting.place(known, &observed));
        (vm.name, Standing { state: vm.state, why: vm.why, host: vm.host, place })
    };
    Ok(vms(&recorded, &observed, &context.site).into_iter().map(standing).collect())
}

/// Numbers of all labs.
#[derive(Debug, Default, Serialize)]
pub struct Census {
    /// How many vms stand where.
    pub vms: BTreeMap<VmState, usize>,
    /// Frames that the filters of those that run have dropped; `None` where the site's do not count.
    pub dropped: Option<Dropped>,
}

/// How it stands in all labs.
pub fn census(context: &Context) -> Result<Census, ControlError> {
    let scheduler = context.scheduler();
    let queue = Seen::new(&*scheduler);
    let (mut census, mut sum) = (Census::default(), Dropped::default());
    // Before the queue is asked, which is asked once.
    for (lab, recorded) in context.known_store()?.recorded_of_all()? {
        let desired = crate::control::understood(lab, &recorded)?;
        let observed = context.observe_in(&queue, &desired, &recorded)?;
        for vm in vms(&recorded, &observed, &context.site) {
            *census.vms.entry(vm.state).or_default() += 1;
        }
        let dropped = observed.runs.values().filter_map(|report| report.dropped);
        sum = dropped.fold(sum, |sum, of_run| sum.and(&of_run));
    }
    census.dropped = context.site.network.filter.counts_dropped().then_some(sum);
    Ok(census)
}
