//! The small bootable template of a new lab: what the quickstart's script makes, from the script and the guest's files as
//! they are in this program. It fetches Debian's kernel, so it needs Debian's packages and, the first time, the network.

use std::io::{Error, Result};
use std::path::Path;
use std::process::{Command, Stdio};

const SCRIPT: &str = include_str!("../../../labs/quickstart/make-template");
const GUEST: [(&str, &str); 2] = [
    ("init", include_str!("../../../labs/quickstart/guest/init")),
    ("udhcpc.sh", include_str!("../../../labs/quickstart/guest/udhcpc.sh")),
];

/// Makes `image` with a folder for what is needed on the way, which stays where something failed: what was fetched is not
/// fetched again.
pub(super) fn make(image: &Path, workshop: &Path) -> Result<()> {
    let guest = workshop.join("guest");
    std::fs::create_dir_all(&guest)?;
    for (name, text) in GUEST {
        std::fs::write(guest.join(name), text)?;
    }
    let script = workshop.join("make-template");
    std::fs::write(&script, SCRIPT)?;
    let out = workshop.join("out");
    let made = Command::new("/bin/sh").arg(&script).arg(&out).stdin(Stdio::null()).output()?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr);
        let said: Vec<&str> = said.lines().map(|line| line.trim_start_matches("make-template: ").trim()).collect();
        return Err(Error::other(said[said.len().saturating_sub(LINES_SHOWN)..].join("\n")));
    }
    if let Some(folder) = image.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::rename(out.join("template.qcow2"), image)?;
    std::fs::remove_dir_all(workshop)
}

/// The last words of a script that failed.
const LINES_SHOWN: usize = 5;
