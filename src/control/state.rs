//! The site's memory: it is made once, and a copy can take its place.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Context, ControlError};
use crate::model::id::RunId;
use crate::state::Store;

/// Makes the state of a new site, and its storage folders. Refused where one is, or where there are traces of one.
pub fn make(context: &Context) -> Result<PathBuf, ControlError> {
    // Where a state is, that is the answer, whatever else is there.
    if !context.site.state.exists() {
        context.refuse_traces()?;
    }
    context.make_storage()?;
    let mut store = Store::create(&context.site.state, jiff::Timestamp::now())?;
    store.settle_at_home(&context.site.storage)?;
    store.keep_from_strangers(|| context.lookers())?;
    Ok(store.path().to_owned())
}

/// Puts a copy in the place of the state; answers where the one before is kept, if there was one.
pub fn restore(context: &Context, file: &Path) -> Result<Option<PathBuf>, ControlError> {
    if !file.exists() {
        return Err(ControlError::NoFile { file: file.to_owned() });
    }
    context.make_folder_of_state()?;
    let _lock = context.lock("state restore".into())?;
    let folder = &context.site.storage.runs;
    let next_run = unused_run(folder).map_err(|source| ControlError::Runs { folder: folder.clone(), source })?;
    let kept = Store::restore(&context.site.state, file, next_run, jiff::Timestamp::now())?;
    // In the state that is in its place now: what came before is in the one that is kept.
    context.audit(None, Vec::new())?;
    Ok(kept)
}

/// Writes a copy of the state, which names everybody: so it is written down who took it.
pub fn backup(context: &Context, file: &Path) -> Result<(), ControlError> {
    let store = context.known_store()?;
    context.audit(None, Vec::new())?;
    Ok(store.backup(file)?)
}

/// A number above those of all runs that have a folder.
fn unused_run(runs: &Path) -> std::io::Result<u64> {
    let entries = match std::fs::read_dir(runs) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(1),
        entries => entries?,
    };
    let mut highest = 0;
    for entry in entries {
        let name = entry?.file_name();
        // What is no run, such as the folder of batches, has no number.
        let run = name.to_str().and_then(|name| name.parse::<RunId>().ok());
        highest = highest.max(run.map_or(0, |run| run.number()));
    }
    Ok(highest + 1)
}
