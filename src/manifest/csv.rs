//! The lines of a CSV text (RFC 4180) with the places of their fields, and Excel's line about the separator. It knows
//! nothing of users or columns.

use std::borrow::Cow;
use std::ops::Range;

pub(super) struct Field<'s> {
    /// Without quotes.
    pub(super) text: Cow<'s, str>,
    pub(super) bytes: Range<usize>,
    /// Between the closing quote and the separator stands more than blanks.
    pub(super) torn: bool,
}

impl Field<'_> {
    /// Without blanks around it, and without the marks that a joined file has in its middle.
    pub(super) fn trimmed(&self) -> &str {
        trim(&self.text)
    }
}

pub(super) struct Record<'s> {
    pub(super) fields: Vec<Field<'s>>,
    pub(super) bytes: Range<usize>,
}

impl Record<'_> {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.fields.iter().map(Field::trimmed)
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}'))
}

/// The lines of a CSV text; those without any text are passed over, since spreadsheets end files with them.
#[derive(Clone)]
pub(super) struct Records<'s> {
    text: &'s str,
    at: usize,
    pub(super) separator: char,
    /// Where a quote opens that is never closed; nothing is read behind it.
    pub(super) unclosed: Option<usize>,
}

/// Where the table begins, and the separator that a line `sep=;` above it tells Excel.
pub(super) fn beginning(text: &str) -> (usize, Option<char>) {
    let mark = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let rest = &text[mark..];
    let line = &rest[..rest.find(['\n', '\r']).unwrap_or(rest.len())];
    let separator = line.trim_matches('"');
    let separator = separator.get(..4).filter(|key| key.eq_ignore_ascii_case("sep=")).map(|_| &separator[4..]);
    let mut characters = separator.unwrap_or_default().chars();
    match (characters.next(), characters.next()) {
        (Some(separator), None) => (mark + line.len(), Some(separator)),
        _ => (mark, None),
    }
}

impl<'s> Records<'s> {
    /// The records from a place on.
    pub(super) fn new(text: &'s str, at: usize, separator: char) -> Self {
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
            let behind = &self.text[self.at..];
            let behind = &behind[..behind.find([self.separator, '\n', '\r']).unwrap_or(behind.len())];
            let bytes = start..self.at;
            self.at += behind.len();
            return Some(Field { text, bytes, torn: !trim(behind).is_empty() });
        }
        let length = rest.find([self.separator, '\n', '\r']).unwrap_or(rest.len());
        self.at = start + length;
        Some(Field { text: Cow::Borrowed(&rest[..length]), bytes: start..self.at, torn: false })
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
            if fields.iter().any(|field| !field.trimmed().is_empty()) {
                return Some(Record { fields, bytes });
            }
        }
    }
}
