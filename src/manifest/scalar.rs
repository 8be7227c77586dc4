//! Values that are one piece of text.

use schemars::Schema;

use super::decode::{Decoder, other_meaning};
use super::slips;
use super::tree::{Node, Value};
use super::values::shorten;
use crate::model::rules::Rule;

/// A type that is one piece of text.
pub(super) trait Scalar: Sized {
    /// The rule that a text which is none breaks.
    const RULE: Rule = Rule::BadValue;

    /// A full sentence about a text that is not a value, and what to write instead.
    fn parse(text: &str) -> Result<Self, Mistake>;

    fn schema() -> Schema;
}

/// Why a text is not a value of its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Where it is another rule than the type's.
    pub(super) rule: Option<Rule>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Mistake {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { rule: None, message: message.into(), hint: None }
    }

    /// For a command line.
    pub(super) fn in_a_line(self) -> String {
        match self.hint {
            Some(hint) => format!("{}: {hint}", self.message),
            None => self.message,
        }
    }

    #[must_use]
    pub(super) fn rule(mut self, rule: Rule) -> Self {
        self.rule = Some(rule);
        self
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Reads a text value. A plain `3` or `true` is no text to an editor, so it is none to us.
pub(super) fn decode_text<T: Scalar>(node: &Node<'_>, decoder: &mut Decoder<'_>, expected: &str) -> Option<T> {
    let Value::Scalar { text, plain } = &node.value else {
        let hint = placeholder(node).or_else(|| one_of_list(node, expected));
        decoder.wrong_type(node, expected, hint);
        return None;
    };
    if node.is_null() {
        decoder.wrong_type(node, expected, Some("write a value, or remove the key".to_owned()));
        return None;
    }
    match T::parse(text) {
        Ok(_) if *plain && other_meaning(text).is_some() => {
            decoder.wrong_type(node, expected, Some(format!("put it in quotes: `\"{text}\"`")));
            None
        }
        Ok(value) => Some(value),
        Err(mistake) => {
            let mistake = match slips::plain_quotes(text) {
                Some(hint) => mistake.hint(hint),
                None => mistake,
            };
            decoder.mistake(T::RULE, &node.at, mistake);
            None
        }
    }
}

/// A list where one word stands, which is most likely its only one; people that are named make a group.
fn one_of_list(node: &Node<'_>, expected: &str) -> Option<String> {
    let Value::Sequence(items) = &node.value else { return None };
    let word = |item: &Node<'_>| match &item.value {
        Value::Scalar { text, .. } => Some(shorten(text)),
        _ => None,
    };
    let words: Option<Vec<String>> = items.iter().map(word).collect();
    match words.as_deref() {
        Some([word]) => Some(format!("write `{word}`, without brackets")),
        Some([_, _, ..]) if expected == "a user group's name" => {
            Some("make them a group, and name that: `user_groups: { NAME: { members: [USER, …] } }`".to_owned())
        }
        _ => None,
    }
}

/// `name: {user}` is a group of keys to YAML.
fn placeholder(node: &Node<'_>) -> Option<String> {
    let Value::Mapping(entries) = &node.value else { return None };
    match entries.as_slice() {
        [(Node { value: Value::Scalar { text, .. }, .. }, value)] if value.is_null() => {
            Some(format!("put it in quotes: `\"{{{}}}\"`", shorten(text)))
        }
        _ => None,
    }
}
