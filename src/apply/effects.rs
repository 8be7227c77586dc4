//! What each effect does to the world, in batches: many disks of one base, many reservations in one conversation, many
//! runs in one array job.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::executor::{Message, Result1};
use super::{BatchKind, World, chain};
use crate::disks::DiskOrigin;
use crate::host::dhcp::Reservation;
use crate::id::RunId;
use crate::observe::{Phase, fold};
use crate::plan::{Action, ActionId, Effect, Plan, PublishSource};
use crate::run::{Batch as RunBatch, BatchId, Control, RunFileError, RunSpec, StopReason, Wanted};
use crate::scheduler::{JobId, Submission, Task, TaskId};
use crate::state::{Change, PublishedDisk, RecordedDisk, TemplateVersion};

/// How often a stopping run's report is read.
const STOP_POLL: Duration = Duration::from_millis(200);

/// How long after one question to the queue the next is asked, at first and at most: on a cluster questions are dear, and
/// they only tell of runs that end without a word.
const QUEUE_PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(16));

/// How long after the guest's grace period a starter may take to end, before we say that it did not.
const STOP_MARGIN: Duration = Duration::from_secs(20);

/// When the queue is asked for a job whose submit went wrong: a busy one shows it late.
const LOOK_UP_PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

/// Effects that are carried out together.
pub(super) struct Batch {
    pub(super) kind: BatchKind,
    pub(super) actions: Vec<Action>,
}

pub(super) fn kind(effect: &Effect) -> BatchKind {
    match effect {
        Effect::RecordObject { .. }
        | Effect::RecordVm { .. }
        | Effect::ForgetVm { .. }
        | Effect::RecordImage { .. }
        | Effect::RenameVm { .. }
        | Effect::RenameTemplate { .. }
        | Effect::Adopt { .. }
        | Effect::RecordEnd { .. } => BatchKind::Record,
        Effect::Fence { .. } => BatchKind::Fence,
        Effect::Publish { .. } => BatchKind::Publish,
        Effect::MakeDisk { .. } => BatchKind::MakeDisks,
        Effect::SetAside { .. } => BatchKind::SetAside,
        Effect::Reserve { .. } => BatchKind::Reserve,
        Effect::Release { .. } => BatchKind::Release,
        Effect::Stop { .. } => BatchKind::Stop,
        Effect::Start { .. } => BatchKind::Start,
    }
}

/// For the journal and for messages.
pub fn name(effect: &Effect) -> &'static str {
    match effect {
        Effect::RecordObject { .. } => "record",
        Effect::RecordVm { .. } => "record the vm",
        Effect::ForgetVm { .. } => "forget the vm",
        Effect::RecordImage { .. } => "record the image",
        Effect::RenameVm { .. } | Effect::RenameTemplate { .. } => "record the new name",
        Effect::Adopt { .. } => "adopt the job",
        Effect::RecordEnd { .. } => "record the end of the run",
        Effect::Fence { .. } => "fence the lost run off",
        Effect::Publish { .. } => "publish the image",
        Effect::MakeDisk { .. } => "make the disk",
        Effect::SetAside { .. } => "set the disks aside",
        Effect::Reserve { .. } => "reserve the address",
        Effect::Release { .. } => "release the address",
        Effect::Stop { .. } => "stop the vm",
        Effect::Start { .. } => "submit the run",
    }
}

/// Effects of one kind go together only when their shapes are equal.
pub(super) fn shape(effect: &Effect) -> String {
    match effect {
        Effect::MakeDisk { origin: DiskOrigin::Derive { base }, .. } => format!("derive {}", base.display()),
        Effect::MakeDisk { origin: DiskOrigin::Copy { image }, .. } => format!("copy {}", image.display()),
        Effect::MakeDisk { origin: DiskOrigin::Empty { size_bytes }, .. } => format!("empty {size_bytes}"),
        Effect::Publish { template, version, .. } => format!("{template} {version}"),
        Effect::Start { memory_mib, .. } => memory_mib.to_string(),
        _ => String::new(),
    }
}

