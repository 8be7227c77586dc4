//! `labwright man`: a manual page for each command.

use std::path::PathBuf;

use super::{Ended, said};
use crate::exit::Exit;
use crate::report::{Failure, Ui, manual};

/// Write the manual pages, one per command
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: labwright man /usr/local/share/man/man1")]
pub(super) struct Arguments {
    /// Folder that the pages are written to.
    folder: PathBuf,
}

pub(super) fn run(arguments: &Arguments, command: clap::Command, ui: &Ui) -> Ended {
    let folder = &arguments.folder;
    manual::write(command, folder).map_err(|error| {
        Failure::from_error(Exit::Failed, &error).hint(format!("is {} a writable folder?", folder.display()))
    })?;
    said(ui, &format!("manual pages are in {}", folder.display()))
}
