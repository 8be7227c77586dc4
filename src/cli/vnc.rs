//! `labwright vm vnc`: where a guest's screen is served, and the password that opens it.

use std::path::Path;

use super::{Ended, vm};
use crate::exit::Exit;
use crate::report::table::Format;
use crate::report::{Ui, screens};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright vm vnc alice-exam
  labwright vm vnc exam                       # the whole family
  labwright vm vnc exam -o csv >slips.csv     # to print a slip for each student

Passwords are read from files of mode 0600 on the site's storage: by root and the service account, or by the daemon for those
who may run the vm. Exit code 5: one of the vms is not running.")]
pub(super) struct Arguments {
    #[command(flatten)]
    of: vm::Vms,

    /// How it is written; a single vm is told in words unless this is given.
    #[arg(long, short, value_enum)]
    output: Option<Format>,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let vm::Vms { vms, lab } = &arguments.of;
    let screens = lab.way(site)?.screens(vms)?;
    ui.data(&screens::text(&screens, arguments.output));
    screens::missing(&screens).map_or(Ok(Exit::Done), Err)
}
