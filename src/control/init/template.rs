//! The small bootable template of a new lab: what the quickstart's script makes, from the script and the guest's files as
//! they are in this program. It fetches Debian's kernel, so it needs Debian's packages and, the first time, the network.

use std::path::{Path, PathBuf};

use super::InitError;
use crate::host::command::{CommandError, run};

const SCRIPT: &str = include_str!("../../../labs/quickstart/make-template");
const GUEST: [(&str, &str); 2] = [
    ("init", include_str!("../../../labs/quickstart/guest/init")),
    ("udhcpc.sh", include_str!("../../../labs/quickstart/guest/udhcpc.sh")),
];

/// Where the image is put, relative to the lab's folder.
pub const SMALL_IMAGE: &str = "images/tiny.qcow2";

#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: std::io::Error },
    /// The script's own last words.
    #[error("{said}")]
    Script { said: String },
    #[error(transparent)]
    Command(CommandError),
}

/// Makes the template of the lab in `folder`. What is needed on the way stays there where something failed: what was fetched
/// is not fetched again.
pub fn make(folder: &Path) -> Result<(), InitError> {
    let workshop = folder.join(".labwright/template");
    make_in(&workshop, &folder.join(SMALL_IMAGE))
        .map_err(|source| InitError::Template { folder: folder.to_owned(), source })
}

fn make_in(workshop: &Path, image: &Path) -> Result<(), TemplateError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| TemplateError::Write { path, source }
    };
    let (guest, script, out) = (workshop.join("guest"), workshop.join("make-template"), workshop.join("out"));
    std::fs::create_dir_all(&guest).map_err(at(&guest))?;
    for (name, text) in GUEST {
        let file = guest.join(name);
        std::fs::write(&file, text).map_err(at(&file))?;
    }
    std::fs::write(&script, SCRIPT).map_err(at(&script))?;
    // The folder is text, or no lab was written to it.
    run("/bin/sh", &[&script.to_string_lossy(), &out.to_string_lossy()], "").map_err(last_words)?;
    let images = image.parent().unwrap_or(workshop);
    std::fs::create_dir_all(images).map_err(at(images))?;
    std::fs::rename(out.join("template.qcow2"), image).map_err(at(image))?;
    std::fs::remove_dir_all(workshop).map_err(at(workshop))
}

/// What a script that failed said at the end.
fn last_words(error: CommandError) -> TemplateError {
    const LINES_SHOWN: usize = 5;
    let CommandError::Failed { stderr, .. } = &error else { return TemplateError::Command(error) };
    if stderr.is_empty() {
        return TemplateError::Command(error);
    }
    let said: Vec<&str> = stderr.lines().map(|line| line.trim_start_matches("make-template: ").trim()).collect();
    TemplateError::Script { said: said[said.len().saturating_sub(LINES_SHOWN)..].join("\n  ") }
}
