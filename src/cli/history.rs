//! `labwright history`: what was done.

use std::path::{Path, PathBuf};

use super::{Ended, LabFolder, shown};
use crate::client::of_known_lab;
use crate::control::view::{acts, effects_of, history};
use crate::model::id::{UserName, VmName};
use crate::model::lab::Desired;
use crate::report::table::{Format, render};
use crate::report::{Failure, Ui};
use crate::state::ActsOf;

/// Show who applied what, and how it went
#[derive(Debug, clap::Args)]
#[command(after_help = "A `+` behind a commit: the lab's folder had changes that were not committed.

Examples:
  labwright history
  labwright history 12          # all that entry 12 did
  labwright history --user doraz     # what doraz did, and what was done to vms of doraz
  labwright history --vm doraz-exam  # who did what to it, was refused, or looked at its screen
  labwright history labs/net -n 3")]
pub(super) struct Arguments {
    #[command(flatten)]
    lab: LabFolder,

    /// Show all that this apply did. A number alone is one, too, where no folder has that name.
    #[arg(value_name = "ID")]
    apply: Option<i64>,

    /// Show who asked for what in the lab, also what was refused, and who looked at screens.
    #[arg(long)]
    audit: bool,

    /// The same of one person: what they did, and what was done to them and their vms.
    #[arg(long, value_name = "USER", conflicts_with_all = ["apply", "vm"])]
    user: Option<UserName>,

    /// The same of one vm.
    #[arg(long, value_name = "VM", conflicts_with = "apply")]
    vm: Option<VmName>,

    /// How many are shown, newest first.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    most: u32,

    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

impl Arguments {
    /// Whose acts are asked for, if any are.
    fn acts(&self) -> Option<ActsOf<'_>> {
        let of_user = self.user.as_ref().map(ActsOf::User);
        of_user.or_else(|| self.vm.as_ref().map(ActsOf::Vm)).or_else(|| self.audit.then_some(ActsOf::Everybody))
    }

    /// The lab's folder, and the apply that is asked for.
    fn meant(&self) -> Result<(PathBuf, Option<i64>), Failure> {
        let LabFolder { place, option } = &self.lab;
        let word = place.as_ref().filter(|place| self.apply.is_none() && (option.is_some() || !place.exists()));
        match word.and_then(|word| word.to_str()?.parse().ok()) {
            Some(number) => Ok((LabFolder { place: None, option: option.clone() }.folder()?, Some(number))),
            None => Ok((self.lab.folder()?, self.apply)),
        }
    }
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (folder, apply) = arguments.meant()?;
    let (context, Desired { lab, .. }) = of_known_lab(site, &folder)?;
    let text = match (arguments.acts(), apply) {
        (Some(of), _) => render(&acts(&context, &lab, of, arguments.most)?, arguments.output),
        (None, Some(apply)) => render(&effects_of(&context, &lab, apply)?, arguments.output),
        (None, None) => render(&history(&context, &lab, arguments.most)?, arguments.output),
    };
    shown(ui, &text)
}
