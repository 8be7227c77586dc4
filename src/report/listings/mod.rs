//! The listings of `get`, `status` and `history`: which columns each kind of value has, and how a cell reads.

mod history;
mod jobs;
mod people;
mod quota;
mod things;
mod vms;

/// `yes` or `no`, for cells.
fn yes_no(is: bool) -> String {
    if is { "yes".into() } else { "no".into() }
}

/// What is not there is an empty cell.
pub(super) fn shown<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// The first few of some names, and how many more there are.
fn few<N: ToString>(names: impl Iterator<Item = N>) -> String {
    const SHOWN_MAX: usize = 4;
    let all: Vec<String> = names.map(|name| name.to_string()).collect();
    let shown = all[..all.len().min(SHOWN_MAX)].join(", ");
    match all.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
