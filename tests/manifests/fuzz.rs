//! Mutated manifests and rosters: whatever comes in, an answer comes out, its places are inside the text, and nothing
//! harmful reaches a terminal. The normal tests run a short form; `tests/run campaign fuzz` is the campaign.
//! See `rounds` for what steers it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use labwright::control::validate::Checked;
use labwright::manifest::load_memory;
use labwright::model::lab::{Limits, VmGroup};
use labwright::model::site::SiteContext;
use labwright::report::{diagnostics, diagnostics_ci, diagnostics_json};
use labwright::resolve::resolve;
use labwright::schemas::SchemaKind;
use nix::time::ClockId;

use super::rounds::{self, Random, say};
use super::{ROOT, folders};

/// Pieces that mean something to YAML, to CSV, to the language, or to a terminal.
const PIECES: &[&str] = &[
    ":",
    ": ",
    "\n",
    "\r\n",
    "\r",
    "\t",
    " ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    ";",
    "\"",
    "\"\"",
    "'",
    "#",
    " #",
    "&a ",
    "*a",
    "<<: *a",
    "!x ",
    "|",
    ">",
    "|\n",
    "? ",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "~",
    "null",
    "true",
    "0",
    "-1",
    "4294967296",
    "18446744073709551616",
    "1e999",
    "0x10",
    ".inf",
    "2G",
    "99999999T",
    "20m",
    "100%",
    "9999999999%",
    "10.0.0.0/0",
    "0.0.0.0-255.255.255.255",
    "255.255.255.255",
    "10.0.0.1",
    "de:af",
    "2027-03-28T03:30[Europe/Bucharest]",
    "9999-12-31T23:59[UTC]",
    "-009999-01-01T00:00[UTC]",
    "2027-01-12T09:00+99:99",
    "{user}",
    "{n}",
    "{",
    "10.0.0.1:1/tcp",
    "vm/a",
    "all_users",
    "admin",
    "all_vms",
    "\u{0}",
    "\u{1b}[31m",
    "\u{202e}",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "é",
    "\u{10ffff}",
    "\\u0000",
    "\\x1b",
    "owner",
    "derive",
    "gsr",
    "lab: a\n",
    "vms:\n",
    "user\n",
    "user;uid\n",
];

fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = random.pick(seeds).clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(24)).min(bytes.len());
        match random.below(8) {
            0 => drop(bytes.drain(at..end)),
            1 | 2 => drop(bytes.splice(at..at, random.pick(PIECES).bytes())),
            3 => drop(bytes.splice(at..end, random.pick(PIECES).bytes())),
            4 => {
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            5 => {
                let other = random.pick(seeds);
                let from = random.below(other.len() + 1);
                let until = (from + random.below(200)).min(other.len());
                bytes.splice(at..end, other[from..until].iter().copied());
            }
            6 if at < bytes.len() => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            _ => {
                let piece: Vec<u8> = random.pick(PIECES).bytes().collect();
                let times = 1 + random.below(40);
                bytes.splice(at..at, piece.repeat(times));
            }
        }
    }
    bytes.truncate(64 << 10);
    bytes
}

fn site() -> SiteContext {
    SiteContext {
        all_vms: VmGroup::all_vms(),
        default_limits: Limits::USER,
        admins: Default::default(),
        labs: Default::default(),
    }
}

/// What the reader accepts the schema accepts, or an editor would mark what is right. Texts that another reader of YAML
/// does not take, or takes otherwise (YAML 1.1 has more kinds of line ends), are passed over.
fn agree(validator: &jsonschema::Validator, files: &BTreeMap<PathBuf, Vec<u8>>) {
    let loaded = load_memory(files);
    let text = std::str::from_utf8(&files[Path::new("lab.yaml")]).unwrap_or_default();
    let sound = resolve(&loaded.manifest, &site()).desired.is_some() && !loaded.diagnostics.has_errors();
    if !sound || text.contains(['&', '*', '\u{feff}', '\r', '\u{85}', '\u{2028}', '\u{2029}']) {
        return;
    }
    let Ok(yaml) = serde_yaml::from_str::<serde_yaml::Value>(text) else { return };
    let Ok(json) = serde_json::to_value(yaml) else { return };
    let errors: Vec<String> =
        validator.iter_errors(&json).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "the schema rejects what the reader accepts: {errors:?}\n{text}");
}

