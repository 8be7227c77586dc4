//! What people may use at once.

use crate::control::quota::{OneMore, Quota};
use crate::model::disk::size;
use crate::report::table::{Column, Row, column, wide, yielding};

impl Row for Quota {
    const COLUMNS: &'static [Column<Self>] = &[
        column("user", |quota| quota.user.to_string()),
        wide("lab", |quota| quota.lab.to_string()),
        column("running", |quota| format!("{} of {}", quota.running_vms.used, quota.running_vms.limit)),
        column("storage", |quota| format!("{} of {}", size(quota.storage_bytes.used), size(quota.storage_bytes.limit))),
        yielding(1, "set aside", |quota| size(quota.aside_bytes)),
        column("one more vm", one_more),
    ];
}

/// What can be had of it is said first.
fn one_more(quota: &Quota) -> String {
    let room = quota.storage_bytes.left();
    let clone = |more: &OneMore| {
        let beyond = if more.clone_bytes > room { " (too much)" } else { "" };
        format!("{}: derive {}, clone {}{beyond}", more.template, size(more.derive_bytes), size(more.clone_bytes))
    };
    let to_run = if quota.running_vms.left() == 0 { "stop one first to run it; " } else { "" };
    let storage = quota.one_more.iter().map(clone).collect::<Vec<_>>().join("; ");
    format!("{to_run}{storage}")
}
