//! Diagnostics as text for people, in the look of rustc: heading, place, the line with the span underlined, hint.

use std::borrow::Cow;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::escape::{escaped, is_harmful, push_escaped};
use crate::model::diagnostic::{Diagnostic, Diagnostics, Severity, Span};

/// Most findings that are written out; the rest is counted. Nobody mends more than this in one go.
const SHOWN_MAX: usize = 50;

/// All findings, most severe first, and a line that counts them. `styled` adds colours, and nothing that the text lacks.
pub fn human(diagnostics: &Diagnostics, styled: bool) -> String {
    let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let mut sorted: Vec<&Diagnostic> = diagnostics.list.iter().collect();
    sorted.sort_by(|a, b| a.order().cmp(&b.order()));
    let mut text = String::new();
    for diagnostic in sorted.iter().take(SHOWN_MAX) {
        text.push_str(&one(diagnostic, &renderer));
        text.push_str("\n\n");
    }
    text.push_str(&summary(diagnostics, sorted.len().min(SHOWN_MAX)));
    text
}

/// How many there are, and where to read on.
fn summary(diagnostics: &Diagnostics, shown: usize) -> String {
    let errors = diagnostics.count(Severity::Error);
    let warnings = diagnostics.count(Severity::Warning);
    if errors + warnings == 0 {
        return String::new();
    }
    let hidden = errors + warnings - shown;
    let more = if hidden > 0 { format!("; {hidden} of them not shown") } else { String::new() };
    let code = diagnostics.list.iter().min_by(|a, b| a.order().cmp(&b.order())).map_or("LW001", |d| d.rule.code());
    let counts = match (errors, warnings) {
        (0, warnings) => plural(warnings, "warning"),
        (errors, 0) => plural(errors, "error"),
        (errors, warnings) => format!("{} and {}", plural(errors, "error"), plural(warnings, "warning")),
    };
    format!("{counts}{more}. More about one: labwright validate --explain {code}\n")
}

pub(crate) fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn one(diagnostic: &Diagnostic, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    // The message names the values, the rule's summary is constant; people look for the former.
    let mut group = level.primary_title(escaped(&diagnostic.message)).id(diagnostic.rule.code()).elements(NOTHING);
    let beside = diagnostic.place.as_ref().and_then(|place| beside(place, &diagnostic.related));
    if let Some(place) = &diagnostic.place {
        group = with_excerpt(group, place, "", AnnotationKind::Primary, beside);
    }
    for (place, why) in diagnostic.related.iter().skip(usize::from(beside.is_some())) {
        group = group.element(Level::NOTE.message(escaped(why)));
        group = with_excerpt(group, place, "", AnnotationKind::Context, None);
    }
    if let Some(hint) = &diagnostic.hint {
        group = group.element(Level::HELP.message(escaped(hint)));
    }
    renderer.render(&[group])
}

const NOTHING: [annotate_snippets::Padding; 0] = [];

/// A related place in the same few lines is shown in the same excerpt.
fn beside<'d>(place: &Span, related: &'d [(Span, String)]) -> Option<&'d (Span, String)> {
    const LINES: u32 = 4;
    let first = related.first()?;
    let (line, other) = (place.line_column().0, first.0.line_column().0);
    (place.source == first.0.source && line.abs_diff(other) <= LINES).then_some(first)
}

fn with_excerpt<'g>(
    group: Group<'g>,
    place: &Span,
    label: &str,
    kind: AnnotationKind,
    beside: Option<&(Span, String)>,
) -> Group<'g> {
    let (line, column) = place.line_column();
    let path = escaped(&place.source.name).into_owned();
    let other_line = beside.map_or(line, |(span, _)| span.line_column().0);
    let excerpt = Excerpt::new(place, line.min(other_line)..=line.max(other_line));
    let annotation = kind.span(excerpt.shown(&place.bytes));
    let annotation = if label.is_empty() { annotation } else { annotation.label(escaped(label).into_owned()) };
    let faithful = excerpt.is_faithful();
    let mut snippet =
        Snippet::source(excerpt.text.clone()).line_start(excerpt.first_line as usize).annotation(annotation);
    if let Some((span, why)) = beside {
        let label = escaped(why).into_owned();
        snippet = snippet.annotation(AnnotationKind::Context.span(excerpt.shown(&span.bytes)).label(label));
    }
    if faithful {
        return group.element(snippet.path(path));
    }
    // The renderer would count columns in the excerpt, which has been cut or grown.
    group.element(Origin::path(path).line(line as usize).char_column(column as usize)).element(snippet)
}

