//! Guests are asked to power themselves off, all at once, and each is told of as it is confirmed to be over, with its run or,
//! where it is to get other disks, without.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::World;
use super::batch::{ActionResult, Batch, Message, send};
use super::effects::stop_order;
use super::retry::{EffectError, with_retries};
use crate::error::chain;
use crate::model::id::RunId;
use crate::model::job::TaskId;
use crate::observe::{Phase, fold, is_fenced};
use crate::plan::{ActionId, Effect};
use crate::run::{Control, StopReason, Wanted};
use crate::state::Change;

/// How often a stopping run's report is read.
const STOP_POLL: Duration = Duration::from_millis(200);

/// How long after one question to the queue the next is asked, at first and at most: on a cluster questions are dear, and
/// they only tell of runs that end without a word.
const QUEUE_PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(16));

/// How long after the guest's grace period a starter may take to end, before we say that it did not.
const STOP_MARGIN: Duration = Duration::from_secs(20);

/// One run on its way down.
struct Stopping {
    id: ActionId,
    run: RunId,
    task: Option<TaskId>,
    /// Only its guest is to go.
    run_stays: bool,
    /// Why the last look could not tell whether it is over.
    unseen: Option<String>,
}

/// Asks all guests at once, then tells of each as it is confirmed.
pub(super) fn stop(batch: &Batch, world: &World<'_>, sender: &Sender<Message>) {
    let began = Instant::now();
    let mut under_way: BTreeMap<RunId, Stopping> = BTreeMap::new();
    for action in &batch.actions {
        let (run, task, order, run_stays) = match &action.effect {
            Effect::Stop { run, generation, task, .. } => (run, *task, stop_order(*generation), false),
            Effect::TurnOff { run, generation, task, .. } => (run, *task, Control::new(*generation, Wanted::Off), true),
            _ => continue,
        };
        let asked = with_retries(batch.kind, world, sender, || Ok(world.runs.control(run, &order)?));
        match asked {
            Ok(()) => {
                let stopping = Stopping { id: action.id, run: run.clone(), task, run_stays, unseen: None };
                under_way.insert(run.clone(), stopping);
            }
            Err(detail) => send(sender, batch.kind, vec![(action.id, Err(detail))], began),
        }
    }
    if let Err(detail) = with_retries(batch.kind, world, sender, || kill_those_that_wait(&under_way, world)) {
        let failed = under_way.values().map(|stopping| (stopping.id, Err(detail.clone()))).collect();
        return send(sender, batch.kind, failed, began);
    }
    let grace = Duration::from_secs(world.site.timing.grace_seconds) + STOP_MARGIN;
    let deadline = world.clock.now() + grace;
    // The queue before the reports: a starter writes its last record before its task leaves the queue.
    let (mut queue, mut pause) = (ask(world), QUEUE_PAUSES.0);
    let mut ask_at = world.clock.now() + pause;
    loop {
        let over = confirmed(&mut under_way, world, &queue);
        let results = over.into_iter().filter_map(|(run, over)| {
            let stopping = under_way.remove(&run)?;
            let changes = match over {
                Over::Guest => Vec::new(),
                Over::Run(reason) => vec![Change::Ended { run: stopping.run, reason }],
            };
            Some((stopping.id, Ok(changes)))
        });
        let results: Vec<ActionResult> = results.collect();
        send(sender, batch.kind, results, began);
        if under_way.is_empty() || world.clock.now() >= deadline {
            break;
        }
        world.clock.sleep(STOP_POLL);
        if world.clock.now() >= ask_at {
            queue = ask(world);
            pause = (pause * 2).min(QUEUE_PAUSES.1);
            ask_at = world.clock.now() + pause;
        }
    }
    let late = under_way.into_values().map(|stopping| (stopping.id, Err(still_there(&stopping, grace))));
    send(sender, batch.kind, late.collect(), began);
}

/// A task that has not begun has no starter that could read its control file.
fn kill_those_that_wait(under_way: &BTreeMap<RunId, Stopping>, world: &World<'_>) -> Result<(), EffectError> {
    let unreported = under_way.values().filter(|stopping| {
        !stopping.run_stays && world.runs.report(&stopping.run).is_ok_and(|records| records.is_empty())
    });
    let tasks: Vec<TaskId> = unreported.filter_map(|stopping| stopping.task).collect();
    if tasks.is_empty() {
        return Ok(());
    }
    Ok(world.scheduler.kill(&tasks)?)
}

fn still_there(stopping: &Stopping, grace: Duration) -> String {
    let Stopping { run, unseen, .. } = stopping;
    let seconds = grace.as_secs();
    let unseen = unseen.as_ref().map_or_else(String::new, |why| format!(", as far as can be seen ({why})"));
    format!(
        "run {run} has not ended {seconds} s after it was asked to{unseen}; it is left alone, and the next apply looks again"
    )
}

/// What has ended; of a run why, where that is known.
enum Over {
    Guest,
    Run(Option<StopReason>),
}

/// The tasks that the queue has; why not, where it does not say.
type Queue = Result<BTreeSet<TaskId>, String>;

fn ask(world: &World<'_>) -> Queue {
    let tasks = world.scheduler.list().map_err(|error| chain(&error))?;
    Ok(tasks.into_iter().map(|task| task.id).collect())
}

/// The runs that are over: their starter says so, or the scheduler has no such task any more, if that means anything.
fn confirmed(under_way: &mut BTreeMap<RunId, Stopping>, world: &World<'_>, queue: &Queue) -> Vec<(RunId, Over)> {
    let mut over = Vec::new();
    for stopping in under_way.values_mut() {
        match end_of(stopping, world, queue) {
            Ok(Some(what)) => over.push((stopping.run.clone(), what)),
            Ok(None) => stopping.unseen = None,
            Err(why) => stopping.unseen = Some(why),
        }
    }
    over
}

/// What has ended, if anything; an error where that cannot be seen.
fn end_of(stopping: &Stopping, world: &World<'_>, queue: &Queue) -> Result<Option<Over>, String> {
    let records = world.runs.report(&stopping.run).map_err(|error| chain(&error))?;
    match fold(&records).map(|report| report.phase) {
        Some(Phase::Stopped { reason, .. }) => return Ok(Some(Over::Run(Some(reason)))),
        Some(Phase::Off) if stopping.run_stays => return Ok(Some(Over::Guest)),
        _ => {}
    }
    let queue = queue.as_ref().map_err(String::clone)?;
    let is_listed = stopping.task.is_some_and(|task| queue.contains(&task));
    Ok((!is_listed && cannot_live(&stopping.run, world)?).then_some(Over::Run(None)))
}

/// Whether a run whose task is gone has no guest that executes: on a cluster it may, on a host that was cut off.
fn cannot_live(run: &RunId, world: &World<'_>) -> Result<bool, String> {
    if world.site.scheduler.knows_every_death() {
        return Ok(true);
    }
    let silence = world.runs.silence(run).map_err(|error| chain(&error))?;
    Ok(silence.is_none_or(|silence| is_fenced(silence.as_secs(), world.site)))
}
