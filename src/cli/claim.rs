//! `labwright claim`: what people asked for by command is taken back.

use std::path::Path;

use super::{Ended, LabOption, said};
use crate::control::claims;
use crate::model::claim::{ClaimBody, ClaimId};
use crate::report::Ui;

/// Take back what somebody asked for by command
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Take a claim back; nothing is stopped or deleted by that alone
    #[command(after_help = "Example: labwright get claims && labwright claim undo 3")]
    Undo {
        /// Its number in `labwright get claims`.
        #[arg(value_name = "ID")]
        claim: i64,
        #[command(flatten)]
        lab: LabOption,
    },
}

pub(super) fn run(command: &Command, site: Option<&Path>, ui: &Ui) -> Ended {
    let Command::Undo { claim, lab } = command;
    let (context, desired) = lab.known(site)?;
    let claim = claims::take_back(&context, &desired.lab, ClaimId(*claim))?;
    let next = match &claim.body {
        ClaimBody::Power(_) => format!("{} is left as it is: `labwright vm stop {0}` stops it", claim.name),
        ClaimBody::Time(_) | ClaimBody::Accommodation(_) => "guests that run were told their times".to_owned(),
        _ => "next: `labwright plan` shows what follows from it".to_owned(),
    };
    said(ui, &format!("claim {} of {} is taken back; {next}", claim.id, claim.by))
}
