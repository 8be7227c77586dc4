//! `labwright history`: what was done.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::context::of_known_lab;
use super::{Ended, LabFolder};
use crate::control::view::Moment;
use crate::exit::Exit;
use crate::model::lab::Desired;
use crate::report::table::{Format, Row, render};
use crate::report::{Failure, Ui, times};
use crate::state::{AppliedEffect, PastApply};

/// Show who applied what, and how it went
#[derive(Debug, clap::Args)]
#[command(after_help = "A `+` behind a commit: the lab's folder had changes that were not committed.

Examples:
  labwright history
  labwright history 12          # all that entry 12 did
  labwright history labs/net -n 3")]
pub(super) struct Arguments {
    #[command(flatten)]
    lab: LabFolder,

    /// Show all that this apply did. A number alone is one, too, where no folder has that name.
    #[arg(value_name = "ID")]
    apply: Option<i64>,

    /// How many applies are shown, newest first.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    most: u32,

    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

impl Arguments {
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

impl Row for PastApply {
    const COLUMNS: &'static [&'static str] = &["id", "when", "who", "command", "commit", "plan", "outcome"];
    const YIELDING: &'static [&'static str] = &["commit"];
    fn cells(&self) -> Vec<String> {
        let dirty = if self.dirty { "+" } else { "" };
        let commit = self.commit.as_ref().map(|commit| format!("{commit}{dirty}")).unwrap_or_default();
        let outcome = self.outcome.clone().unwrap_or_else(|| "not ended: it is under way, or was killed".into());
        let when = times::local_text(&self.began_at);
        let command = self.command.clone().unwrap_or_default();
        let who = format!("{}@{}", self.who, self.host);
        vec![self.id.to_string(), when, who, command, commit, self.summary.clone(), outcome]
    }
}

/// One effect of one apply.
#[derive(Debug, Serialize)]
struct EffectRow {
    when: Moment,
    address: String,
    effect: String,
    outcome: Option<String>,
    detail: Option<String>,
}

impl Row for EffectRow {
    const COLUMNS: &'static [&'static str] = &["when", "address", "effect", "outcome", "detail"];
    fn cells(&self) -> Vec<String> {
        vec![
            times::moment(&self.when),
            self.address.clone(),
            self.effect.clone(),
            self.outcome.clone().unwrap_or_else(|| "cut short".into()),
            self.detail.clone().unwrap_or_default(),
        ]
    }
}

impl From<AppliedEffect> for EffectRow {
    fn from(AppliedEffect { address, effect, intended_at, outcome, detail }: AppliedEffect) -> Self {
        Self { when: Moment::read(intended_at), address, effect, outcome, detail }
    }
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (folder, apply) = arguments.meant()?;
    let (context, Desired { lab, .. }) = of_known_lab(site, &folder)?;
    let store = context.store_if_any()?;
    let past = |most: u32| store.as_ref().map_or(Ok(Vec::new()), |store| store.history(&lab, most));
    let Some(apply) = apply else {
        ui.data(&render(&past(arguments.most)?, arguments.output));
        return Ok(Exit::Done);
    };
    let known = store.as_ref().map(|store| store.past_apply(&lab, apply)).transpose()?.flatten();
    let Some(store) = store.filter(|_| known.is_some()) else {
        return Err(Failure::new(Exit::Failed, format!("lab `{lab}` has no apply {apply}"))
            .hint("`labwright history` lists the latest"));
    };
    let rows: Vec<EffectRow> = store.effects_of(&lab, apply)?.into_iter().map(EffectRow::from).collect();
    ui.data(&render(&rows, arguments.output));
    Ok(Exit::Done)
}
