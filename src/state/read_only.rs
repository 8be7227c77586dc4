//! Looking without the right to write. SQLite's write-ahead log makes even a reader write beside the file; who may not do
//! that reads a copy in memory, taken while nobody writes, or reads along with a writer who has made those files.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};
use rusqlite::{Connection, OpenFlags};

use super::home::refuse_foreign;
use super::{LOG, StateError, Store, schema, with_suffix};

/// How often a copy is tried while somebody writes, and how long we wait in between.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

impl Store {
    /// Opens an existing state for a command that only looks.
    pub fn open_to_read(path: &Path) -> Result<Self, StateError> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let may_write = |path: &Path| faccessat(AT_FDCWD, path, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok();
        let exists = path.try_exists().map_err(|source| io("look for", path, source))?;
        if !exists || (may_write(path) && may_write(folder)) {
            return Self::open(path);
        }
        refuse_foreign(path)?;
        let store = Self {
            connection: look(path)?,
            path: path.to_owned(),
            read_only: true,
            file: None,
            at_work: None,
            in_use: None,
            seal: None,
        };
        store.check_where_in_doubt()?;
        match schema::version(&store.connection).map_err(|source| store.sql("read the version", source))? {
            schema::VERSION => Ok(store),
            0 => Err(StateError::Damaged { path: path.to_owned(), detail: "it holds no tables of labwright".into() }),
            older if older < schema::VERSION => Err(StateError::Older { path: path.to_owned() }),
            found => Err(StateError::Newer { path: path.to_owned(), found, known: schema::VERSION }),
        }
    }
}

/// A connection that sees one state of the file.
fn look(path: &Path) -> Result<Connection, StateError> {
    for _ in 0..TRIES {
        if log_bytes(path) > 0 {
            return open_along(path);
        }
        let before = stamp(path)?;
        let bytes = std::fs::read(path).map_err(|source| io("read", path, source))?;
        if before == stamp(path)? && log_bytes(path) == 0 {
            return open_copy(bytes, path);
        }
        std::thread::sleep(PAUSE);
    }
    let source = std::io::Error::other("it changes all the time");
    Err(io("read", path, source))
}

fn open_copy(mut bytes: Vec<u8>, path: &Path) -> Result<Connection, StateError> {
    // What is in memory has no log beside it: it is as a database without one (the file format's read and write version).
    if let Some(versions) = bytes.get_mut(18..20) {
        versions.fill(1);
    }
    let mut copy = Connection::open_in_memory().map_err(|source| sql(path, source))?;
    copy.deserialize_read_exact("main", &bytes[..], bytes.len(), true).map_err(|source| sql(path, source))?;
    Ok(copy)
}

fn open_along(path: &Path) -> Result<Connection, StateError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(|source| sql(path, source))
}

fn sql(path: &Path, source: rusqlite::Error) -> StateError {
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            StateError::Damaged { path: path.to_owned(), detail: source.to_string() }
        }
        _ => StateError::Sql { action: "open the state", path: path.to_owned(), source },
    }
}

fn log_bytes(path: &Path) -> u64 {
    std::fs::metadata(with_suffix(path, LOG)).map_or(0, |found| found.len())
}

fn stamp(path: &Path) -> Result<(u64, u64, i64, i64), StateError> {
    let found = std::fs::metadata(path).map_err(|source| io("look at", path, source))?;
    Ok((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> StateError {
    StateError::Io { action, path: path.to_owned(), source }
}
