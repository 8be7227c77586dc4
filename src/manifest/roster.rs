//! Rosters: CSV text of a school system in, users with their places out. Byte order marks, `;` or tabs, quoted commas,
//! CRLF and Latin-1 are taken as they come; what is wrong is shown with the line of the CSV file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::decode::{At, Fit, Room, Scalar as _, Spanned, list, nearest};
use super::language::{Encoding, RosterColumns, Separator};
use super::rules::Rule;
use super::values::{Percent, invalid_name, shorten};
use crate::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::id::UserName;

/// Most columns of a roster.
const COLUMNS_MAX: usize = 256;

/// What a roster says of its users, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    pub rows: Vec<RosterRow>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterRow {
    pub user: Spanned<UserName>,
    pub uid: Option<Spanned<u32>>,
    pub extra_time: Option<Spanned<Percent>>,
}

/// How a roster is to be read, as far as the manifest says so.
#[derive(Debug, Default)]
pub(super) struct Format<'a> {
    pub(super) columns: Option<&'a RosterColumns>,
    pub(super) separator: Option<Separator>,
}

/// The text of a CSV file. Anything that is not UTF-8 is read as Windows-1252: names of people may come out wrong, but
/// login names are ASCII and nothing else is used.
pub(super) fn decode_text(bytes: &[u8], encoding: Option<Encoding>) -> String {
    let decoder = match encoding {
        Some(Encoding::Utf16) => encoding_rs::UTF_16LE,
        Some(Encoding::Latin1) => encoding_rs::WINDOWS_1252,
        Some(Encoding::Utf8) => encoding_rs::UTF_8,
        None if std::str::from_utf8(bytes).is_ok() => encoding_rs::UTF_8,
        None => encoding_rs::WINDOWS_1252,
    };
    // A byte order mark wins over all of these.
    decoder.decode(bytes).0.into_owned()
}

/// Reads a roster.
pub(super) fn read(
    source: &Arc<Source>,
    file: u32,
    format: &Format<'_>,
    room: &mut Room,
    diagnostics: &mut Diagnostics,
) -> Roster {
    let mut reader = Reader { source, file, diagnostics, users: HashMap::new() };
    let mut records = Records::new(source, format.separator);
    let Some(header) = records.next() else {
        reader.note(Rule::RosterColumns, 0..1, "the roster is empty", "begin it with a header line: `user,uid`");
        return Roster::default();
    };
    let Some(columns) = reader.columns(&header, format, &records) else { return Roster::default() };
    let mut roster = Roster::default();
    for record in records.by_ref() {
        match room.take(1) {
            Fit::Fits => {}
            Fit::FirstTooMany => {
                let message = "the lab's rosters have more lines than a lab can have users";
                reader.note(Rule::TooBig, record.bytes, message, "make several labs of it");
                break;
            }
            Fit::TooMany => break,
        }
        roster.rows.extend(reader.row(&record, &columns));
    }
    if let Some(start) = records.unclosed {
        reader.note(
            Rule::RosterLine,
            start..start + 1,
            "a quote opens here and is never closed",
            "add the closing `\"`, or remove this one",
        );
    }
    roster
}

/// Which field of a line is what.
struct Columns {
    count: usize,
    user: usize,
    uid: Option<usize>,
    extra_time: Option<usize>,
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    file: u32,
    diagnostics: &'a mut Diagnostics,
    /// Where each user was seen first.
    users: HashMap<UserName, At>,
}

