//! The caller's side of the answer. The other side reads what strangers wrote, and may do what they want by now: each line and
//! each content is bounded, and a path is one that leads below a folder.

use std::io::{BufRead as _, BufReader, Read};

use super::{DISK_BYTES_MAX, FILES_MAX, LISTED_MAX, Record, place};

/// A path, an error in words, and what is around them.
const LINE_BYTES_MAX: u64 = 64 << 10;
const RECORDS_MAX: usize = 4 * FILES_MAX + LISTED_MAX;

#[derive(Debug, thiserror::Error)]
pub enum HearError {
    #[error("reading it took too much time or memory, or failed")]
    CutShort,
    #[error("its reader answered what it was not to answer")]
    Nonsense,
    #[error("cannot hear its reader")]
    Io(#[from] std::io::Error),
}

/// Hears all records, each with the content of its file, until the last.
pub fn hear<E: From<HearError>>(
    from: &mut dyn Read,
    each: &mut dyn FnMut(Record, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut from = BufReader::new(from);
    let mut bytes = 0;
    for _ in 0..RECORDS_MAX {
        let record = line(&mut from)?;
        let length = match &record {
            Record::End => return Ok(()),
            Record::File { path, bytes, .. } if place(path).is_some() => *bytes,
            Record::File { .. } => return Err(HearError::Nonsense.into()),
            Record::Volume { .. } | Record::Left { .. } | Record::Listed { .. } | Record::Newest { .. } => 0,
        };
        bytes += length.min(DISK_BYTES_MAX + 1);
        if bytes > DISK_BYTES_MAX {
            return Err(HearError::Nonsense.into());
        }
        let mut content = (&mut from).take(length);
        each(record, &mut content)?;
        if content.limit() > 0 {
            return Err(HearError::CutShort.into());
        }
    }
    Err(HearError::Nonsense.into())
}

fn line(from: &mut BufReader<&mut dyn Read>) -> Result<Record, HearError> {
    let mut line = Vec::new();
    from.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    match line.last() {
        Some(b'\n') => serde_json::from_slice(&line).map_err(|_| HearError::Nonsense),
        _ if line.len() as u64 == LINE_BYTES_MAX => Err(HearError::Nonsense),
        _ => Err(HearError::CutShort),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::Left;

    /// What is heard of an answer, and how it ends.
    fn heard(answer: &str) -> (Vec<String>, Option<&'static str>) {
        let mut contents = Vec::new();
        let ended: Result<(), HearError> = hear(&mut answer.as_bytes(), &mut |record, content| {
            let mut text = String::new();
            content.read_to_string(&mut text)?;
            if let Record::File { path, .. } = record {
                contents.push(format!("{path}={text}"));
            }
            Ok(())
        });
        let word = ended.err().map(|error| match error {
            HearError::CutShort => "cut short",
            HearError::Nonsense => "nonsense",
            HearError::Io(_) => "io",
        });
        (contents, word)
    }

    fn line(record: &Record) -> String {
        serde_json::to_string(record).unwrap() + "\n"
    }

    fn file(path: &str, bytes: u64) -> String {
        line(&Record::File { path: path.to_owned(), bytes, modified: None })
    }

    #[test]
    fn an_answer_is_believed_as_far_as_it_can_be_true() {
        let (end, left) = (line(&Record::End), line(&Record::Left { path: "x".to_owned(), why: Left::Link }));
        assert_eq!(heard(&format!("{}42{left}{end}", file("a/b", 2))), (vec!["a/b=42".to_owned()], None));
        assert_eq!(heard(&format!("{}42", file("a", 2))).1, Some("cut short"));
        assert_eq!(heard(&format!("{}4", file("a", 2))).1, Some("cut short"));
        assert_eq!(heard("").1, Some("cut short"));
        for nonsense in [
            file("../a", 0) + &end,
            file("/etc/passwd", 0) + &end,
            file("a", DISK_BYTES_MAX + 1) + &end,
            file("a", u64::MAX) + &end,
            "{}\n".to_owned(),
            "x".repeat(1 << 17),
            left.repeat(RECORDS_MAX + 1) + &end,
        ] {
            assert_eq!(heard(&nonsense), (Vec::new(), Some("nonsense")), "{}", &nonsense[..nonsense.len().min(99)]);
        }
    }
}
