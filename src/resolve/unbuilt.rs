//! What a manifest says and nothing acts upon yet, told once for each kind. A line here goes when what it is about is built.

use crate::manifest::{LimitsDecl, Manifest, Spanned};
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::lab::{Desired, VmSource};
use crate::model::rules::Rule;

/// What of a lab is recorded and has no effect so far.
pub fn not_yet_acted_upon(manifest: &Manifest, desired: &Desired) -> Diagnostics {
    let derives_alone = desired.vms.values().all(|vm| matches!(vm.source, VmSource::Derive(_)));
    let is_of_storage = |limits: Option<&Spanned<LimitsDecl>>| limits.is_some_and(|limits| limits.storage.is_some());
    let limits = manifest.users.iter().any(|(_, user)| is_of_storage(user.limits.as_ref()))
        || manifest.user_groups.iter().any(|(_, group)| is_of_storage(group.limits.as_ref()));
    let kinds = [(
        Rule::LimitsUnbuilt,
        limits && derives_alone,
        "`limits: { storage }` counts copied and new disks alone: what derived ones grow to is not counted yet",
    )];
    let mut diagnostics = Diagnostics::default();
    for (rule, _, message) in kinds.into_iter().filter(|(_, applies, _)| *applies) {
        diagnostics.push(Diagnostic::new(rule, message));
    }
    diagnostics
}
