//! A mistake in the YAML itself, in the words of somebody who writes manifests and does not know the grammar's.

use granit_parser::ErrorKind;

use super::slips;

/// What is wrong, what to do about it, and where that is: the parser may notice it a line later.
pub(super) fn explain(kind: &ErrorKind, text: &str, at: usize) -> (String, String, usize) {
    if let Some(slip) = slip(text, at) {
        return slip;
    }
    let (message, hint) = words(kind, text, at);
    (message, hint, at)
}

/// A slip that many make, in the line of the mistake or in the one before it.
fn slip(text: &str, at: usize) -> Option<(String, String, usize)> {
    let start_of = |at: usize| text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |i| i + 1);
    let line_at = |start: usize| text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let start = start_of(at);
    let before = start_of(start.saturating_sub(1));
    let found = |start: usize| slips::in_line(line_at(start)).map(|(message, hint, at)| (message, hint, start + at));
    let is_colon = text.get(at..).is_some_and(|rest| rest.starts_with(':'));
    let quote = || slips::quote(line_at(start), at - start).map(|(message, hint, at)| (message, hint, start + at));
    let no_colon = || {
        let (message, hint, at) = is_colon.then(|| slips::no_colon(line_at(before), line_at(start)))??;
        Some((message, hint, before + at))
    };
    found(start).or_else(|| found(before)).or_else(quote).or_else(no_colon).or_else(|| {
        let (message, hint) = is_colon.then(|| slips::colon_in_value(line_at(start), at - start))??;
        Some((message, hint, at))
    })
}

fn words(kind: &ErrorKind, text: &str, at: usize) -> (String, String) {
    if let Some(words) = brackets(kind, text, at) {
        return words;
    }
    let line_start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |i| i + 1);
    let line = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let (message, hint) = match kind {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => {
            ("a tab stands where YAML wants spaces", "indent with spaces; most editors can convert tabs")
        }
        _ if line.trim_start_matches([' ', '-']).starts_with('\t') => {
            ("the line is indented with a tab", "indent with spaces; most editors can convert tabs")
        }
        ErrorKind::UnclosedQuotedScalar => ("a quoted text is never closed", "add the closing quote"),
        ErrorKind::UnknownQuotedScalarEscape | ErrorKind::InvalidQuotedScalarHexEscape => {
            ("`\\` inside double quotes begins an escape that does not exist", "use single quotes, or write `\\\\`")
        }
        ErrorKind::UnknownAnchor => ("this alias names no anchor above it", "define it first with `&name`"),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => {
            ("this `:` cannot stand here", "quote a value that contains `: `; put each key on a line of its own")
        }
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::InvalidIndentation
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::BlockSequenceEntryNotAllowed => (
            "this line is not indented like its neighbours",
            "give keys that belong together the same number of spaces; a list's items begin with `- `",
        ),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            ("a key must be followed by `:` and a value, all on one line", "write `key: value`")
        }
        ErrorKind::RecursionLimitExceeded => ("values are nested too deep", "look for brackets that are not closed"),
        ErrorKind::UnexpectedCharacter { .. } => {
            ("a value cannot begin with this character", "put the value in quotes; a percentage is written `25%`")
        }
        other => {
            let hint = "look at this line and the one before it for a missing quote, colon or bracket";
            return (format!("this is not YAML: {other}"), hint.to_owned());
        }
    };
    (message.to_owned(), hint.to_owned())
}

/// Brackets that are not closed, or closed wrongly.
fn brackets(kind: &ErrorKind, text: &str, at: usize) -> Option<(String, String)> {
    let (message, hint) = match kind {
        ErrorKind::UnclosedFlowCollection { open: '[' } | ErrorKind::UnexpectedEofFlowSequence => {
            ("a list that begins with `[` is never closed", "close it with `]`")
        }
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping => {
            ("a group of keys that begins with `{` is never closed", "close it with `}`")
        }
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            let hint = "write the bracket that belongs to the one that opens".to_owned();
            return Some((format!("`{open}` is closed with `{close}`"), hint));
        }
        ErrorKind::MisplacedFlowCollectionEnd => ("this bracket closes nothing", "remove it, or add the opening one"),
        ErrorKind::MappingValueNotAllowed
        | ErrorKind::InvalidColonPlacement
        | ErrorKind::ExpectedFlowSequenceSeparator
        | ErrorKind::ExpectedFlowMappingSeparator => match open_bracket(text, at) {
            Some((bracket, line)) => {
                let close = if bracket == '[' { ']' } else { '}' };
                let hint = format!("close it with `{close}`, or put a `,` between the items");
                return Some((format!("the `{bracket}` in line {line} is not closed before this"), hint));
            }
            None if matches!(kind, ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement) => {
                return None;
            }
            None => ("a comma or a closing bracket is missing before this", "put a `,` between the items"),
        },
        _ => return None,
    };
    Some((message.to_owned(), hint.to_owned()))
}

/// The last bracket that is open at a place and opens on an earlier line, and its line. Quotes and comments are passed
/// over roughly: this only chooses the words.
fn open_bracket(text: &str, at: usize) -> Option<(char, usize)> {
    const BYTES_MAX: usize = 16 << 10;
    let before = text.get(..at)?;
    let mut start = before.len().saturating_sub(BYTES_MAX);
    while !before.is_char_boundary(start) {
        start += 1;
    }
    let mut open = Vec::new();
    let mut line = before[..start].matches('\n').count();
    for text in before[start..].lines() {
        line += 1;
        let mut quote = None;
        for c in text.split(" #").next().unwrap_or_default().chars() {
            match (quote, c) {
                (None, '"' | '\'') => quote = Some(c),
                (Some(q), c) if q == c => quote = None,
                (None, '[' | '{') => open.push((c, line)),
                (None, ']' | '}') => drop(open.pop()),
                _ => {}
            }
        }
    }
    open.pop().filter(|(_, opened)| *opened < line)
}
