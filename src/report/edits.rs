//! The fields of a change, as lines below it: short values beside each other, texts and lists as a diff.

use std::collections::{BTreeMap, BTreeSet};

use similar::{ChangeTag, TextDiff};

use super::escaped;
use crate::plan::is_long;

/// How much of a change's fields is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// Only how long values differ, since the reason tells of short ones; long differences are cut.
    Differences,
    Everything,
}

/// Most lines of one value's difference, unless everything is asked for.
const DIFF_LINES_MAX: usize = 12;

/// Unchanged lines that are shown around a difference.
const CONTEXT: usize = 1;

const INDENT: &str = "      ";

/// What differs between `before` and `after`, each line indented and fit for a terminal.
pub(super) fn lines(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    detail: Detail,
) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().flat_map(|name| field(name, before.get(name), after.get(name), detail)).collect()
}

fn field(name: &str, before: Option<&String>, after: Option<&String>, detail: Detail) -> Vec<String> {
    let long = [before, after].into_iter().flatten().any(|value| is_long(value));
    match (before, after) {
        (Some(before), Some(after)) if long => headed(name, &diff(before, after, detail)),
        _ if detail == Detail::Differences => Vec::new(),
        (Some(before), Some(after)) => vec![format!("{INDENT}{name}: {} -> {}", escaped(before), escaped(after))],
        (Some(value), None) | (None, Some(value)) if long => {
            headed(name, &lines_of(value).iter().map(|line| format!("  {}", escaped(line))).collect::<Vec<_>>())
        }
        (Some(value), None) | (None, Some(value)) => vec![format!("{INDENT}{name}: {}", escaped(value))],
        (None, None) => Vec::new(),
    }
}

fn headed(name: &str, lines: &[String]) -> Vec<String> {
    if lines.is_empty() {
        return vec![format!("{INDENT}{name}: none")];
    }
    let body = lines.iter().map(|line| format!("{INDENT}  {line}"));
    std::iter::once(format!("{INDENT}{name}:")).chain(body).collect()
}

fn diff(before: &str, after: &str, detail: Detail) -> Vec<String> {
    let (before, after) = (lines_of(before), lines_of(after));
    let (old, new) =
        (before.iter().map(String::as_str).collect::<Vec<_>>(), after.iter().map(String::as_str).collect::<Vec<_>>());
    let diff = TextDiff::from_slices(&old, &new);
    let mut lines: Vec<String> = Vec::new();
    for (at, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if at > 0 {
            lines.push("  …".into());
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            lines.push(format!("{sign} {}", escaped(change.value())));
        }
    }
    let surplus = lines.len().saturating_sub(DIFF_LINES_MAX);
    if detail == Detail::Differences && surplus > 1 {
        lines.truncate(DIFF_LINES_MAX);
        lines.push(format!("  … {surplus} more lines: `--verbose` shows them"));
    }
    lines
}

/// A text by its lines, a list by its entries.
fn lines_of(value: &str) -> Vec<String> {
    match serde_json::from_str(value) {
        Ok(serde_json::Value::Array(entries)) => {
            entries.into_iter().map(|entry| entry.as_str().map_or_else(|| entry.to_string(), str::to_owned)).collect()
        }
        Ok(serde_json::Value::Object(fields)) => fields
            .into_iter()
            .map(|(name, value)| format!("{name}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect(),
        _ => value.lines().map(str::to_owned).collect(),
    }
}
