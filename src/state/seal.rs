//! Whether a state's file is the very one that was found sound. SQLite sees a damaged page only when it reads it, and may take
//! it for an empty one, so all pages are read before anything is decided from them; but not by every command. Beside the
//! state, `state.db.checked` says what the file was like when somebody last closed it, and when all of it was last read.
//!
//! All pages are read
//! - where there is no such note, or none that can be read;
//! - where the file is another than the note says: it was put back from a copy, something else wrote to it, or whoever wrote
//!   last was killed before it was closed;
//! - where the machine was started since: only then can a page be half written, since the kernel keeps what a process wrote;
//! - once in `DAYS_MAX`, since disks forget;
//! - for each backup, each restore and each `labwright state check`.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::sibling;
use crate::files::{self, Flush};

/// How long a file that nobody else wrote to is taken for sound.
const DAYS_MAX: i64 = 7;
/// The kernel draws another one at each start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// More than the note has.
const NOTE_BYTES_MAX: u64 = 4096;

/// What the file was like. Neither its device's number, which changes with each mount, nor its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Nobody can set this one.
    changed: (i64, i64),
    boot: String,
}

impl Stamp {
    /// `None`: it cannot be told, so that all pages are read.
    fn of(state: &Path) -> Option<Self> {
        let found = std::fs::metadata(state).ok()?;
        Some(Self {
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            boot: std::fs::read_to_string(BOOT_ID).ok()?.trim().to_owned(),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    #[serde(flatten)]
    stamp: Stamp,
    checked_at: jiff::Timestamp,
}

fn note_path(state: &Path) -> PathBuf {
    sibling(state, "checked")
}

fn read(state: &Path) -> Option<Note> {
    let text = files::read_bounded(&note_path(state), NOTE_BYTES_MAX).ok()??;
    serde_json::from_slice(&text).ok()
}

/// When all of the file was last read, if it has been in good hands since; `None`: it must be read now.
pub(super) fn sound_since(state: &Path, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let note = read(state)?;
    let age_seconds = now.as_second() - note.checked_at.as_second();
    // A note from the future was written by a clock that was wrong.
    let is_fresh = (0..DAYS_MAX * 24 * 60 * 60).contains(&age_seconds);
    (is_fresh && Stamp::of(state)? == note.stamp).then_some(note.checked_at)
}

/// Held beside an open connection and dropped after it: then the file is as it will be found.
#[derive(Debug)]
pub(super) struct Seal {
    pub(super) state: PathBuf,
    pub(super) checked_at: jiff::Timestamp,
}

impl Drop for Seal {
    fn drop(&mut self) {
        // Also where somebody else has the state open: what they put into the file later makes it another one than the note says.
        // Else all that is done while one command takes long would read all pages, from the first checkpoint on.
        let Some(stamp) = Stamp::of(&self.state) else { return };
        let note = Note { stamp, checked_at: self.checked_at };
        if read(&self.state).as_ref() == Some(&note) {
            return;
        }
        let text = serde_json::to_vec(&note).expect("a note has only string keys");
        // Without the note the next command reads all pages, as it should after any doubt. After a power cut it is worth
        // nothing anyway.
        if let Err(error) = files::write_atomically(&note_path(&self.state), &text, 0o644, Flush::Later) {
            tracing::debug!(%error, "the state is not marked as sound");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{LOG, with_suffix};

    /// A file that was closed in good order at this time.
    fn sealed(now: jiff::Timestamp) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state.db");
        std::fs::write(&state, "pages").unwrap();
        drop(Seal { state: state.clone(), checked_at: now });
        (folder, state)
    }

    fn edit_note(state: &Path, from: &str, to: &str) {
        let text = std::fs::read_to_string(note_path(state)).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(note_path(state), text.replace(from, to)).unwrap();
    }

    #[test]
    fn what_was_closed_in_good_order_is_sound_for_a_week() {
        let now: jiff::Timestamp = "2027-01-12T08:00:00Z".parse().unwrap();
        let days = |days: i64| now + jiff::SignedDuration::from_hours(24 * days);
        let (_folder, state) = sealed(now);
        assert_eq!(sound_since(&state, now), Some(now));
        assert_eq!(sound_since(&state, days(6)), Some(now));
        assert_eq!((sound_since(&state, days(7)), sound_since(&state, days(-1))), (None, None));
    }

    #[test]
    fn whatever_is_in_doubt_is_read() {
        let now: jiff::Timestamp = "2027-01-12T08:00:00Z".parse().unwrap();
        type Doubt<'a> = (&'a str, &'a dyn Fn(&Path));
        let doubts: [Doubt<'_>; 6] = [
            ("no note", &|state| std::fs::remove_file(note_path(state)).unwrap()),
            ("half a note", &|state| std::fs::write(note_path(state), "{\"inode\":1").unwrap()),
            ("another start", &|state| {
                let boot = std::fs::read_to_string(BOOT_ID).unwrap();
                edit_note(state, boot.trim(), "00000000-0000-0000-0000-000000000000");
            }),
            ("another content", &|state| std::fs::write(state, "more pages").unwrap()),
            ("the times of before, set by hand", &|state| {
                let before = std::fs::metadata(state).unwrap();
                let changed = || std::fs::metadata(state).unwrap().ctime_nsec();
                // Clocks of file systems tick a few hundred times a second.
                while changed() == before.ctime_nsec() {
                    std::fs::write(state, "PAGES").unwrap();
                    let file = std::fs::File::options().write(true).open(state).unwrap();
                    file.set_modified(before.modified().unwrap()).unwrap();
                }
            }),
            ("another file", &|state| {
                std::fs::write(sibling(state, "copy"), "pages").unwrap();
                std::fs::rename(sibling(state, "copy"), state).unwrap();
            }),
        ];
        for (doubt, act) in doubts {
            let (_folder, state) = sealed(now);
            act(&state);
            assert_eq!(sound_since(&state, now), None, "{doubt}");
        }
    }

    /// While one has the state open for long, others come and go: they read all pages once after each checkpoint, not each time.
    #[test]
    fn what_others_have_open_is_read_once_after_each_checkpoint() {
        let now = jiff::Timestamp::now();
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state.db");
        let _long = crate::state::Store::create(&state, now).unwrap();
        for round in 0..3 {
            let other = rusqlite::Connection::open(&state).unwrap();
            other.execute_batch(&format!("CREATE TABLE more{round} (a); PRAGMA wal_checkpoint(PASSIVE)")).unwrap();
            assert!(with_suffix(&state, LOG).exists());
            assert_eq!(sound_since(&state, now), None, "it is another file");
            drop(crate::state::Store::open(&state).unwrap());
            assert!(sound_since(&state, jiff::Timestamp::now()).is_some());
        }
    }
}
