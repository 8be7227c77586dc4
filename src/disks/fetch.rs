//! Images from the web. curl fetches them, as a process of the account that runs guests, into a folder of its own; what came is
//! an image only once its digest is the expected one. What was cut short is gone on with.
//!
//! ```text
//! curl ─▶ .DIGEST.part/part ─▶ digest ─▶ linked as DIGEST, read-only
//! ```

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::flatten::make_read_only;
use super::folder::{Absent, Folder, split};
use super::meter::{Meter, Tell};
use super::publish::{check_standing, digest};
use super::{DiskError, Owner};

/// Larger than any image that somebody publishes on the web.
const BYTES_MAX: u64 = 256 << 30;
/// How often is looked how much came.
const LOOK: Duration = Duration::from_millis(200);
const PART: &str = "part";
const HEADERS: &str = "headers";
/// More than servers send, where none redirects without end.
const HEADERS_BYTES_MAX: u64 = 1 << 20;
/// curl could not write: no room, mostly.
const WRITE_ERROR: i32 = 23;

/// What is fetched.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub url: &'a str,
    pub sha256: &'a str,
    /// Certificates that are trusted, in place of the system's.
    pub authorities: Option<&'a Path>,
}

/// Puts it at `target`, if its digest is the expected one; what stands there with that digest is done.
pub fn fetch(source: &Source<'_>, target: &Path, owner: Owner, tell: &Tell<'_>) -> Result<(), DiskError> {
    let Source { url, sha256, authorities } = *source;
    let (folder, name) = split(target)?;
    let folder = Folder::open(folder, Absent::Create(owner))?;
    let mut workshop = std::ffi::OsString::from(".");
    workshop.push(name);
    workshop.push(".part");
    let workshop = Folder::open(&folder.path.join(workshop), Absent::Create(owner))?;
    // Who comes second waits, and finds it there.
    workshop.handle.lock().map_err(|source| DiskError::io("lock", &workshop.path, source))?;
    if let Some(standing) = folder.read(name)? {
        return check_standing(&standing, target, sha256);
    }
    let fetching = Fetching { url, sha256, authorities, workshop: &workshop, owner };
    let part = fetching.whole(tell);
    let is_to_be_resumed = matches!(part, Err(DiskError::NotFetched { .. }));
    let placed = part.and_then(|part| place(&part, &folder, name, target));
    if !is_to_be_resumed {
        fetching.clear(PART)?;
        fetching.clear(HEADERS)?;
        // An empty folder is in nobody's way.
        let _ = std::fs::remove_dir(&workshop.path);
    }
    placed
}

/// By descriptor: what was digested is what gets the name.
fn place(part: &File, folder: &Folder, name: &OsStr, target: &Path) -> Result<(), DiskError> {
    make_read_only(part, target)?;
    part.sync_all().map_err(|source| DiskError::write(target, 0, source))?;
    folder.link(part, name)?;
    folder.sync()
}

struct Fetching<'a> {
    url: &'a str,
    sha256: &'a str,
    authorities: Option<&'a Path>,
    workshop: &'a Folder,
    owner: Owner,
}

