//! The site's memory: it is made once, and a copy can take its place.

use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::{Context, ControlError, told_times};
use crate::model::id::{RunId, UserName};
use crate::model::lab::Session;
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

/// What came of a copy that was put in the place of the state.
#[derive(Debug)]
pub struct Restored {
    /// Where the state before is kept, if there was one.
    pub kept: Option<PathBuf>,
    /// Whose time in a session stays longer than the copy knows, since their guest was told so.
    pub longer: Vec<UserName>,
}

/// Puts a copy in the place of the state.
pub fn restore(context: &Context, file: &Path) -> Result<Restored, ControlError> {
    if !file.exists() {
        return Err(ControlError::NoFile { file: file.to_owned() });
    }
    context.make_folder_of_state()?;
    let _lock = context.lock("state restore".into())?;
    let folder = &context.site.storage.runs;
    let next_run = unused_run(folder).map_err(|source| ControlError::Runs { folder: folder.clone(), source })?;
    let now = jiff::Timestamp::now();
    let kept = Store::restore(&context.site.state, file, next_run, now)?;
    // In the state that is in its place now: what came before is in the one that is kept.
    context.audit(None, Vec::new())?;
    let longer = told_times::take_over(context, &mut Store::open(&context.site.state)?, now)?;
    Ok(Restored { kept, longer })
}

/// Copies the state to the site's storage, where a session is open: on the day of an exam the machine with the state
/// may be what is lost. The copy before it stays until this one is whole.
pub fn copy_for_sessions(context: &Context) -> Result<bool, ControlError> {
    let mut store = context.known_store()?;
    let (labs, now) = (store.recorded_of_all()?, jiff::Timestamp::now());
    let is_open = |session: &Session| session.is_open(now);
    if !labs.iter().any(|(_, recorded)| recorded.sessions().any(|(_, session)| is_open(session))) {
        return Ok(false);
    }
    let folder = context.site.storage.state_copies();
    let failed = |source| ControlError::Storage { folder: folder.clone(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
    let (place, draft) = (folder.join(COPY), folder.join(format!(".{COPY}.{}", context.caller.process)));
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    store.backup(&draft)?;
    std::fs::rename(&draft, &place).map_err(failed)?;
    Ok(true)
}

/// What the copy is called.
const COPY: &str = "state.db";

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
