//! Manifests as people write them: each broken sample with its golden findings, each example sound, the schemas neither
//! older nor looser than the reader. `LABWRIGHT_BLESS=1 cargo test --test manifests` writes golden files anew.

#[path = "manifests/accommodations.rs"]
mod accommodations;
#[path = "manifests/fuzz.rs"]
mod fuzz;
#[path = "manifests/hostile.rs"]
mod hostile;
#[path = "manifests/resolved.rs"]
mod resolved;
#[path = "manifests/rounds.rs"]
mod rounds;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use labwright::control::validate::{Checked, check};
use labwright::model::rules::Rule;
use labwright::report::{diagnostics, diagnostics_ci, diagnostics_json};
use labwright::schemas::{SchemaKind, text as schema_text};
use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn folders(below: &str) -> Vec<PathBuf> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> = std::fs::read_dir(Path::new(ROOT).join(below)).unwrap().map(read).collect();
    names.sort();
    names.iter().map(|name| Path::new(below).join(name)).collect()
}

/// What the user would see, with this checkout's place taken out.
fn human(checked: &Checked) -> String {
    diagnostics::human(&checked.diagnostics, false).replace(ROOT, "<root>")
}

/// Compares with a golden file, or writes it.
fn golden(path: &Path, found: &str, wrong: &mut Vec<String>) {
    let path = Path::new(ROOT).join(path);
    if std::env::var_os("LABWRIGHT_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if expected != found {
        let diff = similar::TextDiff::from_lines(expected.as_str(), found);
        wrong.push(format!("{}\n{}", path.display(), diff.unified_diff()));
    }
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}\n(LABWRIGHT_BLESS=1 writes the golden files anew)", wrong.join("\n"));
}

#[test]
fn every_broken_sample_has_its_findings() {
    let mut wrong = Vec::new();
    let mut rules = BTreeSet::new();
    let samples = folders("tests/manifests/invalid");
    assert!(samples.len() >= 80, "{}", samples.len());
    for folder in samples {
        let checked = check(std::slice::from_ref(&folder), false).unwrap();
        assert!(!checked.diagnostics.is_empty(), "{} has no finding", folder.display());
        rules.extend(checked.diagnostics.list.iter().map(|d| d.rule));
        golden(&folder.join("expected.txt"), &human(&checked), &mut wrong);
    }
    for folder in folders("tests/manifests/invalid-site") {
        let checked = check(&[folder.join("site.yaml")], false).unwrap();
        rules.extend(checked.diagnostics.list.iter().map(|d| d.rule));
        golden(&folder.join("expected.txt"), &human(&checked), &mut wrong);
    }
    assert_none(&wrong);
    // These need several labs, a site, or the accounts of a system; they have tests of their own.
    let elsewhere =
        [Rule::LabsShareName, Rule::LabsShareAddresses, Rule::LabsShareTime, Rule::UidUnknown, Rule::BeyondShare];
    let missing: Vec<&str> =
        Rule::ALL.iter().filter(|r| !rules.contains(r) && !elsewhere.contains(r)).map(|r| r.code()).collect();
    assert_eq!(missing, Vec::<&str>::new(), "rules without a broken sample");
}

#[test]
fn labs_are_judged_together() {
    let mut wrong = Vec::new();
    let labs = folders("tests/manifests/together");
    let folders: Vec<PathBuf> = labs.into_iter().filter(|path| path.extension().is_none()).collect();
    let checked = check(&folders, false).unwrap();
    golden(Path::new("tests/manifests/together/expected.txt"), &human(&checked), &mut wrong);
    assert_none(&wrong);
}

#[test]
fn a_lab_with_owners_keeps_to_its_share() {
    let mut wrong = Vec::new();
    let place = Path::new("tests/manifests/share");
    let checked = check(&[place.join("site.yaml"), place.join("lan-exam")], false).unwrap();
    golden(&place.join("expected.txt"), &human(&checked), &mut wrong);
    assert_none(&wrong);
    let within = check(&[place.join("site.yaml"), place.join("within")], false).unwrap();
    assert!(!within.diagnostics.has_errors(), "{}", human(&within));
    // Without the site nobody knows what is theirs.
    assert!(!check(&[place.join("lan-exam")], false).unwrap().diagnostics.has_errors());
}

