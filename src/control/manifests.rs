//! A lab's folder as what it wants, and a site's file as its settings, each with what is to be said about it.

use std::path::Path;

use crate::host::machine::embedded::place;
use crate::manifest::site::{self, Machine};
use crate::manifest::{LoadError, Loaded, load};
use crate::model::diagnostic::Diagnostics;
use crate::model::lab::Desired;
use crate::model::site::{Site, SiteContext};
use crate::resolve::{not_yet_acted_upon, resolve, resolve_site};

/// Why there is no `Desired`.
#[derive(Debug, thiserror::Error)]
pub enum DesiredError {
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Errors and warnings of the manifest, for `report::diagnostics`.
    #[error("the manifest has errors")]
    Invalid(Diagnostics),
}

/// A lab's folder as what it wants, with the warnings. What `plan`, `apply` and `validate` begin with.
pub fn desired(folder: &Path, site: &SiteContext) -> Result<(Desired, Diagnostics), DesiredError> {
    let Loaded { manifest, mut diagnostics } = load(folder)?;
    let resolved = resolve(&manifest, site);
    diagnostics.append(resolved.diagnostics);
    diagnostics.sort();
    match resolved.desired {
        Some(desired) if !diagnostics.has_errors() => {
            diagnostics.append(not_yet_acted_upon(&manifest, &desired));
            diagnostics.sort();
            Ok((desired, diagnostics))
        }
        _ => Err(DesiredError::Invalid(diagnostics)),
    }
}

/// Why there is no site.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Findings for `report::diagnostics`.
    #[error("the site's settings have errors")]
    Invalid(Diagnostics),
}

/// A site's settings, with the warnings.
pub fn site(path: &Path) -> Result<(Site, Diagnostics), SiteError> {
    match resolve_site(site::load(path)?, Machine::here()?) {
        (Some(site), findings) => Ok((site, findings)),
        (None, findings) => Err(SiteError::Invalid(findings)),
    }
}

/// The settings of a lab that has no site but this machine. `lab_folder` is absolute.
pub fn embedded(lab_folder: &Path) -> Result<Site, LoadError> {
    let Machine { memory_mib, cpus } = Machine::here()?;
    Ok(Site::embedded(lab_folder, memory_mib, cpus).reachable_at(&place(lab_folder)))
}
