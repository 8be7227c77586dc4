//! `labwright vm vnc`: where a guest's screen is served, and the password that opens it.

use std::path::Path;

use super::remote::Way;
use super::{Ended, LabOption, vm};
use crate::client::OfLab;
use crate::control::pick;
use crate::control::view::Screens;
use crate::exit::Exit;
use crate::model::lab::Right;
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
    let Screens { shown, without } = match Way::to(site, &arguments.lab)? {
        Way::Daemon(lab) => from_daemon(&lab, &arguments.vms)?,
        Way::Here(lab) => {
            let view = lab.0.view(&lab.1)?;
            view.screens(&pick::recorded_vms(&lab.1.lab, &arguments.vms, &view.recorded)?)?
        }
    };
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

/// Those that who asks may run; the first that they may not ends it.
fn from_daemon(lab: &OfLab, words: &[String]) -> Result<Screens, Failure> {
    let known = lab.vms()?;
    let mut screens = Screens::default();
    for name in pick::vms(&lab.name, words, known.iter().map(|vm| (&vm.name, Some(&vm.family))))? {
        let full = lab.vm(&name)?;
        match full.screen {
            Some(screen) => screens.shown.push(screen),
            None if full.may.contains(&Right::Run) => screens.without.push((name, full.vm.state)),
            None => {
                let what = format!("you don't have permission to run vm/{name}; nothing was done");
                return Err(Failure::new(Exit::Refused, what));
            }
        }
    }
    Ok(screens)
}
