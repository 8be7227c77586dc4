//! The table of routes and the schemas of what goes over the wire as a page for people, `docs/api.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::openapi::{document, refusals};
use super::routes::{self, EVENTS, NDJSON, Route};

const HEAD: &str = "# The daemon's API

`labwright serve` speaks HTTP over the unix socket `/run/labwright/api.sock`. The commands of people who are not root are a client
of it, and so may other programs be. Who asks is told by the kernel: the account that made the connection. What somebody may not
know of is answered as if it were not there.

```text
curl --unix-socket /run/labwright/api.sock http://labwright/v1/labs
curl --unix-socket /run/labwright/api.sock http://labwright/v1/labs/net101/vms/doraz%2Fmine/power \\
     -H 'Content-Type: application/json' -H 'Idempotency-Key: 7' -d '{ \"wanted\": \"start\", \"isolated\": true }'
```

This page is made from the table that the daemon itself serves by. `labwright schema api` prints the same as an OpenAPI 3.1
document, and the daemon answers it under `/v1/openapi.json`. Below `/v1`, paths and keys are only added: ignore those that you do
not know.

";

const BODIES: &str = "A lab is sent as one line with a `LabRequest` and, behind it, what `labwright plan` gathers of the lab's folder; the answer
is lines, each a `Told`, as it goes.

With an `Idempotency-Key`, one to 64 signs of ASCII, a request may be asked again when its answer was lost: within ten minutes it
is not done again.

";

/// The page.
pub fn reference() -> String {
    let (document, routes) = (document(), routes::all());
    let mut page = HEAD.to_owned();
    for route in &routes {
        page.push_str(&of_route(route, &document));
    }
    page += "## Bodies and keys\n\n";
    page += BODIES;
    page += "## When it is not done\n\nThe answer is a [`Refusal`](#refusal), with one of these:\n\n| status | when |\n|---|---|\n";
    let statuses: BTreeMap<u16, &str> = routes.iter().flat_map(refusals).collect();
    for (status, when) in statuses {
        writeln!(page, "| {status} | {when} |").expect("a string takes all");
    }
    page += "\n## What goes over the wire\n\n";
    for (name, schema) in object(&document["components"]["schemas"]) {
        page.push_str(&of_type(name, schema));
    }
    page.trim_end().to_owned() + "\n"
}

fn of_route(route: &Route, document: &Value) -> String {
    let operation = &document["paths"][route.path][route.method.word().to_ascii_lowercase()];
    let mut text = format!("## {} {}\n\n{} For {}.\n\n", route.method.word(), route.path, route.what, route.who);
    if let Some((_, takes)) = body(&operation["requestBody"]) {
        let once = if route.is_once { ", and an `Idempotency-Key`" } else { "" };
        writeln!(text, "* takes {takes}{once}").expect("a string takes all");
    } else if route.is_once {
        text += "* takes an `Idempotency-Key`\n";
    }
    if let Some((kind, gives)) = body(&operation["responses"]["200"]) {
        let each = if [EVENTS, NDJSON].contains(&kind.as_str()) { "lines, each " } else { "" };
        writeln!(text, "* answers {each}{gives}, as `{kind}`").expect("a string takes all");
    }
    text + "\n"
}

/// What kind a body is of, and its shape.
fn body(of: &Value) -> Option<(&String, String)> {
    object(&of["content"]).map(|(kind, content)| (kind, type_words(&content["schema"]))).next()
}

fn of_type(name: &str, schema: &Value) -> String {
    let mut text = format!("### {name}\n\n");
    if let Some(about) = schema["description"].as_str() {
        writeln!(text, "{}\n", one_line(about)).expect("a string takes all");
    }
    let properties: Vec<_> = object(&schema["properties"]).collect();
    if properties.is_empty() {
        for words in variants(schema) {
            writeln!(text, "* {words}").expect("a string takes all");
        }
        return text + "\n";
    }
    text += "| key | value | |\n|---|---|---|\n";
    for (key, value) in properties {
        let about = one_line(value["description"].as_str().unwrap_or_default());
        writeln!(text, "| `{key}` | {} | {about} |", type_words(value)).expect("a string takes all");
    }
    text + "\n"
}

/// What a value may be, each with what is said of it.
fn variants(schema: &Value) -> Vec<String> {
    let Some(variants) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) else {
        return vec![type_words(schema)];
    };
    let of = |variant: &Value| {
        let about = one_line(variant["description"].as_str().unwrap_or_default());
        let words = type_words(variant);
        if about.is_empty() { words } else { format!("{words}: {about}") }
    };
    variants.iter().map(of).collect()
}

/// The shape of a value, in words.
fn type_words(schema: &Value) -> String {
    if let Some(target) = schema["$ref"].as_str() {
        let name = target.rsplit('/').next().unwrap_or(target);
        return format!("[`{name}`](#{})", name.to_ascii_lowercase());
    }
    if let Some(only) = schema.get("const") {
        return format!("`{only}`");
    }
    if let Some(words) = schema["enum"].as_array() {
        return joined(words.iter().map(|word| format!("`{word}`")));
    }
    if let Some(any) = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) {
        return joined(any.iter().map(type_words));
    }
    match &schema["type"] {
        Value::Array(kinds) => joined(kinds.iter().map(|kind| of_kind(kind.as_str().unwrap_or_default(), schema))),
        kind => of_kind(kind.as_str().unwrap_or("any"), schema),
    }
}

fn of_kind(kind: &str, schema: &Value) -> String {
    match kind {
        "array" => format!("list of {}", type_words(&schema["items"])),
        "null" => "`null`".to_owned(),
        "object" => match (schema.get("properties"), schema.get("additionalProperties")) {
            (Some(properties), _) => {
                let keys = object(properties).map(|(key, value)| format!("`{key}`: {}", type_words(value)));
                format!("{{ {} }}", keys.collect::<Vec<_>>().join(", "))
            }
            (None, Some(of)) if of.is_object() => format!("map to {}", type_words(of)),
            (None, _) => "object".to_owned(),
        },
        kind => kind.to_owned(),
    }
}

fn joined(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(" or ")
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
