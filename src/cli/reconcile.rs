//! `labwright reconcile --once`: one round of the daemon's loop, by hand or by root's timer.

use std::path::Path;

use super::Ended;
use crate::client::labs;
use crate::report::Ui;

/// Keep every lab of the site as it was last applied
///
/// What has ended though it is to run is started again, what is to stand still is stopped, and what people asked for by command is
/// done. The files in labs' folders do not count: what they say is for `labwright apply`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "`labwright serve` does this all the time. Without it, a timer of root's may: once a minute, say.
A frozen lab is left alone, and so is all that a guard refuses. Exit code 1 if anything failed.

Example: labwright reconcile --once"
)]
pub(super) struct Arguments {
    /// One round, and no more.
    #[arg(long, required = true)]
    once: bool,
}

pub(super) fn run(_: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    labs::reconcile(site, ui)
}
