//! The record of a session: as a file with ids, and for people with names.

use serde_json::Value;

use super::plain_words::count;
use super::table::{Column, Format, Row, column, json, render, wide, yaml};
use super::times;
use crate::control::session::Verified;
use crate::control::view::Moment;
use crate::model::id::SessionName;
use crate::state::SessionRecord;

/// One row, with names in place of ids.
#[derive(Debug, serde::Serialize)]
struct Line {
    number: u64,
    at: String,
    what: String,
    about: String,
    detail: String,
    hash: String,
}

impl Row for Line {
    const COLUMNS: &'static [Column<Self>] = &[
        column("row", |line| line.number.to_string()),
        column("at", |line| times::moment(&Moment::read(line.at.clone()))),
        column("what", |line| line.what.clone()),
        column("about", |line| line.about.clone()),
        column("detail", |line| line.detail.clone()),
        wide("hash", |line| line.hash.clone()),
    ];
    fn name(&self) -> String {
        self.hash.clone()
    }
}

/// In JSON and YAML the record itself, without the names.
pub fn text(record: SessionRecord, format: Format) -> String {
    let nameless = |record: SessionRecord| SessionRecord { names: Default::default(), ..record };
    match format {
        Format::Json => json(&nameless(record)),
        Format::Yaml => yaml(&nameless(record)),
        _ => render(&lines(&record), format),
    }
}

fn lines(record: &SessionRecord) -> Vec<Line> {
    let named = |id: &str| record.names.get(id).cloned().unwrap_or_else(|| id.to_owned());
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), named);
    let line = |(number, hash, body): (u64, &String, &Value)| {
        let field = |name: &str| body.get(name).filter(|value| !value.is_null()).map(text);
        let vms = body.get("vms").and_then(Value::as_array);
        let vms = vms.map(|vms| vms.iter().map(text).collect::<Vec<_>>().join(", "));
        let about = field("vm").or_else(|| field("user")).or(vms).unwrap_or_default();
        Line {
            number,
            at: field("at").unwrap_or_default(),
            what: field("what").unwrap_or_default(),
            about,
            detail: detail(body, &text),
            hash: hash.clone(),
        }
    };
    record.rows.iter().map(|row| line((row.number, &row.hash, &row.body))).collect()
}

/// All else that a row says.
fn detail(body: &Value, text: &dyn Fn(&Value) -> String) -> String {
    if let Some(act) = body.get("act") {
        let who = act.get("actor").map(text).unwrap_or_default();
        let asked = act.pointer("/asked/command").and_then(Value::as_str).unwrap_or_default();
        let refused = act.pointer("/verdict/why").and_then(Value::as_str).map(|why| format!(", refused: {why}"));
        return format!("{who}: {asked}{}", refused.unwrap_or_default());
    }
    let known = ["number", "at", "what", "vm", "user"];
    let fields = body.as_object().into_iter().flatten();
    let fields = fields.filter(|(name, value)| !known.contains(&name.as_str()) && !value.is_null());
    let plain = |(name, value): (&String, &Value)| match value {
        Value::Object(of) if of.contains_key("events") => format!("{name} {}", of["run"].as_str().unwrap_or_default()),
        _ => format!("{name} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
    };
    fields.map(plain).collect::<Vec<_>>().join(", ")
}

pub fn verified(session: &SessionName, verified: &Verified) -> String {
    let Verified { rows, head, since } = verified;
    let since = match since {
        0 => String::new(),
        since => format!(", {since} of them since that hash"),
    };
    format!("session {session}: the record is what was written, {}{since}\nhead {head}\n", count(*rows, "row", "rows"))
}
