//! Names that strangers gave, as text that is fit to be a path, a line and a cell: what is no plain character is written as `%`
//! and two digits for each byte.

use std::path::PathBuf;

/// What file systems let a name be (limits.h).
const NAME_BYTES_MAX: usize = 255;
/// Leaves room for the folders above it.
const PATH_BYTES_MAX: usize = 2048;

/// A name as it is written; `None` of one that leads elsewhere, or gets too long.
pub(super) fn written(name: &[u8]) -> Option<String> {
    if name.is_empty() || name == b"." || name == b".." {
        return None;
    }
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_plain(c) { text.push(c) } else { push_bytes(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()) }
        }
        push_bytes(&mut text, chunk.invalid());
    }
    (text.len() <= NAME_BYTES_MAX).then_some(text)
}

/// Neither changes the line that it stands in, nor means something in a path; marks of writing direction do.
fn is_plain(c: char) -> bool {
    let is_mark = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !is_mark && !matches!(c, '%' | '/' | '\\')
}

fn push_bytes(text: &mut String, bytes: &[u8]) {
    use std::fmt::Write as _;
    for byte in bytes {
        write!(text, "%{byte:02X}").expect("a string takes all");
    }
}

/// A name below a folder.
pub(super) fn below(folder: &str, name: &str) -> Option<String> {
    let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    (path.len() <= PATH_BYTES_MAX).then_some(path)
}

/// Where a written path leads below a folder; `None` of one that was not written here.
pub fn place(written: &str) -> Option<PathBuf> {
    let is_name = |name: &str| self::written(&unwritten(name)?).filter(|again| again == name);
    if written.len() > PATH_BYTES_MAX {
        return None;
    }
    written.split('/').map(is_name).collect()
}

/// The bytes of a written name.
fn unwritten(name: &str) -> Option<Vec<u8>> {
    let mut parts = name.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend(rest.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_so_that_it_leads_nowhere_else() {
        let of = |name: &[u8]| written(name);
        assert_eq!(of("Lösung 1.txt".as_bytes()).unwrap(), "Lösung 1.txt");
        assert_eq!(of(b"a\nb\x1b[2J%41\xff").unwrap(), "a%0Ab%1B[2J%2541%FF");
        assert_eq!(of("evil\u{202e}txt.exe".as_bytes()).unwrap(), "evil%E2%80%AEtxt.exe");
        assert_eq!(of(b"../../etc/cron.d/x").unwrap(), "..%2F..%2Fetc%2Fcron.d%2Fx");
        for refused in [&b"."[..], b"..", b"", &[b'\n'; 86], &[b'a'; 256]] {
            assert_eq!(of(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn only_what_was_written_here_is_a_place() {
        assert_eq!(place("home/alice/a%0Ab").unwrap(), PathBuf::from("home/alice/a%0Ab"));
        for refused in
            ["", "/etc/passwd", "home/../x", "home//x", "a\nb", "a%41", "a%2", "a%zz", "a%2e", "a\\b", "%2E%2E"]
        {
            assert_eq!(place(refused), None, "{refused}");
        }
    }
}