impl Reader<'_> {
    fn note(&mut self, rule: Rule, bytes: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.diagnostics.push(Diagnostic::new(rule, message).at(Span::new(self.source, bytes)).hint(hint));
    }

    fn at(&self, bytes: &Range<usize>) -> At {
        let position = |byte: usize| u32::try_from(byte).unwrap_or(u32::MAX);
        At { file: self.file, start: position(bytes.start), end: position(bytes.end) }
    }

    fn columns(&mut self, header: &Record<'_>, format: &Format<'_>, records: &Records<'_>) -> Option<Columns> {
        if header.fields.len() > COLUMNS_MAX {
            let message = format!("the roster has more than {COLUMNS_MAX} columns");
            self.note(Rule::TooBig, header.bytes.clone(), message, "export fewer columns");
            return None;
        }
        self.refuse_secrets(header);
        let named = |name: Option<&str>, default: &str| {
            let wanted = name.unwrap_or(default);
            header.fields.iter().position(|field| field.text.trim().eq_ignore_ascii_case(wanted))
        };
        let columns = format.columns;
        let user_name = columns.and_then(|c| c.user.as_ref()).map(|c| c.0.as_str());
        let uid_name = columns.and_then(|c| c.uid.as_ref()).map(|c| c.0.as_str());
        let extra_name = columns.and_then(|c| c.extra_time.as_ref()).map(|c| c.0.as_str());
        let mut missing = false;
        for wanted in [Some(user_name.unwrap_or("user")), uid_name, extra_name].into_iter().flatten() {
            if named(Some(wanted), wanted).is_none() {
                self.missing_column(wanted, header, records.separator);
                missing = true;
            }
        }
        if missing {
            return None;
        }
        Some(Columns {
            count: header.fields.len(),
            user: named(user_name, "user")?,
            uid: named(uid_name, "uid"),
            extra_time: named(extra_name, "extra_time"),
        })
    }

    fn missing_column(&mut self, wanted: &str, header: &Record<'_>, separator: char) {
        let names: Vec<String> = header.fields.iter().take(20).map(|f| shorten(f.text.trim())).collect();
        let known = names.iter().map(String::as_str);
        let first = names.first().map_or("", String::as_str);
        let logins = ["login", "username", "user name", "account", "benutzername", "kennung", "utilizator", "nutzer"];
        let likely = known.clone().find(|name| logins.contains(&name.to_lowercase().as_str())).unwrap_or("…");
        let hint = match nearest(wanted, known.clone()) {
            Some(name) => {
                format!("did you mean `{name}`? write `roster: {{ file: …, columns: {{ user: \"{name}\" }} }}`")
            }
            None if names.len() == 1 && UserName::new(first).is_ok() => {
                "the first line must name the columns: put a line `user` on top".to_owned()
            }
            None => format!("its columns are {}; say which is which: `columns: {{ user: \"{likely}\" }}`", list(known)),
        };
        let separator = if separator == '\t' { "tab".to_owned() } else { format!("`{separator}`") };
        let message =
            format!("the roster has no column `{}` (columns are separated by {separator} here)", shorten(wanted));
        self.note(Rule::RosterColumns, header.bytes.clone(), message, hint);
    }

    fn refuse_secrets(&mut self, header: &Record<'_>) {
        for field in &header.fields {
            if super::secrets::is_password_column(&field.text) {
                let message =
                    format!("the roster has a column `{}`: secrets never stand in a manifest", shorten(&field.text));
                self.note(
                    Rule::Secret,
                    field.bytes.clone(),
                    message,
                    "export the roster without it, and change what was exposed",
                );
            }
        }
    }

    fn row(&mut self, record: &Record<'_>, columns: &Columns) -> Option<RosterRow> {
        let found = record.fields.len();
        let surplus = record.fields.iter().skip(columns.count).any(|field| !field.text.trim().is_empty());
        if found < columns.count || surplus {
            let message = format!("this line has {found} fields, the header line has {}", columns.count);
            let hint = if surplus {
                "put a field that contains the separator in double quotes"
            } else {
                "a field may be empty, its separator must still be there"
            };
            self.note(Rule::RosterLine, record.bytes.clone(), message, hint);
            return None;
        }
        let user = self.user(record, &record.fields[columns.user])?;
        let uid = columns.uid.and_then(|index| self.uid(&record.fields[index]));
        let extra_time = columns.extra_time.and_then(|index| self.extra_time(&record.fields[index]));
        Some(RosterRow { user, uid, extra_time })
    }

    fn user(&mut self, record: &Record<'_>, field: &Field<'_>) -> Option<Spanned<UserName>> {
        let text = field.text.trim();
        if text.is_empty() {
            self.note(
                Rule::RosterLine,
                record.bytes.clone(),
                "this line has no user",
                "write the login name, or remove the line",
            );
            return None;
        }
        let value = match UserName::new(text) {
            Ok(name) => name,
            Err(error) => {
                let mistake = invalid_name(UserName::WHAT, text, &error);
                self.note(Rule::InvalidName, field.bytes.clone(), mistake.message, mistake.hint.unwrap_or_default());
                return None;
            }
        };
        let at = self.at(&field.bytes);
        if let Some(first) = self.users.get(&value) {
            let first = Span::new(self.source, first.start as usize..first.end as usize);
            let diagnostic = Diagnostic::new(Rule::RosterDuplicate, format!("`{value}` stands in this roster twice"))
                .at(Span::new(self.source, field.bytes.clone()))
                .related(first, "here for the first time")
                .hint("remove one of the two lines");
            self.diagnostics.push(diagnostic);
            return None;
        }
        self.users.insert(value.clone(), at);
        Some(Spanned { value, at })
    }

    fn uid(&mut self, field: &Field<'_>) -> Option<Spanned<u32>> {
        let text = field.text.trim();
        match text.parse() {
            Ok(value) => Some(Spanned { value, at: self.at(&field.bytes) }),
            Err(_) if text.is_empty() => None,
            Err(_) => {
                let message = format!("`{}` is not a uid", shorten(text));
                self.note(
                    Rule::BadValue,
                    field.bytes.clone(),
                    message,
                    "write the account's number, or leave the field empty",
                );
                None
            }
        }
    }

    fn extra_time(&mut self, field: &Field<'_>) -> Option<Spanned<Percent>> {
        let text = field.text.trim();
        if text.is_empty() {
            return None;
        }
        let percent = if text.ends_with('%') { text.to_owned() } else { format!("{text}%") };
        match Percent::parse(&percent) {
            Ok(value) => Some(Spanned { value, at: self.at(&field.bytes) }),
            Err(_) => {
                let message = format!("`{}` is not an extra time", shorten(text));
                self.note(
                    Rule::BadValue,
                    field.bytes.clone(),
                    message,
                    "write a percentage like `25%`, or leave the field empty",
                );
                None
            }
        }
    }
}

