//! What each effect does to the world, in batches: many disks of one base, many reservations in one conversation, many
//! runs in one array job.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Instant;

use super::batch::{ActionResult, Attempt, Batch, Message, final_results, send, tell_of_retry};
use super::retry::{BACKOFF, EffectError};
use super::{BatchKind, World, seeds, stops, submits};
use crate::dhcp::DhcpError;
use crate::disks::{DiskError, Tell};
use crate::files::Flush;
use crate::model::disk::DiskOrigin;
use crate::model::job::TaskId;
use crate::model::reservation::Reservation;
use crate::observe::fold;
use crate::plan::{ActionId, Effect, Plan, PublishSource};
use crate::run::{BatchId, Control, Part, StopReason, Wanted};
use crate::state::{Change, PublishedDisk, RecordedDisk, TemplateVersion};

pub(super) fn kind(effect: &Effect) -> BatchKind {
    match effect {
        Effect::Record(_) | Effect::Adopt { .. } | Effect::RecordEnd { .. } => BatchKind::Record,
        Effect::Fence { .. } => BatchKind::Fence,
        Effect::Publish { .. } => BatchKind::Publish,
        Effect::MakeDisk { .. } => BatchKind::MakeDisks,
        Effect::SetAside { .. } => BatchKind::SetAside,
        Effect::PutBack { .. } => BatchKind::PutBack,
        Effect::Renew { .. } => BatchKind::Renew,
        Effect::CheckDisks { .. } => BatchKind::CheckDisks,
        Effect::Reserve { .. } => BatchKind::Reserve,
        Effect::Release { .. } => BatchKind::Release,
        Effect::Stop { .. } => BatchKind::Stop,
        Effect::TurnOff { .. } => BatchKind::TurnOff,
        Effect::TurnOn { .. } => BatchKind::TurnOn,
        Effect::Start { .. } => BatchKind::Start,
        Effect::Tell { .. } => BatchKind::Tell,
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
        Effect::TurnOn { run, started, .. } => Some(Change::BeginsWith { run: run.clone(), started: started.clone() }),
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
pub(super) fn batch_id(batch: &Batch) -> Option<BatchId> {
    match &batch.actions.first()?.effect {
        Effect::Start { spec, .. } => Some(BatchId(spec.run.clone())),
        _ => None,
    }
}

/// What the batch system's accounting says of tasks whose starters said nothing.
pub(super) type Accounting = BTreeMap<(BatchId, u32), String>;

/// One look at the accounting, and only if a run ended without a word. It explains, and nothing waits for it: where it
/// cannot be read, the end is recorded as it is known.
pub(super) fn accounting(plan: &Plan, world: &World<'_>) -> Accounting {
    let first = plan.actions().find_map(|(_, action)| match &action.effect {
        Effect::RecordEnd { batch, reason: None, .. } => Some(batch),
        _ => None,
    });
    let Some(batch) = first else { return Accounting::new() };
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

/// What people asked for, of a batch of records: the history tells of it, although nothing outside changes with it.
pub(super) fn claims(batch: &Batch) -> Batch {
    let is_claim = |effect: &Effect| matches!(effect, Effect::Record(entry) if entry.is_claim());
    let claims = batch.actions.iter().filter(|action| is_claim(&action.effect));
    Batch { kind: batch.kind, actions: claims.cloned().collect() }
}

/// Effects on our records alone: done by being recorded.
pub(super) fn records(batch: &Batch, accounting: &Accounting) -> Vec<ActionResult> {
    batch.actions.iter().map(|action| (action.id, Ok(vec![record(&action.effect, accounting)]))).collect()
}

fn record(effect: &Effect, accounting: &Accounting) -> Change {
    match effect {
        Effect::Record(entry) => entry.clone().into(),
        Effect::Adopt { run, task, .. } => Change::Submitted { run: run.clone(), job: task.job },
        Effect::RecordEnd { run, reason: Some(reason), .. } => {
            Change::Ended { run: run.clone(), reason: Some(reason.clone()) }
        }
        Effect::RecordEnd { run, batch, task, reason: None, .. } => {
            let message = accounting.get(&(batch.clone(), *task)).cloned();
            Change::Ended { run: run.clone(), reason: message.map(|message| StopReason::Scheduler { message }) }
        }
        outside => unreachable!("{} is an effect on the outside", outside.name()),
    }
}

/// Acts, and sends one result per action. What may pass is tried again a few times.
pub(super) fn run(batch: &Batch, world: &World<'_>, sender: &Sender<Message>) {
    if matches!(batch.kind, BatchKind::Stop | BatchKind::TurnOff) {
        return stops::stop(batch, world, sender);
    }
    let mut batch = Batch { kind: batch.kind, actions: batch.actions.clone() };
    let began = Instant::now();
    for pause in BACKOFF.map(Some).into_iter().chain([None]) {
        let attempts = act(&batch, world, sender);
        let is_transient =
            |result: &Result<Vec<Change>, EffectError>| result.as_ref().is_err_and(|error| error.is_transient);
        let (transient, settled): (Vec<Attempt>, Vec<Attempt>) =
            attempts.into_iter().partition(|(_, result)| is_transient(result));
        send(sender, batch.kind, final_results(settled), began);
        let Some((_, Err(EffectError { detail, .. }))) = transient.first() else { return };
        let Some(pause) = pause.filter(|_| world.interrupts.load(Ordering::Relaxed) == 0) else {
            return send(sender, batch.kind, final_results(transient), began);
        };
        tell_of_retry(sender, batch.kind, transient.len(), pause, detail);
        world.clock.sleep(pause);
        let again: BTreeSet<ActionId> = transient.into_iter().map(|(id, _)| id).collect();
        batch.actions.retain(|action| again.contains(&action.id));
    }
}

/// One try of a batch.
fn act(batch: &Batch, world: &World<'_>, sender: &Sender<Message>) -> Vec<Attempt> {
    // Without the loop there is nobody to tell.
    let tell = |copied| drop(sender.send(Message::Copied(copied)));
    match batch.kind {
        BatchKind::Record | BatchKind::Stop | BatchKind::TurnOff => {
            unreachable!("records are written by the loop, stops have their own way")
        }
        BatchKind::Fence => fence(batch, world),
        BatchKind::Publish => each(batch, |effect| publish(effect, world, &tell)),
        BatchKind::MakeDisks => make_disks(batch, world, &tell),
        BatchKind::SetAside => each(batch, |effect| set_aside(effect, world)),
        BatchKind::PutBack => each(batch, |effect| put_back(effect, world)),
        BatchKind::Renew => each(batch, |effect| renew(effect, world, &tell)),
        BatchKind::CheckDisks => each(batch, |effect| check_disks(effect, world)),
        BatchKind::Reserve => reservations(batch, |list| world.dhcp.reserve(list)),
        BatchKind::TurnOn => each(batch, |effect| turn_on(effect, world)),
        BatchKind::Release => reservations(batch, |list| world.dhcp.release(list)),
        BatchKind::Start => submits::start(batch, world),
        BatchKind::Tell => each(batch, |effect| tell_times(effect, world)),
    }
}

fn each(batch: &Batch, act: impl Fn(&Effect) -> Result<Vec<Change>, EffectError>) -> Vec<Attempt> {
    batch.actions.iter().map(|action| (action.id, act(&action.effect))).collect()
}

/// The same answer for every action of a batch that is carried out in one piece.
fn all(batch: &Batch, result: Result<(), EffectError>) -> Vec<Attempt> {
    batch.actions.iter().map(|action| (action.id, result.clone().map(|()| Vec::new()))).collect()
}

/// The order comes first, so that a starter that comes back reads it. Then the jobs are asked to go: one whose host is not
/// heard of stays in the queue until it is, which is no error.
fn fence(batch: &Batch, world: &World<'_>) -> Vec<Attempt> {
    let mut results = each(batch, |effect| fence_off(effect, world));
    let tasks: Vec<TaskId> = batch.actions.iter().filter_map(|action| fenced_task(&action.effect)).collect();
    let killed = if tasks.is_empty() { Ok(()) } else { world.scheduler.kill(&tasks).map_err(EffectError::from) };
    if let Err(error) = killed {
        for (action, (_, result)) in batch.actions.iter().zip(&mut results) {
            if result.is_ok() && fenced_task(&action.effect).is_some() {
                *result = Err(error.clone());
            }
        }
    }
    results
}

fn fenced_task(effect: &Effect) -> Option<TaskId> {
    let Effect::Fence { task, .. } = effect else { return None };
    *task
}

fn fence_off(effect: &Effect, world: &World<'_>) -> Result<Vec<Change>, EffectError> {
    let Effect::Fence { run, generation, .. } = effect else { return Ok(Vec::new()) };
    world.runs.fence(run, &stop_order(*generation))?;
    Ok(Vec::new())
}

fn tell_times(effect: &Effect, world: &World<'_>) -> Result<Vec<Change>, EffectError> {
    let Effect::Tell { run, clock, told, .. } = effect else { return Ok(Vec::new()) };
    world.runs.tell(run, clock, told.as_deref())?;
    Ok(Vec::new())
}

fn publish(effect: &Effect, world: &World<'_>, tell: &Tell<'_>) -> Result<Vec<Change>, EffectError> {
    let Effect::Publish { template, version, disks: sources } = effect else { return Ok(Vec::new()) };
    let disks = sources.iter().map(|source| publish_disk(source, world, tell)).collect::<Result<Vec<_>, _>>()?;
    let content = TemplateVersion { disks };
    Ok(vec![Change::PutVersion { template: template.clone(), version: *version, content }])
}

fn publish_disk(source: &PublishSource, world: &World<'_>, tell: &Tell<'_>) -> Result<PublishedDisk, EffectError> {
    if let (Some(url), Some(sha256)) = (&source.url, &source.sha256) {
        world.disks.fetch(url, sha256, &source.image, tell)?;
    }
    let published = world.disks.publish(&source.image, &source.path, source.sha256.as_deref(), tell)?;
    // Without it the image is believed to be what was published, as one of before this was recorded.
    let stored = world.disks.stamp(&source.path).ok().flatten().map(|stamp| (stamp.bytes, stamp.mtime_ns));
    Ok(PublishedDisk {
        path: source.path.clone(),
        stored,
        sha256: published.sha256,
        source_sha256: published.source_sha256,
        source: source.image.clone(),
        source_bytes: published.source_bytes,
        source_mtime_ns: published.source_mtime_ns,
        made: None,
    })
}

fn make_disks(batch: &Batch, world: &World<'_>, tell: &Tell<'_>) -> Vec<Attempt> {
    let wanted: Vec<(ActionId, &crate::model::id::VmName, &RecordedDisk, &DiskOrigin)> = batch
        .actions
        .iter()
        .filter_map(|action| match &action.effect {
            Effect::MakeDisk { vm, disk, origin } => Some((action.id, vm, disk, origin)),
            _ => None,
        })
        .collect();
    let Some((.., origin)) = wanted.first() else { return Vec::new() };
    let paths: Vec<PathBuf> = wanted.iter().map(|(_, _, disk, _)| disk.path.clone()).collect();
    let made = world.disks.make(origin, &paths, tell);
    let image = copied_image(origin, &made, world);
    wanted
        .into_iter()
        .zip(made)
        .map(|((id, vm, disk, _), made)| {
            let disk = RecordedDisk { made: true, image: disk.image.clone().or_else(|| image.clone()), ..disk.clone() };
            let change = || vec![Change::PutDisk { vm: vm.clone(), disk: disk.clone() }];
            (id, made.map(|()| change()).map_err(EffectError::from))
        })
        .collect()
}

/// What was copied, for the day on which somebody asks whether an image at another place is the same.
fn copied_image(origin: &DiskOrigin, made: &[Result<(), DiskError>], world: &World<'_>) -> Option<String> {
    let DiskOrigin::Copy { image } = origin else { return None };
    // A published version never changes, and is known by its number.
    if !made.iter().any(Result::is_ok) || image.starts_with(&world.site.storage.templates) {
        return None;
    }
    // Without it the image is known by its path alone, as a vm's from before this was recorded.
    world.disks.sha256(image).inspect_err(|error| tracing::warn!(%error, "cannot digest an image")).ok()
}

fn set_aside(effect: &Effect, world: &World<'_>) -> Result<Vec<Change>, EffectError> {
    let Effect::SetAside { disks: paths, folder, lost, .. } = effect else { return Ok(Vec::new()) };
    let moved = world.disks.set_aside(paths, folder)?;
    lost.iter().try_for_each(|path| world.disks.give_up(path))?;
    let moved = paths.iter().cloned().zip(moved).map(|(path, aside)| Change::Aside { path, aside });
    Ok(moved.chain(lost.iter().map(|path| Change::DropDisk { path: path.clone() })).collect())
}

fn put_back(effect: &Effect, world: &World<'_>) -> Result<Vec<Change>, EffectError> {
    let Effect::PutBack { moves, .. } = effect else { return Ok(Vec::new()) };
    world.disks.put_back(moves)?;
    Ok(moves.iter().cloned().map(|(path, to)| Change::Returned { path, to }).collect())
}

fn renew(effect: &Effect, world: &World<'_>, tell: &Tell<'_>) -> Result<Vec<Change>, EffectError> {
    let Effect::Renew { vm, disks, folder } = effect else { return Ok(Vec::new()) };
    let paths: Vec<PathBuf> = disks.iter().map(|disk| disk.path.clone()).collect();
    let kept = world.disks.renew(&paths, folder, tell)?;
    let of = |(disk, aside): (&RecordedDisk, PathBuf)| {
        [Change::Aside { path: disk.path.clone(), aside }, Change::PutDisk { vm: vm.clone(), disk: disk.clone() }]
    };
    Ok(disks.iter().zip(kept).flat_map(of).collect())
}

fn check_disks(effect: &Effect, world: &World<'_>) -> Result<Vec<Change>, EffectError> {
    let Effect::CheckDisks { vm, disks } = effect else { return Ok(Vec::new()) };
    disks.iter().try_for_each(|disk| world.disks.check(disk)).map_err(|error| {
        let EffectError { detail, is_transient } = EffectError::from(error);
        let help = format!(
            "`labwright vm reimage {vm}` gives a new disk and keeps this one, `labwright vm collect {vm}` reads what can be read"
        );
        EffectError { detail: format!("{detail}; {help}"), is_transient }
    })?;
    Ok(Vec::new())
}

/// A run that has ended meanwhile has no guest to turn on.
fn turn_on(effect: &Effect, world: &World<'_>) -> Result<Vec<Change>, EffectError> {
    let Effect::TurnOn { run, generation, disks, seed, .. } = effect else { return Ok(Vec::new()) };
    if let Some(end) = fold(&world.runs.report(run)?).and_then(|report| report.phase.end()) {
        let detail =
            format!("run {run} has ended meanwhile: {end}; its disks are in place, and the next start takes them");
        return Err(EffectError::permanent(detail));
    }
    seed.as_deref().map_or(Ok(()), |seed| seeds::write(world, run, seed, Flush::Now))?;
    let mut order = Control::new(*generation, Wanted::Running);
    order.disks = Some(Part::Known(disks.clone()));
    world.runs.control(run, &order)?;
    Ok(Vec::new())
}

fn reservations(batch: &Batch, act: impl Fn(&[Reservation]) -> Result<(), DhcpError>) -> Vec<Attempt> {
    let list: Vec<Reservation> = batch
        .actions
        .iter()
        .filter_map(|action| match &action.effect {
            Effect::Reserve { reservation, .. } | Effect::Release { reservation, .. } => Some(reservation.clone()),
            _ => None,
        })
        .collect();
    all(batch, act(&list).map_err(EffectError::from))
}

/// What a run reads that must end, if its generation is lower or the same.
pub(super) fn stop_order(generation: u64) -> Control {
    Control::new(generation, Wanted::Stopped)
}
