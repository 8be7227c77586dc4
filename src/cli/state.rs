//! `labwright state`: the site's memory.

use std::path::{Path, PathBuf};

use super::{Ended, LabOption};
use crate::client::open;
use crate::control::state as control;
use crate::exit::Exit;
use crate::report::{Ui, session as words};
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
            let state = control::make(&open(site, lab)?)?;
            ui.say(&format!("a new state is at {}", state.display()));
        }
        Command::Backup { file, lab } => {
            let context = open(site, &lab.lab)?;
            control::backup(&context, file)?;
            ui.say(&format!("a copy of {} is in {}", context.site.state.display(), file.display()));
        }
        Command::Check { lab } => {
            let state = open(site, &lab.lab)?.site.state;
            Store::check_all(&state)?;
            ui.say(&format!("{} is sound: all of it was read", state.display()));
        }
        Command::Restore { file, lab } => {
            let context = open(site, &lab.lab)?;
            let restored = control::restore(&context, file)?;
            ui.say(&format!("{} holds the copy now", context.site.state.display()));
            if let Some(kept) = &restored.kept {
                ui.say(&format!("the state before is kept in {}", kept.display()));
            }
            words::longer(&restored.longer).iter().for_each(|line| ui.say(line));
            ui.say("next: `labwright plan --refresh-only` shows what has changed since the copy was made");
        }
    }
    Ok(Exit::Done)
}
