//! `labwright purge`: disks that were set aside long ago, and what the site does not remember any more. Journalled like an
//! apply, so that the history tells who deleted what.

use std::collections::BTreeSet;
use std::path::Path;

use super::context::of_known_lab;
use super::{Ended, LabOption, vm};
use crate::apply::Cleared;
use crate::control::{Context, clear, pick};
use crate::disks;
use crate::exit::Exit;
use crate::model::address::{Address, Kind};
use crate::model::id::{LabName, VmName};
use crate::model::lab::Desired;
use crate::report::{Failure, Ui, times};
use crate::state::{ApplyId, AsideDisk, Change, Intent, Outcome, Recorded, Store};

/// Delete disks that were set aside long ago, and forget runs that are long over
#[derive(Debug, clap::Args)]
#[command(
    after_help = "This is the only command that deletes a disk. Runs that ended before the site's `history` begins
are forgotten too, with what they left, where no vm is named: some by each apply, all by this command.

Examples:
  labwright purge --older-than 90
  labwright purge 'bob-*' exam            # only of these vms"
)]
pub(super) struct PurgeArguments {
    /// Only disks of these vms or families; `*` stands for anything.
    #[arg(value_name = vm::NAMES)]
    vms: Vec<String>,
    /// Days that a disk must have been set aside; the site's retention unless said here.
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u32>,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    lab: LabOption,
}

pub(super) fn vm_only(address: &Address) -> Result<(), Failure> {
    if address.kind == Kind::Vm {
        Ok(())
    } else {
        Err(Failure::new(Exit::Usage, format!("{address} has no disks: write `vm/NAME`")))
    }
}

pub(super) fn purge(arguments: &PurgeArguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, desired) = of_known_lab(site, &arguments.lab.lab)?;
    let mut store = context.known_store()?;
    let _lock = context.lock("purge".into())?;
    let recorded = store.recorded(&desired.lab)?;
    refuse_frozen(&recorded)?;
    let meant = meant(&arguments.vms, &desired, &recorded)?;
    let days = arguments.older_than.unwrap_or(context.site.retention_days);
    let old = old(&recorded, meant.as_ref(), days);
    if old.is_empty() {
        let whose = if meant.is_some() { " of these vms" } else { "" };
        let days = if days == 1 { "1 day".to_owned() } else { format!("{days} days") };
        ui.say(&format!("no disk{whose} was set aside more than {days} ago"));
    } else {
        purge_disks(&context, &mut store, &recorded, (&desired.lab, &old), arguments.yes, ui)?;
    }
    if meant.is_none() {
        tell_of_cleared(&context, clear::everything(&context, &desired.lab, &mut store)?, ui);
    }
    Ok(Exit::Done)
}

fn purge_disks(
    context: &Context,
    store: &mut Store,
    recorded: &Recorded,
    (lab, old): (&LabName, &[AsideDisk]),
    yes: bool,
    ui: &Ui,
) -> Result<(), Failure> {
    for disk in old {
        ui.say(&format!("  {} of {}, set aside {}", disk.path.display(), disk.vm, times::local_text(&disk.since)));
    }
    if !yes && ui.confirm(&format!("Delete {} for good?", disks_word(old.len()))) != Some(true) {
        return Err(Failure::new(Exit::Refused, "not confirmed; nothing was deleted")
            .hint("add `--yes` where no person looks on"));
    }
    let summary = format!("{} to delete", disks_word(old.len()));
    let apply = store.begin(lab, recorded.serial, &context.apply_info(&summary), jiff::Timestamp::now())?;
    delete(store, lab, apply, old)?;
    ui.say(&format!("{} deleted", disks_word(old.len())));
    Ok(())
}

/// The vms that are named; `None` where none is.
fn meant(names: &[String], desired: &Desired, recorded: &Recorded) -> Result<Option<BTreeSet<VmName>>, Failure> {
    if names.is_empty() {
        return Ok(None);
    }
    let meant = among(recorded.aside.keys(), names, desired, recorded)?;
    match meant.iter().find(|name| !recorded.aside.contains_key(*name)) {
        Some(name) => Err(none_aside(name.as_str())),
        None => Ok(Some(meant)),
    }
}

