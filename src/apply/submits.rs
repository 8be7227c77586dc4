//! Runs become jobs: their folders are written, then one array job is submitted, or found if its answer was lost.

use super::World;
use super::batch::{Attempt, Batch};
use super::effects::{batch_id, stop_order};
use super::retry::EffectError;
use super::seeds;
use crate::files::Flush;
use crate::model::id::RunId;
use crate::model::job::JobId;
use crate::model::seed::SeedDisk;
use crate::plan::{ActionId, Effect};
use crate::run::{Batch as RunBatch, BatchId, Clock, RunSpec};
use crate::scheduler::{Submission, submit_or_adopt};
use crate::state::Change;

/// One run that is to be.
struct Starting<'a> {
    id: ActionId,
    spec: &'a RunSpec,
    supersedes: Option<&'a RunId>,
    memory_mib: u64,
    clock: &'a Clock,
    seed: Option<&'a SeedDisk>,
}

/// Writes every run's folder and the batch's index, then submits one array job.
pub(super) fn start(batch: &Batch, world: &World<'_>) -> Vec<Attempt> {
    let starts: Vec<Starting<'_>> = batch
        .actions
        .iter()
        .filter_map(|action| match &action.effect {
            Effect::Start { spec, supersedes, memory_mib, clock, seed, .. } => {
                let (id, supersedes, seed) = (action.id, supersedes.as_ref(), seed.as_deref());
                Some(Starting { id, spec, supersedes, memory_mib: *memory_mib, clock, seed })
            }
            _ => None,
        })
        .collect();
    match submit(&starts, batch_id(batch), world) {
        Err(error) => starts.iter().map(|start| (start.id, Err(error.clone()))).collect(),
        Ok(job) => {
            let submitted = |spec: &RunSpec| vec![Change::Submitted { run: spec.run.clone(), job }];
            starts.iter().map(|start| (start.id, Ok(submitted(start.spec)))).collect()
        }
    }
}

fn submit(starts: &[Starting<'_>], id: Option<BatchId>, world: &World<'_>) -> Result<JobId, EffectError> {
    let (Some(id), Some(Starting { memory_mib, .. })) = (id, starts.first()) else {
        return Err(EffectError::permanent("nothing to submit"));
    };
    for Starting { spec, supersedes, clock, seed, .. } in starts {
        if let Some(older) = supersedes {
            // Should an older run still live somewhere, it reads here that it must not.
            world.runs.control(older, &stop_order(spec.generation))?;
        }
        world.runs.prepare(spec, clock)?;
        seed.map_or(Ok(()), |seed| seeds::write(world, &spec.run, seed, Flush::Later))?;
    }
    let runs = starts.iter().map(|start| start.spec.run.clone()).collect();
    let index = RunBatch { version: RunBatch::VERSION, id: id.clone(), lab: world.lab.clone(), runs };
    let path = world.runs.write_batch(&index)?;
    let submission = Submission {
        name: id.job_name(world.lab),
        tasks: u32::try_from(starts.len())
            .map_err(|_| EffectError::permanent("more runs than an array job can have"))?,
        memory_mib: *memory_mib,
        host: None,
        command: [world.program.as_os_str(), "starter".as_ref(), "--batch".as_ref(), path.as_os_str()]
            .map(std::ffi::OsStr::to_owned)
            .to_vec(),
        log_folder: world.site.storage.runs.join("batches"),
        context: context(&id, starts, &path, world),
    };
    submit_or_adopt(world.scheduler, &submission, &|pause| world.clock.sleep(pause))
        .map_err(|error| EffectError::of_submit(&error))
}

/// For people who look at a job with the batch system's own tools: whose it is, and which vm each task starts.
fn context(
    id: &BatchId,
    starts: &[Starting<'_>],
    index: &std::path::Path,
    world: &World<'_>,
) -> Vec<(&'static str, String)> {
    const VMS_SHOWN_MAX: usize = 50;
    let mut vms: Vec<&str> = starts.iter().take(VMS_SHOWN_MAX).map(|start| start.spec.vm.as_str()).collect();
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
