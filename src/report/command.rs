//! Commands as they can be typed here.

use std::path::Path;

use crate::control::{Context, SITE_FILE};

/// A command about this lab as it can be typed here: with site and folder, where they would not be found by themselves.
pub fn command(context: &Context, words: &str) -> String {
    command_at(context.site.file.as_deref(), &context.lab_folder, words)
}

/// The same, of the lab in a folder.
pub(super) fn command_at(site: Option<&Path>, lab_folder: &Path, words: &str) -> String {
    let found = |file: &Path| file == Path::new(SITE_FILE) || std::env::var_os("LABWRIGHT_SITE").is_some();
    let site = site.filter(|file| !found(file));
    let site = site.map(|file| format!(" --site {}", file.display())).unwrap_or_default();
    let here = std::env::current_dir().is_ok_and(|folder| folder == lab_folder);
    let takes_folder = matches!(words, "apply" | "destroy" | "status" | "validate");
    let lab = match (here, takes_folder) {
        (true, _) => String::new(),
        (false, true) => format!(" {}", lab_folder.display()),
        (false, false) => format!(" --lab {}", lab_folder.display()),
    };
    format!("labwright{site} {words}{lab}")
}