/// What must be recorded before the batch acts.
pub(super) fn intended(batch: &Batch) -> Vec<Change> {
    let moves = batch.actions.iter().filter_map(|action| match &action.effect {
        Effect::SetAside { disks, folder, .. } => Some((disks, folder)),
        _ => None,
    });
    let mut changes: Vec<Change> = moves
        .flat_map(|(disks, folder)| disks.iter().map(move |path| (path, folder)))
        .filter_map(|(path, folder)| Some(Change::Asiding { path: path.clone(), to: folder.join(path.file_name()?) }))
        .collect();
    // A disk that is made and not recorded would be lost sight of: it is recorded first, as one that is not there yet.
    changes.extend(batch.actions.iter().filter_map(|action| match &action.effect {
        Effect::MakeDisk { vm, disk, .. } => Some(Change::PutDisk { vm: vm.clone(), disk: disk.clone() }),
        _ => None,
    }));
    changes.extend(intended_runs(batch));
    changes
}

fn intended_runs(batch: &Batch) -> Vec<Change> {
    let Some(id) = batch_id(batch) else { return Vec::new() };
    let starts = batch.actions.iter().filter_map(|action| match &action.effect {
        Effect::Start { spec, started, .. } => Some((spec, started)),
        _ => None,
    });
    (1..)
        .zip(starts)
        .map(|(task, (spec, started))| Change::PutRun {
            run: spec.run.clone(),
            vm: spec.vm.clone(),
            generation: spec.generation,
            batch: id.clone(),
            task,
            started: started.clone(),
        })
        .collect()
}

/// A batch of starts is named after its first run.
fn batch_id(batch: &Batch) -> Option<BatchId> {
    match &batch.actions.first()?.effect {
        Effect::Start { spec, .. } => Some(BatchId(spec.run.clone())),
        _ => None,
    }
}

/// What the batch system's books say of tasks whose starters said nothing.
pub(super) type Books = BTreeMap<(BatchId, u32), String>;

/// One look at the books, and only if a run ended without a word. They explain, and nothing waits for them: where they
/// cannot be read, the end is recorded as it is known.
pub(super) fn books(plan: &Plan, world: &World<'_>) -> Books {
    let first = plan.actions().find_map(|(_, action)| match &action.effect {
        Effect::RecordEnd { batch, reason: None, .. } => Some(batch),
        _ => None,
    });
    let Some(batch) = first else { return Books::new() };
    let site = batch.0.site();
    let ended = world.scheduler.ended(&BatchId::job_names(site, world.lab)).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot see how runs ended");
        Vec::new()
    });
    let of_lab = ended.into_iter().filter_map(|ended| {
        let (lab, batch) = BatchId::from_job_name(&ended.name, site)?;
        (lab == *world.lab).then_some(((batch, ended.id.task), ended.wrong?))
    });
    of_lab.collect()
}

/// Effects on our records alone: done by being recorded.
pub(super) fn records(batch: &Batch, books: &Books) -> Vec<Result1> {
    batch.actions.iter().map(|action| (action.id, Ok(vec![record(&action.effect, books)]))).collect()
}

fn record(effect: &Effect, books: &Books) -> Change {
    match effect {
        Effect::RecordObject { address, body: Some(body) } => {
            Change::PutObject { address: address.clone(), body: body.clone() }
        }
        Effect::RecordObject { address, body: None } => Change::DropObject { address: address.clone() },
        Effect::RecordVm { name, vm, ip, mac, version } => {
            Change::PutVm { name: name.clone(), vm: vm.clone(), ip: *ip, mac: *mac, version: *version }
        }
        Effect::RenameVm { from, to } => Change::RenameVm { from: from.clone(), to: to.clone() },
        Effect::RenameTemplate { from, to } => Change::RenameTemplate { from: from.clone(), to: to.clone() },
        Effect::ForgetVm { name } => Change::DropVm { name: name.clone() },
        Effect::RecordImage { template, version, slot, bytes, mtime_ns } => Change::TouchVersion {
            template: template.clone(),
            version: *version,
            slot: *slot,
            bytes: *bytes,
            mtime_ns: *mtime_ns,
        },
        Effect::Adopt { run, task, .. } => Change::Submitted { run: run.clone(), job: task.job },
        Effect::RecordEnd { run, reason: Some(reason), .. } => {
            Change::Ended { run: run.clone(), reason: Some(reason.clone()) }
        }
        Effect::RecordEnd { run, batch, task, reason: None, .. } => {
            let message = books.get(&(batch.clone(), *task)).cloned();
            Change::Ended { run: run.clone(), reason: message.map(|message| StopReason::Scheduler { message }) }
        }
        outside => unreachable!("{} is an effect on the outside", name(outside)),
    }
}

