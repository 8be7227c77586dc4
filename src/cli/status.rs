//! `labwright status`: where the lab stands, in one screen.

use std::collections::BTreeMap;
use std::path::Path;

use super::context::Context;
use super::{Ended, LabFolder, get};
use crate::exit::Exit;
use crate::report::Ui;
use crate::report::table::{Format, render};

/// Show where the lab stands
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    lab: LabFolder,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, desired) = Context::of_known_lab(site, &arguments.lab.lab, ui)?;
    let recorded = context.recorded(&desired.lab)?;
    let observed = context.observe(&desired, &recorded)?;
    let rows = get::vm_rows(&recorded, &observed, &context.site);
    let mut by_state: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &rows {
        *by_state.entry(&row.state).or_default() += 1;
    }
    let states: Vec<String> = by_state.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let states =
        if states.is_empty() { "no vms yet: `labwright apply` makes them".to_owned() } else { states.join(", ") };
    ui.data(&format!("lab {} (serial {}): {states}\n\n{}", desired.lab, recorded.serial, render(&rows, Format::Table)));
    Ok(Exit::Done)
}
