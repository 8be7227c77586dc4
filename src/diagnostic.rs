//! What is wrong in the user's files. Diagnostics are values: collected, all of them, sorted when they are shown, and
//! rendered by `report` alone. What fails while *acting* is an error of its module, never a diagnostic.

use std::ops::Range;
use std::sync::Arc;

use crate::manifest::rules::Rule;

/// One text that was read: a manifest or a roster. Shared by every span that points into it.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// As shown to the user: relative to the folder that was named on the command line.
    pub name: String,
    pub text: String,
}

/// A place in a source, as a byte range; never empty, never outside the text (an empty place is widened by one).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub source: Arc<Source>,
    pub bytes: Range<usize>,
}

impl Span {
    pub fn text(&self) -> &str {
        self.source.text.get(self.bytes.clone()).unwrap_or("")
    }

    /// Line and column of the start, counted from 1; the column counts characters.
    pub fn line_column(&self) -> (u32, u32) {
        line_column(&self.source.text, self.bytes.start)
    }

    /// Line and column just behind the end.
    pub fn end_line_column(&self) -> (u32, u32) {
        line_column(&self.source.text, self.bytes.end)
    }
}

fn line_column(text: &str, at: usize) -> (u32, u32) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let column = before[line_start..].chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// Most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Error,
    Warning,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// The stable rule, `LW0xx`; its short name is the constant summary of the kind.
    pub rule: Rule,
    /// What is wrong here, with the actual values, in the user's words: one sentence.
    pub message: String,
    /// Where it is wrong; a whole-file finding has no span but names the file in the message.
    pub place: Option<Span>,
    /// Other places that belong to it, such as the first of two doubles, each with a word on why.
    pub related: Vec<(Span, String)>,
    /// What to do; text in backticks can be pasted.
    pub hint: Option<String>,
}

/// All findings of one load or resolve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "findings are for the user: report them"]
pub struct Diagnostics {
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|d| d.severity == Severity::Error)
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}
