//! `labwright claim`: what people asked for by command is taken back.

use std::path::Path;

use super::context::of_known_lab;
use super::{Ended, LabOption};
use crate::control::Context;
use crate::exit::Exit;
use crate::model::address::{Address, Kind};
use crate::model::claim::{Claim, ClaimBody, ClaimId};
use crate::model::lab::Desired;
use crate::report::{Failure, Ui};
use crate::state::{Change, Intent, Outcome, StateError, Store};

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
    let (context, desired) = of_known_lab(site, &lab.lab)?;
    let mut store = context.known_store()?;
    let _lock = context.lock(format!("claim undo {claim}"))?;
    let recorded = store.recorded(&desired.lab)?;
    let Some(claim) = recorded.claims.iter().find(|standing| standing.id == ClaimId(*claim)) else {
        let text = format!("no claim {claim} stands in lab `{}`; nothing was changed", desired.lab);
        return Err(Failure::new(Exit::Failed, text).hint("`labwright get claims` lists those that stand"));
    };
    take_back(&context, &desired, &mut store, recorded.serial, claim)?;
    let next = match &claim.body {
        ClaimBody::Power(_) => format!("{} is left as it is: `labwright vm stop {0}` stops it", claim.name),
        _ => "next: `labwright plan` shows what follows from it".to_owned(),
    };
    ui.say(&format!("claim {} of {} is taken back; {next}", claim.id, claim.by));
    Ok(Exit::Done)
}

/// One transaction holds all of it; the history shows it.
fn take_back(
    context: &Context,
    Desired { lab, .. }: &Desired,
    store: &mut Store,
    serial: u64,
    claim: &Claim,
) -> Result<(), StateError> {
    let now = jiff::Timestamp::now();
    let info = context.apply_info(&format!("claim undo {}", claim.id));
    let why = format!("{} took it back", info.who);
    let apply = store.begin(lab, serial, &info, now)?;
    let address = match &claim.body {
        ClaimBody::Power(_) => Address::vm(&claim.name),
        _ => Address::new(Kind::Lab, lab),
    };
    let journal = store.intend(lab, apply, &[Intent { address, effect: "end the claim" }], &[], now)?;
    let outcomes: Vec<_> = journal.into_iter().map(|id| (id, Outcome::Done)).collect();
    store.settle(lab, apply, &outcomes, &[Change::EndClaim { id: claim.id, why }], now)?;
    store.end(apply, "1 done, 0 failed, 0 skipped", now)
}
