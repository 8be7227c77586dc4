//! YAML text in, a tree of nodes with places out, within limits. It knows nothing of the language: no keys, no types.
//! The parser below the serde reader is used directly, because a serde reader stops at the first mistake of a file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle};

use crate::model::diagnostic::{Diagnostic, Source, Span};
use crate::model::rules::Rule;

/// Most values one file may have: 10,000 vms written out have about 680,000.
const NODES_MAX: usize = 1_000_000;
/// Most values that aliases may add to a file, so that 500 bytes cannot ask for gigabytes.
const ALIASED_NODES_MAX: usize = 100_000;
/// Most text that aliases may add to a file.
const ALIASED_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting. The language needs 7; a reader of nested values recurses.
const DEPTH_MAX: usize = 32;
/// Longest single value.
const SCALAR_BYTES_MAX: usize = 64 << 10;

/// One value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node<'s> {
    pub(super) at: Range<u32>,
    pub(super) value: Value<'s>,
}

#[derive(Debug, Clone)]
pub(super) enum Value<'s> {
    Scalar {
        text: Cow<'s, str>,
        /// Written without quotes, so `3` is a number and `~` is nothing.
        plain: bool,
    },
    Sequence(Vec<Node<'s>>),
    Mapping(Vec<(Node<'s>, Node<'s>)>),
}

impl Node<'_> {
    /// Nothing is written: `key:` with no value, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Values and bytes of text at and below this node.
    fn weight(&self) -> (usize, usize) {
        let sum = |(a, b): (usize, usize), (c, d): (usize, usize)| (a + c, b + d);
        match &self.value {
            Value::Scalar { text, .. } => (1, text.len()),
            Value::Sequence(items) => items.iter().map(Node::weight).fold((1, 0), sum),
            Value::Mapping(entries) => entries.iter().flat_map(|(k, v)| [k.weight(), v.weight()]).fold((1, 0), sum),
        }
    }
}

/// Reads one document. `None` where the file has none: nothing but comments. At most one finding: after a mistake in
/// the YAML itself, what follows is guesswork.
pub(super) fn parse(source: &Arc<Source>) -> Result<Option<Node<'_>>, Box<Diagnostic>> {
    let options = granit_parser::options! { emit_comments: false };
    let mut builder =
        Builder { source, open: Vec::new(), root: None, anchors: HashMap::new(), nodes: 0, aliased: (0, 0) };
    let mut documents = 0;
    for item in Parser::new_from_str_with_options(&source.text, options) {
        let (event, span) = item.map_err(|error| syntax(builder.source, &error))?;
        let bytes = span.byte_range().unwrap_or_default();
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return Err(Box::new(builder.finding(
                        Rule::UnsupportedYaml,
                        bytes,
                        "a file holds one document, here begins a second one",
                        "remove the line `---`, or move what follows into a file of its own",
                    )));
                }
            }
            event => builder.event(event, bytes)?,
        }
    }
    Ok(builder.root)
}

/// Refuses a text that is not one group of keys. Its places are those of `source`, which has the same bytes but for words that are to
/// be filled in. Of its values nothing is looked at: they are another program's.
pub(super) fn check_mapping(source: &Arc<Source>, text: &str) -> Result<(), Box<Diagnostic>> {
    let no_keys = |bytes: Range<usize>| {
        let finding = Diagnostic::new(Rule::SeedFile, "this is no group of keys, as cloud-init wants it");
        Box::new(finding.at(Span::new(source, bytes)).hint("write keys and values: `packages: [htop]`"))
    };
    let (mut documents, mut is_mapping) = (0, false);
    for item in Parser::new_from_str_with_options(text, granit_parser::options! { emit_comments: false }) {
        let (event, span) = item.map_err(|error| syntax(source, &error))?;
        let bytes = span.byte_range().unwrap_or_default();
        match event {
            Event::DocumentStart(..) if documents == 1 => return Err(no_keys(bytes)),
            Event::DocumentStart(..) => documents = 1,
            Event::MappingStart(..) => is_mapping = true,
            Event::SequenceStart(..) | Event::Scalar(..) | Event::Alias(_) if !is_mapping => {
                return Err(no_keys(bytes));
            }
            _ => {}
        }
    }
    if is_mapping { Ok(()) } else { Err(no_keys(0..1)) }
}

fn syntax(source: &Arc<Source>, error: &granit_parser::ScanError) -> Box<Diagnostic> {
    let at = error.marker().byte_offset().unwrap_or(source.text.len());
    let (message, hint, at) = super::syntax::explain(error.kind(), &source.text, at);
    let rule = match error.kind() {
        granit_parser::ErrorKind::RecursionLimitExceeded => Rule::TooBig,
        _ => Rule::Syntax,
    };
    Box::new(Diagnostic::new(rule, message).at(Span::new(source, at..at + 1)).hint(hint))
}

/// A sequence or mapping that is not closed yet.
struct Open<'s> {
    start: u32,
    anchor: usize,
    /// Items of a sequence; keys and values by turns of a mapping.
    children: Vec<Node<'s>>,
    mapping: bool,
}

