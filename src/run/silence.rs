//! How long a starter has been silent, by the clock of the storage server. In: a run's folder. Out: a duration; it decides
//! whether a guest that nobody hears of stands still for certain, so whatever is doubtful must make it shorter.
//!
//! The server stamps a file with its own time whenever a client writes. What the starter wrote last and a file that we touch
//! now are thus stamped by one clock, and their difference is right however the clocks of this machine and of the host are
//! set, or jump. (A file system whose clients stamp what they write, such as Lustre, has as many clocks as clients; there
//! they must be kept together, as `host check` says.)
//!
//! - The touch comes first. However long the look at the report takes after it, the silence is not overstated.
//! - The touch sets no time of ours: "now" is left to the server (NFS: `SET_TO_SERVER_TIME`), and no data is written, so
//!   that a full server takes it too.
//! - The report is opened, not only looked at: opening is where a network file system asks the server instead of its cache of
//!   attributes, which may be a minute old (NFS: close-to-open).
//! - Where the touch fails, nobody knows the server's time, and the starter counts as one that wrote just now.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;

use super::{CLOCK, REPORT, RunFileError};

/// How long no starter has written into the run's report; `None`: none ever began one.
pub(super) fn silence(folder: &Path) -> Result<Option<Duration>, RunFileError> {
    let now = touch(&folder.join(CLOCK), 0o640);
    let report = folder.join(REPORT);
    let written = match File::open(&report).and_then(|file| stamp(&file)) {
        Ok(written) => written,
        Err(source) if source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RunFileError::Io { action: "look at", path: report, source }),
    };
    let now = now.unwrap_or_else(|error| {
        tracing::warn!(%error, folder = %folder.display(), "cannot learn the storage's time");
        written
    });
    Ok(Some(now.duration_since(written).unwrap_or_default()))
}

/// Makes the file one of now, and returns what the storage server takes for that.
pub(super) fn touch(path: &Path, mode: u32) -> std::io::Result<SystemTime> {
    // The folder belongs to the account that qemu runs as: what stands there may be a link or a pipe.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let mut clock = OpenOptions::new();
    clock.write(true).create(true).truncate(false).mode(mode).custom_flags(flags);
    let file = clock.open(path)?;
    futimens(&file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW)?;
    stamp(&file)
}

fn stamp(file: &File) -> std::io::Result<SystemTime> {
    file.metadata()?.modified()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// A run's folder whose report was written so long before `now`, on the server's clock.
    fn written_before(seconds: u64) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let report = File::create(folder.path().join(REPORT)).unwrap();
        let now = touch(&folder.path().join(CLOCK), 0o640).unwrap();
        report.set_modified(now - Duration::from_secs(seconds)).unwrap();
        folder
    }

    #[test]
    fn the_time_between_the_last_write_and_now() {
        let folder = written_before(100);
        let silent = silence(folder.path()).unwrap().unwrap();
        assert!(silent >= Duration::from_secs(100) && silent < HOUR, "{silent:?}");
    }

    #[test]
    fn a_run_without_a_report_was_never_begun() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(silence(folder.path()).unwrap(), None);
        assert_eq!(silence(&folder.path().join("gone")).unwrap(), None);
    }

    #[test]
    fn without_the_servers_time_nobody_is_silent() {
        let folder = written_before(100);
        let clock = folder.path().join(CLOCK);
        std::fs::remove_file(&clock).unwrap();
        std::os::unix::fs::symlink("/dev/null", &clock).unwrap();
        assert_eq!(silence(folder.path()).unwrap(), Some(Duration::ZERO));
    }

    #[test]
    fn a_stamp_from_the_future_is_no_silence() {
        let folder = written_before(0);
        let report = File::options().write(true).open(folder.path().join(REPORT)).unwrap();
        report.set_modified(SystemTime::now() + HOUR).unwrap();
        assert_eq!(silence(folder.path()).unwrap(), Some(Duration::ZERO));
    }
}
