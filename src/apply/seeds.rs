//! Seed disks: each is made when its run is submitted, and anew when its guest gets other disks.

use super::retry::EffectError;
use super::{World, passwords};
use crate::disks::seed_image;
use crate::error::chain;
use crate::files::Flush;
use crate::model::id::RunId;
use crate::model::seed::SeedDisk;

pub(super) fn write(world: &World<'_>, run: &RunId, seed: &SeedDisk, flush: Flush) -> Result<(), EffectError> {
    let password = passwords::drawn(&world.site.state, world.lab, &seed.instance)
        .map_err(|error| EffectError::permanent(chain(&error)))?;
    Ok(world.runs.seed(run, &seed_image(seed, &password.hash), flush)?)
}
