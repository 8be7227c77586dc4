//! `labwright completions` and `labwright man`: made from the clap types, so they cannot lag behind.

use std::path::PathBuf;

use clap_complete::Shell;

use super::Ended;
use crate::exit::Exit;
use crate::report::{Failure, Ui};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: labwright completions bash > /etc/bash_completion.d/labwright")]
pub(super) struct Arguments {
    shell: Shell,
}

/// Write the manual pages, one per command
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: labwright man /usr/local/share/man/man1")]
pub(super) struct ManArguments {
    /// Folder that the pages are written to.
    folder: PathBuf,
}

pub(super) fn run(arguments: &Arguments, command: &mut clap::Command, ui: &Ui) -> Ended {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "labwright", &mut script);
    ui.data(&String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}

pub(super) fn man(arguments: &ManArguments, command: &clap::Command, ui: &Ui) -> Ended {
    let failed = |source: std::io::Error| {
        Failure::from_error(Exit::Failed, &source).hint(format!("is {} a writable folder?", arguments.folder.display()))
    };
    std::fs::create_dir_all(&arguments.folder).map_err(failed)?;
    clap_mangen::generate_to(command.clone(), &arguments.folder).map_err(failed)?;
    ui.say(&format!("manual pages are in {}", arguments.folder.display()));
    Ok(Exit::Done)
}
