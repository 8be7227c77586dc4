//! JSON Schemas of what people and programs write, made from the types that read it.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};

use super::language::LabFile;
use super::site::SiteFile;

/// Draft 7 of what we write: a key that is always written is required, so that readers may count on it.
pub fn draft_7_written<T: JsonSchema>(title: &str) -> Schema {
    let settings = SchemaSettings::draft07().for_serialize().with_transform(RecursiveTransform(describe_tag));
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    schema
}

/// A key that tells kinds of records apart stands in no type, and one that is a kind's name has its words at the kind.
fn describe_tag(schema: &mut Schema) {
    if schema.get("const").is_some() && schema.get("description").is_none() {
        schema.insert("description".to_owned(), "What kind of record this is.".into());
    }
    let of_kind = schema.get("description").cloned();
    let Some(properties) = schema.get_mut("properties").and_then(|properties| properties.as_object_mut()) else {
        return;
    };
    if let (Some(words), 1, Some(only)) = (of_kind, properties.len(), properties.values_mut().next())
        && let Some(only) = only.as_object_mut()
    {
        only.entry("description").or_insert(words);
    }
}

/// Draft 7, which the YAML language servers of editors read.
pub fn draft_7<T: JsonSchema>(title: &str) -> Schema {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    schema
}

/// A schema as it stands in a file.
pub fn text(schema: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(schema).expect("a schema has only string keys") + "\n"
}

/// A manifest of a lab.
pub fn lab() -> Schema {
    draft_7::<LabFile>("labwright manifest")
}

/// `site.yaml`.
pub fn site() -> Schema {
    draft_7::<SiteFile>("labwright site")
}
