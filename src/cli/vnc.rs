//! `labwright vm vnc`: where a guest's screen is served, and the password that opens it.

use std::path::Path;

use super::{Ended, LabOption, vm};
use crate::client::Way;
use crate::control::view::Screens;
use crate::exit::Exit;
use crate::report::table::{Format, render, word};
use crate::report::{Failure, Ui, screens};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright vm vnc alice-exam
  labwright vm vnc exam                       # the whole family
  labwright vm vnc exam -o csv >slips.csv     # to print a slip for each student

Passwords are read from files of mode 0600 on the site's storage: by root and the service account, or by the daemon for those
who may run the vm. Exit code 5: one of the vms is not running.")]
pub(super) struct Arguments {
    /// Vms or families; `*` stands for anything.
    #[arg(value_name = vm::NAMES, required = true)]
    vms: Vec<String>,

    #[command(flatten)]
    lab: LabOption,

    /// How it is written; a single vm is told in words unless this is given.
    #[arg(long, short, value_enum)]
    output: Option<Format>,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let Screens { shown, without } = Way::to(site, &arguments.lab.lab)?.screens(&arguments.vms)?;
    match (&shown[..], arguments.output) {
        ([], _) => {}
        ([screen], None) if without.is_empty() => ui.data(&screens::in_words(screen)),
        (screens, format) => ui.data(&render(screens, format.unwrap_or_default())),
    }
    if without.is_empty() {
        return Ok(Exit::Done);
    }
    let without: Vec<String> = without.iter().map(|(name, state)| format!("{name} ({})", word(state))).collect();
    Err(Failure::new(Exit::NotReady, format!("no screen to show: {}", without.join(", ")))
        .hint("a screen is there once `labwright status` shows the vm as booting or ready"))
}
