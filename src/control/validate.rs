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

/// Checks labs and site files, each alone, the labs against each other, and against the site that is named; with `check_users` also that every user has an
/// account on this system.
pub fn check(paths: &[PathBuf], check_users: bool) -> Result<Checked, LoadError> {
    let mut checked = Checked::default();
    let mut sound: Vec<(Manifest, Desired)> = Vec::new();
    let (sites, folders): (Vec<&PathBuf>, Vec<&PathBuf>) = paths.iter().partition(|path| is_site(path));
    let mut context = any_site();
    for path in sites {
        context = check_site(path, &mut checked)?.unwrap_or(context);
    }
    for path in folders {
        sound.extend(check_lab(manifest::lab_folder(path), &context, check_users, &mut checked)?);
    }
    let labs: Vec<_> = sound.iter().map(|(manifest, desired)| (manifest, desired)).collect();
    checked.diagnostics.append(across(&labs));
    Ok(checked)
}

fn is_site(path: &Path) -> bool {
    path.is_file() && path.file_name().is_some_and(|name| name == "site.yaml" || name == "site.yml")
}

/// What labs depend on where no site is named: the defaults of one.
fn any_site() -> SiteContext {
    SiteContext {
        all_vms: VmGroup::all_vms_of_one_machine(),
        default_limits: Limits::USER,
        admins: Default::default(),
        labs: Default::default(),
    }
}

/// What labs of this site depend on, if its settings are sound.
fn check_site(path: &Path, checked: &mut Checked) -> Result<Option<SiteContext>, LoadError> {
    checked.files.push(path.display().to_string());
    let (site, findings) = match manifests::site(path) {
        Ok((site, warnings)) => (Some(site.context()), warnings),
        Err(SiteError::Invalid(findings)) => (None, findings),
        Err(SiteError::Load(error)) => return Err(error),
    };
    checked.diagnostics.append(findings);
    Ok(site)
}

/// What the lab wants, if nothing is wrong with it.
fn check_lab(
    folder: &Path,
    context: &SiteContext,
    check_users: bool,
    checked: &mut Checked,
) -> Result<Option<(Manifest, Desired)>, LoadError> {
    let Loaded { manifest, diagnostics } = manifest::load_with(folder, Checksums::All)?;
    let loaded = !diagnostics.has_errors();
    checked.files.extend(manifest.files.iter().map(|file| file.source.name.clone()));
    checked.diagnostics.append(diagnostics);
    let resolved = resolve(&manifest, context);
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
