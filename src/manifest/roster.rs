//! Rosters: CSV text of a school system in, users with their places out. Byte order marks, `;` or tabs, quoted commas,
//! CRLF, Latin-1, Excel's `sep=` line and short lines, and the usual names of columns are taken as they come; what is wrong
//! or can be read in two ways is shown with the line of the CSV file.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::columns::{self, Columns, Format};
use super::csv::{Field, Record};
use super::decode::{At, Spanned};
use super::language::Encoding;
use super::room::{Fit, Room};
use super::scalar::Scalar as _;
use super::values::{Percent, invalid_name, shorten};
use crate::model::diagnostic::{Diagnostic, Diagnostics, Severity, Source, Span};
use crate::model::id::{Candidate, InvalidName, UserName};
use crate::model::lab::Particulars;
use crate::model::rules::Rule;
use crate::model::seed::SshKey;

/// What a roster says of its users, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    pub rows: Vec<RosterRow>,
    /// Some lines could not be read, so nothing can be said of who is missing.
    pub broken: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterRow {
    pub user: Spanned<UserName>,
    pub uid: Option<Spanned<u32>>,
    pub extra_time: Option<Spanned<Percent>>,
    pub particulars: Particulars,
    /// As in `particulars`.
    pub candidate: Option<At>,
    pub ssh_key: Option<SshKey>,
}

/// The text of a CSV file. Anything that is not UTF-8 is read as Windows-1252: names of people may come out wrong, but
/// login names are ASCII and nothing else is used.
pub(super) fn decode_text(bytes: &[u8], encoding: Option<Encoding>) -> String {
    let decoder = match encoding {
        Some(Encoding::Utf16) => utf_16(bytes).unwrap_or(encoding_rs::UTF_16LE),
        Some(Encoding::Latin1) => encoding_rs::WINDOWS_1252,
        Some(Encoding::Utf8) => encoding_rs::UTF_8,
        None => utf_16(bytes).unwrap_or(match std::str::from_utf8(bytes) {
            Ok(_) => encoding_rs::UTF_8,
            Err(_) => encoding_rs::WINDOWS_1252,
        }),
    };
    // A byte order mark wins over all of these.
    decoder.decode(bytes).0.into_owned()
}

/// UTF-16 without a byte order mark: of letters and digits every other byte is zero.
fn utf_16(bytes: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    const LOOKED_AT: usize = 512;
    let start = &bytes[..bytes.len().min(LOOKED_AT)];
    let zeros = |first: usize| start.iter().skip(first).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    let most = start.len() / 4;
    match (even, odd) {
        (0, odd) if odd > most => Some(encoding_rs::UTF_16LE),
        (even, 0) if even > most => Some(encoding_rs::UTF_16BE),
        _ => None,
    }
}

