//! Users of the lab against accounts of a machine, where somebody asks for it: `validate --check-users`.

use std::collections::BTreeMap;

use crate::manifest::{At, Manifest};
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::id::UserName;
use crate::model::lab::Desired;
use crate::model::rules::Rule;

/// Users that have no account, or one with another uid. `uid_of` looks one up.
pub fn check_accounts(
    manifest: &Manifest,
    desired: &Desired,
    uid_of: impl Fn(&UserName) -> Option<u32>,
) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    let places = places(manifest);
    for (name, user) in &desired.users {
        let (message, hint) = match (uid_of(name), user.uid) {
            (None, _) => (
                format!("`{name}` has no account on this system"),
                "create it, or correct the name; `getent passwd` lists accounts".to_owned(),
            ),
            (Some(found), Some(written)) if found != written => (
                format!("`{name}` has the uid {found} on this system, and {written} in the lab"),
                format!("write `{found}`, or leave the uid out"),
            ),
            _ => continue,
        };
        let mut diagnostic = Diagnostic::new(Rule::UidUnknown, message).hint(hint);
        if let Some(at) = places.get(name) {
            diagnostic = diagnostic.at(manifest.span(*at));
        }
        diagnostics.push(diagnostic);
    }
    diagnostics
}

/// Where each user is named.
fn places(manifest: &Manifest) -> BTreeMap<&UserName, At> {
    let members =
        manifest.user_groups.iter().flat_map(|(_, group)| &group.members).map(|member| (&member.value, member.at));
    let rosters = manifest.rosters.values().flat_map(|roster| &roster.rows).map(|row| (&row.user.value, row.user.at));
    let users = manifest.users.iter().map(|(name, _)| (&name.value, name.at));
    let templates =
        manifest.templates.iter().filter_map(|(_, t)| t.owner.as_ref()).map(|owner| (&owner.value, owner.at));
    let vms = manifest.vms.iter().filter_map(|(_, vm)| vm.owner.as_ref()).map(|owner| (&owner.value, owner.at));
    templates.chain(vms).chain(rosters).chain(members).chain(users).collect()
}
