//! `labwright history`, `freeze` and `thaw`: what was done, and that nothing more shall be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::context::{of_known_lab, whoami};
use super::{Ended, LabFolder};
use crate::control::Context;
use crate::exit::Exit;
use crate::model::address::{Address, Kind};
use crate::model::id::LabName;
use crate::model::lab::Desired;
use crate::report::table::{Format, Row, render};
use crate::report::{Failure, Ui, times};
use crate::state::{AppliedEffect, FreezeScope, Frozen, Intent, Outcome, PastApply, StateError, Store};

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
    #[arg(long)]
    why: Option<String>,
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
    #[serde(serialize_with = "times::serialize_text")]
    when: String,
    address: String,
    effect: String,
    outcome: Option<String>,
    detail: Option<String>,
}

impl Row for EffectRow {
    const COLUMNS: &'static [&'static str] = &["when", "address", "effect", "outcome", "detail"];
    fn cells(&self) -> Vec<String> {
        vec![
            times::local_text(&self.when),
            self.address.clone(),
            self.effect.clone(),
            self.outcome.clone().unwrap_or_else(|| "cut short".into()),
            self.detail.clone().unwrap_or_default(),
        ]
    }
}

impl From<AppliedEffect> for EffectRow {
    fn from(AppliedEffect { address, effect, intended_at, outcome, detail }: AppliedEffect) -> Self {
        Self { when: intended_at, address, effect, outcome, detail }
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

pub(super) fn freeze(arguments: &FreezeArguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, Desired { lab, .. }) = of_known_lab(site, &arguments.lab.folder()?)?;
    let mut store = context.store()?;
    let (thing, thaw) = (what(arguments.all, &lab), thaw_command(arguments.all));
    let before = store.recorded(&lab)?.frozen.filter(|frozen| frozen.scope == scope(arguments.all));
    if let (Some(Frozen { who, since, why, .. }), None) = (&before, &arguments.why) {
        let since = times::local(*since);
        ui.say(&format!("{thing} is frozen already, by {who} at {since} ({why}); `{thaw}` ends it"));
        return Ok(Exit::Done);
    }
    let frozen = Frozen {
        who: whoami(),
        since: jiff::Timestamp::now(),
        why: arguments.why.clone().unwrap_or_else(|| "no reason given".into()),
        scope: scope(arguments.all),
    };
    store.freeze((!arguments.all).then_some(&lab), Some(&frozen))?;
    ui.say(&format!("{thing} is frozen: plans are shown and not applied until `{thaw}`"));
    note(&context, &mut store, &lab, arguments.all, "freeze")?;
    Ok(Exit::Done)
}

pub(super) fn thaw(arguments: &ThawArguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, Desired { lab, .. }) = of_known_lab(site, &arguments.lab.folder()?)?;
    let mut store = context.known_store()?;
    let thing = what(arguments.all, &lab);
    store.freeze((!arguments.all).then_some(&lab), None)?;
    note(&context, &mut store, &lab, arguments.all, "thaw")?;
    // The other freeze, of the site or of this lab, holds on.
    match store.recorded(&lab)?.frozen {
        None => ui.say(&format!("{thing} is thawed: plans are applied again")),
        Some(Frozen { who, why, scope, .. }) => {
            let other_is_site = scope == FreezeScope::Site;
            let other = what(other_is_site, &lab);
            let thaw = thaw_command(other_is_site);
            ui.say(&format!("{thing} is thawed, but {other} is frozen by {who} ({why}) until `{thaw}`"));
        }
    }
    Ok(Exit::Done)
}

/// In the history of each lab that it is about.
fn note(
    context: &Context,
    store: &mut Store,
    lab: &LabName,
    all: bool,
    effect: &'static str,
) -> Result<(), StateError> {
    let mut labs = BTreeSet::from([lab.clone()]);
    if all {
        labs.extend(store.labs()?.into_iter().map(|(lab, _)| lab));
    }
    let info = context.apply_info("");
    labs.iter().try_for_each(|lab| {
        let intent = Intent { address: Address::new(Kind::Lab, lab), effect };
        store.note(lab, &info, &[(intent, Outcome::Done)], jiff::Timestamp::now())
    })
}

fn scope(all: bool) -> FreezeScope {
    if all { FreezeScope::Site } else { FreezeScope::Lab }
}

fn thaw_command(all: bool) -> &'static str {
    if all { "labwright thaw --all" } else { "labwright thaw" }
}

fn what(all: bool, lab: &LabName) -> String {
    if all { "the whole site".into() } else { format!("lab `{lab}`") }
}
