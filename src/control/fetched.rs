//! Images from the web that no lab of the site names any more. They are kept for all labs, and go when somebody purges who names no
//! vm: a lab that names one again fetches it again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::aside::refuse_frozen;
use super::collect::CollectError;
use super::journal::{Decides, Lab, Order, Step};
use super::{Context, ControlError};
use crate::disks;
use crate::model::address::{Address, Kind};
use crate::model::lab::{Desired, DiskSource, Template};
use crate::state::{Store, Thing};

/// An image, or what was fetched of one so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub path: PathBuf,
    pub bytes: u64,
}

/// Those that lie there, or were gone on with, for more than `days`. They are shown to whoever asks, who may say no.
pub fn unnamed(context: &Context, desired: &Desired, days: u32) -> Result<Vec<Fetched>, ControlError> {
    let mut store = context.known_store()?;
    refuse_frozen(&store.recorded(&desired.lab)?)?;
    let named = named(&mut store, desired)?;
    let folder = context.site.storage.fetched();
    let failed = |source| CollectError::Read { path: folder.clone(), source };
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let limit = SystemTime::now() - Duration::from_secs(u64::from(days) * 24 * 60 * 60);
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_old = metadata.modified().map_err(failed)? <= limit;
        // What is half there has the digest in its name, too.
        if metadata.is_file() && is_old && !named.iter().any(|sha256| name.contains(sha256.as_str())) {
            found.push(Fetched { path: entry.path(), bytes: metadata.len() });
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// The digests that templates name: of all labs as they were applied, and of this one as it is written.
fn named(store: &mut Store, desired: &Desired) -> Result<BTreeSet<String>, ControlError> {
    let mut named = BTreeSet::new();
    let mut name = |template: &Template| {
        for disk in &template.disks {
            if let DiskSource::Fetched { sha256, .. } = disk {
                named.insert(sha256.clone());
            }
        }
    };
    desired.templates.values().for_each(&mut name);
    for (lab, _) in store.labs()? {
        for object in store.recorded(&lab)?.objects.values() {
            if let Thing::Template(template) = &object.thing {
                name(template);
            }
        }
    }
    Ok(named)
}

/// Deletes these for good, and answers how many that were. One that is named by now is let be.
pub fn delete(context: &Context, desired: &Desired, meant: &[Fetched], days: u32) -> Result<usize, ControlError> {
    let mut store = context.known_store()?;
    let decides = Decides::begin(context, "purge".into())?;
    let still = unnamed(context, desired, days)?;
    let step = |path: PathBuf| Step {
        address: Address::new(Kind::Lab, &desired.lab),
        effect: "delete a fetched image for good",
        before: Vec::new(),
        after: Vec::new(),
        act: Box::new(move || Ok(disks::delete(&path)?)),
    };
    let steps: Vec<Step<'_>> =
        meant.iter().filter(|one| still.contains(one)).map(|one| step(one.path.clone())).collect();
    let (number, lab) =
        (steps.len(), Lab { name: &desired.lab, after: store.recorded(&desired.lab)?.latest, doing: "purged" });
    let summary = format!("{number} fetched images to delete");
    let failed = lab.carry_out(&mut store, decides, &summary, Order::Any, steps)?;
    failed.into_iter().next().map_or(Ok(number), Err)
}