/// Acts, and sends one result per action.
pub(super) fn run(batch: &Batch, world: &World<'_>, sender: &Sender<Message>) {
    let began = Instant::now();
    let results = match batch.kind {
        BatchKind::Stop => return stop(batch, world, sender),
        BatchKind::Record => records(batch, &Books::new()),
        BatchKind::Fence => fence(batch, world),
        BatchKind::Publish => each(batch, |effect| publish(effect, world)),
        BatchKind::MakeDisks => make_disks(batch, world),
        BatchKind::SetAside => each(batch, |effect| set_aside(effect, world)),
        BatchKind::Reserve => reservations(batch, |list| world.dhcp.reserve(list)),
        BatchKind::Release => reservations(batch, |list| world.dhcp.release(list)),
        BatchKind::Start => start(batch, world),
    };
    send(sender, results, began);
}

fn send(sender: &Sender<Message>, results: Vec<Result1>, began: Instant) {
    if !results.is_empty() {
        // The loop waits for every batch; if it ended on an error of the state, the journal's open lines tell the next apply.
        drop(sender.send(Message::Results(results, began.elapsed())));
    }
}

fn each(batch: &Batch, act: impl Fn(&Effect) -> Result<Vec<Change>, String>) -> Vec<Result1> {
    batch.actions.iter().map(|action| (action.id, act(&action.effect))).collect()
}

/// The same answer for every action of a batch that is carried out in one piece.
fn all(batch: &Batch, result: Result<(), String>) -> Vec<Result1> {
    batch.actions.iter().map(|action| (action.id, result.clone().map(|()| Vec::new()))).collect()
}

/// The order comes first, so that a starter that comes back reads it. Then the jobs are asked to go: one whose host is not
/// heard of stays in the queue until it is, which is no error.
fn fence(batch: &Batch, world: &World<'_>) -> Vec<Result1> {
    let mut results = each(batch, |effect| fence_off(effect, world));
    let tasks: Vec<TaskId> = batch.actions.iter().filter_map(|action| fenced_task(&action.effect)).collect();
    let killed = if tasks.is_empty() { Ok(()) } else { world.scheduler.kill(&tasks).map_err(|error| chain(&error)) };
    if let Err(detail) = killed {
        for (action, (_, result)) in batch.actions.iter().zip(&mut results) {
            if result.is_ok() && fenced_task(&action.effect).is_some() {
                *result = Err(detail.clone());
            }
        }
    }
    results
}

fn fenced_task(effect: &Effect) -> Option<TaskId> {
    let Effect::Fence { task, .. } = effect else { return None };
    *task
}

fn fence_off(effect: &Effect, world: &World<'_>) -> Result<Vec<Change>, String> {
    let Effect::Fence { run, generation, .. } = effect else { return Ok(Vec::new()) };
    world.runs.control(run, &stop_order(*generation)).map_err(|error| chain(&error))?;
    Ok(Vec::new())
}

fn publish(effect: &Effect, world: &World<'_>) -> Result<Vec<Change>, String> {
    let Effect::Publish { template, version, disks: sources } = effect else { return Ok(Vec::new()) };
    let disks = sources.iter().map(|source| publish_disk(source, world)).collect::<Result<Vec<_>, _>>()?;
    let content = TemplateVersion { disks };
    Ok(vec![Change::PutVersion { template: template.clone(), version: *version, content }])
}

fn publish_disk(source: &PublishSource, world: &World<'_>) -> Result<PublishedDisk, String> {
    let published =
        world.disks.publish(&source.image, &source.path, source.sha256.as_deref()).map_err(|error| chain(&error))?;
    Ok(PublishedDisk {
        path: source.path.clone(),
        sha256: published.sha256,
        source: source.image.clone(),
        source_bytes: published.source_bytes,
        source_mtime_ns: published.source_mtime_ns,
    })
}