/// Which formats are looked at: SARIF carries the pages of all rules, and would take most of the time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Formats {
    People,
    All,
}

/// Everything that a user could make the program say of these files.
fn check(files: &BTreeMap<PathBuf, Vec<u8>>, formats: Formats) {
    let loaded = load_memory(files);
    let site = site();
    let resolved = resolve(&loaded.manifest, &site);
    let mut findings = loaded.diagnostics;
    findings.append(resolved.diagnostics);
    assert!(resolved.desired.is_some() || findings.has_errors(), "no lab and no error");
    for diagnostic in &findings.list {
        let places = diagnostic.place.iter().chain(diagnostic.related.iter().map(|(span, _)| span));
        for span in places {
            let text = &span.source.text;
            assert!(span.bytes.end <= text.len() && text.get(span.bytes.clone()).is_some(), "{diagnostic:?}");
            assert!(!span.bytes.is_empty() || span.bytes.start == text.len(), "{diagnostic:?}");
        }
    }
    let checked = Checked { files: vec!["lab.yaml".to_owned()], diagnostics: findings };
    let texts = [
        diagnostics::human(&checked.diagnostics, false),
        diagnostics_ci::github(&checked),
        diagnostics_ci::junit(&checked),
    ];
    for text in texts {
        assert!(!diagnostics::has_harmful(&text), "{text:?}");
    }
    if formats == Formats::People {
        return;
    }
    serde_json::from_str::<serde_json::Value>(&diagnostics_json::json(&checked)).unwrap();
    serde_json::from_str::<serde_json::Value>(&diagnostics_ci::sarif(&checked)).unwrap();
}

/// All files of the samples and examples with one of these endings.
fn seeds(extension: &str) -> Vec<Vec<u8>> {
    let samples = folders("tests/manifests/invalid").into_iter().chain(folders("examples"));
    let mut seeds = Vec::new();
    for folder in samples {
        for entry in std::fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == extension) {
                seeds.push(std::fs::read(path).unwrap());
            }
        }
    }
    seeds.sort();
    seeds
}

/// Processor time of this thread.
fn own_work() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap().into()
}

/// Rounds of files that are looked at in every way.
fn campaign(name: &str, mut round: impl FnMut(&mut Random) -> BTreeMap<PathBuf, Vec<u8>>) {
    const ROUNDS_SHORT: u64 = 400;
    // Of this thread's own work, whatever else the machine does; a round takes milliseconds of it.
    const WORK_MAX: Duration = Duration::from_secs(5);
    let rounds = rounds::campaign(name, ROUNDS_SHORT, |seed, random| {
        let formats = if seed.is_multiple_of(32) { Formats::All } else { Formats::People };
        let before = own_work();
        check(&round(random), formats);
        let work = own_work() - before;
        assert!(work < WORK_MAX, "{name}: seed {seed} took {work:?}");
    });
    rounds.iter().for_each(|rounds| say(&format!("{name}: {rounds} rounds without a finding")));
}

#[test]
fn fuzz_yaml() {
    let seeds = seeds("yaml");
    let roster = b"user,uid\nana,1001\nion,1002\n".to_vec();
    let validator = super::validator(SchemaKind::Lab);
    campaign("yaml", |random| {
        let manifest = mutate(random, &seeds);
        let files = [("lab.yaml".into(), manifest), ("students.csv".into(), roster.clone())].into();
        agree(&validator, &files);
        files
    });
}

#[test]
fn fuzz_csv() {
    const MANIFESTS: [&str; 3] = [
        "lab: a\nuser_groups: { s: { roster: r.csv } }\n",
        "lab: a\nuser_groups: { s: { roster: { file: r.csv, columns: { user: Login, uid: UID }, separator: ; } } }\n",
        "lab: a\nuser_groups: { s: { roster: { file: r.csv, encoding: utf-16 } } }\n",
    ];
    let seeds = seeds("csv");
    campaign("csv", |random| {
        let manifest = random.pick(&MANIFESTS).as_bytes().to_vec();
        [("lab.yaml".into(), manifest), ("r.csv".into(), mutate(random, &seeds))].into()
    });
}
