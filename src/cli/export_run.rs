//! `labwright vm export-run`: a start as a shell script.

use super::Ended;
use crate::control::{Context, by_hand, pick};
use crate::exit::Exit;
use crate::host::run::accel::Accelerator;
use crate::model::lab::Desired;
use crate::report::Ui;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Accel {
    Kvm,
    Tcg,
}

pub(super) fn run(context: &Context, desired: &Desired, word: &str, accel: Option<Accel>, ui: &Ui) -> Ended {
    let recorded = context.recorded(&desired.lab)?;
    let name = pick::one(&desired.lab, word, &recorded)?;
    let accel = accel.map(|accel| match accel {
        Accel::Kvm => Accelerator::Kvm,
        Accel::Tcg => Accelerator::Tcg,
    });
    let script = by_hand::of_vm(context, desired, &recorded, &name, accel)?;
    ui.data(&script.text);
    if let Some(running) = &script.running {
        ui.say(&format!("warning: {name} runs by what is recorded: {running}; the script says how to stop it first"));
    }
    Ok(Exit::Done)
}