fn make_disks(batch: &Batch, world: &World<'_>) -> Vec<Result1> {
    let wanted: Vec<(ActionId, &crate::id::VmName, &RecordedDisk, &DiskOrigin)> = batch
        .actions
        .iter()
        .filter_map(|action| match &action.effect {
            Effect::MakeDisk { vm, disk, origin } => Some((action.id, vm, disk, origin)),
            _ => None,
        })
        .collect();
    let Some((.., origin)) = wanted.first() else { return Vec::new() };
    let paths: Vec<PathBuf> = wanted.iter().map(|(_, _, disk, _)| disk.path.clone()).collect();
    let made = world.disks.make(origin, &paths);
    wanted
        .into_iter()
        .zip(made)
        .map(|((id, vm, disk, _), made)| {
            let disk = RecordedDisk { made: true, ..disk.clone() };
            let change = || vec![Change::PutDisk { vm: vm.clone(), disk: disk.clone() }];
            (id, made.map(|()| change()).map_err(|error| chain(&error)))
        })
        .collect()
}

fn set_aside(effect: &Effect, world: &World<'_>) -> Result<Vec<Change>, String> {
    let Effect::SetAside { disks: paths, folder, lost, .. } = effect else { return Ok(Vec::new()) };
    let moved = world.disks.set_aside(paths, folder).map_err(|error| chain(&error))?;
    let moved = paths.iter().cloned().zip(moved).map(|(path, aside)| Change::Aside { path, aside });
    Ok(moved.chain(lost.iter().map(|path| Change::DropDisk { path: path.clone() })).collect())
}

fn reservations<E: std::error::Error>(batch: &Batch, act: impl Fn(&[Reservation]) -> Result<(), E>) -> Vec<Result1> {
    let list: Vec<Reservation> = batch
        .actions
        .iter()
        .filter_map(|action| match &action.effect {
            Effect::Reserve { reservation, .. } | Effect::Release { reservation, .. } => Some(reservation.clone()),
            _ => None,
        })
        .collect();
    all(batch, act(&list).map_err(|error| chain(&error)))
}

/// Writes every run's folder and the batch's index, then submits one array job.
fn start(batch: &Batch, world: &World<'_>) -> Vec<Result1> {
    let starts: Vec<(ActionId, &RunSpec, Option<&RunId>, u64)> = batch
        .actions
        .iter()
        .filter_map(|action| match &action.effect {
            Effect::Start { spec, supersedes, memory_mib, .. } => {
                Some((action.id, &**spec, supersedes.as_ref(), *memory_mib))
            }
            _ => None,
        })
        .collect();
    match submit(&starts, batch_id(batch), world) {
        Err(detail) => starts.iter().map(|(id, ..)| (*id, Err(detail.clone()))).collect(),
        Ok(job) => {
            let submitted = |spec: &RunSpec| vec![Change::Submitted { run: spec.run.clone(), job }];
            starts.iter().map(|(id, spec, ..)| (*id, Ok(submitted(spec)))).collect()
        }
    }
}

fn submit(
    starts: &[(ActionId, &RunSpec, Option<&RunId>, u64)],
    id: Option<BatchId>,
    world: &World<'_>,
) -> Result<JobId, String> {
    let (Some(id), Some((.., memory_mib))) = (id, starts.first()) else { return Err("nothing to submit".into()) };
    let words = |error: RunFileError| chain(&error);
    for (_, spec, supersedes, _) in starts {
        if let Some(older) = supersedes {
            // Should an older run still live somewhere, it reads here that it must not.
            world.runs.control(older, &stop_order(spec.generation)).map_err(words)?;
        }
        world.runs.prepare(spec).map_err(words)?;
    }
    let runs = starts.iter().map(|(_, spec, ..)| spec.run.clone()).collect();
    let index = RunBatch { version: RunBatch::VERSION, id: id.clone(), lab: world.lab.clone(), runs };
    let path = world.runs.write_batch(&index).map_err(words)?;
    let submission = Submission {
        name: id.job_name(world.lab),
        tasks: u32::try_from(starts.len()).map_err(|_| "more runs than an array job can have".to_owned())?,
        memory_mib: *memory_mib,
        command: [world.program.as_os_str(), "starter".as_ref(), "--batch".as_ref(), path.as_os_str()]
            .map(std::ffi::OsStr::to_owned)
            .to_vec(),
        log_folder: world.site.storage.runs.join("batches"),
        context: context(&id, starts, &path, world),
    };
    submit_or_adopt(&submission, world)
}

