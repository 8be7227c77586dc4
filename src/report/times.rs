//! Moments as people read them: local, to the second.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::control::view::Moment;

/// For tables and sentences: `2027-01-12 09:00:00`.
pub fn local(at: Timestamp) -> String {
    at.to_zoned_datetime(TimeZone::system()).strftime("%F %T").to_string()
}

/// A moment that was kept as text: as people read it, or as it stands where nobody of us wrote it.
pub fn local_text(text: &str) -> String {
    text.parse().map_or_else(|_| text.to_owned(), local)
}

/// A moment of a value that is shown.
pub fn moment(moment: &Moment) -> String {
    match moment {
        Moment::At(at) => local(*at),
        Moment::AsWritten(text) => text.clone(),
    }
}
