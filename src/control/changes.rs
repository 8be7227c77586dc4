//! What changed on a vm's disks since it was made: its files beside those of the image below, by size and time. Both are read from
//! outside, as a submission is (`collect`), and nothing of them is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::collect::{CollectError, reader};
use super::restore::chosen;
use super::view::Moment;
use super::{Context, ControlError, pick};
use crate::disks::Owner;
use crate::error::chain;
use crate::model::address::Address;
use crate::model::id::VmName;
use crate::model::lab::{Desired, VmSource};
use crate::observe::life;
use crate::state::{Recorded, RecordedDisk};
use crate::volumes::{self, HearError, Holds, Left, Order, Record};

/// The files of a vm that are not those of what it was made from.
#[derive(Debug, Clone)]
pub struct Changes {
    /// It runs, so that what it saved last may not be on its disk yet.
    pub is_look: bool,
    /// By disk, file system and path.
    pub files: Vec<ChangedFile>,
    /// What could not be compared, in words.
    pub unseen: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ChangedFile {
    /// The disk.
    pub slot: u32,
    /// The part of the disk.
    pub volume: String,
    pub path: String,
    pub change: FileChange,
    /// As it is now; `None` where it is gone.
    pub bytes: Option<u64>,
    /// As it was; `None` where it is new.
    pub was_bytes: Option<u64>,
    /// When it was written last.
    pub modified: Option<Moment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileChange {
    New,
    Changed,
    Gone,
}

/// Size and time of each file, by the part of the disk and its path there.
type Files = BTreeMap<(String, String), (u64, Option<i64>)>;

/// What is on a disk.
#[derive(Debug, Default)]
struct Listing {
    files: Files,
    /// The parts of which all was seen: of others, nobody knows what is gone.
    whole: BTreeSet<String>,
}

/// Of the disks that a vm has, or of a set that was set aside.
pub fn changes(context: &Context, desired: &Desired, vm: &str, set: Option<&str>) -> Result<Changes, ControlError> {
    let view = context.view(desired)?;
    let recorded = &view.recorded;
    let of_sets = recorded.aside.keys().filter(|name| set.is_some() && !recorded.vms.contains_key(*name));
    let names = recorded.vms.iter().map(|(name, known)| (name, Some(&known.vm.family)));
    let known = names.chain(of_sets.map(|name| (name, None)));
    let name = pick::only(vm, pick::vms(&desired.lab, &[vm.to_owned()], known)?)?;
    context.audit(Some(&desired.lab), vec![Address::vm(&name)])?;
    let (disks, is_look): (Vec<RecordedDisk>, bool) = match (set, recorded.vms.get(&name)) {
        (None, Some(known)) => {
            let is_off = life(known, &*view.observed()?, &context.site).is_off();
            (known.disks.iter().filter(|disk| disk.made).cloned().collect(), !is_off)
        }
        (set, _) => (chosen(recorded, &name, set)?.disks.iter().cloned().map(RecordedDisk::from).collect(), false),
    };
    let owner = context.owner()?;
    let mut found = Changes { is_look, files: Vec::new(), unseen: Vec::new() };
    for disk in &disks {
        let made_from = disk.base.clone().or_else(|| cloned_from(recorded, &name, disk.slot));
        let now = listing(context, owner, [Some(&disk.path), disk.base.as_deref()], &mut found.unseen)?;
        let before = match &made_from {
            Some(image) => listing(context, owner, [Some(image), None], &mut found.unseen)?,
            None => Listing::default(),
        };
        found.files.extend(differing(disk.slot, now, before.files));
    }
    Ok(found)
}

/// What a full copy was made of.
fn cloned_from(recorded: &Recorded, name: &VmName, slot: u32) -> Option<PathBuf> {
    let known = recorded.vms.get(name)?;
    let VmSource::Clone(template) = &known.vm.source else { return None };
    let version = recorded.versions.get(&(template.clone(), known.version?))?;
    version.disks.get(slot as usize).map(|disk| disk.path.clone())
}

/// All files of a disk, as a process without rights tells them.
fn listing(
    context: &Context,
    owner: Owner,
    files: [Option<&Path>; 2],
    unseen: &mut Vec<String>,
) -> Result<Listing, ControlError> {
    let path = files[0].unwrap_or(Path::new("")).to_owned();
    let order = Order { patterns: Vec::new(), lists: true };
    let failed = |source| CollectError::Read { path: path.clone(), source };
    let mut sealed = reader(context, owner, files, &order).map_err(failed)?;
    let (mut found, mut volume) = (Listing::default(), String::new());
    let heard: Result<(), HearError> = volumes::hear(&mut sealed.from, &mut |record, _| {
        match record {
            Record::Volume { place, holds } => {
                match holds {
                    Holds::Unreadable(what) => unseen.push(format!("{}, {place}: {what}", path.display())),
                    Holds::Files(_) | Holds::Nothing(_) => {
                        found.whole.insert(place.clone());
                    }
                }
                volume = place;
            }
            Record::Listed { path, bytes, modified } => {
                found.files.insert((volume.clone(), path), (bytes, modified));
            }
            Record::Left { path: name, why } => {
                unseen.push(format!("{}, {volume}: {name}: {}", path.display(), cut(&why)));
                found.whole.remove(&volume);
            }
            Record::File { .. } | Record::Newest { .. } | Record::End => {}
        }
        Ok(())
    });
    if let Err(error) = heard {
        unseen.push(format!("{}: {}", path.display(), chain(&error)));
        found.whole.clear();
    }
    Ok(found)
}

/// Why something is not in a list.
fn cut(why: &Left) -> String {
    match why {
        Left::TooManyNames => "more names than are looked at".to_owned(),
        Left::TooDeep => "its folders are too deep".to_owned(),
        Left::Broken { error } => error.clone(),
        _ => "its name is none".to_owned(),
    }
}

fn differing(slot: u32, now: Listing, mut before: Files) -> Vec<ChangedFile> {
    let mut files = Vec::new();
    let mut add = |(volume, path), change, bytes, was_bytes, modified: Option<i64>| {
        let modified = modified.and_then(|seconds| Timestamp::from_second(seconds).ok()).map(Moment::from);
        files.push(ChangedFile { slot, volume, path, change, bytes, was_bytes, modified });
    };
    for (place, (bytes, modified)) in now.files {
        match before.remove(&place) {
            Some(was) if was == (bytes, modified) => {}
            Some((was, _)) => add(place, FileChange::Changed, Some(bytes), Some(was), modified),
            None => add(place, FileChange::New, Some(bytes), None, modified),
        }
    }
    before.retain(|(volume, _), _| now.whole.contains(volume));
    for (place, (was, modified)) in before {
        add(place, FileChange::Gone, None, Some(was), modified);
    }
    files.sort_by(|one, other| (&one.volume, &one.path).cmp(&(&other.volume, &other.path)));
    files
}
