//! What is said of a new lab.

use std::path::Path;

/// While the image of its template is made.
pub fn making(image: &Path) -> String {
    format!(
        "making {}: a Debian kernel and busybox, some 16 MB; fetching the kernel takes a minute the first time",
        image.display()
    )
}

/// What to do with it.
pub fn next(folder: &Path) -> String {
    let shown = folder.display();
    format!(
        "next, as root on a machine that may run guests:\n  \
         labwright host setup --lab {shown}\n  labwright plan {shown}\n  labwright apply {shown} --wait\n\
         then edit {shown}/lab.yaml and {shown}/students.csv, and plan and apply again\n"
    )
}
