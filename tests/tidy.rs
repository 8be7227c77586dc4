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
    for stage in ["src/resolve", "src/plan", "src/starter/machine"] {
        assert_eq!(lines_with(&rust_files(stage), &world), Vec::<String>::new(), "{stage} is pure");
    }
}

#[test]
fn only_report_prints() {
    let printers = ["println!", "eprintln!", "print!(", "eprint!(", "io::stdout()", "io::stderr()"];
    let mut files = rust_files("src");
    files.retain(|(path, _)| !path.to_string_lossy().contains("/src/report/"));
    let allowed = |line: &String| {
        // The serial console is a pipe between a terminal and a guest, and the log goes to stderr.
        line.contains("/src/cli/vm.rs") || line.contains("with_writer")
    };
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
