//! Text of users, made fit for a terminal: control characters could move the cursor or change its title, and marks of
//! writing direction could show a line in another order than it is read (CVE-2021-42574).

use std::borrow::Cow;

/// Whether a character must not reach a terminal as it is.
pub(super) fn is_harmful(c: char) -> bool {
    c.is_control() && c != '\n'
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Adds a character, or its number where it is harmful. A tab becomes one blank, so that columns stay.
pub(super) fn push_escaped(text: &mut String, c: char) {
    match c {
        '\t' => text.push(' '),
        c if is_harmful(c) => text.extend(c.escape_unicode()),
        c => text.push(c),
    }
}

/// A text without harmful characters.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| push_escaped(&mut clean, c));
    Cow::Owned(clean)
}

/// The beginning of what a program said, in one line and fit for a terminal; `explain` has all of it.
pub fn one_line(text: &str) -> String {
    const CHARACTERS_MAX: usize = 160;
    let line = escaped(text).split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= CHARACTERS_MAX {
        return line;
    }
    let start: String = line.chars().take(CHARACTERS_MAX - 1).collect();
    format!("{start}…")
}
