//! New reports of starters: whether a run ended since the last look, at the price of a look at what was written since. Reports are
//! polled, since network file systems tell of no change.

use std::collections::HashMap;
use std::path::Path;

use super::Context;
use crate::files::Folder;
use crate::model::id::RunId;
use crate::run::{Event, REPORT, Record};

/// A report grows by a few lines at a time; the rest is read at the next look.
const NEWS_BYTES_MAX: u64 = 64 << 10;

/// How far the reports of runs are read.
#[derive(Debug, Default)]
pub struct News {
    lengths: HashMap<RunId, u64>,
}

impl News {
    /// Whether one of these runs has ended since the last look.
    pub fn has_ends(&mut self, context: &Context, live: &[RunId]) -> bool {
        let mut lengths = HashMap::with_capacity(live.len());
        let mut any = false;
        for run in live {
            let mut length = self.lengths.get(run).copied().unwrap_or(0);
            any |= has_ended(&context.site.storage.runs.join(run.to_string()), &mut length);
            lengths.insert(run.clone(), length);
        }
        self.lengths = lengths;
        any
    }
}

/// Whether what a report says since byte `length` is the end of its run. A line that is not yet whole waits for the next look.
fn has_ended(folder: &Path, length: &mut u64) -> bool {
    let news = Folder::open(folder).and_then(|folder| match folder {
        Some(folder) => folder.read_from(REPORT, *length, NEWS_BYTES_MAX),
        None => Ok(None),
    });
    // What cannot be read now is seen by the loop's own look.
    let Ok(Some(news)) = news else { return false };
    let Some(whole) = news.iter().rposition(|byte| *byte == b'\n') else { return false };
    *length += whole as u64 + 1;
    news[..whole].split(|byte| *byte == b'\n').any(says_the_end)
}

fn says_the_end(line: &[u8]) -> bool {
    serde_json::from_slice::<Record>(line).is_ok_and(|record| matches!(record.event, Event::Stopped { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_seen_once_its_line_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let report = folder.path().join(REPORT);
        let line =
            |event: &str| format!("{{\"run\":\"k3f9-1\",\"generation\":1,\"at\":\"2027-01-12T08:00:00Z\",{event}}}\n");
        let (beat, end) = (line("\"event\":\"heartbeat\""), line("\"event\":\"stopped\",\"reason\":\"guest\""));
        let mut length = 0;
        assert!(!has_ended(folder.path(), &mut length), "there is none yet");
        let (half, rest) = end.split_at(60);
        let mut written = beat.clone() + &beat + half;
        std::fs::write(&report, &written).unwrap();
        assert!(!has_ended(folder.path(), &mut length));
        assert_eq!(length, 2 * beat.len() as u64);
        written += rest;
        std::fs::write(&report, &written).unwrap();
        assert!(has_ended(folder.path(), &mut length));
        assert!(!has_ended(folder.path(), &mut length), "it is told once");
    }
}
