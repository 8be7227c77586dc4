//! Moments as people read and write them: local, to the second.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

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

/// What people write: a clock time of today, or a date with one, by the clock on this machine's wall; or with a zone of its own.
pub fn read(text: &str) -> Result<Timestamp, String> {
    let here = |at: DateTime| TimeZone::system().to_timestamp(at);
    let is_clock = text.len() <= "10:40:00".len() && text.contains(':');
    let read = match text.parse::<Time>() {
        Ok(time) if is_clock => here(ZonedDateTime::now().date().to_datetime(time)),
        _ => text
            .parse::<Timestamp>()
            .or_else(|_| text.parse::<ZonedDateTime>().map(|at| at.timestamp()))
            .or_else(|_| here(text.parse::<DateTime>()?)),
    };
    read.map_err(|_| format!("`{text}` is not a time: write `10:40`, or `2027-01-12T10:40`"))
}
