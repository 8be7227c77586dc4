//! docs/walkthrough.md: the paper's section V.A, typed by accounts of their own at a real daemon with a real guest. Each line prints
//! what the page says it prints.

use std::path::Path;

use crate::readme::Clone;
use crate::world::tool;

const PEOPLE: [&str; 3] = ["badmin", "doraz", "alex"];

/// A line by whom it is typed, and what it prints.
type Scene = (String, Vec<String>);

#[test]
fn the_papers_walkthrough_reads_as_its_page_says() {
    let clone = Clone::new();
    let played = clone.type_in("labs/walkthrough/up");
    let (written, played) = (scenes_of_page(), scenes_played(&played));
    assert!(written.len() > 15, "{written:?}");
    for (written, played) in written.iter().zip(&played) {
        assert_eq!(written, played, "left stands in docs/walkthrough.md, right is what happens");
    }
    assert_eq!(written.len(), played.len());
    let again = clone.type_in("labs/walkthrough/up || true");
    assert!(again.contains("was played before"), "{again}");

    let down = clone.type_in("labs/walkthrough/down");
    assert!(down.contains("\nall of it is gone\n"), "{down}");
    assert_eq!(tool("ip", &["netns", "list"]), "");
    assert!(!Path::new("/var/lib/labwright-walkthrough").exists());
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    assert!(!PEOPLE.iter().any(|who| accounts.contains(&format!("\n{who}:"))), "{accounts}");
}

/// The page's blocks `sh as WHO` of one line, each with the block of text behind it.
fn scenes_of_page() -> Vec<Scene> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/walkthrough.md")).unwrap();
    let scene = |block: &str| {
        let (who, rest) = block.split_once('\n').unwrap();
        let (line, behind) = rest.split_once("\n```").unwrap();
        let printed = behind.split("```sh as ").next().unwrap().split_once("```text\n");
        let printed = printed.map_or("", |(_, printed)| printed.split("\n```").next().unwrap());
        (format!("{who}$ {line}"), plain(printed))
    };
    page.split("```sh as ").skip(1).map(scene).collect()
}

fn scenes_played(transcript: &str) -> Vec<Scene> {
    let mut scenes: Vec<(String, String)> = Vec::new();
    for line in transcript.lines() {
        let is_prompt = line.split_once("$ ").is_some_and(|(who, _)| PEOPLE.contains(&who));
        match scenes.last_mut() {
            _ if is_prompt => scenes.push((line.to_owned(), String::new())),
            // How long all took: the play is over.
            Some(_) if line.starts_with("   (") => break,
            Some((_, printed)) => printed.extend([line, "\n"]),
            None => {}
        }
    }
    scenes.into_iter().map(|(line, printed)| (line, plain(&printed))).collect()
}

/// Lines without what is another each time: how wide columns are, the machine's name, moments, the password; and without what
/// is told only where it takes long.
fn plain(printed: &str) -> Vec<String> {
    let is_of_waiting =
        |line: &&str| line.starts_with("doraz/myvm: ") || line.ends_with(" s)") || line.trim().starts_with("dropped ");
    printed.lines().filter(|line| !line.trim().is_empty()).filter(|line| !is_of_waiting(line)).map(plain_line).collect()
}

fn plain_line(line: &str) -> String {
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let is_of = |word: &str, mark: char| word.chars().all(|c| c.is_ascii_digit() || c == mark) && word.contains(mark);
    let mut words: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        let shown = match word {
            word if word == host => "lab-host",
            word if word.len() == 10 && is_of(word, '-') => "DATE",
            word if word.len() == 8 && is_of(word, ':') => "TIME",
            _ if words.last() == Some(&"password") => "PASSWORD",
            word => word,
        };
        words.push(shown);
    }
    words.join(" ")
}
