//! `labwright quota`: what people may use at once, and what they use.

use std::path::Path;

use super::{Ended, Listed, shown};
use crate::model::id::UserName;
use crate::report::Ui;
use crate::report::table::render;

/// Show what users may have at once, what they have, and what one more vm would cost
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Disks that were made or copied in full count with their size, others with what is written on them; disks
that were set aside count against no limit.

Examples:
  labwright quota               # your own; root sees everybody's
  labwright quota doraz"
)]
pub(super) struct Arguments {
    /// The user.
    user: Option<UserName>,

    #[command(flatten)]
    listed: Listed,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let Arguments { user, listed: Listed { lab, output } } = arguments;
    shown(ui, &render(&lab.way(site)?.quotas(user.as_ref())?, *output))
}
