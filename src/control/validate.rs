//! Labs' files and sites' settings, checked. No site, state, root or network needed.

use std::path::{Path, PathBuf};

use super::manifests::{self, SiteError};
use crate::manifest::{self, Checksums, LoadError, Loaded, Manifest};
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::id::UserName;
use crate::model::lab::{Desired, Limits, VmGroup};
use crate::model::site::SiteContext;
use crate::resolve::{across, check_accounts, not_yet_acted_upon, resolve};

/// Files and what is wrong with them.
#[derive(Debug, Default)]
pub struct Checked {
    /// Every file that was read, as it is shown.
    pub files: Vec<String>,
    pub diagnostics: Diagnostics,
}

impl Checked {
    /// The findings, most severe first.
    pub fn sorted(&self) -> Vec<&Diagnostic> {
        let mut sorted: Vec<&Diagnostic> = self.diagnostics.list.iter().collect();
        sorted.sort_by(|a, b| a.order().cmp(&b.order()));
        sorted
    }
}

/// Checks labs and site files, each alone and the labs against each other; with `check_users` also that every user has an
/// account on this system.
pub fn check(paths: &[PathBuf], check_users: bool) -> Result<Checked, LoadError> {
    let mut checked = Checked::default();
    let mut sound: Vec<(Manifest, Desired)> = Vec::new();
    for path in paths {
        if is_site(path) {
            check_site(path, &mut checked)?;
        } else {
            sound.extend(check_lab(manifest::lab_folder(path), check_users, &mut checked)?);
        }
    }
    let labs: Vec<_> = sound.iter().map(|(manifest, desired)| (manifest, desired)).collect();
    checked.diagnostics.append(across(&labs));
    Ok(checked)
}

fn is_site(path: &Path) -> bool {
    path.is_file() && path.file_name().is_some_and(|name| name == "site.yaml" || name == "site.yml")
}

fn check_site(path: &Path, checked: &mut Checked) -> Result<(), LoadError> {
    checked.files.push(path.display().to_string());
    match manifests::site(path) {
        Ok((_, warnings)) => checked.diagnostics.append(warnings),
        Err(SiteError::Invalid(findings)) => checked.diagnostics.append(findings),
        Err(SiteError::Load(error)) => return Err(error),
    }
    Ok(())
}

/// What the lab wants, if nothing is wrong with it.
fn check_lab(
    folder: &Path,
    check_users: bool,
    checked: &mut Checked,
) -> Result<Option<(Manifest, Desired)>, LoadError> {
    // No site is known here, so a lab is judged against the defaults of one.
    let context = SiteContext {
        all_vms: VmGroup::all_vms_of_one_machine(),
        default_limits: Limits::USER,
        admins: Default::default(),
    };
    let Loaded { manifest, diagnostics } = manifest::load_with(folder, Checksums::All)?;
    let loaded = !diagnostics.has_errors();
    checked.files.extend(manifest.files.iter().map(|file| file.source.name.clone()));
    checked.diagnostics.append(diagnostics);
    let resolved = resolve(&manifest, &context);
    checked.diagnostics.append(resolved.diagnostics);
    let Some(desired) = resolved.desired.filter(|_| loaded) else { return Ok(None) };
    checked.diagnostics.append(not_yet_acted_upon(&manifest, &desired));
    if check_users {
        checked.diagnostics.append(check_accounts(&manifest, &desired, account));
    }
    Ok(Some((manifest, desired)))
}

/// The uid of an account of this system.
fn account(user: &UserName) -> Option<u32> {
    nix::unistd::User::from_name(user.as_str()).ok().flatten().map(|user| user.uid.as_raw())
}
