//! What is deleted for good, and who is forgotten: told first, and asked about.

use std::path::Path;

use super::{Ended, of_known_lab, of_site_file};
use crate::control::{Context, fetched, privacy, purge as control, unused};
use crate::exit::Exit;
use crate::model::id::UserName;
use crate::model::lab::Desired;
use crate::report::{Failure, Ui, aside, privacy as words, templates};

/// Deletes old disks of these vms, or of all; of all, also versions that nobody needs and what is known of old runs.
pub fn purge(
    (context, desired): &(Context, Desired),
    vms: &[String],
    older_than: Option<u32>,
    yes: bool,
    ui: &Ui,
) -> Ended {
    let days = older_than.unwrap_or(context.site.retention_days);
    let control::Old { disks, held, kept } = control::meant(context, desired, vms, older_than)?;
    aside::held(&held).iter().chain(&aside::kept(kept)).for_each(|line| ui.say(line));
    if disks.is_empty() && kept == 0 {
        ui.say(&aside::none_old(!vms.is_empty(), days));
    }
    if !disks.is_empty() {
        let (lines, question) = aside::deletes(&disks);
        lines.iter().for_each(|line| ui.say(line));
        if !yes {
            ui.confirmed(&question, "deleted")?;
        }
        ui.say(&aside::deleted(control::delete(context, desired, &disks)?));
    }
    if vms.is_empty() {
        purge_versions(context, desired, days, yes, ui)?;
        purge_fetched(context, desired, days, yes, ui)?;
        let cleared = control::forget_old_runs(context, desired)?;
        aside::forgotten(cleared, context.site.history_days).iter().for_each(|line| ui.say(line));
    }
    Ok(Exit::Done)
}

fn purge_versions(context: &Context, desired: &Desired, days: u32, yes: bool, ui: &Ui) -> Result<(), Failure> {
    let versions = unused::meant(context, desired, days)?;
    if versions.is_empty() {
        return Ok(());
    }
    templates::unused(&versions).iter().for_each(|line| ui.say(line));
    if !yes {
        ui.confirmed(&templates::delete_question(versions.len()), "deleted of templates")?;
    }
    ui.say(&templates::deleted(unused::delete(context, desired, &versions)?));
    Ok(())
}

fn purge_fetched(context: &Context, desired: &Desired, days: u32, yes: bool, ui: &Ui) -> Result<(), Failure> {
    let images = fetched::unnamed(context, desired, days)?;
    if images.is_empty() {
        return Ok(());
    }
    let (lines, question) = templates::unnamed(&images);
    lines.iter().for_each(|line| ui.say(line));
    if !yes {
        ui.confirmed(&question, "deleted of images")?;
    }
    ui.say(&templates::forgotten_images(fetched::delete(context, desired, &images, days)?));
    Ok(())
}

/// For what is about all labs of the site, of which the folder here may be one.
pub fn context(site: Option<&Path>, lab: &Path) -> Result<Context, Failure> {
    match of_known_lab(site, lab) {
        Ok((context, _)) => Ok(context),
        Err(failure) => of_site_file(site).map_err(|_| failure),
    }
}

/// Forgets somebody who has left.
pub fn erase(context: &Context, user: &UserName, yes: bool, ui: &Ui) -> Result<(), Failure> {
    if privacy::kept(context, user)?.is_empty() && !yes {
        ui.confirmed(&format!("Forget {user}, and all that they did and had?"), "forgotten")?;
    }
    ui.say(&words::erased(user, &privacy::erase(context, user)?));
    Ok(())
}
