//! A lab whose files somebody sends who owns it: a process without rights understands them, and answers what they want as a value.
//! What that value may be is judged here once more, since who sends the files may know a way to turn that process.
//!
//! ```text
//! here: Task, the files ─▶ │ read, compose     │
//!                          │ Said::Images      │ ─▶ here: looked at below the lab's image roots
//! here: their facts ─────▶ │ resolve           │
//!                          │ Said::Understood  │ ─▶ here: the lab
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::manifests::DesiredError;
use super::open::with_images;
use super::permissions::roles;
use super::{Context, ControlError};
use crate::access::Roles;
use crate::disks::{DiskError, Owner};
use crate::error::chain;
use crate::host::run::sealed::Sealed;
use crate::manifest::{Gathered, ImageFacts, look_at};
use crate::model::accommodation::AccommodationFile;
use crate::model::diagnostic::Diagnostics;
use crate::model::id::{LabName, SessionName};
use crate::model::lab::Desired;
use crate::model::site::SiteContext;
use crate::resolve::{not_yet_acted_upon, resolve};

/// What somebody may send: 10,000 vms written out one by one have 9 MB.
pub const BYTES_MAX: u64 = 24 << 20;
/// What may come back: the largest lab written out takes less.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// What is to be understood.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    site: SiteContext,
    /// The sender's terminal shows colours.
    is_styled: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    /// These are to be looked at, each with whether its checksum is wanted.
    Images(BTreeMap<PathBuf, bool>),
    Understood {
        desired: Box<Desired>,
        /// In no text of the lab's own.
        accommodations: BTreeMap<SessionName, AccommodationFile>,
        findings: String,
    },
    Invalid {
        findings: String,
    },
    Unreadable(String),
}

/// What files mean.
#[derive(Debug)]
pub enum Meaning {
    /// With what is to be said about them.
    Lab {
        desired: Box<Desired>,
        findings: String,
    },
    Invalid {
        findings: String,
    },
}

/// Refuses unless who asks may plan and apply a lab. To others it is not there, whether it is or not.
pub fn require_owner(context: &Context, lab: &LabName) -> Result<(), ControlError> {
    let who = &context.caller.person;
    if roles(&context.site, lab, who).all_rights(who).is_some() {
        Ok(())
    } else {
        Err(ControlError::NotOwner { lab: lab.clone() })
    }
}

/// Whether who asks may know of every lab.
pub fn sees_all_labs(context: &Context) -> bool {
    let roles = Roles { admins: context.site.admins.clone(), lab_owners: BTreeSet::new() };
    roles.all_rights(&context.caller.person).is_some()
}

/// The site with the lab at the folder that its owner names. A folder stands for one lab: nobody takes another lab's.
pub fn at(context: &Context, lab: &LabName, folder: &Path) -> Result<Context, ControlError> {
    let is_text = folder.to_str().is_some_and(|text| !text.contains(char::is_control));
    if !is_text || !folder.is_absolute() {
        return Err(ControlError::NotText { path: folder.to_owned() });
    }
    let labs = context.known_store()?.labs()?;
    if labs.iter().any(|(other, at)| other != lab && at == folder) {
        return Err(ControlError::FolderTaken { folder: folder.to_owned() });
    }
    Ok(context.with_lab(folder.to_owned()))
}

