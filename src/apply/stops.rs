//! Guests are asked to power themselves off, all at once, and each is told of as it is confirmed to be over.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::World;
use super::batch::{ActionResult, Batch, Message, send};
use super::effects::stop_order;
use super::retry::{EffectError, with_retries};
use crate::model::id::RunId;
use crate::model::job::TaskId;
use crate::observe::{Phase, fold, is_fenced};
use crate::plan::{ActionId, Effect};
use crate::run::StopReason;
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
}

/// Asks all guests at once, then tells of each as it is confirmed.
pub(super) fn stop(batch: &Batch, world: &World<'_>, sender: &Sender<Message>) {
    let began = Instant::now();
    let mut under_way: BTreeMap<RunId, Stopping> = BTreeMap::new();
    for action in &batch.actions {
        let Effect::Stop { run, generation, task, .. } = &action.effect else { continue };
        let asked =
            with_retries(batch.kind, world, sender, || Ok(world.runs.control(run, &stop_order(*generation))?));
        match asked {
            Ok(()) => {
                let stopping = Stopping { id: action.id, run: run.clone(), task: *task };
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
    let (mut ask_at, mut pause) = (world.clock.now(), QUEUE_PAUSES.0);
    while !under_way.is_empty() {
        let asks = world.clock.now() >= ask_at;
        let gone = confirmed(&under_way, world, asks);
        if asks {
            ask_at = world.clock.now() + pause;
            pause = (pause * 2).min(QUEUE_PAUSES.1);
        }
        let results = gone.into_iter().filter_map(|(run, reason)| {
            let stopping = under_way.remove(&run)?;
            Some((stopping.id, Ok(vec![Change::Ended { run: stopping.run, reason }])))
        });
        let results: Vec<ActionResult> = results.collect();
        send(sender, batch.kind, results, began);
        if world.clock.now() >= deadline {
            break;
        }
        if !under_way.is_empty() {
            world.clock.sleep(STOP_POLL);
        }
    }
    let late = under_way.into_values().map(|stopping| {
        let detail = format!(
            "run {} has not ended {} s after it was asked to; it is left alone, and the next apply looks again",
            stopping.run,
            grace.as_secs()
        );
        (stopping.id, Err(detail))
    });
    send(sender, batch.kind, late.collect(), began);
}

/// A task that has not begun has no starter that could read its control file.
fn kill_those_that_wait(under_way: &BTreeMap<RunId, Stopping>, world: &World<'_>) -> Result<(), EffectError> {
    let unreported =
        under_way.values().filter(|stopping| world.runs.report(&stopping.run).is_ok_and(|records| records.is_empty()));
    let tasks: Vec<TaskId> = unreported.filter_map(|stopping| stopping.task).collect();
    if tasks.is_empty() {
        return Ok(());
    }
    Ok(world.scheduler.kill(&tasks)?)
}

/// The runs that are over: their starter says so, or the scheduler has no such task any more, if that means anything.
fn confirmed(
    under_way: &BTreeMap<RunId, Stopping>,
    world: &World<'_>,
    with_queue: bool,
) -> Vec<(RunId, Option<StopReason>)> {
    // The queue first: a starter writes its last record before its task leaves the queue.
    let listed = if with_queue { world.scheduler.list().ok() } else { None };
    let queue: Option<Vec<TaskId>> = listed.map(|tasks| tasks.into_iter().map(|task| task.id).collect());
    under_way
        .values()
        .filter_map(|stopping| {
            let records = world.runs.report(&stopping.run).ok()?;
            let gone = queue.as_ref().is_some_and(|queue| stopping.task.is_none_or(|task| !queue.contains(&task)));
            match fold(&records).map(|report| report.phase) {
                Some(Phase::Stopped { reason, .. }) => Some((stopping.run.clone(), Some(reason))),
                _ if gone && cannot_live(&stopping.run, world) => Some((stopping.run.clone(), None)),
                _ => None,
            }
        })
        .collect()
}

/// Whether a run whose task is gone has no guest that executes: on a cluster it may, on a host that was cut off.
fn cannot_live(run: &RunId, world: &World<'_>) -> bool {
    let is_fenced = |silence: Option<Duration>| silence.is_none_or(|silence| is_fenced(silence.as_secs(), world.site));
    world.site.scheduler.knows_every_death() || world.runs.silence(run).is_ok_and(is_fenced)
}
