//! `controller.beat` beside the runs: touched every few seconds by whoever could move the end of a session, and looked at by
//! starters whose guests come to theirs. The server stamps it with its own clock, by which they count.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::silence;

const BEAT: &str = "controller.beat";
/// Touched after each round of the loop that was somebody's only one, such as a timer's.
const ROUND: &str = "controller.round";

/// How often it is touched.
pub const BEAT_EVERY: Duration = Duration::from_secs(10);

/// Says that somebody is there, to the starters of all runs in this folder.
pub fn beat(runs: &Path) -> std::io::Result<()> {
    silence::touch(&runs.join(BEAT), 0o644).map(drop)
}

/// When that was said last, on the server's clock; `None` where it never was. The file is opened, not only looked at: that is
/// where a network file system asks its server.
pub fn last_beat(runs: &Path) -> std::io::Result<Option<Timestamp>> {
    touched(&runs.join(BEAT))
}

/// Says that a round of the loop is over. Nobody stays awake after it, so it is no beat.
pub fn note_round(runs: &Path) -> std::io::Result<()> {
    silence::touch(&runs.join(ROUND), 0o644).map(drop)
}

/// When that was said last.
pub fn last_round(runs: &Path) -> std::io::Result<Option<Timestamp>> {
    touched(&runs.join(ROUND))
}

fn touched(file: &Path) -> std::io::Result<Option<Timestamp>> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let opened: std::io::Result<File> = OpenOptions::new().read(true).custom_flags(flags).open(file);
    match opened {
        // A time that no calendar knows is none.
        Ok(file) => Ok(Timestamp::try_from(file.metadata()?.modified()?).ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_heard_and_none_is_nothing() {
        let runs = tempfile::tempdir().unwrap();
        assert_eq!(last_beat(runs.path()).unwrap(), None);
        beat(runs.path()).unwrap();
        let first = last_beat(runs.path()).unwrap().unwrap();
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(100);
        File::options().write(true).open(runs.path().join(BEAT)).unwrap().set_modified(long_ago).unwrap();
        assert!(last_beat(runs.path()).unwrap().unwrap() < first);
        beat(runs.path()).unwrap();
        assert!(last_beat(runs.path()).unwrap().unwrap() >= first);
    }
}