/// Whole lines of a source, escaped, with the way from places in the source to places in it.
struct Excerpt {
    first_line: u32,
    text: String,
    /// For each line: its bytes that are shown, and where they begin in `text`.
    pieces: Vec<(Range<usize>, usize)>,
    /// Where a harmful character of the source stands, and how many bytes its harmless form is longer.
    grown: Vec<(usize, usize)>,
}

impl Excerpt {
    /// Most characters of one line: some files are one line of megabytes.
    const LINE_CHARACTERS_MAX: usize = 140;

    fn new(place: &Span, lines: std::ops::RangeInclusive<u32>) -> Self {
        let source = &place.source;
        let mut excerpt =
            Self { first_line: *lines.start(), text: String::new(), pieces: Vec::new(), grown: Vec::new() };
        for number in lines {
            let Some(line) = source.line(number) else { break };
            let cut = cut_line(&source.text, line.clone(), &place.bytes);
            if cut.start > line.start {
                excerpt.text.push('…');
            }
            excerpt.pieces.push((cut.clone(), excerpt.text.len()));
            for (at, c) in source.text[cut.clone()].char_indices() {
                let before = excerpt.text.len();
                push_escaped(&mut excerpt.text, c);
                let grown = (excerpt.text.len() - before).saturating_sub(c.len_utf8());
                if grown > 0 {
                    excerpt.grown.push((cut.start + at, grown));
                }
            }
            if cut.end < line.end {
                excerpt.text.push('…');
            }
            excerpt.text.push('\n');
        }
        excerpt
    }

    /// Whether the lines are shown as they are written.
    fn is_faithful(&self) -> bool {
        self.grown.is_empty() && !self.text.contains('…')
    }

    /// Where bytes of the source are in the text; what lies outside the excerpt is cut off.
    fn shown(&self, bytes: &Range<usize>) -> Range<usize> {
        let start = self.position(bytes.start);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |length| start + length);
        let end = self.position(bytes.end).clamp(start, line_end);
        // The renderer wants at least one character, and only whole ones.
        match self.text[start..].chars().next() {
            Some(first) if end == start && first != '\n' => start..start + first.len_utf8(),
            _ => start..end,
        }
    }

    fn position(&self, at: usize) -> usize {
        let piece = self.pieces.iter().rev().find(|(bytes, _)| bytes.start <= at).or(self.pieces.first());
        let Some((bytes, begin)) = piece else { return 0 };
        let at = at.clamp(bytes.start, bytes.end);
        let grown: usize = self.grown.iter().filter(|(g, _)| bytes.start <= *g && *g < at).map(|(_, n)| n).sum();
        begin + (at - bytes.start) + grown
    }
}

/// The part of a line that is shown: all of it, or what is around the place.
fn cut_line(text: &str, line: Range<usize>, place: &Range<usize>) -> Range<usize> {
    const BEFORE: usize = 60;
    let length = text[line.clone()].chars().take(Excerpt::LINE_CHARACTERS_MAX + 1).count();
    if length <= Excerpt::LINE_CHARACTERS_MAX {
        return line;
    }
    let centre = place.start.clamp(line.start, line.end);
    let start = text[line.start..centre].char_indices().rev().nth(BEFORE).map_or(line.start, |(i, _)| line.start + i);
    let end =
        text[start..line.end].char_indices().nth(Excerpt::LINE_CHARACTERS_MAX).map_or(line.end, |(i, _)| start + i);
    start..end
}

/// Whether a text would be shown otherwise than it is written.
pub fn has_harmful(text: &str) -> bool {
    text.chars().any(is_harmful)
}

/// For callers outside: a user's text, fit for a terminal.
pub fn shown(text: &str) -> Cow<'_, str> {
    escaped(text)
}
