//! Several labs of one site, judged together: addresses, names and times belong to the site, so two labs can be sound
//! alone and still collide.

use super::networks::{macs_collide, overlap};
use crate::manifest::{At, Manifest};
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::id::{SessionName, VmGroupName};
use crate::model::lab::{Desired, Session};
use crate::model::rules::Rule;

/// A lab that is sound by itself.
pub type SoundLab<'a> = (&'a Manifest, &'a Desired);

/// What collides between labs.
pub fn across(labs: &[SoundLab<'_>]) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    for (index, lab) in labs.iter().enumerate() {
        for other in &labs[..index] {
            names(*lab, *other, &mut diagnostics);
            addresses(*lab, *other, &mut diagnostics);
            times(*lab, *other, &mut diagnostics);
        }
    }
    diagnostics
}

fn names(lab: SoundLab<'_>, other: SoundLab<'_>, diagnostics: &mut Diagnostics) {
    let (Some(name), Some(other_name)) = (&lab.0.lab, &other.0.lab) else { return };
    if name.value == other_name.value {
        let message = format!("two labs are called `{}`", name.value);
        let diagnostic = Diagnostic::new(Rule::LabsShareName, message)
            .at(lab.0.span(name.at))
            .related(other.0.span(other_name.at), "the other lab")
            .hint("rename one of the two: a site knows its labs by name");
        diagnostics.push(diagnostic);
    }
}

fn addresses(lab: SoundLab<'_>, other: SoundLab<'_>, diagnostics: &mut Diagnostics) {
    for (name, group) in own_groups(lab) {
        for (other_name, other_group) in own_groups(other) {
            let message = if overlap(&group.range, &other_group.range) {
                format!("the range of `{name}` overlaps that of `{other_name}` in the lab `{}`", other.1.lab)
            } else if macs_collide(group, other_group) {
                format!(
                    "vms of `{name}` could get the same Ethernet address as vms of `{other_name}` in the lab `{}`",
                    other.1.lab
                )
            } else {
                continue;
            };
            let mut diagnostic = Diagnostic::new(Rule::LabsShareAddresses, message)
                .hint("addresses belong to the whole site: take another range, or another `mac_prefix`");
            if let Some(at) = group_place(lab.0, name) {
                diagnostic = diagnostic.at(lab.0.span(at));
            }
            if let Some(at) = group_place(other.0, other_name) {
                diagnostic = diagnostic.related(other.0.span(at), "the other lab's range");
            }
            diagnostics.push(diagnostic);
        }
    }
}

/// The groups a lab defines; the predefined one is meant to be shared.
fn own_groups<'a>(lab: SoundLab<'a>) -> impl Iterator<Item = (&'a VmGroupName, &'a super::VmGroup)> {
    lab.1.vm_groups.iter().filter(|(name, _)| name.as_str() != VmGroupName::ALL_VMS)
}

fn group_place(manifest: &Manifest, name: &VmGroupName) -> Option<At> {
    manifest.vm_groups.iter().find(|(key, _)| key.value == *name).map(|(_, decl)| decl.ip_range.at)
}

fn times(lab: SoundLab<'_>, other: SoundLab<'_>, diagnostics: &mut Diagnostics) {
    for (name, session) in &lab.1.sessions {
        for (other_name, other_session) in &other.1.sessions {
            if !at_once(session, other_session) {
                continue;
            }
            let guests = session.vms.len() + other_session.vms.len();
            let message = format!(
                "`{name}` overlaps `{other_name}` of the lab `{}`: together {guests} vms at one time",
                other.1.lab
            );
            let mut diagnostic = Diagnostic::new(Rule::LabsShareTime, message)
                .hint("make sure that the hosts can carry both, or move one of them");
            if let Some(at) = session_place(lab.0, name) {
                diagnostic = diagnostic.at(lab.0.span(at));
            }
            if let Some(at) = session_place(other.0, other_name) {
                diagnostic = diagnostic.related(other.0.span(at), "the other lab's session");
            }
            diagnostics.push(diagnostic);
        }
    }
}

fn at_once(a: &Session, b: &Session) -> bool {
    let ((a_opens, a_closes), (b_opens, b_closes)) = (a.window(), b.window());
    a_opens < b_closes && b_opens < a_closes
}

fn session_place(manifest: &Manifest, name: &SessionName) -> Option<At> {
    manifest.sessions.iter().find(|(key, _)| key.value == *name).map(|(key, _)| key.at)
}
