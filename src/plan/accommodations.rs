//! What people need of a session's time, by the file that the session names: it becomes a claim, which is counted and never
//! shown. A file that whoever plans may not read changes nothing, and one with fewer people than before is refused.

use super::{Ground, Planner, Reason, Remark};
use crate::model::accommodation::{Accommodated, AccommodationFile, Unshown};
use crate::model::address::{Address, Kind};
use crate::model::claim::{AccommodatedBy, ClaimBody};
use crate::state::Entry;

impl Planner<'_> {
    pub(super) fn guard_accommodations(&mut self) {
        let desired = self.inputs.desired;
        for (session, file) in &desired.accommodations {
            let address = Address::new(Kind::Session, session);
            let recorded = self.accommodated(&address);
            match file {
                AccommodationFile::Unread { why } => {
                    let (recorded, why) = (recorded.map_or(0, |people| people.len()), why.clone());
                    self.note(&address, Remark::AccommodationsUnread { recorded, why });
                }
                AccommodationFile::Read(people) => {
                    let recorded = recorded.into_iter().flatten();
                    let (stay, lost): (Vec<_>, Vec<_>) = recorded.partition(|(user, _)| people.contains_key(*user));
                    if !lost.is_empty() && !self.allowed(&address) {
                        let why = Ground::AccommodationsShrink { lost: lost.len(), recorded: lost.len() + stay.len() };
                        self.refuse(&address, why);
                    }
                }
            }
        }
    }

    /// What the session's file said when it was recorded last.
    fn accommodated(&self, session: &Address) -> Option<&Accommodated> {
        let claims = self.inputs.recorded.claims.iter();
        let bodies = claims.filter_map(|claim| match &claim.body {
            ClaimBody::Accommodation(of) if of.by == AccommodatedBy::File => Some(of),
            _ => None,
        });
        bodies.filter(|of| of.session.as_str() == session.name).map(|of| &of.people).next_back()
    }

    /// What is to be recorded of the session's file, and why.
    pub(super) fn to_accommodate(&self, session: &Address) -> Option<(Entry, Reason)> {
        let (name, file) = self.inputs.desired.accommodations.get_key_value(session.name.as_str())?;
        let AccommodationFile::Read(people) = file else { return None };
        let none = Accommodated::new();
        let recorded = self.accommodated(session).unwrap_or(&none);
        if session.kind != Kind::Session || people == recorded {
            return None;
        }
        let (were, by) = (recorded.len(), self.inputs.by.to_owned());
        let of = Unshown(people.clone());
        let entry = Entry::Accommodate { session: name.clone(), people: people.len(), by, of };
        Some((entry, Reason::Accommodations { people: people.len(), were }))
    }
}
