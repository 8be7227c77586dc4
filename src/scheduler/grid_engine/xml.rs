//! Reads the XML that Grid Engine's tools print, as a flat series of opened and closed elements. Knows no element by
//! name; never recurses, and bounds depth, number of elements and length of texts, so that no answer can exhaust us.
//! What it hands out are pieces of the answer itself: a queue of 10,000 tasks has 150,000 elements, and each plan reads it.
//!
//! Descendants of Grid Engine differ in the schema's address and in what they add. So the address is not looked at, and
//! what a reader does not know it passes over.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// Deepest nesting. The tools' own answers have nine levels.
const DEPTH_MAX: usize = 64;
/// Most elements in one answer: 100,000 jobs with some 30 elements each.
const ELEMENTS_MAX: usize = 4_000_000;
/// Longest text of one element; a job's context may hold some thousand characters.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Longest reference to a character, without `&` and with `;`; `#x10ffff;` is the longest that is needed.
const REFERENCE_BYTES_MAX: usize = 12;

/// One step through an answer.
#[derive(Debug, Clone)]
pub(super) enum Part<'x> {
    /// An element begins.
    Open { name: &'x str, attributes: Attributes<'x> },
    /// An element ends; its own text, without the texts of elements in it.
    Close { name: &'x str, text: Cow<'x, str> },
}

/// The attributes of an element, looked up by name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'x>(&'x str);

impl<'x> Attributes<'x> {
    pub(super) fn get(self, name: &str) -> Option<Cow<'x, str>> {
        let mut rest = self.0;
        loop {
            let (key, behind) = rest.split_once('=')?;
            let behind = behind.trim_ascii_start();
            let quote = behind.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
            let (value, behind) = behind[1..].split_once(quote)?;
            if key.trim_ascii() == name {
                return Some(unescaped(value));
            }
            rest = behind;
        }
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

/// What begins with a `<`.
enum Markup<'x> {
    Start {
        name: &'x str,
        attributes: &'x str,
        is_empty: bool,
    },
    End {
        name: &'x str,
    },
    /// A text that is meant as it stands.
    Text(&'x str),
    /// A comment, a declaration, an order to some program.
    Aside,
}

/// An element around the place where the reader is.
struct Open<'x> {
    name: &'x str,
    text: Cow<'x, str>,
}

/// Walks through an answer whose outermost element must be `root`, and calls `on` for every part of it.
pub(super) fn read<'x>(xml: &'x str, root: &'static str, on: impl FnMut(Part<'x>)) -> Result<(), XmlError> {
    let mut walk = Walk { root, open: Vec::new(), elements: 0, on };
    let mut rest = xml;
    while let Some((text, behind)) = cut(rest, b'<') {
        walk.text(text, unescaped)?;
        let (markup, behind) = markup(behind)?;
        match markup {
            Markup::Start { name, attributes, is_empty } => {
                walk.begin(name, attributes)?;
                if is_empty {
                    walk.end(name)?;
                }
            }
            Markup::End { name } => walk.end(name)?,
            Markup::Text(text) => walk.text(text, Cow::Borrowed)?,
            Markup::Aside => {}
        }
        rest = behind;
    }
    match walk.open.last() {
        Some(element) => Err(XmlError::Unfinished { element: element.name.to_owned() }),
        None if walk.elements == 0 => Err(XmlError::Empty),
        None => Ok(()),
    }
}

struct Walk<'x, F> {
    root: &'static str,
    open: Vec<Open<'x>>,
    elements: usize,
    on: F,
}

impl<'x, F: FnMut(Part<'x>)> Walk<'x, F> {
    fn begin(&mut self, name: &'x str, attributes: &'x str) -> Result<(), XmlError> {
        if self.open.is_empty() && name != self.root {
            return Err(XmlError::Root { found: name.to_owned(), expected: self.root });
        }
        self.elements += 1;
        if self.elements > ELEMENTS_MAX {
            return Err(XmlError::TooMuch { limit: ELEMENTS_MAX, what: "elements" });
        }
        if self.open.len() == DEPTH_MAX {
            return Err(XmlError::TooMuch { limit: DEPTH_MAX, what: "levels" });
        }
        (self.on)(Part::Open { name, attributes: Attributes(attributes) });
        self.open.push(Open { name, text: Cow::Borrowed("") });
        Ok(())
    }

    fn end(&mut self, name: &'x str) -> Result<(), XmlError> {
        let Some(Open { name: begun, text }) = self.open.pop_if(|element| element.name == name) else {
            return Err(XmlError::Syntax("an element in it ends that did not begin".into()));
        };
        let text = match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim_ascii()),
            Cow::Owned(text) => Cow::Owned(text.trim_ascii().to_owned()),
        };
        (self.on)(Part::Close { name: begun, text });
        Ok(())
    }

    /// Some text of the innermost element. Most of what stands between elements sets them apart for people.
    fn text(&mut self, text: &'x str, meant: impl FnOnce(&'x str) -> Cow<'x, str>) -> Result<(), XmlError> {
        let Some(element) = self.open.last_mut() else { return Ok(()) };
        if element.text.is_empty() && text.trim_ascii_start().is_empty() {
            return Ok(());
        }
        if element.text.len() + text.len() > TEXT_BYTES_MAX {
            return Err(XmlError::TooMuch { limit: TEXT_BYTES_MAX, what: "bytes of text in one element" });
        }
        match element.text.is_empty() {
            true => element.text = meant(text),
            false => element.text.to_mut().push_str(&meant(text)),
        }
        Ok(())
    }
}

