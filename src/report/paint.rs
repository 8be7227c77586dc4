//! Colours. They say nothing that the text does not say, and stand in whole lines or cells of text that is finished, so that
//! whoever prints it can take them out again where they are not wanted.

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

fn painted(style: &str, text: &str) -> String {
    format!("{style}{text}{RESET}")
}

/// A cell, maybe padded, that holds one word for where a vm stands.
pub(super) fn state(cell: &str) -> String {
    let style = match cell.trim() {
        "ready" | "running" | "ok" => GREEN,
        "booting" | "starting" | "queued" | "pending" | "transferring" | "stopping" | "suspended" => YELLOW,
        "unknown" | "gone" | "error" | "failed" | "paused" | "cut off" => RED,
        "off" | "ended" => DIM,
        _ => return cell.to_owned(),
    };
    let word = cell.trim_end();
    format!("{}{}", painted(style, word), &cell[word.len()..])
}

/// A plan as text: each line by the sign or the word that it begins with.
pub fn plan(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", plan_line(line))).collect()
}

fn plan_line(line: &str) -> String {
    let style = match line.split_whitespace().next() {
        Some("+") if line.starts_with("  ") => GREEN,
        Some("-") if line.starts_with("  ") => RED,
        Some("±" | "~") if line.starts_with("  ") => YELLOW,
        Some(">" | "<" | "*") if line.starts_with("  ") => CYAN,
        Some("refused:") => RED,
        Some("drift:" | "waits:") => YELLOW,
        Some("plan:") => BOLD,
        _ => return line.to_owned(),
    };
    painted(style, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_add_nothing_to_the_text() {
        let text =
            "2 vms start.\n\n  + create  vm/a  new\n  - stop    vm/b  gone\n\nplan: 1 to create\nrefused: vm/a: no\n";
        let coloured = plan(text);
        assert_ne!(coloured, text);
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), text);
        assert!(coloured.contains("\x1b[32m  + create  vm/a  new\x1b[0m\n"), "{coloured:?}");
    }
}
