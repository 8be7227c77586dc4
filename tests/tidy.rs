//! Rules about the source itself that no compiler checks: what must be absent, and where.

use std::path::{Path, PathBuf};

fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    walk(&root, &mut found);
    assert!(!found.is_empty(), "{folder} holds no Rust at all");
    found.sort();
    found.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The lines of `files` that hold one of `words` outside comments, as `file:line: text`.
fn lines_with(files: &[(PathBuf, String)], words: &[&str]) -> Vec<String> {
    let code = |line: &str| line.split("//").next().unwrap_or("").to_owned();
    let mut hits = Vec::new();
    for (path, text) in files {
        for (number, line) in (1..).zip(text.lines()) {
            if words.iter().any(|word| code(line).contains(word)) {
                hits.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    hits
}

#[test]
fn what_decides_knows_no_world() {
    let world = [
        "std::fs",
        "std::process",
        "std::env",
        "std::net::Tcp",
        "std::net::Udp",
        "std::os::unix::net",
        "SystemTime",
        "Instant",
        "Timestamp::now",
        "Zoned::now",
        "rusqlite",
        "tokio",
        "nix::",
        "rand::",
        "HashMap",
        "std::thread",
    ];
    for stage in ["src/model", "src/access", "src/resolve", "src/plan", "src/starter/machine"] {
        assert_eq!(lines_with(&rust_files(stage), &world), Vec::<String>::new(), "{stage} is pure");
    }
}

#[test]
fn what_can_be_asked_of_a_site_does_not_depend_on_who_asks() {
    let ways_of_asking = [
        "clap",
        "std::env",
        "process::exit",
        "process::id",
        "getuid",
        "geteuid",
        "signal",
        "Signal",
        "stdin",
        "IsTerminal",
        "ExitCode",
    ];
    assert_eq!(
        lines_with(&rust_files("src/control"), &ways_of_asking),
        Vec::<String>::new(),
        "control is for any client"
    );
}

#[test]
fn only_report_prints() {
    let printers = ["println!", "eprintln!", "print!(", "eprint!(", "io::stdout()", "io::stderr()"];
    let mut files = rust_files("src");
    files.retain(|(path, _)| !path.to_string_lossy().contains("/src/report/"));
    // The log goes to stderr.
    let allowed = |line: &String| line.contains("with_writer");
    let hits: Vec<String> = lines_with(&files, &printers).into_iter().filter(|line| !allowed(line)).collect();
    assert_eq!(hits, Vec::<String>::new(), "data goes through report::Ui");
}

#[test]
fn nothing_is_left_open() {
    let open = ["todo!(", "unimplemented!(", "#[ignore", "#![allow"];
    let mut files = rust_files("src");
    files.extend(rust_files("tests"));
    files.retain(|(path, _)| !path.ends_with("tests/tidy.rs"));
    assert_eq!(lines_with(&files, &open), Vec::<String>::new());
}

#[test]
fn every_module_says_what_it_is() {
    let silent: Vec<String> = rust_files("src")
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_eq!(
        silent,
        Vec::<String>::new(),
        "a module begins with what comes in, what goes out and what it never does"
    );
}

/// The rooms of the house from the ground up, each with those that it may name. A room names none that stands after it, so
/// that nothing goes round in a circle; `cli` is a client of all of them.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("files", &[]),
    ("error", &[]),
    ("exit", &[]),
    ("host", &["model"]),
    ("disks", &["model"]),
    ("dhcp", &["model", "files", "host"]),
    ("run", &["model", "files", "disks"]),
    ("manifest", &["model", "disks"]),
    ("access", &["model"]),
    ("resolve", &["model", "access", "manifest"]),
    ("state", &["model", "files", "run"]),
    ("scheduler", &["model", "files", "run", "host"]),
    ("volumes", &["model"]),
    ("host/run", &["model", "files", "error", "run", "host"]),
    ("host/machine", &["model", "error", "disks", "dhcp", "run", "host", "host/run"]),
    ("starter", &["model", "files", "error", "run", "host", "host/run"]),
    ("trial", &["model", "files", "error", "disks", "run", "host", "host/machine"]),
    ("observe", &["model", "disks", "dhcp", "run", "state", "scheduler"]),
    ("plan", &["model", "access", "run", "state", "observe"]),
    ("apply", &["model", "error", "files", "disks", "dhcp", "run", "state", "scheduler", "observe", "plan"]),
    (
        "control",
        &[
            "model",
            "access",
            "error",
            "files",
            "disks",
            "dhcp",
            "run",
            "manifest",
            "resolve",
            "state",
            "scheduler",
            "volumes",
            "host",
            "host/run",
            "host/machine",
            "trial",
            "observe",
            "plan",
            "apply",
        ],
    ),
    (
        "report",
        &[
            "model",
            "access",
            "disks",
            "error",
            "exit",
            "run",
            "volumes",
            "host/machine",
            "state",
            "plan",
            "apply",
            "control",
        ],
    ),
    ("daemon", &["model", "access", "disks", "error", "run", "state", "plan", "apply", "control", "report"]),
    (
        "client",
        &[
            "model",
            "access",
            "disks",
            "error",
            "exit",
            "host",
            "host/run",
            "host/machine",
            "manifest",
            "state",
            "plan",
            "control",
            "report",
            "daemon",
        ],
    ),
];
/// What puts the house together: it may name every room, and no room names it.
const ABOVE_ALL: [&str; 5] = ["cli", "jobs", "lib", "main", "schemas"];

#[test]
fn a_room_names_only_rooms_below_it() {
    let order: Vec<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    for (floor, (room, below)) in ROOMS.iter().enumerate() {
        let above = below.iter().find(|named| !order[..floor].contains(named));
        assert_eq!(above, None, "`{room}` may not name what stands above it");
    }
    let mut wrong = Vec::new();
    let mut named = std::collections::BTreeSet::new();
    for (path, text) in rust_files("src") {
        let module = module(&path);
        if ABOVE_ALL.contains(&module[0].as_str()) {
            continue;
        }
        let room = room(&module).unwrap_or_else(|| panic!("{} is in no room of the table", path.display()));
        for target in names(&text, &module) {
            let Some(other) = self::room(&target).filter(|other| *other != room) else { continue };
            named.insert((room, other));
            let (_, below) = ROOMS.iter().find(|(name, _)| *name == room).unwrap();
            if !below.contains(&other) {
                wrong.push(format!("{}: crate::{}", path.display(), target.join("::")));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "these name rooms that they may not know: see ROOMS");
    let allowed = ROOMS.iter().flat_map(|(room, below)| below.iter().map(move |other| (*room, *other)));
    let idle: Vec<(&str, &str)> = allowed.filter(|arrow| !named.contains(arrow)).collect();
    assert_eq!(idle, [], "ROOMS allows what nobody needs");
}

/// The path of a file's module below the crate.
fn module(file: &Path) -> Vec<String> {
    let below = file.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().with_extension("");
    let mut module: Vec<String> = below.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    module.pop_if(|last| last == "mod");
    module
}

/// The innermost room that a path leads into.
fn room(path: &[String]) -> Option<&'static str> {
    let leads =
        |room: &&str| room.split('/').zip(path).filter(|(part, step)| part == step).count() == room.split('/').count();
    ROOMS.iter().map(|(room, _)| *room).chain(ABOVE_ALL).filter(leads).max_by_key(|room| room.len())
}

/// Every path of the crate that `text` names outside comments and its own unit tests, from `module` on.
fn names(text: &str, module: &[String]) -> Vec<Vec<String>> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .fold(String::new(), |all, line| all + line + "\n");
    let code = code.split("#[cfg(test)]\nmod ").next().unwrap_or("");
    let mut found = Vec::new();
    for (start, word) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        let is_inside =
            code[..start].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':');
        if !is_inside {
            let up = if word == "crate::" { Vec::new() } else { module.to_vec() };
            leaves(&code[start..], &up, &mut found);
        }
    }
    found
}

/// The ends of a path or tree of paths, such as `crate::{id::{A, B}, site}`, and what of `code` comes behind it.
fn leaves<'c>(code: &'c str, from: &[String], found: &mut Vec<Vec<String>>) -> &'c str {
    let end = code.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(code.len());
    let (word, rest) = code.split_at(end);
    let mut path = from.to_vec();
    match word {
        "crate" | "self" => {}
        "super" => drop(path.pop()),
        word => path.push(word.to_owned()),
    }
    let Some(rest) = rest.strip_prefix("::") else {
        found.push(path);
        return rest;
    };
    let Some(mut list) = rest.strip_prefix('{') else { return leaves(rest, &path, found) };
    loop {
        list = list.trim_start_matches([' ', '\n', ',']);
        match list.strip_prefix('}') {
            Some(behind) => return behind,
            None if list.starts_with(|next: char| next.is_alphabetic() || next == '_') => {
                list = leaves(list, &path, found)
            }
            None => list = &list[list.find([',', '}']).unwrap_or(list.len())..],
        }
        // An alias says nothing more.
        list = list.strip_prefix(" as ").map_or(list, |alias| &alias[alias.find([',', '}']).unwrap_or(alias.len())..]);
    }
}
