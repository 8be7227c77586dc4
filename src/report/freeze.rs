//! That nothing more shall be done, and the end of that, in words.

use super::times;
use crate::control::freeze::Freeze;
use crate::model::id::LabName;
use crate::state::{FreezeScope, Frozen};

/// What became of a wish to freeze.
pub fn frozen(freeze: &Freeze, scope: FreezeScope, lab: &LabName) -> String {
    let (thing, thaw) = (what(scope, lab), thaw_command(scope));
    match freeze {
        Freeze::Already(Frozen { who, since, why, .. }) => {
            let since = times::local(*since);
            format!("{thing} is frozen already, by {who} at {since} ({why}); `{thaw}` ends it")
        }
        Freeze::Done => format!("{thing} is frozen: plans are shown and not applied until `{thaw}`"),
    }
}

/// What became of a wish to thaw; the other freeze, of the site or of this lab, may hold on.
pub fn thawed(left: Option<&Frozen>, scope: FreezeScope, lab: &LabName) -> String {
    let thing = what(scope, lab);
    match left {
        None => format!("{thing} is thawed: plans are applied again"),
        Some(Frozen { who, why, scope, .. }) => {
            let (other, thaw) = (what(*scope, lab), thaw_command(*scope));
            format!("{thing} is thawed, but {other} is frozen by {who} ({why}) until `{thaw}`")
        }
    }
}

pub(super) fn thaw_command(scope: FreezeScope) -> &'static str {
    match scope {
        FreezeScope::Site => "labwright thaw --all",
        FreezeScope::Lab => "labwright thaw",
    }
}

fn what(scope: FreezeScope, lab: &LabName) -> String {
    match scope {
        FreezeScope::Site => "the whole site".into(),
        FreezeScope::Lab => format!("lab `{lab}`"),
    }
}
