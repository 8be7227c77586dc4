//! `labwright vm vnc`: where a guest's screen is served, and the password that opens it.

use std::path::Path;

use super::context::of_known_lab;
use super::{Ended, LabOption, vm};
use crate::control::pick;
use crate::control::view::Screens;
use crate::exit::Exit;
use crate::report::table::{Format, render, word};
use crate::report::{Failure, Ui, screens};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright vm vnc alice-exam
  labwright vm vnc exam                       # the whole family
  labwright vm vnc exam -o csv >slips.csv     # to print a slip for each student

Passwords are read from files of mode 0600 on the site's storage, so this takes root or the service account. Exit code 5:
one of the vms is not running.")]
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
    let (context, desired) = of_known_lab(site, &arguments.lab.lab)?;
    let view = context.view(&desired)?;
    let picked = pick::recorded_vms(&desired.lab, &arguments.vms, &view.recorded)?;
    let Screens { shown, without } = view.screens(&picked)?;
    match (&shown[..], arguments.output) {
        ([], _) => {}
        ([screen], None) if picked.len() == 1 => ui.data(&screens::in_words(screen)),
        (screens, format) => ui.data(&render(screens, format.unwrap_or_default())),
    }
    if without.is_empty() {
        return Ok(Exit::Done);
    }
    let without: Vec<String> = without.iter().map(|(name, state)| format!("{name} ({})", word(state))).collect();
    Err(Failure::new(Exit::NotReady, format!("no screen to show: {}", without.join(", ")))
        .hint("a screen is there once `labwright status` shows the vm as booting or ready"))
}