/// What stands before and behind the first of these; the same as `split_once`, which takes ten times as long.
fn cut(text: &str, ascii: u8) -> Option<(&str, &str)> {
    memchr(ascii, text.as_bytes()).map(|at| (&text[..at], &text[at + 1..]))
}

/// What stands behind a `<`, and all that comes after it.
fn markup<'x>(inner: &'x str) -> Result<(Markup<'x>, &'x str), XmlError> {
    let unclosed = |end: &str| XmlError::Syntax(format!("`{end}` is missing at its end"));
    let until = |inner: &'x str, end: &str| inner.split_once(end).ok_or_else(|| unclosed(end));
    if let Some(inner) = inner.strip_prefix('/') {
        let (name, behind) = cut(inner, b'>').ok_or_else(|| unclosed(">"))?;
        return Ok((Markup::End { name: name.trim_ascii_end() }, behind));
    }
    let aside = |(_, behind)| (Markup::Aside, behind);
    match inner.as_bytes() {
        [b'!', b'-', b'-', ..] => until(&inner[3..], "-->").map(aside),
        [b'!', b'[', b'C', b'D', b'A', b'T', b'A', b'[', ..] => {
            until(&inner[8..], "]]>").map(|(text, behind)| (Markup::Text(text), behind))
        }
        [b'!', ..] => until(inner, ">").map(aside),
        [b'?', ..] => until(inner, "?>").map(aside),
        _ => {
            let end = end_of_tag(inner).ok_or_else(|| unclosed(">"))?;
            let (tag, behind) = (&inner[..end], &inner[end + 1..]);
            let (tag, is_empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
            let name = tag.bytes().position(|byte| byte.is_ascii_whitespace()).unwrap_or(tag.len());
            let (name, attributes) = tag.split_at(name);
            match name.is_empty() {
                true => Err(XmlError::Syntax("an element in it has no name".into())),
                false => Ok((Markup::Start { name, attributes, is_empty }, behind)),
            }
        }
    }
}

/// Where the tag that something begins with ends: a `>` in quotes does not end it.
fn end_of_tag(inner: &str) -> Option<usize> {
    let plain = memchr2(b'>', b'<', inner.as_bytes())?;
    if memchr2(b'"', b'\'', &inner.as_bytes()[..plain]).is_none() {
        return Some(plain).filter(|end| inner.as_bytes()[*end] == b'>');
    }
    let mut quoted_by = None;
    let end = inner.bytes().position(|byte| {
        match (quoted_by, byte) {
            (None, b'>' | b'<') => return true,
            (None, b'"' | b'\'') => quoted_by = Some(byte),
            (Some(quote), _) if byte == quote => quoted_by = None,
            _ => {}
        }
        false
    });
    end.filter(|end| inner.as_bytes()[*end] == b'>')
}

/// A text with what its references mean. A tool that forgets to escape `&` shall cost us one odd character, not the whole queue.
fn unescaped(text: &str) -> Cow<'_, str> {
    let Some((before, mut rest)) = cut(text, b'&') else { return Cow::Borrowed(text) };
    let mut whole = before.to_owned();
    loop {
        let end = rest.bytes().take(REFERENCE_BYTES_MAX).position(|byte| byte == b';');
        match end.and_then(|end| Some((meaning(&rest[..end])?, &rest[end + 1..]))) {
            Some((character, behind)) => {
                whole.push(character);
                rest = behind;
            }
            None => whole.push('&'),
        }
        let Some((before, behind)) = rest.split_once('&') else { break };
        whole.push_str(before);
        rest = behind;
    }
    Cow::Owned(whole + rest)
}

