//! Diagnostics as JSON, for programs: one documented object with a version. `labwright schema diagnostics` describes it.

use schemars::JsonSchema;
use serde::Serialize;

use super::stream::{self, ValidateLine, Version};
use crate::control::validate::Checked;
use crate::model::diagnostic::{Diagnostic, Severity, Span};

/// What `labwright validate --format json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DiagnosticsReport {
    /// Version of this shape. A number that you do not know means that keys may have another meaning.
    pub version: u32,
    /// How many errors there are, also those beyond the thousand that are listed.
    pub errors: usize,
    /// How many warnings there are.
    pub warnings: usize,
    /// The files that were checked.
    pub files: Vec<String>,
    /// Most severe first.
    pub diagnostics: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Finding {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// The stable code of the rule, such as `LW002`; `labwright validate --explain CODE` tells more.
    pub code: &'static str,
    /// What the rule is about; the same for all findings of a code.
    pub summary: &'static str,
    /// What is wrong here.
    pub message: String,
    /// What to do; text in backticks can be pasted.
    pub hint: Option<String>,
    /// Where; nothing where it is about no single place.
    pub place: Option<Place>,
    /// Other places that belong to it.
    pub related: Vec<Related>,
}

/// A place in a file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Place {
    /// The file, as it was named on the command line and below.
    pub file: String,
    /// Its first character.
    pub start: Position,
    /// Just behind the last character.
    pub end: Position,
    /// The first line of the place as it is in the file, cut to 300 characters.
    pub snippet: String,
}

/// Counted from 1; columns count characters.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Position {
    /// Which line.
    pub line: u32,
    /// Which character of the line.
    pub column: u32,
}

/// Another place and why it belongs to the finding.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Related {
    /// Why it belongs there.
    pub message: String,
    /// Where.
    pub place: Place,
}

impl DiagnosticsReport {
    pub const VERSION: u32 = 1;

    pub fn new(checked: &Checked) -> Self {
        Self {
            version: Self::VERSION,
            errors: checked.diagnostics.count(Severity::Error),
            warnings: checked.diagnostics.count(Severity::Warning),
            files: checked.files.clone(),
            diagnostics: checked.sorted().into_iter().map(Finding::new).collect(),
        }
    }
}

impl Finding {
    fn new(diagnostic: &Diagnostic) -> Self {
        Self {
            severity: severity(diagnostic.severity),
            code: diagnostic.rule.code(),
            summary: diagnostic.rule.summary(),
            message: diagnostic.message.clone(),
            hint: diagnostic.hint.clone(),
            place: diagnostic.place.as_ref().map(Place::new),
            related: diagnostic
                .related
                .iter()
                .map(|(span, why)| Related { message: why.clone(), place: Place::new(span) })
                .collect(),
        }
    }
}

impl Place {
    fn new(span: &Span) -> Self {
        let position = |(line, column)| Position { line, column };
        Self {
            file: span.source.name.clone(),
            start: position(span.line_column()),
            end: position(span.end_line_column()),
            snippet: snippet(span),
        }
    }
}

/// The line of a place, cut.
pub(super) fn snippet(span: &Span) -> String {
    const CHARACTERS_MAX: usize = 300;
    let line = span.source.line(span.line_column().0).unwrap_or_default();
    span.source.text[line].chars().take(CHARACTERS_MAX).collect()
}

pub(super) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// The line stream of a check.
pub fn stream(checked: &Checked) -> String {
    let DiagnosticsReport { errors, warnings, files, diagnostics, .. } = DiagnosticsReport::new(checked);
    let mut lines = vec![ValidateLine::Version(Version::of("validate"))];
    lines.extend(files.iter().map(|file| ValidateLine::File { file }));
    lines.extend(diagnostics.into_iter().map(ValidateLine::Finding));
    lines.push(ValidateLine::Summary { files: files.len(), errors, warnings });
    stream::text(lines)
}

/// One JSON object and a line end.
pub fn json(checked: &Checked) -> String {
    let mut text = serde_json::to_string(&DiagnosticsReport::new(checked)).expect("the report has only string keys");
    text.push('\n');
    text
}
