//! `labwright history`, `freeze` and `thaw`: what was done, and that nothing more shall be.

use std::path::Path;

use super::context::{Context, whoami};
use super::{Ended, LabFolder};
use crate::exit::Exit;
use crate::report::Ui;
use crate::report::table::{Format, Row, render};
use crate::resolve::Desired;
use crate::state::{FreezeScope, Frozen, PastApply};

/// Show who applied what, and how it went
#[derive(Debug, clap::Args)]
#[command(after_help = "A `+` behind a commit: the lab's folder had changes that were not committed.")]
pub(super) struct Arguments {
    #[command(flatten)]
    lab: LabFolder,

    /// How many applies are shown, newest first.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    most: u32,

    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Stop all reconciling of a lab until `labwright thaw`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: labwright freeze exam-lab --why 'exam in room 303 until noon'")]
pub(super) struct FreezeArguments {
    #[command(flatten)]
    lab: LabFolder,

    /// Freeze every lab of the site.
    #[arg(long)]
    all: bool,

    /// Shown to everybody whose plan is refused.
    #[arg(long, default_value = "no reason given")]
    why: String,
}

/// Let plans be applied again
#[derive(Debug, clap::Args)]
pub(super) struct ThawArguments {
    #[command(flatten)]
    lab: LabFolder,

    /// Thaw the site; labs that were frozen by themselves stay so.
    #[arg(long)]
    all: bool,
}

impl Row for PastApply {
    const COLUMNS: &'static [&'static str] = &["id", "when", "who", "commit", "plan", "outcome"];
    fn cells(&self) -> Vec<String> {
        let dirty = if self.dirty { "+" } else { "" };
        let commit = self.commit.as_ref().map(|commit| format!("{commit}{dirty}")).unwrap_or_default();
        let outcome = self.outcome.clone().unwrap_or_else(|| "not ended: it is under way, or was killed".into());
        let when = self.began_at.split('.').next().unwrap_or_default().trim_end_matches('Z').replace('T', " ");
        vec![self.id.to_string(), when, format!("{}@{}", self.who, self.host), commit, self.summary.clone(), outcome]
    }
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, Desired { lab, .. }) = Context::of_known_lab(site, &arguments.lab.lab, ui)?;
    let rows = match context.store_if_any()? {
        Some(store) => store.history(&lab, arguments.most)?,
        None => Vec::new(),
    };
    ui.data(&render(&rows, arguments.output));
    Ok(Exit::Done)
}

pub(super) fn freeze(arguments: &FreezeArguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, Desired { lab, .. }) = Context::of_known_lab(site, &arguments.lab.lab, ui)?;
    let frozen = Frozen {
        who: whoami(),
        since: jiff::Timestamp::now(),
        why: arguments.why.clone(),
        scope: scope(arguments.all),
    };
    context.store()?.freeze((!arguments.all).then_some(&lab), Some(&frozen))?;
    ui.say(&format!("{} is frozen: plans are shown and not applied until `labwright thaw`", what(arguments.all, &lab)));
    Ok(Exit::Done)
}

pub(super) fn thaw(arguments: &ThawArguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, Desired { lab, .. }) = Context::of_known_lab(site, &arguments.lab.lab, ui)?;
    context.known_store()?.freeze((!arguments.all).then_some(&lab), None)?;
    ui.say(&format!("{} is thawed: plans are applied again", what(arguments.all, &lab)));
    Ok(Exit::Done)
}

fn scope(all: bool) -> FreezeScope {
    if all { FreezeScope::Site } else { FreezeScope::Lab }
}

fn what(all: bool, lab: &crate::id::LabName) -> String {
    if all { "the whole site".into() } else { format!("lab `{lab}`") }
}
