//! What is wrong in the user's files. Diagnostics are values: collected, all of them, sorted when they are shown, and
//! rendered by `report` alone. What fails while *acting* is an error of its module, never a diagnostic.

use std::ops::Range;
use std::sync::Arc;

use crate::model::rules::Rule;

/// One text that was read: a manifest or a roster. Shared by every span that points into it.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// As shown to the user: relative to the folder that was named on the command line.
    pub name: String,
    pub text: String,
    /// Where each line starts (texts are far shorter than 4 GiB), so that a place in a file of 9 MB costs a search and not a scan.
    line_starts: Vec<u32>,
    /// Then bytes are characters, and columns of a line of megabytes need not be counted.
    ascii: bool,
}

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        // Counted first: a file of nothing but line ends must not make the index grow by doubling.
        let mut line_starts = Vec::with_capacity(1 + text.bytes().filter(|b| *b == b'\n').count());
        line_starts.push(0);
        line_starts.extend(text.match_indices('\n').map(|(i, _)| u32::try_from(i + 1).unwrap_or(u32::MAX)));
        let ascii = text.is_ascii();
        Self { name: name.into(), text, line_starts, ascii }
    }

    /// Line and column of a byte, counted from 1; the column counts characters.
    pub fn line_column(&self, at: usize) -> (u32, u32) {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let line = self.line_starts.partition_point(|start| *start as usize <= at);
        let start = self.line_starts[line - 1] as usize;
        let column = 1 + if self.ascii { at - start } else { self.text[start..at].chars().count() };
        (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
    }

    /// Line `line`, counted from 1, as the range of its bytes without the line break.
    pub fn line(&self, line: u32) -> Option<Range<usize>> {
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        let start = *self.line_starts.get(index)? as usize;
        let end = self.line_starts.get(index + 1).map_or(self.text.len(), |next| *next as usize - 1);
        let end = if self.text[start..end].ends_with('\r') { end - 1 } else { end };
        Some(start..end)
    }
}

/// A place in a source, as a byte range; never empty, never outside the text (an empty place is widened by one).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub source: Arc<Source>,
    pub bytes: Range<usize>,
}

impl Span {
    /// Cuts `bytes` to the text and to whole characters.
    pub fn new(source: &Arc<Source>, bytes: Range<usize>) -> Self {
        let text = &source.text;
        let mut start = bytes.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = bytes.end.clamp(start, text.len());
        if end == start {
            end = (start + 1).min(text.len());
        }
        while !text.is_char_boundary(end) {
            end += 1;
        }
        Self { source: Arc::clone(source), bytes: start..end }
    }

    pub fn text(&self) -> &str {
        self.source.text.get(self.bytes.clone()).unwrap_or("")
    }

    /// Line and column of the start, counted from 1; the column counts characters.
    pub fn line_column(&self) -> (u32, u32) {
        self.source.line_column(self.bytes.start)
    }

    /// Line and column just behind the end.
    pub fn end_line_column(&self) -> (u32, u32) {
        self.source.line_column(self.bytes.end)
    }
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

impl Diagnostic {
    /// A finding of `rule`, as severe as the rule is, without a place.
    pub fn new(rule: Rule, message: impl Into<String>) -> Self {
        let (severity, message) = (rule.severity(), message.into());
        Self { severity, rule, message, place: None, related: Vec::new(), hint: None }
    }

    #[must_use]
    pub fn at(mut self, place: Span) -> Self {
        self.place = Some(place);
        self
    }

    #[must_use]
    pub fn related(mut self, place: Span, why: impl Into<String>) -> Self {
        self.related.push((place, why.into()));
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Errors before warnings, then by file and place: the order in which findings are shown.
    pub fn order(&self) -> (Severity, Option<(&str, usize)>, Rule) {
        let place = self.place.as_ref().map(|span| (span.source.name.as_str(), span.bytes.start));
        (self.severity, place, self.rule)
    }
}

/// All findings of one load or resolve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "findings are for the user: report them"]
pub struct Diagnostics {
    pub list: Vec<Diagnostic>,
    /// Findings beyond `KEPT_MAX` of a severity; a roster of a million bad lines must not fill the memory.
    pub dropped_errors: usize,
    pub dropped_warnings: usize,
    /// How many of `list` came through `push`, so that a million pushes need not count them.
    kept_errors: usize,
    kept_warnings: usize,
}

impl Diagnostics {
    /// How many findings of each severity are kept; nobody reads the thousandth.
    pub const KEPT_MAX: usize = 1000;

    pub fn push(&mut self, diagnostic: Diagnostic) {
        let (kept, dropped) = match diagnostic.severity {
            Severity::Error => (&mut self.kept_errors, &mut self.dropped_errors),
            Severity::Warning => (&mut self.kept_warnings, &mut self.dropped_warnings),
        };
        if *kept < Self::KEPT_MAX {
            *kept += 1;
            self.list.push(diagnostic);
        } else {
            *dropped += 1;
        }
    }

    /// Whether a further error would only be counted: what it costs to word it can be saved.
    pub fn is_full(&self) -> bool {
        self.kept_errors >= Self::KEPT_MAX
    }

    /// Takes over all findings of `other`.
    pub fn append(&mut self, other: Self) {
        self.dropped_errors += other.dropped_errors;
        self.dropped_warnings += other.dropped_warnings;
        for diagnostic in other.list {
            self.push(diagnostic);
        }
    }

    /// Puts the findings into the order in which they are shown.
    pub fn sort(&mut self) {
        self.list.sort_by(|a, b| a.order().cmp(&b.order()));
    }

    /// Whether anything stands in the way of going on; warnings do not.
    pub fn has_errors(&self) -> bool {
        self.dropped_errors > 0 || self.list.iter().any(|d| d.severity == Severity::Error)
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many findings there are of a severity, those that were not kept included.
    pub fn count(&self, severity: Severity) -> usize {
        let dropped = match severity {
            Severity::Error => self.dropped_errors,
            Severity::Warning => self.dropped_warnings,
        };
        dropped + self.list.iter().filter(|d| d.severity == severity).count()
    }
}