/// For people who look at a job with the batch system's own tools: whose it is, and which vm each task starts.
fn context(
    id: &BatchId,
    starts: &[(ActionId, &RunSpec, Option<&RunId>, u64)],
    index: &std::path::Path,
    world: &World<'_>,
) -> Vec<(&'static str, String)> {
    const VMS_SHOWN_MAX: usize = 50;
    let mut vms: Vec<&str> = starts.iter().take(VMS_SHOWN_MAX).map(|(_, spec, ..)| spec.vm.as_str()).collect();
    if starts.len() > vms.len() {
        vms.push("...");
    }
    vec![
        ("labwright_site", id.0.site().to_string()),
        ("labwright_lab", world.lab.to_string()),
        ("labwright_vms", vms.join(" ")),
        ("labwright_index", index.display().to_string()),
    ]
}

/// A submit that went wrong may have been accepted all the same, so its mark is looked for. It is never sent again: two
/// jobs for one run would be two guests on one disk. The next apply makes a new run, which fences this one off.
fn submit_or_adopt(submission: &Submission, world: &World<'_>) -> Result<JobId, String> {
    let error = match world.scheduler.submit(submission) {
        Ok(job) => return Ok(job),
        Err(error) => error,
    };
    for pause in LOOK_UP_PAUSES {
        world.clock.sleep(pause);
        let ours = |task: &Task, account: &str| task.name == submission.name && task.owner == account;
        let found = world
            .scheduler
            .account()
            .and_then(|account| Ok(world.scheduler.list()?.into_iter().find(|task| ours(task, &account))));
        if let Ok(Some(task)) = found {
            return Ok(task.id.job);
        }
    }
    Err(chain(&error))
}

/// One run on its way down.
struct Stopping {
    id: ActionId,
    run: RunId,
    task: Option<TaskId>,
}

/// Asks all guests at once, then tells of each as it is confirmed.
fn stop(batch: &Batch, world: &World<'_>, sender: &Sender<Message>) {
    let began = Instant::now();
    let mut under_way: BTreeMap<RunId, Stopping> = BTreeMap::new();
    for action in &batch.actions {
        let Effect::Stop { run, generation, task, .. } = &action.effect else { continue };
        match world.runs.control(run, &stop_order(*generation)) {
            Ok(()) => {
                let stopping = Stopping { id: action.id, run: run.clone(), task: *task };
                under_way.insert(run.clone(), stopping);
            }
            Err(error) => send(sender, vec![(action.id, Err(chain(&error)))], began),
        }
    }
    if let Err(detail) = kill_those_that_wait(&under_way, world) {
        let failed = under_way.values().map(|stopping| (stopping.id, Err(detail.clone()))).collect();
        return send(sender, failed, began);
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
        let results: Vec<Result1> = results.collect();
        send(sender, results, began);
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
    send(sender, late.collect(), began);
}

fn stop_order(generation: u64) -> Control {
    Control { generation, wanted: Wanted::Stopped, deadline: None, requests: Vec::new() }
}

/// A task that has not begun has no starter that could read its control file.
fn kill_those_that_wait(under_way: &BTreeMap<RunId, Stopping>, world: &World<'_>) -> Result<(), String> {
    let unreported =
        under_way.values().filter(|stopping| world.runs.report(&stopping.run).is_ok_and(|records| records.is_empty()));
    let tasks: Vec<TaskId> = unreported.filter_map(|stopping| stopping.task).collect();
    if tasks.is_empty() {
        return Ok(());
    }
    world.scheduler.kill(&tasks).map_err(|error| chain(&error))
}

/// The runs that are over: their starter says so, or the scheduler has no such task any more.
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
                _ if gone => Some((stopping.run.clone(), None)),
                _ => None,
            }
        })
        .collect()
}