/// What stands between `&` and `;`.
fn meaning(reference: &str) -> Option<char> {
    match reference {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = reference.strip_prefix('#')?;
            let hexadecimal = number.strip_prefix('x').map(|digits| u32::from_str_radix(digits, 16));
            let code = hexadecimal.unwrap_or_else(|| number.parse()).ok()?;
            char::from_u32(code).filter(|character| *character != '\0')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(xml: &str) -> Result<Vec<(String, String)>, XmlError> {
        leaves_below(xml, "a")
    }

    fn leaves_below(xml: &str, root: &'static str) -> Result<Vec<(String, String)>, XmlError> {
        let mut leaves = Vec::new();
        read(xml, root, |part| {
            if let Part::Close { name, text } = part {
                leaves.push((name.to_owned(), text.into_owned()));
            }
        })?;
        Ok(leaves)
    }

    /// The same by a reader that others wrote.
    fn leaves_elsewhere(xml: &str) -> Vec<(String, String)> {
        use quick_xml::events::Event;
        let (mut reader, mut open, mut leaves) = (quick_xml::Reader::from_str(xml), Vec::new(), Vec::new());
        loop {
            match reader.read_event().unwrap() {
                Event::Start(start) => open.push((start.name().as_ref().to_owned(), String::new())),
                Event::Empty(start) => leaves.push((start.name().as_ref().to_owned(), String::new())),
                Event::Text(text) => {
                    open.last_mut().into_iter().for_each(|(_, all)| all.push_str(&text.xml10_content()))
                }
                Event::GeneralRef(found) => {
                    let reference = format!("&{};", found.xml10_content());
                    open.last_mut().unwrap().1.push_str(&quick_xml::escape::unescape(&reference).unwrap());
                }
                Event::End(_) => leaves.extend(open.pop().map(|(name, text)| (name, text.trim().to_owned()))),
                Event::Eof => return leaves,
                _ => {}
            }
        }
    }

    #[test]
    fn recorded_answers_read_as_they_do_elsewhere() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/grid-engine");
        let mut elements = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let recorded = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let text = &recorded[recorded.find("<?xml").unwrap_or(recorded.len())..];
            let roots = ["job_info", "detailed_job_info", "qhost", "unknown_jobs"];
            let is_root = |root: &&str| text.contains(&format!("<{root}"));
            if let Some(root) = roots.into_iter().find(is_root) {
                let found = leaves_below(text, root).unwrap();
                assert_eq!(found, leaves_elsewhere(text));
                elements += found.len();
            }
        }
        assert!(elements > 1000, "{elements} elements alone were compared");
    }

    #[test]
    fn texts_are_unescaped_and_odd_ones_kept() {
        let found = leaves("<a><b>can&apos;t &lt;x&gt; &#65; R&D &nosuch;</b><c/></a>").unwrap();
        let expected = [("b", "can't <x> A R&D &nosuch;"), ("c", ""), ("a", "")];
        assert_eq!(found, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }

    #[test]
    fn what_is_no_element_is_passed_over() {
        let xml = "<?xml version='1.0'?><!DOCTYPE a><!-- <b> -->\n<a >x<!-- </a> --> &amp;<b  c = 'd>' e=\"&quot;\"/>\ty<![CDATA[ <&amp;]]>\n</a\n>\n";
        assert_eq!(
            leaves(xml).unwrap(),
            [("b", ""), ("a", "x &\ty <&amp;")].map(|(name, text)| (name.into(), text.into()))
        );
        let mut found = Vec::new();
        read(xml, "a", |part| {
            if let Part::Open { name: "b", attributes } = part {
                found.extend(["c", "e", "d", "f"].map(|name| attributes.get(name)));
            }
        })
        .unwrap();
        assert_eq!(found, [Some("d>".into()), Some("\"".into()), None, None]);
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        assert_eq!(leaves("").unwrap_err(), XmlError::Empty);
        assert_eq!(leaves("<a><b>1</b>").unwrap_err(), XmlError::Unfinished { element: "a".into() });
        let wrong = XmlError::Root { found: "unknown_jobs".into(), expected: "a" };
        assert_eq!(leaves("<unknown_jobs/>").unwrap_err(), wrong);
        for wrong in [
            "<a></b></a>",
            "<a></a></a>",
            "</a>",
            "<a",
            "<a><b</a>",
            "<a b='>",
            "<a><!-- </a>",
            "<a><![CDATA[</a>",
            "<>",
        ] {
            assert!(matches!(leaves(wrong).unwrap_err(), XmlError::Syntax(_)), "{wrong}");
        }
        let deep = format!("<a>{}", "<b>".repeat(100));
        assert_eq!(leaves(&deep).unwrap_err(), XmlError::TooMuch { limit: DEPTH_MAX, what: "levels" });
        let long = format!("<a>{}</a>", "x".repeat(TEXT_BYTES_MAX + 1));
        assert!(matches!(leaves(&long).unwrap_err(), XmlError::TooMuch { .. }));
    }
}
