//! The CSV file in which a session's owner keeps what people need of its time: who, and a factor, minutes or an own start. It says
//! something of people's health, so it lies outside the repository, its owner alone can read it, and no finding shows its text.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use super::columns::Format;
use super::csv::{Field, Record};
use super::decode::{At, Spanned, list};
use super::roster;
use super::times;
use crate::model::accommodation::Accommodation;
use crate::model::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::model::id::UserName;
use crate::model::rules::Rule;

/// What is found where a session says that its accommodations are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accommodations {
    /// Whoever looks may not, or there is no such file here.
    Unread {
        why: String,
    },
    Lines(Vec<(Spanned<UserName>, Accommodation)>),
}

const COLUMNS: [&str; 3] = ["factor", "minutes", "start"];

/// Why a file must not lie where it does, or as it does, and what to do; `None` where nothing is wrong with that.
pub(super) fn misplaced(path: &Path, lab: &Path) -> Option<(String, String)> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (file, lab) = (real(path), real(lab));
    let repository = lab.ancestors().find(|folder| folder.join(".git").exists()).unwrap_or(&lab);
    if file.starts_with(repository) || file.starts_with(&lab) {
        let message = "accommodations are nobody else's matter, and this file lies in the lab's repository".to_owned();
        let hint =
            "move it out of there, for instance to `/srv/labwright-private/`, and out of the repository's history";
        return Some((message, hint.to_owned()));
    }
    let mode = std::fs::metadata(&file).ok()?.permissions().mode();
    (mode & 0o077 != 0).then(|| {
        let message = format!("others may read these accommodations: the file's mode is {:o}", mode & 0o777);
        (message, format!("`chmod 600 {}`", path.display()))
    })
}

/// The file's text without anything that says who or what.
pub(super) fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_alphanumeric() {
            true => masked.extend(std::iter::repeat_n('*', c.len_utf8())),
            false => masked.push(c),
        }
    }
    masked
}

/// Reads a file's text. Its places are in `source`, which has the same text masked. A time without a date is one of the day of
/// `day`, the session's start as it is written.
pub(super) fn read(
    text: &str,
    source: &Arc<Source>,
    file: u32,
    day: &str,
    diagnostics: &mut Diagnostics,
) -> Vec<(Spanned<UserName>, Accommodation)> {
    let mut reader = Reader { source, file, day, diagnostics, seen: HashMap::new() };
    reader.lines(text).unwrap_or_default()
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    file: u32,
    day: &'a str,
    diagnostics: &'a mut Diagnostics,
    seen: HashMap<UserName, At>,
}

/// Which field of a line is what.
struct Columns {
    count: usize,
    user: usize,
    others: [Option<usize>; COLUMNS.len()],
}

impl Reader<'_> {
    fn lines(&mut self, text: &str) -> Option<Vec<(Spanned<UserName>, Accommodation)>> {
        let format = Format::default();
        let mut records = format.records(text);
        let Some(header) = records.next() else {
            self.note(0..0, "the file is empty", "begin it with a header line: `user,factor,minutes,start`");
            return None;
        };
        let columns = self.columns(&format, &header)?;
        let mut lines = Vec::new();
        for record in records.by_ref() {
            lines.extend(self.line(&columns, &record));
        }
        if let Some(at) = records.unclosed {
            self.note(at..at + 1, "a quote opens here and is never closed", "close it, or remove it");
        }
        Some(lines)
    }

    /// A column that is not understood may be somebody's time.
    fn columns(&mut self, format: &Format<'_>, header: &Record<'_>) -> Option<Columns> {
        let users = format.user_fields(header);
        let [user] = users[..] else {
            let message = "the file has no column `user`, or more than one";
            self.note(header.bytes.clone(), message, "begin it with a header line: `user,factor,minutes,start`");
            return None;
        };
        let (mut others, mut is_sound) = ([None; COLUMNS.len()], true);
        for (index, field) in header.fields.iter().enumerate().filter(|(index, _)| *index != user) {
            let name = field.trimmed().to_lowercase();
            let place = COLUMNS.iter().position(|known| *known == name);
            match place.map(|place| &mut others[place]) {
                Some(free @ None) => *free = Some(index),
                _ => {
                    is_sound = false;
                    let message = "this column is none that is read, or comes twice";
                    self.note(field.bytes.clone(), message, &format!("columns are `user` and {}", list(COLUMNS)));
                }
            }
        }
        is_sound.then_some(Columns { count: header.fields.len(), user, others })
    }

    fn line(&mut self, columns: &Columns, record: &Record<'_>) -> Option<(Spanned<UserName>, Accommodation)> {
        let empty = Field { text: "".into(), bytes: record.bytes.clone(), torn: false };
        let field = |index: usize| record.fields.get(index).unwrap_or(&empty);
        let user = field(columns.user);
        let at = self.at(user);
        let Ok(name) = UserName::new(user.trimmed()) else {
            self.note(user.bytes.clone(), "this is not the name of a user", "write the login name");
            return None;
        };
        if let Some(first) = self.seen.insert(name.clone(), at) {
            let message = "this user has a line already";
            let first = Span::new(self.source, first.start as usize..first.end as usize);
            let place = Span::new(self.source, user.bytes.clone());
            let diagnostic = Diagnostic::new(Rule::Accommodations, message).at(place).related(first, "the first one");
            self.diagnostics.push(diagnostic.hint("keep one of the two"));
            return None;
        }
        let [factor, minutes, start] =
            columns.others.map(|index| index.map(field).filter(|field| !field.trimmed().is_empty()));
        let is_empty = [factor, minutes, start].iter().all(Option::is_none);
        let factor_permille = self.value(factor, Accommodation::read_factor);
        let minutes = self.value(minutes, Accommodation::read_minutes);
        let day = self.day;
        let start = self.value(start, |text| times::on_the_day(text, day));
        let of = Accommodation { factor_permille, minutes, start };
        if let Some(surplus) = record.fields[columns.count.min(record.fields.len())..].first() {
            let hint = "a factor has a point: `1.25`; or name the column in the first line";
            self.note(surplus.bytes.clone(), "the line has more fields than there are columns", hint);
        } else if is_empty {
            let hint = "write a factor such as `1.25`, minutes, or a start such as `10:30`; or remove the line";
            self.note(record.bytes.clone(), "this line gives nothing", hint);
        }
        Some((Spanned { value: name, at }, of))
    }

    fn value<T>(&mut self, field: Option<&Field<'_>>, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let field = field?;
        read(field.trimmed()).map_err(|wrong| self.note(field.bytes.clone(), &wrong, "correct the line")).ok()
    }

    fn at(&self, field: &Field<'_>) -> At {
        let place = |byte: usize| u32::try_from(byte).expect("a file's length is limited");
        At { file: self.file, start: place(field.bytes.start), end: place(field.bytes.end) }
    }

    fn note(&mut self, bytes: std::ops::Range<usize>, message: &str, hint: &str) {
        let place = Span::new(self.source, bytes);
        self.diagnostics.push(Diagnostic::new(Rule::Accommodations, message).at(place).hint(hint));
    }
}

/// Text of any encoding that a spreadsheet writes.
pub(super) fn text(bytes: &[u8]) -> String {
    roster::decode_text(bytes, None)
}
