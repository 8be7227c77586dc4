//! Reads the XML that Grid Engine's tools print, as a flat series of opened and closed elements. Knows no element by
//! name; never recurses, and bounds depth, number of elements and length of texts, so that no answer can exhaust us.
//!
//! Descendants of Grid Engine differ in the schema's address and in what they add. So the address is not looked at, and
//! what a reader does not know it passes over.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::{BytesStart, Event};

/// Deepest nesting. The tools' own answers have nine levels.
const DEPTH_MAX: usize = 64;
/// Most elements in one answer: 100,000 jobs with some 30 elements each.
const ELEMENTS_MAX: usize = 4_000_000;
/// Longest text of one element; a job's context may hold some thousand characters.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// One step through an answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'a> {
    /// An element begins.
    Open { name: &'a str, attributes: Attributes<'a> },
    /// An element ends; its own text, without the texts of elements in it.
    Close { name: &'a str, text: &'a str },
}

/// The attributes of an element, looked up by name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a>(&'a BytesStart<'a>);

impl<'a> Attributes<'a> {
    pub(super) fn get(self, name: &str) -> Option<Cow<'a, str>> {
        let mut all = self.0.attributes();
        let mut all = all.with_checks(false).filter_map(Result::ok);
        let value = all.find(|attribute| attribute.key.as_ref() == name)?.value;
        let unescaped = unescape(&value).ok().filter(|unescaped| **unescaped != *value).map(Cow::into_owned);
        Some(unescaped.map_or(value, Cow::Owned))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    #[error("it is not XML: {0}")]
    Syntax(String),
    #[error("it ends in the middle of `{element}`")]
    Unfinished { element: String },
    #[error("it holds nothing")]
    Empty,
    #[error("it is `{found}`, not `{expected}`")]
    Root { found: String, expected: &'static str },
    #[error("a job in it has no number")]
    Unnumbered,
    #[error("it has more than {limit} {what}")]
    TooMuch { limit: usize, what: &'static str },
}

#[derive(Default)]
struct Open {
    name: String,
    text: String,
}

/// The elements around the place where the reader is. Those that were closed lend their memory to the next: a queue of
/// 10,000 tasks has 150,000 elements.
#[derive(Default)]
struct Stack {
    open: Vec<Open>,
    closed: Vec<Open>,
}

/// Walks through an answer whose outermost element must be `root`, and calls `on` for every part of it.
pub(super) fn read(xml: &str, root: &'static str, mut on: impl FnMut(Part<'_>)) -> Result<(), XmlError> {
    let mut reader = Reader::from_str(xml);
    reader.config_mut().allow_dangling_amp = true;
    let mut stack = Stack::default();
    let mut elements = 0;
    loop {
        match reader.read_event().map_err(|error| XmlError::Syntax(error.to_string()))? {
            Event::Start(start) => {
                begin(&start, root, &mut stack, &mut elements, &mut on)?;
            }
            Event::Empty(start) => {
                begin(&start, root, &mut stack, &mut elements, &mut on)?;
                end(&mut stack, &mut on);
            }
            Event::End(_) => end(&mut stack, &mut on),
            // Most of what stands between elements sets them apart for people.
            Event::Text(text) if has_no_text(&stack) && text.trim_ascii_start().is_empty() => {}
            Event::Text(text) => add(&mut stack.open, &text.xml10_content())?,
            Event::CData(text) => add(&mut stack.open, &text.xml10_content())?,
            Event::GeneralRef(reference) => {
                // A tool that forgets to escape `&` shall cost us one odd character, not the whole queue.
                let written = format!("&{};", reference.xml10_content());
                let meant = unescape(&written).map_or_else(|_| written.clone(), std::borrow::Cow::into_owned);
                add(&mut stack.open, &meant)?;
            }
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    match stack.open.last() {
        Some(element) => Err(XmlError::Unfinished { element: element.name.clone() }),
        None if elements == 0 => Err(XmlError::Empty),
        None => Ok(()),
    }
}

fn begin(
    start: &BytesStart<'_>,
    root: &'static str,
    stack: &mut Stack,
    elements: &mut usize,
    on: &mut impl FnMut(Part<'_>),
) -> Result<(), XmlError> {
    let name = start.name();
    let name = name.as_ref();
    if stack.open.is_empty() && name != root {
        return Err(XmlError::Root { found: name.to_owned(), expected: root });
    }
    *elements += 1;
    if *elements > ELEMENTS_MAX {
        return Err(XmlError::TooMuch { limit: ELEMENTS_MAX, what: "elements" });
    }
    if stack.open.len() == DEPTH_MAX {
        return Err(XmlError::TooMuch { limit: DEPTH_MAX, what: "levels" });
    }
    on(Part::Open { name, attributes: Attributes(start) });
    let mut element = stack.closed.pop().unwrap_or_default();
    name.clone_into(&mut element.name);
    element.text.clear();
    stack.open.push(element);
    Ok(())
}

fn end(stack: &mut Stack, on: &mut impl FnMut(Part<'_>)) {
    if let Some(element) = stack.open.pop() {
        on(Part::Close { name: &element.name, text: element.text.trim() });
        stack.closed.push(element);
    }
}

fn has_no_text(stack: &Stack) -> bool {
    stack.open.last().is_none_or(|element| element.text.is_empty())
}

fn add(open: &mut [Open], text: &str) -> Result<(), XmlError> {
    let Some(element) = open.last_mut() else { return Ok(()) };
    if element.text.len() + text.len() > TEXT_BYTES_MAX {
        return Err(XmlError::TooMuch { limit: TEXT_BYTES_MAX, what: "bytes of text in one element" });
    }
    element.text.push_str(text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(xml: &str) -> Result<Vec<(String, String)>, XmlError> {
        let mut leaves = Vec::new();
        read(xml, "a", |part| {
            if let Part::Close { name, text } = part {
                leaves.push((name.to_owned(), text.to_owned()));
            }
        })?;
        Ok(leaves)
    }

    #[test]
    fn texts_are_unescaped_and_odd_ones_kept() {
        let found = leaves("<a><b>can&apos;t &lt;x&gt; &#65; R&D &nosuch;</b><c/></a>").unwrap();
        let expected = [("b", "can't <x> A R&D &nosuch;"), ("c", ""), ("a", "")];
        assert_eq!(found, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        assert_eq!(leaves("").unwrap_err(), XmlError::Empty);
        assert_eq!(leaves("<a><b>1</b>").unwrap_err(), XmlError::Unfinished { element: "a".into() });
        let wrong = XmlError::Root { found: "unknown_jobs".into(), expected: "a" };
        assert_eq!(leaves("<unknown_jobs/>").unwrap_err(), wrong);
        assert!(matches!(leaves("<a></b></a>").unwrap_err(), XmlError::Syntax(_)));
        let deep = format!("<a>{}", "<b>".repeat(100));
        assert_eq!(leaves(&deep).unwrap_err(), XmlError::TooMuch { limit: DEPTH_MAX, what: "levels" });
        let long = format!("<a>{}</a>", "x".repeat(TEXT_BYTES_MAX + 1));
        assert!(matches!(leaves(&long).unwrap_err(), XmlError::TooMuch { .. }));
    }
}
