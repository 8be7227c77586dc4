//! The listings of `get`, `status` and `history`: which columns each kind of value has, and how a cell reads.

mod vms;

/// `yes` or `no`, for cells.
pub(super) fn yes_no(is: bool) -> String {
    if is { "yes".into() } else { "no".into() }
}

/// What is not there is an empty cell.
pub(super) fn shown<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}
