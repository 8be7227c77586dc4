//! Every command that README.md and `docs/` show. A fence says how its lines are tried:
//!
//! ```text
//! sh         runs, line by line, in a lab of its own, and must succeed
//! sh host    needs guests, a cluster or a host of its own: each command and its options must exist, each file be there
//! sh as WHO  the same, typed by WHO: `tests/system/walkthrough.rs` carries it out, and sees that it prints the `text` below it
//! ```
//!
//! Lines of the second kind in README.md are carried out by `tests/system/readme.rs`, with real guests.

#[path = "cli/sandbox.rs"]
mod sandbox;

use std::path::{Path, PathBuf};

use sandbox::Sandbox;

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and what it leads to.
fn pages() -> Vec<PathBuf> {
    let docs = std::fs::read_dir(project().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|kind| kind == "md")).collect();
    pages.push(project().join("README.md"));
    pages.sort();
    assert!(pages.len() > 5, "{pages:?}");
    pages
}

/// Lines of shell, each with the words behind its fence, without what follows a `#`.
fn commands(page: &Path) -> Vec<(String, String)> {
    let (mut fence, mut found) = (None::<String>, Vec::new());
    for line in std::fs::read_to_string(page).unwrap().lines() {
        match (line.strip_prefix("```"), &fence) {
            (Some(_), Some(_)) => fence = None,
            (Some(kind), None) => fence = Some(kind.to_owned()),
            (None, Some(kind)) if kind.starts_with("sh") => {
                let command = line.split(" #").next().unwrap().trim();
                if !command.is_empty() {
                    found.push((kind.clone(), command.to_owned()));
                }
            }
            _ => {}
        }
    }
    found
}

#[test]
fn what_needs_no_guest_runs() {
    for page in pages() {
        let lines: Vec<String> = commands(&page).into_iter().filter(|(kind, _)| kind == "sh").map(|(_, c)| c).collect();
        if lines.is_empty() {
            continue;
        }
        let sandbox = Sandbox::new("/tmp", None);
        let run = |line: &str| {
            let line = format!("export LABWRIGHT_SITE=../site.yaml; {line}");
            let output = sandbox.shell(&line);
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{}: {line}\n{}", page.display(), String::from_utf8_lossy(&said));
        };
        run("labwright state init && labwright apply --yes");
        lines.iter().for_each(|line| run(line));
    }
}

#[test]
fn what_needs_guests_exists() {
    let sandbox = Sandbox::new("/tmp", None);
    for page in pages() {
        for (_, line) in commands(&page).into_iter().filter(|(kind, _)| kind != "sh") {
            for command in line.split("&&").map(|command| command.trim().trim_start_matches("sudo ")) {
                let words = command.split(" >").next().unwrap();
                let (program, rest) = words.split_once(' ').unwrap_or((words, ""));
                let complaint = match program {
                    "labwright" => unknown_words(&sandbox, rest),
                    // Typed with the rest of README.md in `tests/system/readme.rs`.
                    "cd" | "install" => None,
                    own if own.contains('/') => {
                        (!project().join(own).is_file()).then(|| "there is no such file".into())
                    }
                    _ => Some("who tries this?".into()),
                };
                assert_eq!(complaint, None, "{}: {line}", page.display());
            }
        }
    }
}

/// What the command line does not take, told by the program itself: with `--help` at the end it reads all words and acts on none.
fn unknown_words(sandbox: &Sandbox, words: &str) -> Option<String> {
    let output = sandbox.shell(&format!("labwright {words} --help"));
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_command_that_is_gone_would_be_found() {
    let sandbox = Sandbox::new("/tmp", None);
    assert_eq!(unknown_words(&sandbox, "vm vnc exam -o csv"), None);
    assert!(unknown_words(&sandbox, "vm vncc exam").is_some());
    assert!(unknown_words(&sandbox, "apply --wayt").is_some());
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|target| !target.starts_with("http")) {
            let place = page.parent().unwrap().join(target.split('#').next().unwrap());
            assert!(place.exists(), "{}: {target}", page.display());
        }
    }
}

/// One minute's reading.
#[test]
fn the_readme_is_short() {
    let lines = std::fs::read_to_string(project().join("README.md")).unwrap().lines().count();
    assert!(lines <= 150, "{lines} lines");
}

/// The manifest that README.md shows is the lab of the recording: it asks for the same.
#[test]
fn the_readmes_manifest_is_the_quickstarts() {
    let readme = std::fs::read_to_string(project().join("README.md")).unwrap();
    let shown = readme.split_once("```yaml\n").unwrap().1.split_once("```").unwrap().0;
    let quickstart = project().join("labs/quickstart");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(quickstart.join("students.csv"), folder.path().join("students.csv")).unwrap();
    let desired = |manifest: &str| {
        std::fs::write(folder.path().join("lab.yaml"), manifest).unwrap();
        let site = labwright::model::site::Site::embedded(folder.path(), 4096, 2).context();
        let mut desired = labwright::control::manifests::desired(folder.path(), &site).unwrap().0;
        // Where things stand in the file, and what people are told of them, may differ.
        for template in desired.templates.values_mut() {
            (template.origin, template.description) = Default::default();
        }
        desired.vms.values_mut().for_each(|vm| vm.origin = Default::default());
        desired
    };
    let original = std::fs::read_to_string(quickstart.join("lab.yaml")).unwrap();
    assert_eq!(desired(shown), desired(&original));
}
