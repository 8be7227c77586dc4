//! Times with a zone, as sessions use them. A clock time that a change of clocks skips or repeats is refused, because
//! half of the class would come an hour late.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use schemars::{Schema, json_schema};

use super::record::text;
use super::scalar::{Mistake, Scalar};
use super::values::shorten;
use crate::model::rules::Rule;

/// An instant, written as the clock on the wall shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Timestamp);

const FORM: &str = "write date, time and zone: `2027-01-12T09:00[Europe/Bucharest]`";

impl Scalar for Moment {
    fn parse(text: &str) -> Result<Self, Mistake> {
        if !has_minutes(text) {
            let hint = rewritten(text).map_or_else(|| FORM.to_owned(), |time| format!("write `{time}`"));
            return Err(Mistake::new(format!("`{}` is not a time", shorten(text))).hint(hint));
        }
        if let Some(why) = impossible(text) {
            let message = format!("`{}` is not a time: {why}", shorten(text));
            return Err(Mistake::new(message).hint("look it up in a calendar; midnight is `00:00` of the next day"));
        }
        if let Some((clock, zone)) = text.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
            return in_zone(text, clock, zone).map(Self);
        }
        if let Ok(instant) = text.parse::<Timestamp>() {
            return Ok(Self(instant));
        }
        if text.parse::<DateTime>().is_ok() {
            let mistake = Mistake::new(format!("the time `{}` has no zone", shorten(text)));
            return Err(mistake.hint(format!("write `{}[Europe/Bucharest]` with your own zone", shorten(text))));
        }
        Err(Mistake::new(format!("`{}` is not a time", shorten(text))).hint(FORM))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?([Zz]|[+-][0-9:]+)?(\\[!?[A-Za-z0-9_+/:-]+\\])?$",
        })
    }
}
text!(Moment, "a time such as `2027-01-12T09:00[Europe/Bucharest]`");

/// A time in full, or a clock time of the day and in the zone of another that is written in full.
pub(super) fn on_the_day(text: &str, of: &str) -> Result<Timestamp, String> {
    const DATE: usize = "2027-01-12".len();
    const TIME: usize = "2027-01-12T09:00".len();
    let is_clock = matches!(text.as_bytes(), [h, m, b':', n, o] if [h, m, n, o].iter().all(|c| c.is_ascii_digit()));
    let whole = match (of.get(..DATE), of.get(TIME..)) {
        (Some(date), Some(rest)) if is_clock => {
            let zone = rest.find('[').and_then(|at| rest.get(at..)).unwrap_or(rest.trim_start_matches(|c| c != 'Z'));
            format!("{date}T{text}{zone}")
        }
        _ => text.to_owned(),
    };
    Moment::parse(&whole).map(|moment| moment.0).map_err(Mistake::in_a_line)
}

/// Whether a text begins with a date, hours and minutes in full: `T09` may be meant as nine, or be half a time.
fn has_minutes(text: &str) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00:00";
    let fits = |(shape, found): (&u8, u8)| match shape {
        b'0' => found.is_ascii_digit(),
        b'T' => matches!(found, b'T' | b't' | b' '),
        other => *other == found,
    };
    text.len() >= SHAPE.len() && SHAPE.iter().zip(text.bytes()).all(fits)
}

/// What of a date and a clock time there is not, where the text has the shape of one.
fn impossible(text: &str) -> Option<String> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i8>().ok();
    let year: i16 = text.get(..4)?.parse().ok()?;
    let (month, day, hour, minute) = (number(5, 7)?, number(8, 10)?, number(11, 13)?, number(14, 16)?);
    let Ok(first) = Date::new(year, month, 1) else { return Some(format!("there is no month {month}")) };
    let days = first.days_in_month();
    if !(1..=days).contains(&day) {
        return Some(format!("{} {year} has {days} days", MONTHS[usize::try_from(month - 1).unwrap_or_default()]));
    }
    (hour > 23 || minute > 59).then(|| "a day goes from 00:00 to 23:59".to_owned())
}

