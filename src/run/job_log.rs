//! What a starter said before it could report, in the log that the batch system keeps of its task: a program that is not
//! there, a folder that it may not enter. In: the log's end. Out: one line of words, or nothing.
//!
//! ```text
//! runs/batches/<job>.<task>.log     whatever the task wrote; the local scheduler and Grid Engine name it alike
//! ```

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// More than this nobody reads in a listing.
const WORDS_MAX: usize = 400;
/// The end of a log, in which the last words are.
const END_BYTES: u64 = 8192;

/// The last words of a task; `None` where it said nothing, or nothing that can be read.
pub fn last_words(runs: &Path, job: u64, task: u32) -> Option<String> {
    words(&end_of(&path(runs, job, task))?)
}

/// Where the log of a task is, below the site's `runs` folder.
pub(super) fn path(runs: &Path, job: u64, task: u32) -> PathBuf {
    runs.join("batches").join(format!("{job}.{task}.log"))
}

/// The folder is the service account's on some sites, so that nothing but a plain file is opened.
fn end_of(path: &Path) -> Option<String> {
    let flags = (nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK).bits();
    let mut file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    let found = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    file.seek(SeekFrom::Start(found.len().saturating_sub(END_BYTES))).ok()?;
    let mut end = Vec::new();
    file.take(END_BYTES).read_to_end(&mut end).ok()?;
    Some(String::from_utf8_lossy(&end).into_owned())
}

/// An error of ours with all its lines, where the log has one; else its last line.
fn words(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let begins = lines.iter().rposition(|line| line.starts_with("error: ")).unwrap_or(lines.len().checked_sub(1)?);
    let said = lines[begins..].iter().map(|line| {
        let line = line.trim_start();
        ["error: ", "caused by: "].iter().find_map(|head| line.strip_prefix(head)).unwrap_or(line)
    });
    let said = said.collect::<Vec<_>>().join("; ");
    let shown: String = said.chars().take(WORDS_MAX).collect();
    Some(if shown.len() < said.len() { shown + "…" } else { shown })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_told_with_its_causes() {
        let ours =
            "info: begins\nerror: old\nerror: cannot read /x\n  caused by: Permission denied\nhint: chmod o+x /\n";
        assert_eq!(words(ours).as_deref(), Some("cannot read /x; Permission denied; hint: chmod o+x /"));
        assert_eq!(words("a\n/bin/sh: exec: not found\n\n").as_deref(), Some("/bin/sh: exec: not found"));
        assert_eq!(words("\n"), None);
        let long = words(&"ä".repeat(1000)).unwrap();
        assert!(long.chars().count() == WORDS_MAX + 1 && long.ends_with('…'));
    }

    #[test]
    fn only_a_plain_file_is_a_log() {
        let runs = tempfile::tempdir().unwrap();
        let batches = runs.path().join("batches");
        std::fs::create_dir(&batches).unwrap();
        std::fs::write(batches.join("7.1.log"), "x".repeat(9000) + "\nerror: no\n").unwrap();
        std::os::unix::fs::symlink(batches.join("7.1.log"), batches.join("7.2.log")).unwrap();
        std::fs::create_dir(batches.join("7.3.log")).unwrap();
        let told = [1, 2, 3, 4].map(|task| last_words(runs.path(), 7, task));
        assert_eq!(told, [Some("no".to_owned()), None, None, None]);
    }
}
