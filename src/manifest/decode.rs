//! From the tree of one file to typed values: every mistake is noted with its place and reading goes on. A type says how
//! it is read and what its JSON Schema is in one trait, so that neither can drift from the other.

use std::collections::{BTreeSet, HashMap};
use std::ops::{Deref, Range};
use std::sync::Arc;

use schemars::{Schema, SchemaGenerator};

use super::room::{Fit, Room};
use super::scalar::Mistake;
use super::secrets::is_secret_name;
use super::slips;
use super::tree::{Node, Value};
use super::values::shorten;
use crate::model::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::model::rules::Rule;

/// A place: the file's number in `Manifest::files`, and bytes in it. Small, since every value has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    pub file: u32,
    pub start: u32,
    pub end: u32,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    pub value: T,
    pub at: At,
}

impl<T> Deref for Spanned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// A type of the language.
pub(super) trait Decode: Sized {
    /// `None` after a finding was noted.
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self>;

    /// The value of a key that is not written; `None` where the key is required.
    fn absent() -> Option<Self> {
        None
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema;

    /// What a record is called in messages.
    fn what() -> Option<&'static str> {
        None
    }
}

/// Reads one file: knows its number and notes what is wrong in it.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    pub(super) file: u32,
    pub(super) source: &'a Arc<Source>,
    pub(super) diagnostics: &'a mut Diagnostics,
    /// The key whose value is being read: where a missing key is shown.
    pub(super) context: Range<u32>,
    /// How much the lab may still have.
    pub(super) room: &'a mut Room,
}