struct Field<'s> {
    /// Without quotes.
    text: Cow<'s, str>,
    bytes: Range<usize>,
}

struct Record<'s> {
    fields: Vec<Field<'s>>,
    bytes: Range<usize>,
}

/// The lines of a CSV text (RFC 4180) with the places of their fields; lines without any text are passed over, since
/// spreadsheets end files with them.
struct Records<'s> {
    text: &'s str,
    at: usize,
    separator: char,
    /// Where a quote opens that is never closed; nothing is read behind it.
    unclosed: Option<usize>,
}

impl<'s> Records<'s> {
    fn new(source: &'s Source, separator: Option<Separator>) -> Self {
        let text = source.text.as_str();
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let header = text[at..].trim_start().lines().next().unwrap_or_default();
        let count = |c: char| header.matches(c).count();
        let separator = match separator {
            Some(Separator::Comma) => ',',
            Some(Separator::Semicolon) => ';',
            Some(Separator::Tab) => '\t',
            // The first of these that the header line has most of.
            None => [';', '\t'].into_iter().fold(',', |best, c| if count(c) > count(best) { c } else { best }),
        };
        Self { text, at, separator, unclosed: None }
    }

    /// One field from `self.at`; leaves `self.at` at the separator or line end behind it.
    fn field(&mut self) -> Option<Field<'s>> {
        let rest = &self.text[self.at..];
        let start = self.at;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut from = 0;
            let length = loop {
                let quote = from
                    + quoted[from..].find('"').or_else(|| {
                        self.unclosed = Some(start);
                        None
                    })?;
                if quoted[quote + 1..].starts_with('"') {
                    from = quote + 2;
                } else {
                    break quote;
                }
            };
            let inner = &quoted[..length];
            let text = if inner.contains('"') { Cow::Owned(inner.replace("\"\"", "\"")) } else { Cow::Borrowed(inner) };
            self.at = start + 1 + length + 1;
            // Anything between the closing quote and the separator is blank in a sane file, and kept out in any other.
            let behind = &self.text[self.at..];
            self.at += behind.find([self.separator, '\n', '\r']).unwrap_or(behind.len());
            return Some(Field { text, bytes: start..start + length + 2 });
        }
        let length = rest.find([self.separator, '\n', '\r']).unwrap_or(rest.len());
        self.at = start + length;
        Some(Field { text: Cow::Borrowed(&rest[..length]), bytes: start..self.at })
    }
}

impl<'s> Iterator for Records<'s> {
    type Item = Record<'s>;

    fn next(&mut self) -> Option<Record<'s>> {
        loop {
            if self.at >= self.text.len() || self.unclosed.is_some() {
                return None;
            }
            let start = self.at;
            let mut fields = Vec::new();
            loop {
                fields.push(self.field()?);
                if !self.text[self.at..].starts_with(self.separator) {
                    break;
                }
                self.at += self.separator.len_utf8();
            }
            let bytes = start..self.at;
            let line_end = &self.text[self.at..];
            self.at += if line_end.starts_with("\r\n") { 2 } else { usize::from(!line_end.is_empty()) };
            if fields.iter().any(|field| !field.text.trim().is_empty()) {
                return Some(Record { fields, bytes });
            }
        }
    }
}
