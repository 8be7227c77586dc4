//! `labwright status`: where the lab stands, in one screen.

use std::path::{Path, PathBuf};

use super::{Ended, LabFolder};
use crate::client::watch;
use crate::report::Ui;
use crate::report::table::Format;

/// Show where the lab stands
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright status
  labwright status labs/net exam            # one family of it
  labwright status . 'alice-*' -o json
  labwright status --watch                  # until Ctrl-C
  labwright status --watch -o json | while read -r line; do ...; done")]
pub(super) struct Arguments {
    #[command(flatten)]
    lab: LabFolder,

    /// Only these vms, by name or family; `*` stands for anything. Where `--lab` or LABWRIGHT_LAB names the lab, a first word
    /// that is no folder is one, too.
    #[arg(value_name = "VM")]
    vms: Vec<String>,

    /// How it is written: `json` and `yaml` have all that is known, `wide` all columns.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    /// Look again every 2 seconds, until Ctrl-C: a terminal is drawn anew, `-o json` has a line for each look.
    #[arg(long, short)]
    watch: bool,
}

impl Arguments {
    /// The lab's folder, and the vms that are asked for.
    fn meant(&self) -> (PathBuf, Vec<String>) {
        let is_no_folder = self.lab.place.as_ref().is_some_and(|word| !word.exists());
        let (folder, first) = match (&self.lab.option, super::lab_of_environment()) {
            (None, Some(named)) if is_no_folder => (named, self.lab.place.as_ref()),
            _ => self.lab.folder_and_operand(),
        };
        let first = first.map(|word| word.to_string_lossy().into_owned());
        (folder, first.into_iter().chain(self.vms.iter().cloned()).collect())
    }
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (folder, vms) = arguments.meant();
    watch::status(site, &folder, &vms, arguments.output, arguments.watch, ui)
}