/// What a file is that somebody took for a CSV file, and how to make one of it.
pub(super) fn other_format(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const SAVE: &str = "open it, and save the sheet as \"CSV UTF-8\"";
    const FORMATS: [(&[u8], &str, &str); 7] = [
        (b"PK\x03\x04", "an Excel or LibreOffice workbook, or a zip archive", SAVE),
        (b"\xd0\xcf\x11\xe0", "an old Excel workbook", SAVE),
        (b"%PDF", "a PDF document", "export the list as CSV"),
        (b"\x1f\x8b", "a gzip archive", "unpack it"),
        (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it"),
        (b"<", "a web page or XML, maybe a page that asks to log in", "export the list as CSV"),
        (b"{", "JSON", "export the list as CSV"),
    ];
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    FORMATS.iter().find(|(magic, ..)| bytes.starts_with(magic)).map(|(_, what, cure)| (*what, *cure))
}

/// What people read, of a length that they can; `None` of an empty cell.
fn text(field: &Field<'_>) -> Option<String> {
    const CHARACTERS_MAX: usize = 200;
    let text: String = field.trimmed().chars().take(CHARACTERS_MAX).collect();
    (!text.is_empty()).then_some(text)
}

/// Reads a roster.
pub(super) fn read(
    source: &Arc<Source>,
    file: u32,
    format: &Format<'_>,
    room: &mut Room,
    diagnostics: &mut Diagnostics,
) -> Roster {
    let errors = |diagnostics: &Diagnostics| diagnostics.count(Severity::Error);
    let before = errors(diagnostics);
    let mut reader = Reader { source, file, diagnostics, users: HashMap::new() };
    let rows = reader.rows(format, room).unwrap_or_default();
    Roster { rows, broken: errors(reader.diagnostics) > before }
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    file: u32,
    diagnostics: &'a mut Diagnostics,
    /// Where each user was seen first.
    users: HashMap<UserName, At>,
}

impl Reader<'_> {
    /// All lines; `None` where the first line already is not as it should be.
    fn rows(&mut self, format: &Format<'_>, room: &mut Room) -> Option<Vec<RosterRow>> {
        if let Some(at) = self.source.text.find('\0') {
            let message = "the roster has a NUL byte here, so it is no CSV text that we can read";
            self.note(Rule::NotText, at..at + 1, message, "save it as \"CSV UTF-8\"");
            return None;
        }
        let mut records = format.records(&self.source.text);
        let Some(header) = records.next() else {
            self.note(Rule::RosterColumns, 0..1, "the roster is empty", "begin it with a header line: `user,uid`");
            return None;
        };
        let source = Arc::clone(self.source);
        let place = |bytes| Span::new(&source, bytes);
        let columns = columns::find(&header, format, records.separator, place, self.diagnostics)?;
        let mut rows = Vec::new();
        for record in records.by_ref() {
            match room.take(1) {
                Fit::Fits => {}
                Fit::FirstTooMany => {
                    let message = "the lab's rosters have more lines than a lab can have users";
                    self.note(Rule::TooBig, record.bytes, message, "make several labs of it");
                    break;
                }
                Fit::TooMany => break,
            }
            if record.names().eq(header.names()) {
                let message = "the header line stands here a second time, as if two files had been joined";
                self.note(Rule::RosterLine, record.bytes, message, "remove the line");
                continue;
            }
            rows.extend(self.row(&record, &columns));
        }
        if let Some(start) = records.unclosed {
            let message = "a quote opens here and is never closed";
            self.note(Rule::RosterLine, start..start + 1, message, "add the closing `\"`, or remove this one");
        }
        Some(rows)
    }

    fn note(&mut self, rule: Rule, bytes: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.diagnostics.push(Diagnostic::new(rule, message).at(Span::new(self.source, bytes)).hint(hint));
    }

    fn at(&self, bytes: &Range<usize>) -> At {
        let position = |byte: usize| u32::try_from(byte).unwrap_or(u32::MAX);
        At { file: self.file, start: position(bytes.start), end: position(bytes.end) }
    }

    fn row(&mut self, record: &Record<'_>, columns: &Columns) -> Option<RosterRow> {
        let found = record.fields.len();
        if record.fields.iter().skip(columns.count).any(|field| !field.trimmed().is_empty()) {
            let message = format!("this line has {found} fields, the header line has {}", columns.count);
            let hint = "put a field that contains the separator in double quotes";
            self.note(Rule::RosterLine, record.bytes.clone(), message, hint);
            return None;
        }
        if let Some(torn) = record.fields.iter().find(|field| field.torn) {
            let message = "behind the closing quote of this field stands more text";
            let hint = "write a quote inside quotes twice: `\"\"`; or remove the quotes";
            self.note(Rule::RosterLine, torn.bytes.clone(), message, hint);
            return None;
        }
        // Spreadsheets leave out the last separators of a line whose last cells are empty.
        let user = self.user(record, record.fields.get(columns.user))?;
        let uid = columns.uid.and_then(|index| self.uid(record.fields.get(index)?));
        let extra_time = columns.extra_time.and_then(|index| self.extra_time(record.fields.get(index)?));
        let text = |column: Option<usize>| text(record.fields.get(column?)?);
        let candidate = columns.candidate.and_then(|index| self.candidate(record.fields.get(index)?));
        let (candidate, place) = candidate.map(|candidate| (candidate.value, candidate.at)).unzip();
        let particulars = Particulars { name: text(columns.name), student_id: text(columns.student_id), candidate };
        let ssh_key = columns.ssh_key.and_then(|index| self.ssh_key(record.fields.get(index)?));
        Some(RosterRow { user, uid, extra_time, particulars, candidate: place, ssh_key })
    }

    fn user(&mut self, record: &Record<'_>, field: Option<&Field<'_>>) -> Option<Spanned<UserName>> {
        let Some(field) = field.filter(|field| !field.trimmed().is_empty()) else {
            let hint = "write the login name, or remove the line";
            self.note(Rule::RosterLine, record.bytes.clone(), "this line has no user", hint);
            return None;
        };
        let Spanned { value, at } = self.name(field, UserName::WHAT, UserName::new)?;
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

    fn ssh_key(&mut self, field: &Field<'_>) -> Option<SshKey> {
        let text = field.trimmed();
        if text.is_empty() {
            return None;
        }
        let hint = "write the line of the file that ends in `.pub`, such as `ssh-ed25519 AAAA… ana@home`, or leave the field empty";
        SshKey::new(text)
            .map_err(|why| self.note(Rule::SshKey, field.bytes.clone(), format!("this key {why}"), hint))
            .ok()
    }

    fn candidate(&mut self, field: &Field<'_>) -> Option<Spanned<Candidate>> {
        if field.trimmed().is_empty() {
            return None;
        }
        self.name(field, Candidate::WHAT, Candidate::new)
    }

    fn name<'f, T>(
        &mut self,
        field: &'f Field<'_>,
        what: &str,
        read: impl FnOnce(&'f str) -> Result<T, InvalidName>,
    ) -> Option<Spanned<T>> {
        let text = field.trimmed();
        match read(text) {
            Ok(value) => Some(Spanned { value, at: self.at(&field.bytes) }),
            Err(error) => {
                let mistake = invalid_name(what, text, &error);
                self.note(Rule::InvalidName, field.bytes.clone(), mistake.message, mistake.hint.unwrap_or_default());
                None
            }
        }
    }

    fn uid(&mut self, field: &Field<'_>) -> Option<Spanned<u32>> {
        let text = field.trimmed();
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
        let text = field.trimmed();
        if text.is_empty() {
            return None;
        }
        let unit = if text.ends_with('%') { "" } else { "%" };
        let Ok(value) = Percent::parse(&format!("{text}{unit}")) else {
            let message = format!("`{}` is not an extra time", shorten(text));
            let hint = "write a percentage like `25%`, or leave the field empty";
            self.note(Rule::BadValue, field.bytes.clone(), message, hint);
            return None;
        };
        if !unit.is_empty() {
            let message = format!("the extra time `{text}` is taken for {text} % of the session, not for minutes");
            let hint = format!("write `{text}%`; 30 minutes more of a session of 2 hours are `25%` too");
            self.note(Rule::ExtraTimeUnit, field.bytes.clone(), message, hint);
        }
        Some(Spanned { value, at: self.at(&field.bytes) })
    }
}