/// What was set aside that long ago. What is being put back is in use, whatever its age.
fn old(recorded: &Recorded, meant: Option<&BTreeSet<VmName>>, days: u32) -> Vec<AsideDisk> {
    let limit = jiff::Timestamp::now().as_second() - i64::from(days) * 24 * 60 * 60;
    let is_old = |disk: &&AsideDisk| {
        disk.to.is_none() && disk.since.parse::<jiff::Timestamp>().is_ok_and(|since| since.as_second() <= limit)
    };
    let of_meant = recorded.aside.iter().filter(|(name, _)| meant.is_none_or(|meant| meant.contains(*name)));
    let mut old: Vec<AsideDisk> =
        of_meant.flat_map(|(_, sets)| sets).flat_map(|set| &set.disks).filter(is_old).cloned().collect();
    old.sort_by(|one, other| (&one.since, &one.path).cmp(&(&other.since, &other.path)));
    old
}

/// Writes down all that is meant, then each disk that is gone: a kill in between is seen in the history, and the next purge
/// finds what is left.
fn delete(store: &mut Store, lab: &LabName, apply: ApplyId, disks: &[AsideDisk]) -> Result<(), Failure> {
    let now = jiff::Timestamp::now;
    let intent = |disk: &AsideDisk| Intent { address: Address::vm(&disk.vm), effect: "delete the disk for good" };
    let intents: Vec<Intent> = disks.iter().map(intent).collect();
    let lines = store.intend(lab, apply, &intents, &[], now())?;
    let mut failures = Vec::new();
    for (disk, line) in disks.iter().zip(lines) {
        let (outcome, changes) = match disks::delete(&disk.path) {
            Ok(()) => (Outcome::Done, vec![Change::Purged { path: disk.path.clone() }]),
            Err(error) => {
                let detail = crate::error::chain(&error);
                failures.push(detail.clone());
                (Outcome::Failed { detail }, Vec::new())
            }
        };
        store.settle(lab, apply, &[(line, outcome)], &changes, now())?;
    }
    let (done, failed) = (disks.len() - failures.len(), failures.len());
    store.end(apply, &format!("{done} done, {failed} failed, 0 skipped"), now())?;
    if failures.is_empty() {
        return Ok(());
    }
    let mut failure = Failure::new(Exit::Failed, format!("{failed} of {} not deleted", disks_word(disks.len())));
    failure.causes = failures;
    Err(failure)
}

pub(super) fn refuse_frozen(recorded: &Recorded) -> Result<(), Failure> {
    let Some(frozen) = &recorded.frozen else { return Ok(()) };
    let text = format!("frozen by {} since {:.0}: {}; nothing was changed", frozen.who, frozen.since, frozen.why);
    Err(Failure::new(Exit::Refused, text).hint("`labwright thaw` lets things go on"))
}

/// The vms that are named, of those that have such disks. A name alone is taken as it is: what is wrong with it, who uses it
/// says best.
pub(super) fn among<'a>(
    having: impl Iterator<Item = &'a VmName> + Clone,
    names: &[String],
    desired: &Desired,
    recorded: &Recorded,
) -> Result<BTreeSet<VmName>, Failure> {
    let of = |name: &VmName| desired.vms.get(name).or_else(|| recorded.vms.get(name).map(|known| &known.vm));
    let known: Vec<(&VmName, _)> = having.map(|name| (name, of(name).map(|vm| &vm.family))).collect();
    let mut meant = BTreeSet::new();
    for word in names {
        let bare = word.strip_prefix("vm/").unwrap_or(word);
        if let Some((kind, _)) = bare.split_once('/') {
            return Err(Failure::new(
                Exit::Usage,
                format!("a {kind} has no disks that were set aside: write `vm/NAME`"),
            ));
        }
        match pick::vms(&desired.lab, std::slice::from_ref(word), known.iter().copied()) {
            Ok(found) => meant.extend(found),
            Err(_) if bare.contains('*') => return Err(none_aside(bare)),
            Err(_) => drop(meant.insert(VmName::new(bare).map_err(|error| Failure::from_error(Exit::Usage, &error))?)),
        }
    }
    Ok(meant)
}

pub(super) fn none_aside(name: &str) -> Failure {
    Failure::new(Exit::Failed, format!("no disk of vm `{name}` was set aside")).hint("`labwright get aside` lists all")
}

pub(super) fn disks_word(count: usize) -> String {
    if count == 1 { "1 disk".into() } else { format!("{count} disks") }
}

fn tell_of_cleared(context: &Context, cleared: Cleared, ui: &Ui) {
    if cleared != Cleared::default() {
        let (Cleared { runs, effects }, days) = (cleared, context.site.history_days);
        ui.say(&format!(
            "forgotten, since they ended more than {days} days ago: {runs} runs, {effects} effects of applies"
        ));
    }
}
