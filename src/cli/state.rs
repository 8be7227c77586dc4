//! `labwright state`: the site's memory.

use std::path::{Path, PathBuf};

use super::context::open;
use super::{Ended, LabOption};
use crate::control::Context;
use crate::exit::Exit;
use crate::model::id::RunId;
use crate::report::{Failure, Ui};
use crate::state::Store;

/// Look after the site's state
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make the state and the storage folders of a new site
    ///
    /// Refuses where one is already, and never takes a missing state for an empty one.
    Init {
        /// Folder of a lab, where no site file is used.
        #[arg(long, short = 'C', value_name = "FOLDER", default_value = ".", env = "LABWRIGHT_LAB")]
        lab: PathBuf,
    },
    /// Write a whole copy of the state, also while it is in use
    #[command(after_help = "Example: labwright state backup /backup/labwright-$(date +%F).db")]
    Backup {
        /// File to write; must not be there yet.
        file: PathBuf,
        #[command(flatten)]
        lab: LabOption,
    },
    /// Read the whole state, page by page, and say whether it is sound
    ///
    /// Other commands read all of it after a start of the machine, after anything else wrote to the file, and once a week.
    Check {
        #[command(flatten)]
        lab: LabOption,
    },
    /// Put a copy in the place of the state; the state is kept beside it
    #[command(after_help = "Example: labwright state restore /backup/labwright-2027-01-11.db")]
    Restore {
        file: PathBuf,
        #[command(flatten)]
        lab: LabOption,
    },
}

pub(super) fn run(command: &Command, site: Option<&Path>, ui: &Ui) -> Ended {
    match command {
        Command::Init { lab } => {
            let context = open(site, lab)?;
            // Where a state is, that is the answer, whatever else is there.
            if !context.site.state.exists() {
                context.refuse_traces()?;
            }
            context.make_storage()?;
            let mut store = Store::create(&context.site.state, jiff::Timestamp::now())?;
            store.settle_at_home(&context.site.storage)?;
            ui.say(&format!("a new state is at {}", store.path().display()));
            Ok(Exit::Done)
        }
        Command::Backup { file, lab } => {
            let context = open(site, &lab.lab)?;
            context.known_store()?.backup(file)?;
            ui.say(&format!("a copy of {} is in {}", context.site.state.display(), file.display()));
            Ok(Exit::Done)
        }
        Command::Check { lab } => {
            let state = open(site, &lab.lab)?.site.state;
            Store::check_all(&state)?;
            ui.say(&format!("{} is sound: all of it was read", state.display()));
            Ok(Exit::Done)
        }
        Command::Restore { file, lab } => {
            let context = open(site, &lab.lab)?;
            if !file.exists() {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("there is no file {}; nothing was changed", file.display()),
                ));
            }
            context.make_folder_of_state()?;
            let _lock = context.lock("state restore".into())?;
            let next_run = unused_run(&context)?;
            let kept = Store::restore(&context.site.state, file, next_run, jiff::Timestamp::now())?;
            ui.say(&format!("{} holds the copy now", context.site.state.display()));
            if let Some(kept) = kept {
                ui.say(&format!("the state before is kept in {}", kept.display()));
            }
            ui.say("next: `labwright plan --refresh-only` shows what has changed since the copy was made");
            Ok(Exit::Done)
        }
    }
}

/// A number above those of all runs that have a folder.
fn unused_run(context: &Context) -> Result<u64, Failure> {
    let runs = &context.site.storage.runs;
    let failed = |source: &std::io::Error| {
        Failure::from_error(Exit::Failed, source)
            .within(format!("cannot see which runs there were in {}", runs.display()))
    };
    let entries = match std::fs::read_dir(runs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(1),
        Err(error) => return Err(failed(&error)),
    };
    let mut highest = 0;
    for entry in entries {
        let name = entry.map_err(|error| failed(&error))?.file_name();
        // What is no run, such as the folder of batches, has no number.
        let run = name.to_str().and_then(|name| name.parse::<RunId>().ok());
        highest = highest.max(run.map_or(0, |run| run.number()));
    }
    Ok(highest + 1)
}
