//! The times of a run: from when on its guest is its owner's, when that ends, and when it stands still.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Part;
use crate::model::lab::Egress;

/// Times on the controller's clock, which starters know by the storage server's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Clock {
    /// From when on the guest is its owner's. Before that it boots ahead, with console and egress shut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub start: Option<Part<Timestamp>>,
    /// The owner's own end, without pauses: the guest's end comes later than this by all of `pauses` that are over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub end: Option<Part<Timestamp>>,
    /// When the guest stands still, and its time with it: no end comes while a pause is open. What overlaps counts once, and
    /// what lies before `start` not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Pause>>")]
    pub pauses: Option<Part<Vec<Pause>>>,
    /// How long the guest runs on after its end, with console and egress shut, so that it writes what was saved. A later end
    /// unlocks it. Without, it is stopped at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub grace_seconds: Option<Part<u64>>,
    /// How long it does so where `controller.beat` is older than a minute when the end comes: nobody could have moved that.
    /// Without, or where there is no such file, `grace_seconds` holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub offline_grace_seconds: Option<Part<u64>>,
    /// How long before its end the guest is told of it, on its serial line; each once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<u64>>")]
    pub warn_before_seconds: Option<Part<Vec<u64>>>,
    /// What comes of the guest after its end; `stop` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<AtEnd>")]
    pub at_end: Option<Part<AtEnd>>,
    /// What an isolated guest may reach for a time, besides DHCP and its gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Allowed>")]
    pub egress: Option<Part<Allowed>>,
    /// What a newer labwright knows of the clock.
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) rest: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AtEnd {
    /// It is powered off when its grace is over.
    Stop,
    /// It stays locked, and runs on.
    Keep,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Allowed {
    /// From when on.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub from: Timestamp,
    /// Until when, later by all of `pauses` that are over; for good without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub until: Option<Timestamp>,
    /// What that is.
    pub to: Vec<Egress>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pause {
    /// When it began; it may be written later than that.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// When it was over; open without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub until: Option<Timestamp>,
}

impl Clock {
    pub fn new(start: Option<Timestamp>, end: Option<Timestamp>, pauses: Vec<Pause>) -> Self {
        let pauses = (!pauses.is_empty()).then_some(Part::Known(pauses));
        Self { start: start.map(Part::Known), end: end.map(Part::Known), pauses, ..Self::default() }
    }

    /// When the guest's time is over, with all pauses that are over. None where it has no end, or stands still.
    pub fn over_at(&self) -> Option<Timestamp> {
        self.after_pauses(*self.end.as_ref()?.known()?)
    }

    /// An end, later by what of the pauses lies between the start and it. None where a pause has no end yet.
    pub fn after_pauses(&self, mut end: Timestamp) -> Option<Timestamp> {
        let mut counted = self.start.as_ref().and_then(Part::known).copied().unwrap_or(Timestamp::MIN);
        let mut pauses: Vec<&Pause> = self.pauses().iter().collect();
        pauses.sort_by_key(|pause| pause.since);
        for pause in pauses {
            if pause.since >= end {
                break;
            }
            let until = pause.until?;
            let since = pause.since.max(counted);
            if until > since {
                // A time beyond all calendars is no end.
                end = end.checked_add(until.duration_since(since)).ok()?;
                counted = until;
            }
        }
        Some(end)
    }

    /// Whether the guest is to stand still.
    pub fn is_paused(&self, now: Timestamp) -> bool {
        self.pauses().iter().any(|pause| pause.since <= now && pause.until.is_none_or(|until| now < until))
    }

    fn pauses(&self) -> &[Pause] {
        self.pauses.as_ref().and_then(Part::known).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Control, Wanted};

    /// From when until when, in minutes of the hour that begins at ten.
    type Span = (i64, Option<i64>);

    #[test]
    fn an_end_moves_by_the_pauses_before_it() {
        let at = |minute: i64| Timestamp::from_second(36_000 + minute * 60).unwrap();
        // (start, end, pauses, when the end comes)
        let table: [(Option<i64>, &[Span], Option<i64>); 11] = [
            (None, &[], Some(50)),
            (None, &[(10, Some(20))], Some(60)),
            (None, &[(10, None)], None),
            (None, &[(30, Some(35)), (10, Some(20))], Some(65)),
            // What overlaps counts once, whichever was written first.
            (None, &[(10, Some(30)), (20, Some(25))], Some(70)),
            (None, &[(20, Some(40)), (10, Some(30))], Some(80)),
            // A pause after the end is none; one after the end that an earlier one has moved is.
            (None, &[(50, Some(55))], Some(50)),
            (None, &[(10, Some(20)), (55, Some(57))], Some(62)),
            (None, &[(60, None)], Some(50)),
            // Nobody loses time before the start.
            (Some(15), &[(10, Some(20))], Some(55)),
            (Some(15), &[(20, Some(10))], Some(50)),
        ];
        for (start, pauses, expected) in table {
            let mut control = Control::new(1, Wanted::Running);
            control.end_at(at(50));
            let Some(Part::Known(clock)) = &mut control.clock else { unreachable!("it has an end") };
            clock.start = start.map(|start| Part::Known(at(start)));
            let pauses = pauses.iter().map(|(since, until)| Pause { since: at(*since), until: until.map(at) });
            clock.pauses = Some(Part::Known(pauses.collect()));
            assert_eq!(control.end(), expected.map(at), "{clock:?}", clock = control.clock);
        }
    }
}
