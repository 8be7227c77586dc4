//! The site's memory: made, copied, read, and put back. `folder` is a lab's, where no site file is used.

use std::path::Path;

use super::{Ended, open};
use crate::control::state as control;
use crate::exit::Exit;
use crate::report::{Ui, session as words};
use crate::state::Store;

/// Makes a new one.
pub fn make(site: Option<&Path>, folder: &Path, ui: &Ui) -> Ended {
    let state = control::make(&open(site, folder)?)?;
    ui.say(&format!("a new state is at {}", state.display()));
    Ok(Exit::Done)
}

/// Copies it into a new file.
pub fn copy(site: Option<&Path>, folder: &Path, file: &Path, ui: &Ui) -> Ended {
    let context = open(site, folder)?;
    control::backup(&context, file)?;
    ui.say(&format!("a copy of {} is in {}", context.site.state.display(), file.display()));
    Ok(Exit::Done)
}

/// Reads all of it.
pub fn check(site: Option<&Path>, folder: &Path, ui: &Ui) -> Ended {
    let state = open(site, folder)?.site.state;
    Store::check_all(&state)?;
    ui.say(&format!("{} is sound: all of it was read", state.display()));
    Ok(Exit::Done)
}

/// Puts a copy in its place.
pub fn put_back(site: Option<&Path>, folder: &Path, file: &Path, ui: &Ui) -> Ended {
    let context = open(site, folder)?;
    let restored = control::restore(&context, file)?;
    ui.say(&format!("{} holds the copy now", context.site.state.display()));
    if let Some(kept) = &restored.kept {
        ui.say(&format!("the state before is kept in {}", kept.display()));
    }
    words::longer(&restored.longer).iter().for_each(|line| ui.say(line));
    ui.say("next: `labwright plan --refresh-only` shows what has changed since the copy was made");
    Ok(Exit::Done)
}