#[test]
fn users_are_compared_with_accounts_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = "lab: a\nusers:\n  root: { uid: 7 }\n  no-such-account-here: {}\n  nobody: {}\n";
    std::fs::write(folder.path().join("lab.yaml"), manifest).unwrap();
    let folders = [folder.path().to_owned()];
    assert!(check(&folders, false).unwrap().diagnostics.is_empty());
    let checked = check(&folders, true).unwrap();
    let messages: Vec<&str> = checked.diagnostics.list.iter().map(|d| d.message.as_str()).collect();
    let expected = [
        "`no-such-account-here` has no account on this system",
        "`root` has the uid 0 on this system, and 7 in the lab",
    ];
    assert_eq!(messages, expected);
}

#[test]
fn every_example_is_sound() {
    let examples = folders("examples").into_iter();
    let examples: Vec<PathBuf> = examples.filter(|path| Path::new(ROOT).join(path).join("lab.yaml").exists()).collect();
    assert!(examples.len() >= 12, "{}", examples.len());
    // Their image is made when somebody runs them, and some show what is not built yet: their first lines say so.
    let told = [
        (Rule::ImageUnseen, "\n# Needs an image: `labs/quickstart/make-template examples/images` makes a small one.\n"),
        (Rule::LimitsUnbuilt, "\n# Not built yet: "),
    ];
    let runs = told[0].1;
    for folder in examples {
        let mut checked = check(std::slice::from_ref(&folder), false).unwrap();
        let text = std::fs::read_to_string(folder.join("lab.yaml")).unwrap();
        let is_told = |rule: Rule| told.iter().any(|(known, line)| *known == rule && text.contains(line));
        checked.diagnostics.list.retain(|finding| !is_told(finding.rule));
        assert_eq!(human(&checked), "", "{}", folder.display());
        let text = std::fs::read_to_string(folder.join("lab.yaml")).unwrap();
        assert!(text.starts_with("# yaml-language-server: $schema=../../schemas/lab.schema.json\n# "), "{text}");
        // A guest of it answers in `tests/system/examples.rs`; or it says why none can.
        let does_not_run = text.contains("\n# Does not run as it is: ");
        assert!(text.contains(runs) != does_not_run, "{}: does it run?\n{text}", folder.display());
    }
}

#[test]
fn schemas_are_what_the_types_say() {
    let mut wrong = Vec::new();
    for kind in SchemaKind::value_variants() {
        golden(&Path::new("schemas").join(kind.file()), &schema_text(*kind), &mut wrong);
    }
    golden(Path::new("docs/api.md"), &labwright::daemon::reference(), &mut wrong);
    assert_none(&wrong);
}

/// What a program that reads OpenAPI 3.1 counts on.
#[test]
fn the_api_is_described_as_openapi_has_it() {
    let document: Value = serde_json::from_str(&schema_text(SchemaKind::Api)).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut targets = Vec::new();
    references(&document, &mut targets);
    assert!(targets.len() > 50, "{targets:?}");
    for target in targets {
        assert!(document.pointer(target.strip_prefix('#').unwrap()).is_some(), "{target} leads nowhere");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{name}");
    }
    let mut ids = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let at = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{at}: its id is another's");
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let in_path = parameters.filter(|parameter| parameter["in"] == "path");
            let declared: Vec<String> = in_path.map(|name| format!("{{{}}}", name["name"].as_str().unwrap())).collect();
            let written: Vec<&str> = path.split('/').filter(|part| part.starts_with('{')).collect();
            assert_eq!(declared, written, "{at}");
            let statuses = operation["responses"].as_object().unwrap().keys();
            assert!(statuses.clone().any(|status| status == "200") && statuses.len() > 3, "{at}");
            assert!(method != "get" || operation.get("requestBody").is_none(), "{at}: a question with a body");
        }
    }
}

fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

fn validator(kind: SchemaKind) -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(&schema_text(kind)).unwrap();
    jsonschema::draft7::new(&schema).unwrap()
}