/// What sent files want. Nothing of them is read but in a process without rights.
pub fn receive(context: &Context, lab: &LabName, files: &[u8], is_styled: bool) -> Result<Meaning, ControlError> {
    require_owner(context, lab)?;
    let failed = |source| ControlError::Unclear { source };
    let Owner { uid, gid } = context.owner()?;
    let mut sealed = Sealed::start(&context.caller.program, &["understand".as_ref()], (uid, gid), Stdio::inherit())
        .map_err(failed)?;
    let mut to = sealed.to.take().expect("nobody took it yet");
    let mut from = BufReader::new((&mut sealed.from).take(ANSWER_BYTES_MAX));
    say(&mut to, &Task { site: context.site.context(), is_styled }).map_err(failed)?;
    to.write_all(&(files.len() as u64).to_le_bytes()).and_then(|()| to.write_all(files)).map_err(failed)?;
    let mut said: Said = hear(&mut from).map_err(failed)?;
    if let Said::Images(images) = said {
        say(&mut to, &facts(context, lab, images)).map_err(failed)?;
        said = hear(&mut from).map_err(failed)?;
    }
    match said {
        Said::Understood { mut desired, accommodations, findings } => {
            desired.accommodations = accommodations;
            let beyond = context.site.labs.get(lab).map(|share| share.beyond(&desired)).unwrap_or_default();
            if desired.lab != *lab || !beyond.is_empty() {
                return Err(failed(std::io::Error::other("it answered what it was not to answer")));
            }
            Ok(Meaning::Lab { desired, findings })
        }
        Said::Invalid { findings } => Ok(Meaning::Invalid { findings }),
        Said::Unreadable(why) => Err(failed(std::io::Error::other(why))),
        Said::Images(_) => Err(failed(std::io::Error::other("it asked twice"))),
    }
}

/// What images are like. What the lab may not have is not even looked at.
fn facts(context: &Context, lab: &LabName, images: BTreeMap<PathBuf, bool>) -> BTreeMap<PathBuf, ImageFacts> {
    let images_of_lab = context.images(lab);
    let look = |path: &PathBuf, is_summed: bool| match images_of_lab.open(path) {
        Ok(file) => look_at(file, path, is_summed),
        Err(DiskError::Missing { .. }) => ImageFacts::Missing,
        Err(DiskError::NotAFile { .. }) => ImageFacts::NotAFile,
        Err(error) => ImageFacts::Unreadable { error: chain(&error) },
    };
    let is_its = |path: &PathBuf| context.site.labs.get(lab).is_none_or(|share| share.has_image(path));
    let fact = |(path, is_summed): (PathBuf, bool)| {
        let facts = if is_its(&path) { look(&path, is_summed) } else { ImageFacts::OutOfSight };
        (path, facts)
    };
    images.into_iter().map(fact).collect()
}

/// The other side, in the process without rights: reads a task and its files, and answers. `words` writes findings for people.
pub fn understand(
    from: &mut impl Read,
    to: &mut impl Write,
    words: &dyn Fn(&Diagnostics, bool) -> String,
) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    let Task { site, is_styled } = hear(&mut from)?;
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let mut files = from.by_ref().take(u64::from_le_bytes(length).min(BYTES_MAX));
    let loaded = match Gathered::read(&mut files, BYTES_MAX).and_then(|sent| sent.load().map_err(std::io::Error::other))
    {
        Ok(loaded) => loaded,
        Err(error) => return say(to, &Said::Unreadable(error.to_string())),
    };
    std::io::copy(&mut files, &mut std::io::sink())?;
    let (mut manifest, mut findings) = (loaded.manifest, loaded.diagnostics);
    say(to, &Said::Images(manifest.images_wanted()))?;
    manifest.images = hear(&mut from)?;
    let resolved = resolve(&manifest, &site);
    findings.append(resolved.diagnostics);
    findings.sort();
    let understood = match resolved.desired {
        Some(desired) if !findings.has_errors() => {
            findings.append(not_yet_acted_upon(&manifest, &desired));
            findings.sort();
            with_images(desired, findings)
        }
        _ => Err(DesiredError::Invalid(findings)),
    };
    let said = match understood {
        Ok((desired, findings)) => {
            let (accommodations, findings) = (desired.accommodations.clone(), words(&findings, is_styled));
            Said::Understood { desired: Box::new(desired), accommodations, findings }
        }
        Err(DesiredError::Invalid(findings)) => Said::Invalid { findings: words(&findings, is_styled) },
        Err(DesiredError::Load(error)) => Said::Unreadable(error.to_string()),
    };
    say(to, &said)
}

fn say(to: &mut impl Write, what: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

fn hear<T: DeserializeOwned>(from: &mut BufReader<impl Read>) -> std::io::Result<T> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}
