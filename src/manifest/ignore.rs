//! `.labwrightignore` in a lab's folder: which files and folders below it are none of the lab's. One pattern a line:
//!
//! ```text
//! # a comment
//! compose.yaml         a file or folder of that name, wherever it is
//! deploy/*.yaml        with a `/` inside: from the lab's folder on; `*` stands for anything but `/`
//! old/                 folders only, and all that is in them
//! ```

use std::path::Path;
use std::sync::Arc;

use crate::model::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::model::rules::Rule;

pub(super) const IGNORE_FILE: &str = ".labwrightignore";

/// What a lab leaves out.
#[derive(Debug, Default)]
pub(super) struct Ignore {
    source: Option<Arc<Source>>,
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    /// Where it stands in the file.
    start: usize,
    text: String,
    folders_only: bool,
    /// From the lab's folder on, not anywhere.
    anchored: bool,
    used: bool,
}

impl Ignore {
    pub(super) fn parse(source: Arc<Source>, diagnostics: &mut Diagnostics) -> Self {
        let mut patterns = Vec::new();
        let mut start = 0;
        for line in source.text.split_inclusive('\n') {
            let text = line.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
            if text.starts_with('!') {
                let message = "nothing that was left out is taken in again: `!` has no meaning here";
                let place = Span::new(&source, start..start + text.len());
                let hint = "remove the line, and write the patterns so that they leave out what is meant";
                diagnostics.push(Diagnostic::new(Rule::BadValue, message).at(place).hint(hint));
            } else if !text.is_empty() && !text.starts_with('#') {
                patterns.push(Pattern::new(text, start));
            }
            start += line.len();
        }
        Self { source: Some(source), patterns }
    }

    /// Whether a path below the lab's folder is left out.
    pub(super) fn covers(&mut self, relative: &Path, is_folder: bool) -> bool {
        let path = relative.to_string_lossy();
        let name = relative.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let mut covered = false;
        for pattern in &mut self.patterns {
            if pattern.fits(&path, &name, is_folder) {
                pattern.used = true;
                covered = true;
            }
        }
        covered
    }

    /// Says which lines leave nothing out. One with `*` may be there for files that come and go.
    pub(super) fn note_unused(&self, diagnostics: &mut Diagnostics) {
        let Some(source) = &self.source else { return };
        for pattern in self.patterns.iter().filter(|pattern| !pattern.used && !pattern.text.contains(['*', '?'])) {
            let message = format!("nothing below the lab's folder is called `{}`", pattern.text);
            let place = Span::new(source, pattern.start..pattern.start + pattern.text.len());
            let hint = "write the name as it is, from the lab's folder on, or remove the line";
            diagnostics.push(Diagnostic::new(Rule::UselessIgnore, message).at(place).hint(hint));
        }
    }
}

impl Pattern {
    fn new(text: &str, start: usize) -> Self {
        let folders_only = text.ends_with('/');
        let path = text.trim_end_matches('/');
        let anchored = path.contains('/');
        let path = path.strip_prefix("./").or(path.strip_prefix('/')).unwrap_or(path);
        Self { start, text: path.to_owned(), folders_only, anchored, used: false }
    }

    fn fits(&self, path: &str, name: &str, is_folder: bool) -> bool {
        (is_folder || !self.folders_only) && fits(&self.text, if self.anchored { path } else { name })
    }
}

/// `*` stands for any run of characters without `/`, `**` for any at all, `?` for one.
fn fits(pattern: &str, text: &str) -> bool {
    // The places in the text that the pattern so far can lead to; so its cost is the product of both lengths, never more.
    let text: Vec<char> = text.chars().collect();
    let mut at = vec![false; text.len() + 1];
    at[0] = true;
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let any = rest.starts_with("**");
        rest = &rest[if any { 2 } else { first.len_utf8() }..];
        if first == '*' {
            for place in 1..at.len() {
                at[place] |= at[place - 1] && (any || text[place - 1] != '/');
            }
            continue;
        }
        for place in (1..at.len()).rev() {
            let one = text[place - 1];
            at[place] = at[place - 1] && (one == first || (first == '?' && one != '/'));
        }
        at[0] = false;
    }
    at[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_what_it_means_to_git() {
        let left_out = |line: &str, path: &str, is_folder: bool| {
            let mut diagnostics = Diagnostics::default();
            let mut ignore = Ignore::parse(Arc::new(Source::new(IGNORE_FILE, line)), &mut diagnostics);
            assert!(diagnostics.is_empty());
            ignore.covers(Path::new(path), is_folder)
        };
        assert!(left_out("compose.yaml", "compose.yaml", false) && left_out("compose.yaml", "a/b/compose.yaml", false));
        assert!(
            !left_out("compose.yaml", "my-compose.yaml", false) && !left_out("# compose.yaml", "compose.yaml", false)
        );
        assert!(left_out("a/*.yaml", "a/x.yaml", false) && !left_out("a/*.yaml", "a/b/x.yaml", false));
        assert!(left_out("/x.yaml", "x.yaml", false) && left_out("a/**/x.yaml", "a/b/c/x.yaml", false));
        assert!(
            left_out("old/\r\n", "old", true) && left_out("old/", "a/old", true) && !left_out("old/", "old", false)
        );
        assert!(left_out("*~", "lab.yaml~", false) && left_out("lab.???", "lab.bak", false));
    }
}