/// A YAML text as JSON, the way an editor sees it; `None` where it is no YAML.
fn as_json(path: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(path).ok()?;
    let value: serde_yaml::Value = serde_yaml::from_str(&text).ok()?;
    serde_json::to_value(value).ok()
}

/// Rules about the shape of a file, which the schema knows too.
const STRUCTURE: [Rule; 6] =
    [Rule::UnknownKey, Rule::MissingKey, Rule::WrongType, Rule::ConflictingKeys, Rule::NoDisks, Rule::InterfaceName];

/// Rules about single values: a pattern knows most of them, and need not know all.
const VALUES: [Rule; 6] =
    [Rule::BadValue, Rule::InvalidName, Rule::Egress, Rule::NamePattern, Rule::Secret, Rule::ClockChange];

/// Rules about YAML itself, and files that are no lab.
const TEXT: [Rule; 5] = [Rule::Syntax, Rule::DuplicateKey, Rule::UnsupportedYaml, Rule::TooBig, Rule::NotText];

#[test]
fn the_schema_rejects_what_is_structurally_wrong_and_nothing_else() {
    let validator = validator(SchemaKind::Lab);
    for folder in folders("tests/manifests/invalid") {
        let checked = check(std::slice::from_ref(&folder), false).unwrap();
        let rules: BTreeSet<Rule> = checked
            .diagnostics
            .list
            .iter()
            .filter(|d| d.place.as_ref().is_none_or(|place| place.source.name.ends_with("lab.yaml")))
            .map(|d| d.rule)
            .collect();
        let file = Path::new(ROOT).join(&folder).join("lab.yaml");
        if rules.iter().any(|rule| TEXT.contains(rule)) || !file.exists() {
            continue;
        }
        let json = as_json(&file).unwrap();
        let accepted = validator.is_valid(&json);
        if rules.iter().any(|rule| STRUCTURE.contains(rule)) {
            assert!(!accepted, "{}: the schema accepts it", folder.display());
        } else if !rules.iter().any(|rule| VALUES.contains(rule)) {
            let errors: Vec<String> = validator.iter_errors(&json).map(|error| error.to_string()).collect();
            assert!(accepted, "{}: the schema rejects it: {errors:?}", folder.display());
        }
    }
}

#[test]
fn the_schema_accepts_every_example() {
    let validator = validator(SchemaKind::Lab);
    for folder in folders("examples").into_iter().chain(folders("tests/manifests/together")) {
        let Some(json) = as_json(&Path::new(ROOT).join(&folder).join("lab.yaml")) else { continue };
        let errors: Vec<String> = validator.iter_errors(&json).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", folder.display());
    }
}

/// Every key that an editor can complete explains itself.
#[test]
fn every_property_of_the_schemas_is_described() {
    fn walk(value: &Value, at: &str) {
        if let Some(properties) = value.get("properties").and_then(Value::as_object) {
            // One key alone is the name of a kind, whose words stand at the kind.
            let of_kind = value.get("description").filter(|_| properties.len() == 1);
            for (name, property) in properties {
                let description = property.get("description").or(of_kind).and_then(Value::as_str).unwrap_or_default();
                assert!(description.len() > 4, "{at}/{name} has no description");
            }
        }
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| walk(value, &format!("{at}/{key}"))),
            Value::Array(list) => list.iter().for_each(|value| walk(value, at)),
            _ => {}
        }
    }
    for kind in SchemaKind::value_variants() {
        walk(&serde_json::from_str(&schema_text(*kind)).unwrap(), &kind.file());
    }
}

#[test]
fn json_is_what_its_schema_says() {
    let validator = validator(SchemaKind::Diagnostics);
    for folder in folders("tests/manifests/invalid") {
        let checked = check(std::slice::from_ref(&folder), false).unwrap();
        let json: Value = serde_json::from_str(&diagnostics_json::json(&checked)).unwrap();
        let errors: Vec<String> = validator.iter_errors(&json).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", folder.display());
    }
}