impl Fetching<'_> {
    /// Fetches until it is whole. What an earlier try left may be the beginning of something else by now: then once more from
    /// its beginning.
    fn whole(&self, tell: &Tell<'_>) -> Result<File, DiskError> {
        let begun = self.part()?;
        let is_resumed = begun.is_some();
        if let Some(part) = begun
            && self.digest(&part)? == self.sha256
        {
            return Ok(part);
        }
        match self.once(tell) {
            Err(DiskError::NotFetched { .. } | DiskError::FetchedOther { .. }) if is_resumed => {
                self.clear(PART)?;
                self.once(tell)
            }
            fetched => fetched,
        }
    }

    fn once(&self, tell: &Tell<'_>) -> Result<File, DiskError> {
        self.run_curl(tell)?;
        let part = self.part()?.ok_or_else(|| self.failed("nothing came".to_owned()))?;
        let found = self.digest(&part)?;
        if found == self.sha256 {
            return Ok(part);
        }
        self.clear(PART)?;
        Err(DiskError::FetchedOther { url: self.url.to_owned(), expected: self.sha256.to_owned(), found })
    }

    fn run_curl(&self, tell: &Tell<'_>) -> Result<(), DiskError> {
        let mut curl = self.command().spawn().map_err(|source| DiskError::CurlMissing { source: Arc::new(source) })?;
        let watched = self.watch(&mut curl, tell);
        if watched.is_err() {
            // It may have ended by itself.
            let _ = curl.kill();
            let _ = curl.wait();
        }
        let status = watched?;
        if status.success() {
            return Ok(());
        }
        if status.code() == Some(WRITE_ERROR) {
            self.clear(PART)?;
        }
        let mut said = String::new();
        // What it said only helps; that it failed is told in any case.
        let _ = curl.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
        let said = said.lines().next_back().unwrap_or_default().trim_start_matches("curl: ").trim().to_owned();
        Err(self.failed(if said.is_empty() { status.to_string() } else { said }))
    }

    fn watch(&self, curl: &mut Child, tell: &Tell<'_>) -> Result<ExitStatus, DiskError> {
        let from = self.part_bytes()?;
        let mut meter = Meter::new(Path::new(self.url), from, tell);
        loop {
            if let Some(status) =
                curl.try_wait().map_err(|source| DiskError::io("wait for", &self.workshop.path, source))?
            {
                return Ok(status);
            }
            let bytes = self.part_bytes()?;
            if bytes > BYTES_MAX {
                self.clear(PART)?;
                return Err(self.failed(format!("more than {BYTES_MAX} bytes came")));
            }
            meter.is_at(bytes, self.whole_bytes());
            std::thread::sleep(LOOK);
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("curl");
        // Whatever a configuration file of somebody's says.
        command.arg("--disable");
        command.args(["--proto", "=https", "--proto-redir", "=https", "--globoff", "--fail", "--location"]);
        command.args(["--max-redirs", "10", "--connect-timeout", "30", "--retry", "3"]);
        // A server that sends next to nothing for a minute has died.
        command.args(["--speed-limit", "1024", "--speed-time", "60", "--max-filesize", &BYTES_MAX.to_string()]);
        command.args(["--silent", "--show-error", "--continue-at", "-", "--dump-header", HEADERS, "--output", PART]);
        command.args(self.authorities.iter().flat_map(|file| ["--cacert".as_ref(), file.as_os_str()]));
        command.args(["--url", self.url]);
        command.current_dir(&self.workshop.path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if geteuid().is_root() {
            command.uid(self.owner.uid).gid(self.owner.gid);
        }
        command
    }

    fn part(&self) -> Result<Option<File>, DiskError> {
        self.workshop.read(OsStr::new(PART))
    }

    fn part_bytes(&self) -> Result<u64, DiskError> {
        let found = self.workshop.find(OsStr::new(PART))?;
        Ok(found.map_or(0, |found| found.st_size.cast_unsigned()))
    }

    /// How long the server says that the whole is.
    fn whole_bytes(&self) -> Option<u64> {
        let mut headers = String::new();
        let file = self.workshop.read(OsStr::new(HEADERS)).ok()??;
        file.take(HEADERS_BYTES_MAX).read_to_string(&mut headers).ok()?;
        said_length(&headers)
    }

    fn digest(&self, part: &File) -> Result<String, DiskError> {
        digest(part).map_err(|source| DiskError::io("read", &self.workshop.path.join(PART), source))
    }

    fn clear(&self, name: &str) -> Result<(), DiskError> {
        match unlinkat(&self.workshop.handle, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(DiskError::io("delete", &self.workshop.path.join(name), errno)),
        }
    }

    fn failed(&self, why: String) -> DiskError {
        DiskError::NotFetched { url: self.url.to_owned(), why }
    }
}

/// Of the last answer: where others redirected to it, theirs stand before. A part's answer says how long the whole is.
fn said_length(headers: &str) -> Option<u64> {
    let mut length = None;
    for line in headers.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "content-range" => return value.rsplit('/').next()?.trim().parse().ok(),
            "content-length" => length = value.trim().parse().ok(),
            _ => {}
        }
    }
    length
}
