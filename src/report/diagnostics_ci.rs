//! Diagnostics for continuous integration: GitHub's annotations, SARIF 2.1.0 and JUnit's XML.

use serde_json::{Value, json};

use super::diagnostics_json::{severity, snippet};
use super::escape::escaped;
use crate::control::validate::Checked;
use crate::model::diagnostic::{Diagnostic, Severity, Span};
use crate::model::rules::Rule;

/// GitHub shows so many annotations of a kind per step and drops the rest without a word.
const ANNOTATIONS_MAX: usize = 10;

/// Workflow commands, most severe first.
pub fn github(checked: &Checked) -> String {
    let mut text = String::new();
    for kind in [Severity::Error, Severity::Warning] {
        let of_kind: Vec<&Diagnostic> = checked.sorted().into_iter().filter(|d| d.severity == kind).collect();
        let all = checked.diagnostics.count(kind);
        // The last one of a kind that overflows says how many more there are.
        let shown = if all > ANNOTATIONS_MAX { ANNOTATIONS_MAX - 1 } else { all };
        for diagnostic in of_kind.iter().take(shown) {
            text.push_str(&annotation(diagnostic));
        }
        if all > shown {
            let more = format!("{} more; run `labwright validate` to see them all", all - shown);
            text.extend(["::", severity(kind), " title=labwright::", &data(&more), "\n"]);
        }
    }
    text
}

fn annotation(diagnostic: &Diagnostic) -> String {
    let mut properties = Vec::new();
    if let Some(place) = &diagnostic.place {
        let (line, column) = place.line_column();
        let (end_line, end_column) = place.end_line_column();
        properties.push(format!("file={}", property(&place.source.name)));
        properties.push(format!("line={line},endLine={end_line},col={column},endColumn={end_column}"));
    }
    properties
        .push(format!("title={}", property(&format!("{} {}", diagnostic.rule.code(), diagnostic.rule.summary()))));
    let hint = diagnostic.hint.as_ref().map(|hint| format!("\nhelp: {hint}")).unwrap_or_default();
    let message = data(&format!("{}{hint}", diagnostic.message));
    format!("::{} {}::{message}\n", severity(diagnostic.severity), properties.join(","))
}

/// A message as GitHub unescapes it.
fn data(text: &str) -> String {
    let clean: Vec<String> = text.split('\n').map(|line| escaped(line).into_owned()).collect();
    clean.join("\n").replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// The Static Analysis Results Interchange Format.
pub fn sarif(checked: &Checked) -> String {
    let rules: Vec<Value> = Rule::ALL
        .iter()
        .map(|rule| {
            json!({
                "id": rule.code(),
                "shortDescription": { "text": rule.summary() },
                "help": { "text": rule.page(), "markdown": rule.page() },
                "defaultConfiguration": { "level": severity(rule.severity()) },
            })
        })
        .collect();
    let results: Vec<Value> = checked.sorted().into_iter().map(result).collect();
    let log = json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "labwright",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    let mut text = serde_json::to_string(&log).expect("the log has only string keys");
    text.push('\n');
    text
}

fn result(diagnostic: &Diagnostic) -> Value {
    let hint = diagnostic.hint.as_ref().map(|hint| format!("\nhelp: {hint}")).unwrap_or_default();
    let index = Rule::ALL.iter().position(|rule| *rule == diagnostic.rule);
    let related: Vec<Value> = diagnostic
        .related
        .iter()
        .map(|(span, why)| {
            let mut location = location(span);
            location["message"] = json!({ "text": why });
            location
        })
        .collect();
    json!({
        "ruleId": diagnostic.rule.code(),
        "ruleIndex": index,
        "level": severity(diagnostic.severity),
        "message": { "text": format!("{}{hint}", diagnostic.message) },
        "locations": diagnostic.place.iter().map(location).collect::<Vec<_>>(),
        "relatedLocations": related,
    })
}

fn location(span: &Span) -> Value {
    let ((line, column), (end_line, end_column)) = (span.line_column(), span.end_line_column());
    json!({ "physicalLocation": {
        "artifactLocation": { "uri": uri(&span.source.name) },
        "region": {
            "startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column,
            "snippet": { "text": snippet(span) },
        },
    } })
}

/// A path as a URI reference (RFC 3986).
fn uri(path: &str) -> String {
    let mut text = String::new();
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(byte.into()),
            other => text.extend(["%".to_owned(), format!("{other:02X}")]),
        }
    }
    text
}

/// JUnit's XML: each file is a test, each error a failure of it. Findings without a place are failures of the whole.
pub fn junit(checked: &Checked) -> String {
    const WHOLE: &str = "lab";
    let sorted = checked.sorted();
    let name = |d: &Diagnostic| d.place.as_ref().map_or(WHOLE.to_owned(), |place| place.source.name.clone());
    let mut names = checked.files.clone();
    names.extend(sorted.iter().map(|d| name(d)));
    names.sort();
    names.dedup();
    let failed = |test: &String| sorted.iter().any(|d| d.severity == Severity::Error && name(d) == *test);
    let failures = names.iter().filter(|test| failed(test)).count();
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let counts = format!("tests=\"{}\" failures=\"{failures}\" errors=\"0\"", names.len());
    text.extend(["<testsuites ", &counts, ">\n  <testsuite name=\"labwright validate\" ", &counts, ">\n"]);
    for test in &names {
        text.extend(["    <testcase classname=\"labwright\" name=\"", &xml(test), "\">\n"]);
        for diagnostic in sorted.iter().filter(|d| name(d) == *test) {
            text.push_str(&test_result(diagnostic));
        }
        text.push_str("    </testcase>\n");
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn test_result(diagnostic: &Diagnostic) -> String {
    let place = diagnostic.place.as_ref().map(|place| (place, place.line_column()));
    let place = place.map(|(p, (line, column))| format!("{}:{line}:{column}: ", p.source.name)).unwrap_or_default();
    let hint = diagnostic.hint.as_ref().map(|hint| format!("\nhelp: {hint}")).unwrap_or_default();
    let body = xml(&format!("{place}{}{hint}", diagnostic.message));
    match diagnostic.severity {
        Severity::Error => {
            let (code, summary) = (diagnostic.rule.code(), xml(diagnostic.rule.summary()));
            format!("      <failure type=\"{code}\" message=\"{summary}\">{body}</failure>\n")
        }
        Severity::Warning => format!("      <system-out>{} {body}</system-out>\n", diagnostic.rule.code()),
    }
}

/// Text for XML 1.0, which has no way to write most control characters.
fn xml(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => clean.push_str("&amp;"),
            '<' => clean.push_str("&lt;"),
            '>' => clean.push_str("&gt;"),
            '"' => clean.push_str("&quot;"),
            '\n' => clean.push('\n'),
            c => clean.push_str(&escaped(c.encode_utf8(&mut [0; 4]))),
        }
    }
    clean
}