struct Builder<'s> {
    source: &'s Arc<Source>,
    open: Vec<Open<'s>>,
    root: Option<Node<'s>>,
    anchors: HashMap<usize, Node<'s>>,
    nodes: usize,
    /// Values and bytes that anchors and aliases have copied so far.
    aliased: (usize, usize),
}

impl<'s> Builder<'s> {
    fn finding(&self, rule: Rule, bytes: Range<usize>, message: impl Into<String>, hint: &str) -> Diagnostic {
        Diagnostic::new(rule, message).at(Span::new(self.source, bytes)).hint(hint)
    }

    fn event(&mut self, event: Event<'s>, bytes: Range<usize>) -> Result<(), Box<Diagnostic>> {
        let at = position(bytes.start)..position(bytes.end);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), &bytes)?;
                if text.len() > SCALAR_BYTES_MAX {
                    let message =
                        format!("this value has {} bytes; the longest allowed is {SCALAR_BYTES_MAX}", text.len());
                    return Err(Box::new(self.finding(Rule::TooBig, bytes, message, "is a quote missing?")));
                }
                let value = Value::Scalar { text, plain: style == ScalarStyle::Plain };
                self.close(Node { at, value }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), &bytes)?;
                self.start(at.start, anchor, false, bytes)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), &bytes)?;
                self.start(at.start, anchor, true, bytes)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                self.end(open, at.end)
            }
            Event::Alias(id) => self.alias(id, bytes),
            _ => Ok(()),
        }
    }

    fn refuse_tag(&self, tagged: bool, bytes: &Range<usize>) -> Result<(), Box<Diagnostic>> {
        if !tagged {
            return Ok(());
        }
        let message = "a manifest has no tags: `!` before a value has no meaning here";
        Err(Box::new(self.finding(Rule::UnsupportedYaml, bytes.clone(), message, "remove the tag, or quote the value")))
    }

    fn start(&mut self, start: u32, anchor: usize, mapping: bool, bytes: Range<usize>) -> Result<(), Box<Diagnostic>> {
        if self.open.len() >= DEPTH_MAX {
            let message = format!("values are nested more than {DEPTH_MAX} deep; a manifest needs 7 levels at most");
            return Err(Box::new(self.finding(Rule::TooBig, bytes, message, "look for brackets that are not closed")));
        }
        self.open.push(Open { start, anchor, children: Vec::new(), mapping });
        Ok(())
    }

    fn end(&mut self, open: Open<'s>, end: u32) -> Result<(), Box<Diagnostic>> {
        // A block collection ends where the next token starts; its last child says where its text ends.
        let end = open.children.last().map_or(end, |last| last.at.end.max(open.start));
        let value = if open.mapping {
            let mut entries = Vec::with_capacity(open.children.len() / 2);
            let mut children = open.children.into_iter();
            while let (Some(key), Some(value)) = (children.next(), children.next()) {
                entries.push((key, value));
            }
            Value::Mapping(entries)
        } else {
            Value::Sequence(open.children)
        };
        self.close(Node { at: open.start..end, value }, open.anchor)
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, node: Node<'s>, anchor: usize) -> Result<(), Box<Diagnostic>> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let bytes = node.at.start as usize..node.at.end as usize;
            let message = format!("the file has more than {NODES_MAX} values");
            return Err(Box::new(self.finding(Rule::TooBig, bytes, message, "use `for_each`, or several files")));
        }
        if anchor != 0 {
            self.count_copy(&node)?;
            self.anchors.insert(anchor, node.clone());
        }
        self.place(node);
        Ok(())
    }

    fn place(&mut self, node: Node<'s>) {
        match self.open.last_mut() {
            Some(open) => open.children.push(node),
            None => self.root = Some(node),
        }
    }

    fn alias(&mut self, id: usize, bytes: Range<usize>) -> Result<(), Box<Diagnostic>> {
        let Some(node) = self.anchors.get(&id).cloned() else {
            let message = "this alias stands inside the value it names, which would never end";
            return Err(Box::new(self.finding(Rule::UnsupportedYaml, bytes, message, "write the value out")));
        };
        self.count_copy(&node)?;
        self.place(node);
        Ok(())
    }

    fn count_copy(&mut self, node: &Node<'s>) -> Result<(), Box<Diagnostic>> {
        let (nodes, text) = node.weight();
        self.aliased = (self.aliased.0 + nodes, self.aliased.1 + text);
        if self.aliased.0 > ALIASED_NODES_MAX || self.aliased.1 > ALIASED_BYTES_MAX {
            let bytes = node.at.start as usize..node.at.end as usize;
            let message = "the anchors (`&`) and aliases (`*`) of this file multiply its values beyond all reason";
            return Err(Box::new(self.finding(Rule::TooBig, bytes, message, "use `defaults` and `for_each` instead")));
        }
        Ok(())
    }
}

/// Files are shorter than 4 GiB by far: `files::FILE_BYTES_MAX`.
fn position(byte: usize) -> u32 {
    u32::try_from(byte).unwrap_or(u32::MAX)
}
