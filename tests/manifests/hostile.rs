//! Files that somebody made to hurt: an error, in bounded work and little memory, never a crash.

use std::path::Path;
use std::process::Command;

use labwright::control::validate::check;
use labwright::model::rules::Rule;

/// What the program gets, as a shell says it: 512 MiB of addresses, a quarter of which are its own code and stacks, and two
/// minutes of a processor, where the worst file here takes seconds of it in a debug build.
const LIMITS: &str = "ulimit -v 524288 -t 120; exec \"$0\" validate \"$1\"";

/// Validates a lab of these files, and returns the first rule that is broken.
fn first_rule(files: &[(&str, Vec<u8>)]) -> Option<Rule> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let binary = env!("CARGO_BIN_EXE_labwright");
    let output = Command::new("sh").args(["-c", LIMITS, binary]).arg(folder.path()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(labwright::exit::Exit::Invalid as i32), "{}: {err}", output.status);
    assert!(out.len() < 1 << 20, "{} bytes of findings", out.len());
    out.strip_prefix("error[")?.split_once(']').and_then(|(code, _)| Rule::from_code(code))
}

fn manifest(text: String) -> Option<Rule> {
    first_rule(&[("lab.yaml", text.into_bytes())])
}

#[test]
fn aliases_do_not_multiply() {
    let mut bomb = "lab: a\na: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.extend([format!("b{level}: &a{level} [{aliases}]\n")]);
    }
    assert_eq!(manifest(bomb), Some(Rule::TooBig));
    let text = "x".repeat(60_000);
    let aliases = "  - *a\n".repeat(20_000);
    assert_eq!(manifest(format!("lab: a\ntext: &a \"{text}\"\nlist:\n{aliases}")), Some(Rule::TooBig));
    let mut nested = "lab: a\nvms: ".to_owned();
    nested.extend((0..30).map(|n| format!("&a{n} [")));
    nested.push_str(&"x, ".repeat(50_000));
    nested.push_str(&"]".repeat(30));
    assert_eq!(manifest(nested), Some(Rule::TooBig));
}

#[test]
fn depth_is_bounded() {
    assert_eq!(manifest(format!("lab: a\nvms: {}", "[".repeat(100_000))), Some(Rule::TooBig));
    assert_eq!(manifest(format!("lab: a\nvms: {}", "{a: ".repeat(100_000))), Some(Rule::TooBig));
    let block: String = (0..300).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    assert_eq!(manifest(block), Some(Rule::TooBig));
}

#[test]
fn size_is_bounded() {
    assert_eq!(first_rule(&[("lab.yaml", vec![b'a'; 100 << 20])]), Some(Rule::TooBig));
    let lines: String = (0..1_000_000).map(|n| format!("u{n}\n")).collect();
    let lab = b"lab: a\nuser_groups: { s: { roster: r.csv } }\n".to_vec();
    assert_eq!(
        first_rule(&[("lab.yaml", lab.clone()), ("r.csv", format!("user\n{lines}").into_bytes())]),
        Some(Rule::TooBig)
    );
    let bad = "user\n".to_owned() + &"not a name\n".repeat(90_000);
    assert_eq!(first_rule(&[("lab.yaml", lab.clone()), ("r.csv", bad.into_bytes())]), Some(Rule::InvalidName));
    let wide = "a,".repeat(1_000_000);
    assert_eq!(first_rule(&[("lab.yaml", lab), ("r.csv", wide.into_bytes())]), Some(Rule::TooBig));
    let keys: String = (0..200_000).map(|n| format!("key{n}: 1\n")).collect();
    assert_eq!(manifest(format!("lab: a\n{keys}")), Some(Rule::UnknownKey));
    let unknown: String = (0..20_000).map(|n| format!("  v{n}: {{ derive: t{n}, owner: u }}\n")).collect();
    assert_eq!(manifest(format!("lab: a\nvms:\n{unknown}")), Some(Rule::UnknownTemplate));
    let members: String = (0..1_000_000).map(|n| format!("u{n},")).collect();
    assert_eq!(manifest(format!("lab: a\nuser_groups: {{ s: {{ members: [{members}] }} }}\n")), Some(Rule::TooBig));
    let many: String = (0..9000).map(|n| format!("u{n},")).collect();
    let product = format!(
        "lab: a\nuser_groups: {{ s: {{ members: [{many}] }} }}\nvms: {{ a: {{ disks: [{{ size: 1G }}], for_each: s, count: 10000 }} }}\n"
    );
    assert_eq!(manifest(product), Some(Rule::TooBig));
    let groups = |range: &dyn Fn(u32) -> String| {
        let groups: String = (0..3000).map(|n| format!("  g{n}: {{ ip_range: {} }}\n", range(n))).collect();
        manifest(format!("lab: a\nvm_groups:\n{groups}"))
    };
    assert_eq!(groups(&|n| format!("10.{}.{}.2-10.{0}.{1}.9", n / 256, n % 256)), Some(Rule::TooBig));
    // Each of them with every other.
    assert_eq!(groups(&|_| "10.0.0.2-10.0.0.9".to_owned()), Some(Rule::RangesOverlap));
}

