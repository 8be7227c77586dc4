//! What a manifest says and nothing acts upon yet, told once for each kind. A line here goes when what it is about is built.

use crate::manifest::Manifest;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::lab::{Desired, PowerState};
use crate::model::rules::Rule;

/// What of a lab is recorded and has no effect so far.
pub fn not_yet_acted_upon(manifest: &Manifest, desired: &Desired) -> Diagnostics {
    let on_demand = desired.vms.values().any(|vm| vm.state == PowerState::OnDemand);
    let limits = manifest.users.iter().any(|(_, user)| user.limits.is_some())
        || manifest.user_groups.iter().any(|(_, group)| group.limits.is_some());
    let kinds = [
        (
            Rule::SessionsUnbuilt,
            !desired.sessions.is_empty(),
            "sessions do not start, stop or collect vms yet: they guard their vms from changes while they are open",
        ),
        (
            Rule::EgressUnbuilt,
            desired.sessions.values().any(|session| !session.egress.is_empty()),
            "`egress` opens nothing yet: isolated vms reach their gateway and DHCP alone, during a session too",
        ),
        (
            Rule::PermissionsUnbuilt,
            desired.permissions.iter().any(|permission| !permission.allow.is_empty()),
            "what permissions `allow` is recorded and not asked for yet: root alone acts; `force_isolated` works",
        ),
        (
            Rule::LimitsUnbuilt,
            limits && on_demand,
            "`limits` hold for vms with `state: running` alone: starting on demand and derived disks are not counted yet",
        ),
    ];
    let mut diagnostics = Diagnostics::default();
    for (rule, _, message) in kinds.into_iter().filter(|(_, applies, _)| *applies) {
        diagnostics.push(Diagnostic::new(rule, message));
    }
    diagnostics
}
