//! The table of routes as an OpenAPI 3.1 document, with the schemas of all that goes over the wire. In: the table. Out: JSON.

use schemars::generate::{Contract, SchemaSettings};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::messages::Refusal;
use super::routes::{self, Asked, Content, JSON, Method, Route};
use crate::model::id::{LabName, SessionName, TemplateName, UserName, VmName};

/// Of the paths below `/v1`: what is added there breaks nobody.
const VERSION: &str = "1.0";
const ABOUT: &str = "What people who are not root ask of a site, over the unix socket of `labwright serve`. Who asks is told by \
the kernel: the account that made the connection. What somebody may not know of is answered as if it were not there.";

/// An OpenAPI 3.1 document.
#[derive(Serialize, JsonSchema)]
struct Document(#[schemars(with = "Map<String, Value>")] Value);

pub(super) fn routes() -> Vec<Route> {
    let document = async |_: Asked<()>| Ok(axum::Json(Document(document())));
    let what = "This description of all paths, as an OpenAPI 3.1 document.";
    vec![Route::new(Method::Get, "/v1/openapi.json", what, "everybody", document)]
}

/// All paths, and what goes over the wire.
pub fn document() -> Value {
    let (mut taken, mut given) = (generator(Contract::Deserialize), generator(Contract::Serialize));
    let mut paths = Map::new();
    for route in routes::all() {
        let operation = operation(&route, &mut taken, &mut given);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.word().to_ascii_lowercase()] = operation;
    }
    let refusal = given.subschema_for::<Refusal>();
    let mut schemas = given.take_definitions(true);
    for (name, schema) in taken.take_definitions(true) {
        let other = schemas.insert(name.clone(), schema.clone());
        assert!(other.is_none_or(|other| other == schema), "{name} is read otherwise than it is written");
    }
    schemas.sort_keys();
    json!({
        "openapi": "3.1.0",
        "info": { "title": "labwright", "version": VERSION, "description": ABOUT },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": { "Refused": {
                "description": "It was not done, and why.",
                "content": { JSON: { "schema": refusal } },
            } },
            "parameters": { "Idempotency-Key": {
                "name": "Idempotency-Key",
                "in": "header",
                "required": false,
                "description": "What you call this request: asked again under the same name within ten minutes, it is not done \
                                again, and answered as it was.",
                "schema": { "type": "string", "pattern": "^[!-~]{1,64}$" },
            } },
        },
    })
}

fn generator(contract: Contract) -> SchemaGenerator {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.contract = contract;
    settings.into_generator()
}

fn operation(route: &Route, taken: &mut SchemaGenerator, given: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = route.names().map(|name| parameter(name, taken)).collect();
    if route.is_once {
        parameters.push(json!({ "$ref": "#/components/parameters/Idempotency-Key" }));
    }
    let mut responses = Map::new();
    let answer = content(&route.gives, given);
    responses.insert("200".to_owned(), json!({ "description": "It is done, or this is it.", "content": answer }));
    for (status, _) in refusals(route) {
        responses.insert(status.to_string(), json!({ "$ref": "#/components/responses/Refused" }));
    }
    let mut operation = json!({
        "operationId": id(route),
        "summary": route.what,
        "description": format!("For {}.", route.who),
        "responses": responses,
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(takes) = &route.takes {
        operation["requestBody"] = json!({ "required": true, "content": content(takes, taken) });
    }
    operation
}

fn content(content: &Content, generator: &mut SchemaGenerator) -> Value {
    json!({ content.kind: { "schema": (content.schema)(generator) } })
}

/// Such as `post_labs_vms_power`.
fn id(route: &Route) -> String {
    let parts = route.path.split(['/', '.']).filter(|part| !part.is_empty() && *part != "v1" && !part.starts_with('{'));
    let of_one = if route.path.ends_with('}') { "_one" } else { "" };
    let words: Vec<&str> = parts.collect();
    format!("{}_{}{of_one}", route.method.word().to_ascii_lowercase(), words.join("_"))
}

/// A name in a path.
fn parameter(name: &str, generator: &mut SchemaGenerator) -> Value {
    fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
    let (schema, what) = match name {
        "lab" => (of::<LabName>(generator), "A lab."),
        "vm" => (of::<VmName>(generator), "A vm; the `/` in the name of one of somebody's own is written `%2F`."),
        "template" => (of::<TemplateName>(generator), "A template."),
        "session" => (of::<SessionName>(generator), "A session."),
        "user" => (of::<UserName>(generator), "A user."),
        _ => unreachable!("nobody says what `{name}` in a path is"),
    };
    json!({ "name": name, "in": "path", "required": true, "description": what, "schema": schema })
}

/// The statuses of a no, and when each comes.
pub(super) fn refusals(route: &Route) -> Vec<(u16, &'static str)> {
    let has_names = route.names().next().is_some();
    let changes = route.method != Method::Get;
    let all = [
        (400, "what was asked makes no sense", has_names || route.takes.is_some() || route.is_once),
        (403, "you may not", true),
        (404, "there is nothing of this name that you may know of", has_names),
        (408, "the body took too long", true),
        (409, "not now: it is held, too much, or something else was decided meanwhile", true),
        (413, "the body is too long, or ends before its end", true),
        (415, "the body is no JSON", changes && route.takes.is_some()),
        (422, "the body is JSON of another shape", changes && route.takes.is_some()),
        (429, "you ask too often or for too much at once; `Retry-After` says when to come again", true),
        (500, "something failed; the message says what", true),
        (503, "the daemon is ending", changes),
        (504, "it takes longer than you can be kept waiting; what was begun goes on", true),
    ];
    all.into_iter().filter(|(_, _, comes)| *comes).map(|(status, when, _)| (status, when)).collect()
}
