//! The API as its document describes it: every path is asked of the real daemon, and what comes back is what the document says.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::serve::{LAB as MANIFEST, PEOPLE, Served, uid};
use crate::world::text;

/// One request: who, its operation, what stands for `{lab}` and `{vm}`, a body, and the status that is to come.
type Try = (&'static str, &'static str, &'static str, &'static str, Value, u16);

const LAB: &str = "net101";
const VM: &str = "doraz%2Fmine";
/// It lies ahead, so that nothing guards anything.
const CLASS: &str = "vms:
  desk: { derive: gsr, for_each: studs }
sessions:
  class: { vms: [desk], start: \"2098-01-12T09:00[UTC]\", end: \"2098-01-12T12:00[UTC]\" }
";

/// In an order in which each finds what it needs.
fn tries(folder: &str) -> Vec<Try> {
    let nothing = Value::Null;
    let grant = json!({ "to": { "user": "alex" }, "on": { "vm": "doraz/mine" }, "allow": ["run"] });
    let cd = json!({ "cdrom": "/etc/passwd" });
    let start = json!({ "wanted": "start", "isolated": true });
    let extend = json!({ "whose": { "users": ["alex"] }, "doing": { "extend": { "seconds": 60 } } });
    vec![
        ("doraz", "get_labs", LAB, VM, nothing.clone(), 200),
        ("doraz", "get_openapi_json", LAB, VM, nothing.clone(), 200),
        ("doraz", "get_labs_templates", LAB, VM, nothing.clone(), 200),
        ("doraz", "get_labs_templates_versions", LAB, VM, nothing.clone(), 200),
        ("badmin", "post_labs_templates_install", LAB, VM, cd.clone(), 403),
        ("doraz", "post_labs_templates_install", LAB, VM, cd, 403),
        ("doraz", "post_labs_templates_versions", LAB, VM, json!({ "vm": "doraz/mine" }), 403),
        ("doraz", "get_labs_permissions_effective", LAB, VM, nothing.clone(), 200),
        ("doraz", "get_labs_vms_one", LAB, VM, nothing.clone(), 404),
        ("doraz", "post_labs_vms", LAB, VM, json!({ "template": "gsr", "name": "../mine" }), 422),
        ("doraz", "post_labs_vms", LAB, VM, json!({ "template": "gsr", "name": "mine" }), 200),
        ("doraz", "get_labs_vms", LAB, VM, nothing.clone(), 200),
        ("doraz", "get_labs_vms_one", LAB, VM, nothing.clone(), 200),
        ("doraz", "post_labs_vms_edit", LAB, VM, json!({ "memory_mib": 160 }), 200),
        ("alex", "post_labs_vms_edit", LAB, VM, json!({ "memory_mib": 160 }), 404),
        ("doraz", "get_labs_aside", LAB, VM, nothing.clone(), 200),
        ("doraz", "post_labs_vms_restore", LAB, VM, json!({}), 404),
        ("doraz", "post_labs_vms_hold", LAB, VM, json!("release"), 404),
        ("root", "post_labs_vms_hold", LAB, VM, json!("release"), 409),
        ("root", "post_labs_vms_hold", LAB, VM, json!({ "hold": { "why": "appeal" } }), 200),
        ("doraz", "get_labs_vms_snapshots", LAB, VM, nothing.clone(), 200),
        ("doraz", "post_labs_vms_requests", LAB, VM, json!("suspend"), 409),
        ("doraz", "get_labs_vms_screen", LAB, VM, nothing.clone(), 409),
        ("alex", "post_labs_vms_power", LAB, VM, start.clone(), 404),
        ("doraz", "post_labs_vms_power", LAB, VM, json!({ "wanted": "start" }), 403),
        ("doraz", "post_labs_vms_power", LAB, VM, start, 200),
        ("doraz", "get_labs_mappings", LAB, VM, nothing.clone(), 200),
        ("doraz", "get_quota", LAB, VM, nothing.clone(), 200),
        ("doraz", "get_labs_users", LAB, VM, nothing.clone(), 200),
        ("doraz", "get_labs_user-groups", LAB, VM, nothing.clone(), 200),
        ("doraz", "get_labs_vm-groups", LAB, VM, nothing.clone(), 200),
        ("doraz", "get_labs_permissions", LAB, VM, nothing.clone(), 200),
        ("doraz", "get_labs_claims", LAB, VM, nothing.clone(), 200),
        ("doraz", "post_labs_permissions", LAB, VM, grant.clone(), 200),
        ("alex", "get_labs_permissions_effective", LAB, VM, nothing.clone(), 200),
        ("doraz", "post_labs_permissions_revoke", LAB, VM, grant, 200),
        ("doraz", "get_metrics", LAB, VM, nothing.clone(), 403),
        ("badmin", "get_labs_vms", "none", VM, nothing.clone(), 404),
        ("doraz", "post_labs_vms_power", LAB, VM, json!({ "wanted": "stop" }), 200),
        ("doraz", "delete_labs_vms_one", LAB, VM, nothing.clone(), 200),
        ("doraz", "get_labs_sessions", LAB, VM, nothing.clone(), 404),
        ("doraz", "post_labs_sessions_times", LAB, VM, extend.clone(), 404),
        ("doraz", "post_labs_plan", LAB, VM, json!({ "folder": folder }), 404),
        ("root", "get_metrics", LAB, VM, nothing.clone(), 200),
        ("root", "get_labs_sessions", LAB, VM, nothing.clone(), 200),
        ("root", "get_labs_sessions_one", LAB, VM, nothing.clone(), 200),
        ("root", "get_labs_sessions_status", LAB, VM, nothing.clone(), 200),
        ("root", "get_labs_sessions_check", LAB, VM, nothing.clone(), 200),
        ("root", "get_labs_sessions_submissions", LAB, VM, nothing.clone(), 200),
        ("root", "get_labs_sessions_record", LAB, VM, nothing.clone(), 404),
        ("root", "get_labs_sessions_people_one", LAB, VM, nothing.clone(), 200),
        ("doraz", "get_labs_sessions_people_one", LAB, VM, nothing.clone(), 404),
        ("root", "post_labs_sessions_times", LAB, VM, json!({ "doing": { "extend": { "seconds": 60 } } }), 400),
        ("root", "post_labs_sessions_times", LAB, VM, extend.clone(), 200),
        ("root", "post_labs_validate", LAB, VM, json!({ "folder": folder }), 200),
        ("root", "post_labs_plan", LAB, VM, json!({ "folder": folder }), 200),
        ("root", "post_labs_apply", LAB, VM, json!({ "folder": folder }), 200),
        ("root", "post_labs_destroy", LAB, VM, json!({ "folder": folder }), 200),
    ]
}

#[test]
fn every_path_answers_what_the_document_says() {
    let served = Served::of(&format!("{MANIFEST}{CLASS}"), "", &PEOPLE);
    let (_, document) = served.raw("doraz", "GET /v1/openapi.json", "");
    let document: Value = serde_json::from_str(&document).unwrap();
    let mut known = operations(&document);
    for (who, id, lab, vm, body, status) in tries(&text(&served.lab.folder)) {
        let at = format!("{who}: {id} {body}");
        let (method, path, operation) = &document_of(&document, id);
        let path = path
            .replace("{lab}", lab)
            .replace("{vm}", vm)
            .replace("{session}", "class")
            .replace("{template}", "gsr")
            .replace("{user}", "alex");
        let body = if body.is_null() { String::new() } else { format!("{body}\n") };
        let uid = if who == "root" { 0 } else { uid(who) };
        let (came, said) = served.raw_with(uid, &format!("{} {path}", method.to_uppercase()), "", &body);
        assert_eq!(came, status.to_string(), "{at}: {said}");
        judge(&document, operation, &came, &said, &at);
        known.remove(id);
        if id == "post_labs_vms" && status == 200 {
            hears_of_it(&served, &document);
            known.remove("get_labs_vms_events");
        }
    }
    assert_eq!(known, BTreeSet::new(), "nobody tries these");
}

fn operations(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|operations| operations.as_object().unwrap().values());
    operations.map(|operation| operation["operationId"].as_str().unwrap().to_owned()).collect()
}

