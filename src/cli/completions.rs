//! `labwright completions`: what a shell knows of commands and vms.

use clap_complete::Shell;

use super::{Ended, shown};
use crate::report::{Ui, completions};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "bash, zsh and fish complete the names of vms, too.

Examples:
  labwright completions bash > /etc/bash_completion.d/labwright
  labwright completions zsh > ~/.zfunc/_labwright         # a folder of fpath")]
pub(super) struct Arguments {
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, command: &mut clap::Command, ui: &Ui) -> Ended {
    shown(ui, &completions::script(arguments.shell, command))
}
