//! Two macros that define the types of the language once: struct or choice, reader and JSON Schema from one text. The doc
//! comments are what an editor shows.

use schemars::{Schema, json_schema};
use serde_json::{Value, json};

/// What a record's schema is made of.
pub(super) struct Property {
    pub(super) name: &'static str,
    pub(super) doc: &'static [&'static str],
    pub(super) examples: Vec<Value>,
    pub(super) schema: Schema,
    pub(super) required: bool,
}

/// The schema of a record; `structure` adds what single keys cannot say, such as "exactly one of these".
pub(super) fn record_schema(doc: &[&str], properties: Vec<Property>, structure: Option<Value>) -> Schema {
    let required: Vec<&str> = properties.iter().filter(|p| p.required).map(|p| p.name).collect();
    let mut schema = json_schema!({
        "type": "object",
        "description": description(doc),
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    let properties = properties.into_iter().map(|p| (p.name.to_owned(), property(p))).collect();
    schema.insert("properties".to_owned(), Value::Object(properties));
    if let Some(Value::Object(structure)) = structure {
        schema.ensure_object().extend(structure);
    }
    schema
}

fn property(property: Property) -> Value {
    let mut schema = property.schema.to_value();
    // Draft 7 ignores what stands beside a `$ref`.
    if schema.get("$ref").is_some() {
        schema = json!({ "allOf": [schema] });
    }
    if let Value::Object(map) = &mut schema {
        map.insert("description".to_owned(), json!(description(property.doc)));
        if !property.examples.is_empty() {
            map.insert("examples".to_owned(), Value::Array(property.examples));
        }
    }
    schema
}

/// Doc comment lines as one text.
pub(super) fn description(doc: &[&str]) -> String {
    let lines: Vec<&str> = doc.iter().map(|line| line.trim()).collect();
    lines.join(" ").trim().to_owned()
}

/// A group of keys. What a key's type says goes: an `Option`, a list or names may be left out, anything else must be
/// written. `as` gives the word for messages.
macro_rules! record {
    (
        $(#[doc = $doc:literal])+
        $(#[structure($structure:tt)])?
        pub struct $name:ident as $what:literal {
            $($(#[doc = $field_doc:literal])+ $(#[example($($example:tt),+)])? pub $field:ident: $type:ty,)*
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $field_doc])+ pub $field: $type,)*
            /// The keys that are written, also those whose value could not be read.
            pub written: Vec<(&'static str, $crate::manifest::decode::At)>,
        }

        #[allow(dead_code, reason = "not every record's keys are asked for")]
        impl $name {
            /// All keys, in the order of the language.
            pub(super) const KEYS: &'static [&'static str] = &[$(stringify!($field)),*];

            /// Where a key is written.
            pub fn key(&self, name: &str) -> Option<$crate::manifest::decode::At> {
                self.written.iter().find(|(key, _)| *key == name).map(|(_, at)| *at)
            }
        }

        impl $crate::manifest::decode::Decode for $name {
            fn decode(
                node: &$crate::manifest::tree::Node<'_>,
                decoder: &mut $crate::manifest::decode::Decoder<'_>,
            ) -> Option<Self> {
                let fields = decoder.fields(node, $what, Self::KEYS)?;
                let mut slots = fields.slots.into_iter();
                $(let $field = decoder.field::<$type>($what, stringify!($field), slots.next().flatten(), &fields.keys);)*
                Some(Self { $($field: $field?,)* written: fields.keys })
            }

            fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                generator.subschema_for::<Self>()
            }

            fn what() -> Option<&'static str> {
                Some($what)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let properties = vec![$($crate::manifest::record::Property {
                    name: stringify!($field),
                    doc: &[$($field_doc),+],
                    examples: vec![$($(serde_json::json!($example)),+)?],
                    schema: <$type as $crate::manifest::decode::Decode>::schema(generator),
                    required: <$type as $crate::manifest::decode::Decode>::absent().is_none(),
                }),*];
                let structure: &[serde_json::Value] = &[$(serde_json::json!($structure))?];
                $crate::manifest::record::record_schema(&[$($doc),+], properties, structure.first().cloned())
            }
        }
    };
}

/// One word of several.
macro_rules! choice {
    ($type:ty as $what:literal { $($text:literal => $variant:ident $doc:literal,)+ }) => {
        impl $crate::manifest::scalar::Scalar for $type {
            fn parse(text: &str) -> Result<Self, $crate::manifest::scalar::Mistake> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err($crate::manifest::values::unknown_choice($what, text, &[$($text),+])),
                }
            }

            fn schema() -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "enum": [$($text),+], "enumDescriptions": [$($doc),+] })
            }
        }

        $crate::manifest::record::text!($type, $what);
    };
}

/// Makes a `Scalar` readable as a value.
macro_rules! text {
    ($type:ty, $what:literal) => {
        impl $crate::manifest::decode::Decode for $type {
            fn decode(
                node: &$crate::manifest::tree::Node<'_>,
                decoder: &mut $crate::manifest::decode::Decoder<'_>,
            ) -> Option<Self> {
                $crate::manifest::scalar::decode_text(node, decoder, $what)
            }

            fn schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                <Self as $crate::manifest::scalar::Scalar>::schema()
            }
        }
    };
}

pub(super) use choice;
pub(super) use record;
pub(super) use text;