#[test]
fn odd_files_do_not_hang() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("lab.yaml"), "lab: a\n").unwrap();
    nix::unistd::mkfifo(&folder.path().join("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero.yaml")).unwrap();
    std::os::unix::fs::symlink(".", folder.path().join("loop")).unwrap();
    std::fs::create_dir(folder.path().join(".labwright")).unwrap();
    std::fs::write(folder.path().join(".labwright/other.yaml"), "lab: b\n").unwrap();
    std::fs::write(folder.path().join("site.yaml"), "storage: { root: /srv }\n").unwrap();
    let checked = check(&[folder.path().to_owned()], false).unwrap();
    let rules: Vec<Rule> = checked.diagnostics.list.iter().map(|d| d.rule).collect();
    assert_eq!(rules, [Rule::TooBig, Rule::TooBig]);
}

/// What is called like a manifest takes part, wherever it is below the lab's folder.
#[test]
fn no_manifest_is_passed_over() {
    use std::os::unix::ffi::OsStrExt as _;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("linked.yaml"), "users: { linked: {} }\n").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/".repeat(40));
    std::fs::create_dir_all(&deep).unwrap();
    for (path, user) in [("EXAM.YAML", "upper"), ("b.Yml", "mixed"), ("week 1.yaml", "blank")] {
        std::fs::write(folder.path().join(path), format!("users: {{ {user}: {{}} }}\n")).unwrap();
    }
    std::fs::write(deep.join("deep.yaml"), "users: { deep: {} }\n").unwrap();
    std::fs::write(folder.path().join("lab.yaml"), "lab: a\n").unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("common")).unwrap();
    std::os::unix::fs::symlink("a", folder.path().join("again")).unwrap();
    let loaded = labwright::manifest::load(folder.path()).unwrap();
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics.list);
    let mut users: Vec<&str> = loaded.manifest.users.0.iter().map(|entry| entry.key.as_str()).collect();
    users.sort_unstable();
    assert_eq!(users, ["blank", "deep", "linked", "mixed", "upper"]);

    // A name that is no text is not read, and never in silence; the folder of one is as bad only where it holds a manifest.
    let latin_1 = folder.path().join(std::ffi::OsStr::from_bytes(b"\xdcbung"));
    std::fs::create_dir(&latin_1).unwrap();
    assert!(check(&[folder.path().to_owned()], false).unwrap().diagnostics.is_empty());
    std::fs::write(latin_1.join("exam.yaml"), "sessions: {}\n").unwrap();
    std::os::unix::fs::symlink("..", folder.path().join("up")).unwrap();
    let checked = check(&[folder.path().to_owned()], false).unwrap();
    let rules: Vec<Rule> = checked.diagnostics.list.iter().map(|d| d.rule).collect();
    assert_eq!(rules, [Rule::NotText, Rule::Unread]);
}

#[test]
fn a_folder_that_is_not_there_is_an_error_of_its_own() {
    let error = check(&[Path::new("/no/such/lab").to_owned()], false).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the lab's folder /no/such/lab");
}
