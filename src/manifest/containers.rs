//! Values that hold others, read one by one: an option, a list, things by name. What is wrong with one is noted, and the next is read.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::decode::{Decode, Decoder, Spanned, first_line};
use super::scalar::Scalar;
use super::slips;
use super::tree::{Node, Value};
use super::values::shorten;

impl<T: Decode> Decode for Spanned<T> {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let value = T::decode(node, decoder)?;
        Some(Self { value, at: decoder.at(&node.at) })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }

    fn what() -> Option<&'static str> {
        T::what()
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        Some(T::decode(node, decoder))
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::Sequence(items) => {
                let mut list = Self::new();
                for item in items {
                    let place = first_line(decoder.source, &item.at);
                    if !decoder.fits(&place, 1) {
                        break;
                    }
                    list.extend(decoder.within(&place, |decoder| T::decode(item, decoder)));
                }
                Some(list)
            }
            _ if node.is_null() => Some(Self::new()),
            Value::Scalar { text, .. } => {
                let item = T::what().and_then(|what| slips::record_for(what, text));
                let item = item.map_or_else(|| shorten(text), |form| form.replace("write `", "").replace('`', ""));
                decoder.wrong_type(node, "a list", Some(format!("write `[{item}]`")));
                None
            }
            Value::Mapping(_) => {
                let text = decoder.source.text.get(node.at.start as usize..).unwrap_or_default();
                let group = text.split_inclusive('}').next().filter(|group| !group[1..].contains(['{', '\n']));
                let hint = match group.filter(|group| group.starts_with('{')) {
                    Some(group) => format!("write `[{}]`", shorten(group)),
                    None => "begin each item with `- `".to_owned(),
                };
                decoder.wrong_type(node, "a list", Some(hint));
                None
            }
        }
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let items = T::schema(generator);
        json_schema!({ "type": ["array", "null"], "items": items })
    }
}

/// Things by name, in the order in which they are written. A name stays known when what it names is broken, so that one
/// mistake is not reported a second time as an unknown name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<K, V>(pub Vec<Entry<K, V>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<K, V> {
    pub key: Spanned<K>,
    pub value: Option<V>,
}

impl<K, V> Default for Named<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K, V> Named<K, V> {
    /// The entries that could be read.
    pub fn iter(&self) -> impl Iterator<Item = (&Spanned<K>, &V)> {
        self.0.iter().filter_map(|entry| entry.value.as_ref().map(|value| (&entry.key, value)))
    }
}

impl<K: Scalar, V: Decode> Decode for Named<K, V> {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        if node.is_null() {
            return Some(Self::default());
        }
        let mut named = Self::default();
        for (text, key, value) in decoder.entries(node, "names, each with what it stands for")? {
            // The value is read even where the name is bad: its mistakes are shown at the same time.
            if !decoder.fits(&key.at, 1) {
                break;
            }
            let value = decoder.within(&key.at, |decoder| V::decode(value, decoder));
            match K::parse(text) {
                Ok(name) => named.0.push(Entry { key: Spanned { value: name, at: decoder.at(&key.at) }, value }),
                Err(mistake) => decoder.mistake(K::RULE, &key.at, mistake),
            }
        }
        Some(named)
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let names = K::schema();
        let values = V::schema(generator);
        json_schema!({ "type": ["object", "null"], "propertyNames": names, "additionalProperties": values })
    }
}
