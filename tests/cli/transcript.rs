//! A line of shell and what came back, as text that is the same on every machine and in every run: what differs has marks
//! of the same width, so that tables stay tables.

use std::fmt::Write as _;
use std::process::Output;

use super::sandbox::Sandbox;

/// Runs a line and tells all that came back.
pub(crate) fn transcript(sandbox: &Sandbox, line: &str) -> String {
    let Output { status, stdout, stderr } = sandbox.shell(line);
    let mut text = format!("$ {line}\n{}", String::from_utf8_lossy(&stdout));
    if !stderr.is_empty() {
        write!(text, "--- stderr\n{}", String::from_utf8_lossy(&stderr)).unwrap();
    }
    if !status.success() {
        writeln!(text, "--- exit {}", status.code().map_or("by signal".into(), |code| code.to_string())).unwrap();
    }
    text.push('\n');
    redact(sandbox, &text)
}

fn redact(sandbox: &Sandbox, text: &str) -> String {
    let folder = sandbox.path("").display().to_string();
    let folder = folder.trim_end_matches('/');
    let name = folder.rsplit('.').next().expect("it has a dot before its random letters");
    let mark = folder.replace(name, &"_".repeat(name.len()));
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let mut text = text.replace(folder, &mark).replace(&format!("@{host}"), "@HOST");
    for pattern in ["9999-99-99T99:99:99", "9999-99-99 99:99:99", "99999999T999999Z", &"x".repeat(64)] {
        text = blank(&text, pattern);
    }
    let text = without_tag(&without_allocations(&without_fractions(&without_durations(&text))));
    match tag(sandbox) {
        Some(tag) => {
            let marks = [("lw.", "."), ("", "-"), ("lw_", "_"), ("lw", "9")];
            marks.iter().fold(text, |text, (before, after)| {
                text.replace(&format!("{before}{tag}{after}"), &format!("{before}____{after}"))
            })
        }
        None => text,
    }
}

/// The tag of the site, once it has a state that can be read. Read as a file that nobody writes: a look must leave no files
/// of SQLite's beside it.
fn tag(sandbox: &Sandbox) -> Option<String> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI;
    let uri = format!("file:{}?immutable=1", sandbox.path("site/state.db").display());
    let state = rusqlite::Connection::open_with_flags(uri, flags).ok()?;
    state.query_row("SELECT tag FROM site", [], |row| row.get(0)).ok()
}

/// A site's tag is drawn when its state is made.
fn without_tag(text: &str) -> String {
    let mut parts = text.split(" site/");
    let first = parts.next().unwrap_or_default().to_owned();
    let is_tag = |part: &str| part.as_bytes().get(4) == Some(&b':');
    parts.fold(first, |text, part| {
        text + " site/" + &if is_tag(part) { format!("____{}", &part[4..]) } else { part.to_owned() }
    })
}

/// Puts `_` for every digit (`9`) or hexadecimal digit (`x`) where `text` looks like `pattern`.
fn blank(text: &str, pattern: &str) -> String {
    let fits = |(byte, wanted): (&u8, u8)| match wanted {
        b'9' => byte.is_ascii_digit(),
        b'x' => byte.is_ascii_hexdigit(),
        other => *byte == other,
    };
    let mut bytes = text.as_bytes().to_vec();
    for start in 0..bytes.len().saturating_sub(pattern.len() - 1) {
        let window = &mut bytes[start..start + pattern.len()];
        if window.iter().zip(pattern.bytes()).all(fits) {
            let blanks = window.iter_mut().zip(pattern.bytes()).filter(|(_, wanted)| matches!(wanted, b'9' | b'x'));
            blanks.for_each(|(byte, _)| *byte = b'_');
        }
    }
    String::from_utf8(bytes).expect("only ASCII was replaced by ASCII")
}

/// How long something took has more digits on a machine that does other work beside: it all becomes one mark.
pub(crate) fn without_durations(text: &str) -> String {
    let is_duration = |inside: &str| {
        let seconds = inside.strip_suffix(" s").and_then(|number| number.split_once('.'));
        seconds.is_some_and(|(whole, tenths)| {
            tenths.len() == 1 && !whole.is_empty() && (whole.to_owned() + tenths).bytes().all(|b| b.is_ascii_digit())
        })
    };
    let mut parts = text.split('(');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| match part.split_once(')') {
        Some((inside, rest)) if is_duration(inside) => text + "(_._ s)" + rest,
        _ => text + "(" + part,
    })
}

/// How much a file system allocated for a small file (`12K`) is its own affair: they all become one mark.
fn without_allocations(text: &str) -> String {
    let is_allocation = |field: &str| {
        field.strip_suffix('K').is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let ends = |c: char| c == ' ' || c == ',' || c == '\n';
    let mut blanks_to_drop = 0;
    let fields = text.split_inclusive(ends).map(|field| {
        let (word, end) = field.split_at(field.trim_end_matches(ends).len());
        if is_allocation(word) {
            blanks_to_drop = "___K".len().saturating_sub(word.len());
            return format!("___K{end}");
        }
        if field == " " && blanks_to_drop > 0 {
            blanks_to_drop -= 1;
            return String::new();
        }
        blanks_to_drop = 0;
        field.to_owned()
    });
    fields.collect()
}

/// Fractions of a second have as many digits as they need: they all become one mark.
fn without_fractions(text: &str) -> String {
    let mut parts = text.split("T__:__:__.");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "T__:__:__._" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}
