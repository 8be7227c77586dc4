//! Accommodations: what somebody needs of a session's time and has been granted before it. They say something of a person's
//! health, so they stand in no plan, in no record of the session and in nothing that is printed: there it says how many.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::UserName;

/// What one person has. What is not said is as everybody has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Accommodation {
    /// How long their time is, in thousandths of everybody's: 1250 is a quarter more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor_permille: Option<u32>,
    /// How many minutes they have besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minutes: Option<u32>,
    /// When their time begins, if not with everybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub start: Option<Timestamp>,
}

impl Accommodation {
    /// Nobody's time is made shorter, and more than four times as long is a slip.
    pub const FACTOR_PERMILLE: std::ops::RangeInclusive<u32> = 1000..=4000;
    /// A day.
    pub const MINUTES_MAX: u32 = 24 * 60;

    /// As people write a factor: `1.25`.
    pub fn read_factor(text: &str) -> Result<u32, String> {
        let wrong = || format!("`{text}` is not a factor from 1 to 4: write `1.25` for a quarter more");
        let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        if !is_number(whole) || !is_number(rest) || whole.len() > 1 || rest.len() > 3 {
            return Err(wrong());
        }
        let permille = format!("{whole}{rest:0<3}").parse().map_err(|_| wrong())?;
        if Self::FACTOR_PERMILLE.contains(&permille) { Ok(permille) } else { Err(wrong()) }
    }

    /// The same of minutes.
    pub fn read_minutes(text: &str) -> Result<u32, String> {
        let minutes = text.parse().ok().filter(|minutes| *minutes <= Self::MINUTES_MAX);
        minutes.ok_or_else(|| format!("`{text}` is not a number of minutes up to {}", Self::MINUTES_MAX))
    }

    /// This, and what it says nothing of as before.
    #[must_use]
    pub fn over(self, before: Self) -> Self {
        Self {
            factor_permille: self.factor_permille.or(before.factor_permille),
            minutes: self.minutes.or(before.minutes),
            start: self.start.or(before.start),
        }
    }

    /// How much longer than a time of this length theirs is.
    pub fn seconds_more(&self, length: i64) -> i64 {
        let more = i64::from(self.factor_permille.unwrap_or(1000).max(1000)) - 1000;
        (length.saturating_mul(more) / 1000).saturating_add(60 * i64::from(self.minutes.unwrap_or(0)))
    }
}

/// What everybody has who has something.
pub type Accommodated = BTreeMap<UserName, Accommodation>;

/// The file that a session names, as whoever reads the lab finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccommodationFile {
    Read(Accommodated),
    /// It is no empty one.
    Unread {
        why: String,
    },
}

/// The same where others read along: kept out of every text, and no matter when texts are compared.
#[derive(Clone, Default)]
pub struct Unshown(pub Accommodated);

impl std::fmt::Debug for Unshown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} people", self.0.len())
    }
}

impl PartialEq for Unshown {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Unshown {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_written_as_people_do() {
        for (text, permille) in [("1", 1000), ("1.25", 1250), ("1.5", 1500), ("4", 4000), ("1.333", 1333)] {
            assert_eq!(Accommodation::read_factor(text), Ok(permille), "{text}");
        }
        for wrong in ["", "25%", "0.5", "4.1", "1.", ".5", "1,25", "1.2345", "12", "-1", "+1"] {
            assert!(Accommodation::read_factor(wrong).is_err(), "{wrong}");
        }
    }
}