impl Decoder<'_> {
    pub(super) fn at(&self, range: &Range<u32>) -> At {
        At { file: self.file, start: range.start, end: range.end }
    }

    pub(super) fn span(&self, range: &Range<u32>) -> Span {
        Span::new(self.source, range.start as usize..range.end as usize)
    }

    pub(super) fn note(&mut self, rule: Rule, place: &Range<u32>, message: impl Into<String>, hint: Option<String>) {
        let mut diagnostic = Diagnostic::new(rule, message).at(self.span(place));
        diagnostic.hint = hint;
        self.diagnostics.push(diagnostic);
    }

    pub(super) fn mistake(&mut self, rule: Rule, place: &Range<u32>, mistake: Mistake) {
        self.note(mistake.rule.unwrap_or(rule), place, mistake.message, mistake.hint);
    }

    /// Whether there is room for one more thing; says once that there is not.
    pub(super) fn fits(&mut self, place: &Range<u32>, weight: usize) -> bool {
        let fit = self.room.take(weight);
        if fit == Fit::FirstTooMany {
            let hint = "use `for_each` and rosters, or make several labs of it".to_owned();
            self.note(Rule::TooBig, place, "the lab's files define more things than a lab can have", Some(hint));
        }
        fit == Fit::Fits
    }

    /// Notes that something else was expected here.
    pub(super) fn wrong_type(&mut self, node: &Node<'_>, expected: &str, hint: Option<String>) {
        let found = match &node.value {
            _ if node.is_null() => "nothing".to_owned(),
            Value::Scalar { text, plain } => kind_of(text, *plain),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a group of keys".to_owned(),
        };
        let place = if node.is_null() { self.context.clone() } else { first_line(self.source, &node.at) };
        self.note(Rule::WrongType, &place, format!("expected {expected}, found {found}"), hint);
    }

    /// The entries of a mapping, each key once.
    pub(super) fn entries<'n, 's>(
        &mut self,
        node: &'n Node<'s>,
        expected: &str,
    ) -> Option<Vec<(&'n str, &'n Node<'s>, &'n Node<'s>)>> {
        let Value::Mapping(entries) = &node.value else {
            let dash = matches!(node.value, Value::Sequence(_));
            let hint = dash.then(|| "write `name: …` on a line of its own, without `- `".to_owned());
            self.wrong_type(node, expected, hint);
            return None;
        };
        Some(self.distinct(entries))
    }

    /// Each key once.
    fn distinct<'n, 's>(
        &mut self,
        entries: impl IntoIterator<Item = &'n (Node<'s>, Node<'s>)>,
    ) -> Vec<(&'n str, &'n Node<'s>, &'n Node<'s>)>
    where
        's: 'n,
    {
        let entries = entries.into_iter();
        let mut seen: HashMap<&str, &Node<'_>> = HashMap::with_capacity(entries.size_hint().0);
        let mut kept = Vec::with_capacity(entries.size_hint().0);
        for (key, value) in entries {
            let Value::Scalar { text, plain } = &key.value else {
                self.wrong_type(
                    key,
                    "a key",
                    Some("a key is one word; quote text that begins with `[` or `{`".to_owned()),
                );
                continue;
            };
            if *plain && text == "<<" {
                let hint = "write the keys out, or put what all vms share under `defaults:`".to_owned();
                self.note(Rule::UnsupportedYaml, &key.at, "merge keys (`<<`) are not part of a manifest", Some(hint));
                continue;
            }
            if let Some(first) = seen.get(&**text) {
                let diagnostic = Diagnostic::new(Rule::DuplicateKey, format!("`{}` stands here twice", shorten(text)))
                    .at(self.span(&key.at))
                    .related(self.span(&first.at), "here for the first time")
                    .hint("remove one of the two, or give it another name");
                self.diagnostics.push(diagnostic);
                continue;
            }
            seen.insert(text, key);
            kept.push((&**text, key, value));
        }
        kept
    }

    /// Inside `{ }` a comma ends a value: of `{ gateway: 192,168,100,1 }`, three numbers are keys without values to YAML. Tells
    /// of it, and returns where the keys stand whose values were cut, and those of their pieces.
    fn split_values(&mut self, entries: &[(Node<'_>, Node<'_>)], known: &[&str]) -> (BTreeSet<u32>, BTreeSet<u32>) {
        let (mut cut, mut pieces) = (BTreeSet::new(), BTreeSet::new());
        let mut from = 0;
        while let Some((key, value)) = entries.get(from) {
            from += 1;
            let behind = entries[from..].iter().take_while(|(key, value)| self.is_piece(key, value, known)).count();
            if behind == 0 || value.is_null() || !matches!(&value.value, Value::Scalar { plain: true, .. }) {
                continue;
            }
            let last = entries[from + behind - 1].0.at.end;
            let whole = value.at.start..last;
            let written = self.source.text.get(whole.start as usize..whole.end as usize).unwrap_or_default();
            let message = format!("a comma ends a value inside `{{ }}`, so `{}` is cut in pieces", shorten(written));
            // `10,0,0,1` and `1,5G`.
            let is_number = |c: char| c.is_ascii_alphanumeric() || matches!(c, ',' | '.' | '/');
            let is_number = written.starts_with(|c: char| c.is_ascii_digit()) && written.chars().all(is_number);
            let dots = is_number.then(|| format!("write `{}`", shorten(&written.replace(',', "."))));
            let hint = dots.unwrap_or_else(|| format!("put it in quotes: `\"{}\"`", shorten(written)));
            self.note(Rule::BadValue, &whole, message, Some(hint));
            cut.insert(key.at.start);
            pieces.extend(entries[from..from + behind].iter().map(|(key, _)| key.at.start));
            from += behind;
        }
        (cut, pieces)
    }

    /// Whether this is a word behind a comma, which nobody meant as a key.
    fn is_piece(&self, key: &Node<'_>, value: &Node<'_>, known: &[&str]) -> bool {
        let Value::Scalar { text, plain: true } = &key.value else { return false };
        let ends = |text: &str| text.trim_start().starts_with([',', '}']);
        value.is_null()
            && self.source.text.get(key.at.end as usize..).is_some_and(ends)
            && !known.contains(&&**text)
            && nearest(text, known.iter().copied()).is_none()
    }

    /// Reads the keys of a record: `slots[i]` is what was written for `known[i]`.
    pub(super) fn fields<'n, 's>(
        &mut self,
        node: &'n Node<'s>,
        what: &str,
        known: &[&'static str],
    ) -> Option<Fields<'n, 's>> {
        if !matches!(node.value, Value::Mapping(_)) {
            let form = match &node.value {
                Value::Scalar { text, .. } if !node.is_null() => slips::record_for(what, text),
                _ => None,
            };
            let hint = form.unwrap_or_else(|| format!("its keys are {}", list(known.iter().copied().take(6))));
            self.wrong_type(node, &format!("{what} as a group of keys"), Some(hint));
            return None;
        }
        if !self.fits(&first_line(self.source, &node.at), Room::GROUP_OF_KEYS) {
            return None;
        }
        let Value::Mapping(all) = &node.value else { return None };
        let (cut, pieces) = self.split_values(all, known);
        let entries = self.distinct(all.iter().filter(|(key, _)| !pieces.contains(&key.at.start)));
        let mut slots = vec![None; known.len()];
        let mut keys = Vec::with_capacity(entries.len());
        if let Some(merge) = merge_key(node) {
            // Who tried to merge keys in did not forget them.
            keys.extend(known.iter().map(|key| (*key, self.at(merge))));
        }
        for (text, key, value) in entries {
            match known.iter().position(|k| *k == text) {
                Some(index) => {
                    slots[index] = Some((key, value)).filter(|_| !cut.contains(&key.at.start));
                    keys.push((known[index], self.at(&key.at)));
                }
                // A mistyped key counts as written: that its like is missing is not said as well.
                None => {
                    let meant = self.unknown_key((text, &key.at), value, what, known);
                    keys.extend(meant.map(|meant| (meant, self.at(&key.at))));
                }
            }
        }
        Some(Fields { slots, keys })
    }

    /// Notes a key that means nothing here, and returns the one that was most likely meant.
    fn unknown_key(
        &mut self,
        (text, at): (&str, &Range<u32>),
        value: &Node<'_>,
        what: &str,
        known: &[&'static str],
    ) -> Option<&'static str> {
        if is_secret_name(text) {
            let message = format!("`{}` sounds like a secret, and secrets never stand in a manifest", shorten(text));
            let hint =
                "remove it, and change what was exposed: git forgets nothing. The site's settings name key files";
            self.note(Rule::Secret, at, message, Some(hint.to_owned()));
            return None;
        }
        if let Some((_, c, name)) = slips::odd_character(text) {
            let message =
                format!("in this key stands {name} (U+{:04X}), so it is not what it looks like", u32::from(c));
            self.note(Rule::UnknownKey, at, message, Some("delete it and type the key anew".to_owned()));
            let typed: String = text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            return known.iter().copied().find(|key| *key == typed);
        }
        // `{ memory:2G }` is one key to YAML.
        let joined = text.split_once(':').and_then(|(key, value)| Some((*known.iter().find(|k| **k == key)?, value)));
        let other = slips::meant_key(what, text, known);
        let (meant, hint) = match (joined, other) {
            _ if self.diagnostics.is_full() => (None, String::new()),
            (Some((key, value)), _) => {
                (Some(key), format!("a space is missing after the `:`; write `{key}: {}`", shorten(value)))
            }
            (None, Some(key)) => {
                let scalar = match &value.value {
                    Value::Scalar { text, .. } if !value.is_null() => Some(&**text),
                    _ => None,
                };
                (Some(key), format!("did you mean {}?", slips::with_value(key, scalar)))
            }
            (None, None) => match nearest(text, known.iter().copied()) {
                Some(name) => (Some(name), format!("did you mean `{name}`?")),
                None => (None, format!("known keys are {}", list(known.iter().copied()))),
            },
        };
        self.note(Rule::UnknownKey, at, format!("{what} has no key `{}`", shorten(text)), Some(hint));
        meant
    }

    /// Reads what was written for one key of a record.
    pub(super) fn field<T: Decode>(
        &mut self,
        what: &str,
        name: &str,
        slot: Option<(&Node<'_>, &Node<'_>)>,
        keys: &[(&'static str, At)],
    ) -> Option<T> {
        if let Some((key, value)) = slot {
            return self.within(&key.at, |decoder| T::decode(value, decoder));
        }
        let absent = T::absent();
        if absent.is_none() && !keys.iter().any(|(key, _)| *key == name) {
            let place = self.context.clone();
            let hint = format!("add a line `{name}: …`");
            self.note(Rule::MissingKey, &place, format!("{what} needs a key `{name}`"), Some(hint));
        }
        absent
    }

    pub(super) fn within<T>(&mut self, key: &Range<u32>, read: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.context, key.clone());
        let value = read(self);
        self.context = outer;
        value
    }
}

/// Where a mapping has a merge key.
fn merge_key<'n>(node: &'n Node<'_>) -> Option<&'n Range<u32>> {
    let Value::Mapping(entries) = &node.value else { return None };
    let is_merge = |key: &&Node<'_>| matches!(&key.value, Value::Scalar { text, plain: true } if text == "<<");
    entries.iter().map(|(key, _)| key).find(is_merge).map(|key| &key.at)
}

/// What was written for the keys of a record.
pub(super) struct Fields<'n, 's> {
    pub(super) slots: Vec<Option<(&'n Node<'s>, &'n Node<'s>)>>,
    pub(super) keys: Vec<(&'static str, At)>,
}

/// The first line of a place: a value of a hundred lines is underlined where it begins.
pub(super) fn first_line(source: &Source, at: &Range<u32>) -> Range<u32> {
    let text = source.text.get(at.start as usize..at.end as usize).unwrap_or_default();
    let length = text.find('\n').unwrap_or(text.len());
    at.start..at.start + u32::try_from(length).unwrap_or(0)
}

/// What a plain text means to YAML, for messages.
fn kind_of(text: &str, plain: bool) -> String {
    let short: String = text.chars().take(40).collect();
    let cut = if short.len() < text.len() { "…" } else { "" };
    match other_meaning(text).filter(|_| plain) {
        Some(kind) => format!("the {kind} `{short}{cut}`"),
        None => format!("the text `{short}{cut}`"),
    }
}

/// What an unquoted text is to YAML when it is not a text. An editor with our schema marks it too.
pub(super) fn other_meaning(text: &str) -> Option<&'static str> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && (digits.parse::<f64>().is_ok_and(|_| !digits.contains(['n', 'i', 'N', 'I'])) || radix(digits))
        || matches!(digits, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN");
    match text {
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Some("truth value"),
        _ if number => Some("number"),
        _ => None,
    }
}

fn radix(text: &str) -> bool {
    let rest = |prefix: &str| text.strip_prefix(prefix).filter(|rest| !rest.is_empty());
    rest("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()))
        || rest("0o").is_some_and(|rest| rest.bytes().all(|b| matches!(b, b'0'..=b'7')))
}

/// Names in backticks, for messages.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The known name that a mistyped one most likely means.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LENGTH_MAX: usize = 64;
    if typed.len() > LENGTH_MAX {
        return None;
    }
    let lower = typed.to_ascii_lowercase();
    let bound = (typed.chars().count() / 3).clamp(1, 4);
    known
        .into_iter()
        .filter(|name| name.len().abs_diff(typed.len()) <= bound && missing(&lower, name) <= bound)
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_ascii_lowercase()), name))
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, name)| (*distance, *name))
        .map(|(_, name)| name)
}

/// How many letters of `typed` are nowhere in a name: each takes a change of its own, and they are soon counted.
fn missing(typed: &str, name: &str) -> usize {
    typed.chars().filter(|letter| !name.chars().any(|other| other.eq_ignore_ascii_case(letter))).count()
}
