//! Where in the manifest something is written: its own line, or the line that first names it.

use std::path::Path;

use crate::manifest::{self, At, Manifest};
use crate::model::address::{Address, Kind};
use crate::model::lab::Desired;

/// `file:line`, where there is one. What a lab has without writing it, like a predefined group, has none.
pub(super) fn place(folder: &Path, desired: &Desired, address: &Address) -> Option<String> {
    let origin = match address.kind {
        Kind::Vm => desired.vms.get(address.name.as_str()).map(|vm| &vm.origin),
        Kind::Template => desired.templates.get(address.name.as_str()).map(|template| &template.origin),
        _ => None,
    };
    if let Some(origin) = origin.filter(|origin| !origin.file.is_empty()) {
        return Some(origin.to_string());
    }
    // A manifest that cannot be read is told of elsewhere.
    let manifest = manifest::load(folder).ok()?.manifest;
    let at = written(&manifest, address)?;
    let file = &manifest.files[at.file as usize];
    Some(format!("{}:{}", file.relative, file.source.line_column(at.start as usize).0))
}

fn written(manifest: &Manifest, address: &Address) -> Option<At> {
    let name = address.name.as_str();
    match address.kind {
        Kind::User => user(manifest, name),
        Kind::UserGroup => manifest.user_groups.iter().find(|(key, _)| key.as_str() == name).map(|(key, _)| key.at),
        Kind::VmGroup => manifest.vm_groups.iter().find(|(key, _)| key.as_str() == name).map(|(key, _)| key.at),
        Kind::Session => manifest.sessions.iter().find(|(key, _)| key.as_str() == name).map(|(key, _)| key.at),
        Kind::Vm | Kind::Template | Kind::Permission | Kind::Job | Kind::Lab | Kind::Site => None,
    }
}

/// An entry of its own comes before a list of members, and that before a roster and what the user owns.
fn user(manifest: &Manifest, name: &str) -> Option<At> {
    let entry = manifest.users.iter().find(|(key, _)| key.as_str() == name).map(|(key, _)| key.at);
    let members = || manifest.user_groups.iter().flat_map(|(_, group)| &group.members);
    let listed = || members().find(|member| member.as_str() == name).map(|member| member.at);
    let rows = || manifest.rosters.values().flat_map(|roster| &roster.rows);
    let in_roster = || rows().find(|row| row.user.as_str() == name).map(|row| row.user.at);
    let owned = || {
        let mut owners = manifest.templates.iter().filter_map(|(_, template)| template.owner.as_ref());
        owners.find(|owner| owner.as_str() == name).map(|owner| owner.at)
    };
    entry.or_else(listed).or_else(in_roster).or_else(owned)
}
