//! Moments as people and programs read them: local, to the second; in JSON with the offset from UTC (RFC 3339).

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serializer;

use crate::control::view::Moment;

/// For tables and sentences: `2027-01-12 09:00:00`.
pub fn local(at: Timestamp) -> String {
    at.to_zoned_datetime(TimeZone::system()).strftime("%F %T").to_string()
}

/// For JSON: `2027-01-12T09:00:00+02:00`.
pub fn with_offset(at: Timestamp) -> String {
    at.to_zoned_datetime(TimeZone::system()).strftime("%FT%T%:z").to_string()
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

/// For `serialize_with`.
pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&with_offset(*at))
}

/// For `serialize_with`, of what may not have happened yet.
pub fn serialize_some<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serialize(at, serializer),
        None => serializer.serialize_none(),
    }
}

/// For `serialize_with`, of a moment that was kept as text.
pub fn serialize_text<S: Serializer>(at: &str, serializer: S) -> Result<S::Ok, S::Error> {
    match at.parse() {
        Ok(at) => serialize(&at, serializer),
        Err(_) => serializer.serialize_str(at),
    }
}

/// For `serialize_with`, of one that may not have happened yet.
pub fn serialize_some_text<S: Serializer>(at: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serialize_text(at, serializer),
        None => serializer.serialize_none(),
    }
}
