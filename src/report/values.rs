//! A plan's fields as JSON values. A plan keeps them as texts, for people; programs want numbers, lists and objects.

use std::collections::BTreeMap;

use serde_json::Value;

/// Fields that are free text, whatever they look like.
const TEXTS: [&str; 2] = ["description", "recorded"];

/// Fields that are numbers, besides those whose name ends with a unit.
const NUMBERS: [&str; 3] = ["cpus", "uid", "vlan"];
const UNITS: [&str; 4] = ["_seconds", "_percent", "_bytes", "_mib"];

pub(super) fn values(fields: &BTreeMap<String, String>) -> BTreeMap<String, Value> {
    fields.iter().map(|(name, text)| value(name, text)).collect()
}

fn value(name: &str, text: &str) -> (String, Value) {
    if let Some(mib) = text.strip_suffix(" MiB").filter(|_| name == "memory").and_then(|mib| mib.parse::<u64>().ok()) {
        return ("memory_mib".to_owned(), mib.into());
    }
    let is_number = NUMBERS.contains(&name) || UNITS.iter().any(|unit| name.ends_with(unit));
    let parsed = || serde_json::from_str::<Value>(text).ok();
    let value = match text {
        _ if TEXTS.contains(&name) => None,
        "true" | "false" => parsed(),
        _ if text.starts_with(['[', '{']) => parsed(),
        _ if is_number => parsed().filter(Value::is_number),
        _ => None,
    };
    (name.to_owned(), value.unwrap_or_else(|| text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_texts() {
        let json = |name: &str, text: &str| {
            let (name, value) = value(name, text);
            format!("{name}={value}")
        };
        assert_eq!(json("members", r#"["ada","bea"]"#), r#"members=["ada","bea"]"#);
        assert_eq!(json("source", r#"{"derive":"base"}"#), r#"source={"derive":"base"}"#);
        assert_eq!(json("memory", "128 MiB"), "memory_mib=128");
        assert_eq!(json("cpus", "2"), "cpus=2");
        assert_eq!(json("grace_seconds", "30"), "grace_seconds=30");
        assert_eq!(json("isolated", "true"), "isolated=true");
        assert_eq!(json("owner", "2027"), r#"owner="2027""#, "a login may consist of digits");
        assert_eq!(json("description", "[draft]"), r#"description="[draft]""#);
        assert_eq!(json("description", "[1]"), r#"description="[1]""#);
        assert_eq!(json("bridge", "{x"), r#"bridge="{x""#);
    }
}