#[test]
fn sarif_passes_its_schema() {
    let schema = std::fs::read_to_string(Path::new(ROOT).join("tests/manifests/sarif-schema-2.1.0.json")).unwrap();
    // The published schema has a bracket too many in the pattern of `run.language`, which no strict reader takes.
    let schema = schema.replace("{2}]?$", "{2}$");
    let validator = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    for folder in folders("tests/manifests/invalid") {
        let checked = check(std::slice::from_ref(&folder), false).unwrap();
        let log: Value = serde_json::from_str(&diagnostics_ci::sarif(&checked)).unwrap();
        let errors: Vec<String> = validator.iter_errors(&log).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", folder.display());
    }
}

#[test]
fn github_shows_ten_of_a_kind_and_counts_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let keys: String = (0..25).map(|n| format!("key{n}: 1\n")).collect();
    std::fs::write(folder.path().join("lab.yaml"), format!("lab: a\n{keys}")).unwrap();
    let checked = check(&[folder.path().to_owned()], false).unwrap();
    let text = diagnostics_ci::github(&checked);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 10);
    assert_eq!(lines[9], "::error title=labwright::16 more; run `labwright validate` to see them all");
}

#[test]
fn junit_is_xml_and_counts_files() {
    let folder = PathBuf::from("tests/manifests/invalid/terminal-escape");
    let text = diagnostics_ci::junit(&check(&[folder], false).unwrap());
    let mut reader = quick_xml::Reader::from_str(&text);
    let mut failures = 0;
    loop {
        match reader.read_event().unwrap() {
            quick_xml::events::Event::Start(tag) if tag.name().as_ref() == "failure" => failures += 1,
            quick_xml::events::Event::Eof => break,
            _ => {}
        }
    }
    assert!(failures >= 3, "{text}");
    assert!(text.contains("tests=\"1\" failures=\"1\""), "{text}");
}

/// No sample may move the cursor, whatever the format for people and logs.
#[test]
fn nothing_harmful_reaches_the_terminal() {
    for folder in folders("tests/manifests/invalid") {
        let checked = check(std::slice::from_ref(&folder), false).unwrap();
        for text in [human(&checked), diagnostics_ci::github(&checked), diagnostics_ci::junit(&checked)] {
            assert!(!diagnostics::has_harmful(&text), "{}: {text:?}", folder.display());
        }
    }
}

#[test]
fn every_rule_has_a_page() {
    for rule in Rule::ALL {
        let page = rule.page();
        assert!(page.starts_with("# ") && page.lines().count() >= 3, "{rule}");
        let summary = rule.summary();
        assert!((4..60).contains(&summary.len()) && !summary.ends_with('.'), "{rule}: {summary}");
        assert!(page.lines().all(|line| line.chars().count() <= 120), "{rule}");
        assert_eq!(Rule::from_code(rule.code()), Some(*rule));
    }
}

/// The commands as a shell sees them: exit codes, and data on standard output.
#[test]
fn exit_codes_and_streams() {
    let run = |arguments: &[&str]| {
        let mut command = assert_cmd::Command::cargo_bin("labwright").unwrap();
        let output = command.current_dir(ROOT).env_clear().args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    assert_eq!(run(&["validate", "examples/one-vm"]), (0, "valid: 1 file\n".into(), String::new()));
    let expected = std::fs::read_to_string(Path::new(ROOT).join("tests/manifests/invalid/tag/expected.txt")).unwrap();
    assert_eq!(run(&["validate", "tests/manifests/invalid/tag"]), (3, expected, String::new()));
    let (code, out, err) = run(&["validate", "no/such/folder"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with("error: cannot read the lab's folder no/such/folder\n  caused by: "), "{err}");
    let (code, out, _) = run(&["validate", "--explain", "lw002"]);
    assert_eq!((code, out.lines().next()), (0, Some("LW002 — unknown key")));
    assert_eq!(run(&["validate", "--explain", "LW999"]).0, 64);
    let schema = std::fs::read_to_string(Path::new(ROOT).join("schemas/lab.schema.json")).unwrap();
    assert_eq!(run(&["schema", "lab"]), (0, schema, String::new()));
}