/// A time in the usual form: `12.1.2027 9:00` and `2027-01-12 9:00` can mean but one. The zone stays as it is, or is one to
/// be replaced.
fn rewritten(text: &str) -> Option<String> {
    let (clock, zone) = text.split_once('[').map_or((text, "Europe/Bucharest]"), |(clock, zone)| (clock, zone));
    let (date, time) = clock.trim().split_once([' ', 'T'])?;
    let numbers = |text: &str, mark: char| -> Option<Vec<u16>> { text.split(mark).map(|n| n.parse().ok()).collect() };
    let (year, month, day) = match (numbers(date, '.').as_deref(), numbers(date, '-').as_deref()) {
        (Some([day, month, year]), _) | (_, Some([year, month, day])) => (*year, *month, *day),
        _ => return None,
    };
    let [hour, minute] = numbers(time.trim(), ':')?[..] else { return None };
    let time = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}");
    (has_minutes(&time) && impossible(&time).is_none()).then(|| format!("{time}[{zone}"))
}

fn in_zone(text: &str, clock: &str, zone: &str) -> Result<Timestamp, Mistake> {
    let wrong = || Mistake::new(format!("`{}` is not a time", shorten(text))).hint(FORM);
    let zone = TimeZone::get(zone).map_err(|_| {
        Mistake::new(format!("no time zone is called `{}`", shorten(zone)))
            .hint("write region and city as in `Europe/Bucharest`; `timedatectl list-timezones` shows all")
    })?;
    if clock.parse::<Timestamp>().is_ok() {
        // With an offset the instant is clear, and the zone must agree with it.
        return text.parse::<jiff::ZonedDateTime>().map(|zoned| zoned.timestamp()).map_err(|_| {
            Mistake::new(format!("in `{}` the offset is not the zone's at that time", shorten(text)))
                .hint("leave the offset out")
        });
    }
    let clock: DateTime = clock.parse().map_err(|_| wrong())?;
    let ambiguous = zone.to_ambiguous_timestamp(clock);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => ambiguous.compatible().map_err(|_| wrong()),
        AmbiguousOffset::Gap { .. } => {
            let mistake = Mistake::new(format!("clocks are put forward over {clock}: that time does not exist"));
            Err(mistake.rule(Rule::ClockChange).hint("take a time before or after the change"))
        }
        AmbiguousOffset::Fold { before, after } => {
            let mistake = Mistake::new(format!("clocks are put back over {clock}: that time comes twice"));
            let hint = format!("write which one: `{clock}{before}` is the first, `{clock}{after}` the second");
            Err(mistake.rule(Rule::ClockChange).hint(hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_full() {
        for right in
            ["2027-01-12T09:00[Europe/Bucharest]", "2027-01-12T09:00:30+02:00[Europe/Bucharest]", "2027-01-12 07:00Z"]
        {
            assert!(Moment::parse(right).is_ok(), "{right}");
        }
        // Found by mutation: each of these was once taken for a time.
        for wrong in
            ["2027-03-01T00[Europe/Bucharest]", "2027-03-01[Europe/Bucharest]", "20270301T0900Z", "2027-03-01T09Z"]
        {
            assert!(Moment::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_that_cannot_be_says_why() {
        let mistake = |text: &str| Moment::parse(text).unwrap_err();
        let message = |text: &str| mistake(text).message;
        assert!(message("2027-02-30T09:00[Europe/Bucharest]").ends_with("not a time: February 2027 has 28 days"));
        assert!(message("2028-02-30T09:00[Europe/Bucharest]").ends_with("February 2028 has 29 days"));
        assert!(message("2027-13-01T09:00Z").ends_with("there is no month 13"));
        assert!(message("2027-01-12T24:00[Europe/Bucharest]").ends_with("a day goes from 00:00 to 23:59"));
        let written = |text: &str| mistake(text).hint.unwrap();
        assert_eq!(written("12.1.2027 9:00[Europe/Paris]"), "write `2027-01-12T09:00[Europe/Paris]`");
        assert_eq!(written("2027-01-12 9:00"), "write `2027-01-12T09:00[Europe/Bucharest]`");
        assert_eq!(written("9:00"), FORM);
    }
}
