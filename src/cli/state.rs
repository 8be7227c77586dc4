//! `labwright state`: the site's memory.

use std::path::{Path, PathBuf};

use super::{Ended, LabOption};
use crate::client::state;
use crate::report::Ui;

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
        Command::Init { lab } => state::make(site, lab, ui),
        Command::Backup { file, lab } => state::copy(site, &lab.lab, file, ui),
        Command::Check { lab } => state::check(site, &lab.lab, ui),
        Command::Restore { file, lab } => state::put_back(site, &lab.lab, file, ui),
    }
}
