//! Files that are YAML and no manifests, such as a compose file of the same course: told once, not key by key.

use std::sync::Arc;

use super::decode::{first_line, list, nearest};
use super::ignore::IGNORE_FILE;
use super::language::LabFile;
use super::slips::meant_key;
use super::tree::{Node, Value};
use super::values::shorten;
use crate::model::diagnostic::{Diagnostic, Source, Span};
use crate::model::rules::Rule;

/// A finding, if nothing in a file reads like a manifest. `relative` is its path below the lab's folder.
pub(super) fn finding(root: &Node<'_>, source: &Arc<Source>, relative: &str) -> Option<Diagnostic> {
    let known = |node: &Node<'_>| match &node.value {
        Value::Scalar { text, .. } => {
            let ours = LabFile::KEYS.iter().copied();
            text == "<<"
                || LabFile::KEYS.contains(&&**text)
                || nearest(text, ours).is_some()
                || meant_key("a manifest", text, LabFile::KEYS).is_some()
        }
        Value::Sequence(_) | Value::Mapping(_) => false,
    };
    let (begins, at) = match &root.value {
        Value::Mapping(entries) if entries.iter().take(ENTRIES_COMPARED_MAX).any(|(key, _)| known(key)) => return None,
        Value::Mapping(entries) => match entries.first() {
            Some((Node { value: Value::Scalar { text, .. }, at }, _)) => (format!("`{}`", shorten(text)), at),
            _ => return None,
        },
        Value::Sequence(_) => ("a list".to_owned(), &root.at),
        Value::Scalar { .. } => ("a text".to_owned(), &root.at),
    };
    let message = format!("the file has no key of a manifest; it begins with {begins}");
    let hint = format!("{}; the keys of a manifest are {}", left_out(relative), list(LabFile::KEYS.iter().copied()));
    let at = first_line(source, at);
    let place = Span::new(source, at.start as usize..at.end as usize);
    Some(Diagnostic::new(Rule::UnknownKey, message).at(place).hint(hint))
}

/// Each is compared with all known keys.
const ENTRIES_COMPARED_MAX: usize = 100;

/// For a file that cannot be read as YAML: whether no line of it begins like a manifest's.
pub(super) fn is_likely(text: &str) -> bool {
    let begins = |line: &str, key: &str| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':'));
    !text.lines().any(|line| LabFile::KEYS.iter().any(|key| begins(line, key)))
}

/// How a file that is none of the lab's is left out.
pub(super) fn left_out(relative: &str) -> String {
    format!("a file of another program is left out by a line `{relative}` in `{IGNORE_FILE}`")
}