fn document_of(document: &Value, id: &str) -> (String, String, Value) {
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            if operation["operationId"] == id {
                return (method.clone(), path.clone(), operation.clone());
            }
        }
    }
    panic!("the document has no {id}")
}

/// The answer is one of those that stand in the document, and has its shape.
fn judge(document: &Value, operation: &Value, status: &str, said: &str, at: &str) {
    let response = operation["responses"].get(status).unwrap_or_else(|| panic!("{at}: {status} is in no document"));
    let target = response["$ref"].as_str().and_then(|target| target.strip_prefix('#'));
    let response = target.map_or(response, |target| document.pointer(target).unwrap());
    for (kind, content) in response["content"].as_object().unwrap() {
        let values: Vec<Value> = match kind.as_str() {
            "application/json" => vec![serde_json::from_str(said).unwrap()],
            // The chunks of the answer have lines of their own.
            "application/x-ndjson" => {
                let lines = said.lines().filter(|line| line.starts_with(['{', '"']));
                lines.map(|line| serde_json::from_str(line).unwrap()).collect()
            }
            "text/plain; version=0.0.4" => vec![Value::String(said.to_owned())],
            other => panic!("{at}: who reads {other}?"),
        };
        assert!(!values.is_empty(), "{at}: {said}");
        values.iter().for_each(|value| fits(document, &content["schema"], value, at));
    }
}

fn fits(document: &Value, schema: &Value, value: &Value, at: &str) {
    let schema = json!({ "allOf": [schema], "components": document["components"] });
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{at}: {value}: {errors:?}");
}

/// A stream of events does not end: its first is enough.
fn hears_of_it(served: &Served, document: &Value) {
    let mut stream = UnixStream::connect(&served.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET /v1/labs/{LAB}/vms/{VM}/events HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("HTTP/1.1 200 "));
    let data = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned)).unwrap();
    let (_, _, operation) = document_of(document, "get_labs_vms_events");
    let schema = &operation["responses"]["200"]["content"]["text/event-stream"]["schema"];
    fits(document, schema, &serde_json::from_str(&data).unwrap(), "events");
}
