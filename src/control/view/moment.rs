//! Moments as programs read them: RFC 3339, to the second, with the offset from UTC that this machine's time zone has.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(from = "String")]
#[schemars(with = "String")]
pub enum Moment {
    At(Timestamp),
    /// It was kept as text, which nobody of us wrote: it is shown as it stands.
    AsWritten(String),
}

impl Moment {
    /// A moment that was kept as text.
    pub fn read(text: String) -> Self {
        text.parse().map_or(Self::AsWritten(text), Self::At)
    }
}

impl From<String> for Moment {
    fn from(text: String) -> Self {
        Self::read(text)
    }
}

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        Self::At(at)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::At(at) => {
                let local = at.to_zoned_datetime(TimeZone::system());
                serializer.serialize_str(&local.strftime("%FT%T%:z").to_string())
            }
            Self::AsWritten(text) => serializer.serialize_str(text),
        }
    }
}
