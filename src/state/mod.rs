//! The site's SQLite file: what we asked for, the journal of effects, the history of applies. `Recorded` comes out,
//! intents and outcomes go in. It decides nothing, and it never takes a missing file for an empty one.

mod aside;
mod audit;
mod chain;
mod claims;
mod clear;
mod entry;
mod history;
mod home;
mod in_use;
mod ledger;
mod lock;
mod objects;
mod operations;
mod privacy;
mod private;
mod quotas;
mod read;
mod read_only;
mod recorded;
mod roster;
mod schema;
mod seal;
mod trials;
mod write;

pub use aside::{AsideSet, ImageDigest, WaitingDisks};
pub use audit::{About, ActsOf, PastAct, Someone};
pub use chain::{SessionRecord, SessionRow};
pub use claims::PastClaim;
pub use clear::OldRun;
pub use entry::Entry;
pub use history::{AppliedEffect, AsideDisk, PastApply, PastEffect, PastRun, SET_ASIDE};
pub use ledger::Ledger;
pub use lock::{Holder, Lock};
pub use objects::{RecordedThing, Thing};
pub use operations::{Decision, Hold, Standing, Start, Worker};
pub use privacy::Left;
pub use quotas::{OpenRun, Quota, Starting, StorageQuota, StoredDisk, Storing};
pub use recorded::{
    FreezeScope, Frozen, Making, PublishedDisk, Recorded, RecordedDisk, RecordedRun, RecordedVm, RunState, Started,
    TakenAddress, TemplateVersion,
};
pub use trials::{TrialPlace, Tried};
pub use write::{ApplyId, ApplyInfo, Change, Intent, JournalId, Outcome};

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use self::in_use::{Identity, InUse};
use self::operations::AtWork;
use self::seal::Seal;
use crate::model::address::Address;
use crate::model::disk::size;
use crate::model::hexadecimal;
use crate::model::id::{SiteTag, UserName};
use home::refuse_foreign;

/// How long a statement waits for another process's transaction before it says that the file is busy.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What went wrong with the state. Nothing was changed, but where it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("there is no state at {path}")]
    Missing { path: PathBuf },
    #[error("there is a state at {path} already")]
    Exists { path: PathBuf },
    #[error("{path} was written by a newer labwright: its tables have version {found}, this program knows {known}")]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("{path} was written by an older labwright, and you may not bring its tables up to date")]
    Older { path: PathBuf },
    #[error(
        "{path} is a copy: the original is at {of}, and the disks and runs that are recorded here are the original's"
    )]
    Copy { path: PathBuf, of: PathBuf },
    #[error("{path} was moved from {from}, and you may not write into it that its paths have moved too")]
    Moved { path: PathBuf, from: PathBuf },
    #[error("{path} is damaged: {detail}")]
    Damaged { path: PathBuf, detail: String },
    #[error("{path} is on {file_system}, and a state is kept safely only on a local file system of the controller")]
    ForeignFileSystem { path: PathBuf, file_system: String },
    #[error("the state is gone, but things that it described are still there: {}", traces.join(", "))]
    Traces { path: PathBuf, traces: Vec<String> },
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot {action} in {path}")]
    Sql { action: &'static str, path: PathBuf, source: rusqlite::Error },
    #[error("{path}: {what} is not what labwright writes there")]
    Row { path: PathBuf, what: String, source: serde_json::Error },
    #[error("the lab has changed since this was planned: apply {latest} began after that")]
    Stale { path: PathBuf, latest: i64 },
    #[error("{address} {worker}")]
    Held { address: Address, worker: Worker },
    #[error("{what} was given to {to} since this was planned")]
    Given { what: String, to: String },
    #[error("{owner} may run {limit} vms at once, and somebody has begun to start more of them since this was planned")]
    OverQuota { owner: UserName, limit: u32 },
    #[error("{owner} may store {}, and somebody has begun to make more disks of theirs since this was planned", size(*limit_bytes))]
    OverStorage { owner: UserName, limit_bytes: u64 },
    #[error("{} froze it at {:.0}: {}", frozen.who, frozen.since, frozen.why)]
    Frozen { frozen: Frozen },
    #[error("apply {latest} of this lab began while apply {apply} was under way, and goes on in its place")]
    Overtaken { path: PathBuf, apply: i64, latest: i64 },
    #[error("the state is in use by {holder}")]
    Locked { path: PathBuf, holder: Holder },
    #[error("{path} is open elsewhere{}{}", if by.is_empty() { "" } else { ": " }, by.join(", "))]
    InUse { path: PathBuf, by: Vec<String> },
    #[error("another trial of the site's hosts is under way{}{}", if by.is_empty() { "" } else { ": " }, by.join(", "))]
    TrialUnderWay { by: Vec<String> },
    #[error("{path} is another file than it was when this command began")]
    Replaced { path: PathBuf },
}

impl StateError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => {
                Some("make it with `labwright state init`, or name the right site with `--site FILE`".into())
            }
            Self::Exists { path } => {
                Some(format!("nothing was changed; to start over, move {} away first", path.display()))
            }
            Self::Newer { .. } => Some("nothing was changed; use the labwright that wrote it, or a newer one".into()),
            Self::Older { .. } | Self::Moved { .. } => {
                Some("run any command with `sudo` once, such as `sudo labwright plan`".into())
            }
            Self::Copy { path, of } => Some(format!(
                "nothing was changed; go on with {}, or let this copy begin its own: move {} and the storage that was copied with it away, and run `labwright state init`",
                of.display(),
                path.display()
            )),
            Self::Damaged { path, .. } => Some(format!(
                "nothing was changed, and no vm is touched while the state cannot be read; put a copy of {} back in its place (see `labwright state restore`)",
                path.display()
            )),
            Self::ForeignFileSystem { .. } => {
                Some("set `state:` in site.yaml to a folder on a local disk of the controller".into())
            }
            Self::Traces { path, .. } => Some(format!(
                "put the state back at {}; only if these are left-overs of a lab that is really gone, move them away and run `labwright state init`",
                path.display()
            )),
            Self::InUse { .. } => Some(
                "nothing was changed; to put another file in its place, or to bring its tables up to date, it must be nobody else's: wait until they are done".into(),
            ),
            Self::Stale { .. } | Self::Given { .. } | Self::OverQuota { .. } | Self::OverStorage { .. } | Self::Replaced { .. } => Some("nothing was changed; run the command again".into()),
            Self::Held { .. } => Some("nothing was changed; wait until that is done, or do the rest without it".into()),
            Self::Frozen { .. } => Some("nothing was changed; `labwright thaw` lets plans be applied again".into()),
            Self::Overtaken { path, .. } => Some(format!(
                "nothing more was begun here; somebody must have taken {}.lock away while it was held: wait until the other apply is done, then run `labwright apply` again",
                path.display()
            )),
            Self::TrialUnderWay { .. } => Some("nothing was changed; wait until it is done".into()),
            Self::Locked { .. } => Some("wait until it is done; the lock ends with that process".into()),
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("the disk is full; nothing was lost: make room and run the command again".into())
            }
            Self::Sql { source, .. } if is_full(source) => {
                Some("the disk is full; nothing was lost: make room and run the command again".into())
            }
            Self::Sql { source, .. } if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                Some("another process is writing; run the command again".into())
            }
            Self::Sql { source, .. } => match source.sqlite_error_code() {
                // A file system that is mounted read-only lets SQLite not even open its journal.
                Some(rusqlite::ErrorCode::ReadOnly | rusqlite::ErrorCode::CannotOpen) => {
                    Some("the state or its folder is not writable for you; `sudo` may be what is missing".into())
                }
                _ => None,
            },
            Self::Row { .. } => Some(
                "nothing was changed: a guard may hang on it; use the labwright that wrote it, or a newer one".into(),
            ),
            Self::Io { .. } => None,
        }
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    // The index of the write-ahead log is memory backed by a file: SQLite has a word of its own for it not to fit.
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
        || code == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

/// An open state file.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    /// It was opened by somebody who may only look.
    read_only: bool,
    /// The file that was opened; `None` of a copy in memory.
    file: Option<Identity>,
    /// The apply that was begun here, as long as it runs.
    at_work: Option<AtWork>,
    /// Dropped after the connection, when the file is as the next one finds it. `None` of files that nobody opens again as
    /// they are, and of those who may only look.
    seal: Option<Seal>,
    /// Dropped last: then it is anybody's.
    in_use: Option<InUse>,
}

impl Store {
    /// Opens an existing state, checks it where it may be damaged, and brings older tables up to date; a copy of the older
    /// file is kept beside it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        Self::refuse_missing(path)?;
        refuse_foreign(path)?;
        let in_use = InUse::with_others(path)?;
        let store = Self::open_unchecked(path)?;
        let checked_at = store.check_where_in_doubt()?;
        if store.is_older()? {
            drop((store, in_use));
            return Self::open_alone(path, InUse::alone(path)?, checked_at);
        }
        Ok(store.shared(in_use, checked_at))
    }

    /// The same where nobody else has it open: then its tables may be changed.
    fn open_alone(path: &Path, alone: InUse, checked_at: jiff::Timestamp) -> Result<Self, StateError> {
        let mut store = Self::open_unchecked(path)?;
        store.bring_up_to_date()?;
        Ok(store.shared(Some(alone.shared(path)?), checked_at))
    }

    fn shared(mut self, in_use: Option<InUse>, checked_at: jiff::Timestamp) -> Self {
        self.in_use = in_use;
        self.seal = Some(Seal { state: self.path.clone(), checked_at });
        self
    }

    fn refuse_missing(path: &Path) -> Result<(), StateError> {
        match path.try_exists() {
            Ok(true) => Ok(()),
            Ok(false) => Err(StateError::Missing { path: path.to_owned() }),
            Err(source) => Err(StateError::Io { action: "look for", path: path.to_owned(), source }),
        }
    }

    fn open_unchecked(path: &Path) -> Result<Self, StateError> {
        Self::refuse_missing(path)?;
        refuse_foreign(path)?;
        Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    /// Whether its tables are those of an older program; an error where they are not known.
    fn is_older(&self) -> Result<bool, StateError> {
        let path = self.path.clone();
        match schema::version(&self.connection).map_err(|source| self.sql("read the version", source))? {
            0 => Err(StateError::Damaged { path, detail: "it holds no tables of labwright".into() }),
            found if found > schema::VERSION => Err(StateError::Newer { path, found, known: schema::VERSION }),
            found => Ok(found < schema::VERSION),
        }
    }

    fn bring_up_to_date(&mut self) -> Result<(), StateError> {
        if !self.is_older()? {
            return Ok(());
        }
        let older = schema::version(&self.connection).map_err(|source| self.sql("read the version", source))?;
        self.copy_to(&sibling(&self.path, &format!("v{older}")))?;
        schema::migrate(&mut self.connection, older).map_err(|source| self.sql("bring the tables up to date", source))
    }

    /// Refuses where the path leads to another file by now: what was read and what is written would be of two states.
    fn refuse_replaced(&self) -> Result<(), StateError> {
        match self.file {
            Some(file) if Identity::of(&self.path) != Some(file) => {
                Err(StateError::Replaced { path: self.path.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Makes a new state; the folder must not hold one.
    pub fn create(path: &Path, now: jiff::Timestamp) -> Result<Self, StateError> {
        let io = |action, path: &Path, source| StateError::Io { action, path: path.to_owned(), source };
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|source| io("create", folder, source))?;
        refuse_foreign(folder)?;
        if path.try_exists().map_err(|source| io("look for", path, source))? {
            return Err(StateError::Exists { path: path.to_owned() });
        }
        let (tag, lineage) = draw_identity().map_err(|source| io("read", Path::new("/dev/urandom"), source))?;
        let unfinished = sibling(path, "new");
        remove_if_there(&unfinished)?;
        {
            let mut store =
                Self::connect(&unfinished, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
            // Set once, since the file keeps it: to set it at each opening would write to files that are then refused.
            store
                .connection
                .execute_batch("PRAGMA journal_mode = WAL")
                .map_err(|source| store.sql("create the tables", source))?;
            schema::migrate(&mut store.connection, 0).map_err(|source| store.sql("create the tables", source))?;
            store
                .connection
                .execute(
                    "INSERT INTO site (tag, lineage, created_at, next_run) VALUES (?1, ?2, ?3, 1)",
                    (tag.as_str(), &lineage, now.to_string()),
                )
                .and_then(|_| store.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"))
                .map_err(|source| store.sql("write the site's row", source))?;
        }
        private::owners_alone(&unfinished)?;
        // The name appears only with a whole state behind it: a half-made one would be taken for damaged.
        std::fs::rename(&unfinished, path).map_err(|source| io("put in place", path, source))?;
        Self::open(path)
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self, StateError> {
        let sql = |source| StateError::Sql { action: "open the state", path: path.to_owned(), source };
        let before = Identity::of(path);
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(sql)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(sql)?;
        let store = Self {
            connection,
            path: path.to_owned(),
            read_only: false,
            file: before.or_else(|| Identity::of(path)),
            at_work: None,
            in_use: None,
            seal: None,
        };
        // A cache of 64 MiB holds a state of 30,000 vms. Pages that are read are looked at, also where not all of them are.
        store
            .connection
            .execute_batch(
                "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA cache_size = -65536; PRAGMA cell_size_check = ON",
            )
            .map_err(|source| store.sql("open the state", source))?;
        Ok(store)
    }

    /// Reads every page's structure, unless the file is as it was when that was last done; a torn page must stop us before
    /// anything is decided from it. Answers when it was done.
    fn check_where_in_doubt(&self) -> Result<jiff::Timestamp, StateError> {
        let now = jiff::Timestamp::now();
        match seal::sound_since(&self.path, now) {
            Some(checked_at) => Ok(checked_at),
            None => self.check("PRAGMA quick_check(1)").map(|()| now),
        }
    }

    fn check(&self, pragma: &str) -> Result<(), StateError> {
        let verdict: String = self
            .connection
            .query_row(pragma, [], |row| row.get(0))
            .map_err(|source| self.sql("check the state", source))?;
        if verdict == "ok" { Ok(()) } else { Err(StateError::Damaged { path: self.path.clone(), detail: verdict }) }
    }

    /// Reads all of the file at `path`, indexes too. Changes nothing.
    pub fn check_all(path: &Path) -> Result<(), StateError> {
        let mut store = Self::open_unchecked(path)?;
        store.check("PRAGMA integrity_check(1)")?;
        store.seal = Some(Seal { state: path.to_owned(), checked_at: jiff::Timestamp::now() });
        Ok(())
    }

    /// Writes a whole, consistent copy of the state, while it is in use. `target` appears with all of it or not at all.
    pub fn backup(&self, target: &Path) -> Result<(), StateError> {
        let io = |action, source| StateError::Io { action, path: target.to_owned(), source };
        if target.try_exists().map_err(|source| io("look for", source))? {
            return Err(StateError::Exists { path: target.to_owned() });
        }
        // A copy of what is damaged would be found so on the day when it is needed.
        self.check("PRAGMA quick_check(1)")?;
        let unfinished = sibling(target, "new");
        remove_if_there(&unfinished)?;
        let placed = self.copy_to(&unfinished).and_then(|()| {
            // A link never replaces a file that came meanwhile.
            std::fs::hard_link(&unfinished, target).map_err(|source| io("put in place", source))
        });
        let removed = remove_if_there(&unfinished);
        placed.and(removed)
    }

    /// Puts a copy in the place of the state, which is kept beside it under the name that is answered. `next_run` is the
    /// first number that no run has had: the copy does not know of runs that began after it was made, and one number for
    /// two runs would be two guests on one disk.
    pub fn restore(
        path: &Path,
        copy: &Path,
        next_run: u64,
        now: jiff::Timestamp,
    ) -> Result<Option<PathBuf>, StateError> {
        let io = |action, path: &Path, source| StateError::Io { action, path: path.to_owned(), source };
        let alone = InUse::alone(path)?;
        // Opened first: a copy that is damaged, foreign or too new must not take the place of anything.
        let mut source = Self::open_unchecked(copy)?;
        source.check("PRAGMA quick_check(1)")?;
        source.bring_up_to_date()?;
        let unfinished = sibling(path, "restored");
        remove_if_there(&unfinished)?;
        source.copy_to(&unfinished)?;
        {
            let copied = Self::connect(&unfinished, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            copied
                .connection
                .execute(
                    // It lives where it is put; what it describes may have moved since, or may not.
                    "UPDATE site SET next_run = MAX(next_run, ?1), home = json_set(home, '$.state', ?2)",
                    (next_run, real(path).to_string_lossy()),
                )
                .and_then(|_| copied.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"))
                .map_err(|source| copied.sql("raise the number of the next run", source))?;
        }
        let replaced = path.try_exists().map_err(|source| io("look for", path, source))?;
        let kept = sibling(path, &format!("before-{}", now.strftime("%Y%m%dT%H%M%SZ")));
        if replaced {
            std::fs::rename(path, &kept).map_err(|source| io("keep", path, source))?;
            for suffix in [LOG, "-shm"] {
                let of_sqlite = with_suffix(path, suffix);
                match std::fs::rename(&of_sqlite, with_suffix(&kept, suffix)) {
                    Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                        return Err(io("keep", &of_sqlite, source));
                    }
                    _ => {}
                }
            }
        }
        std::fs::rename(&unfinished, path).map_err(|source| io("put in place", path, source))?;
        Self::open_alone(path, alone, now)?;
        Ok(replaced.then_some(kept))
    }

    fn copy_to(&self, target: &Path) -> Result<(), StateError> {
        let copied = self.connection.backup("main", target, None::<fn(rusqlite::backup::Progress)>);
        copied.map_err(|source| StateError::Sql {
            action: "write a copy of the state",
            path: target.to_owned(),
            source,
        })?;
        private::owners_alone(target)?;
        let flushed = std::fs::File::open(target).and_then(|copy| copy.sync_all());
        flushed.map_err(|source| StateError::Io { action: "flush", path: target.to_owned(), source })
    }

    /// Turns SQLite's words for a damaged or foreign file into ours.
    fn sql(&self, action: &'static str, source: rusqlite::Error) -> StateError {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match source.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => {
                StateError::Damaged { path: self.path.clone(), detail: source.to_string() }
            }
            _ => StateError::Sql { action, path: self.path.clone(), source },
        }
    }

    /// The state's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The real path of a file that may not be there yet.
fn real(path: &Path) -> PathBuf {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    folder.zip(path.file_name()).map_or_else(|| path.to_owned(), |(folder, name)| folder.join(name))
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    with_suffix(path, &format!(".{suffix}"))
}

/// SQLite's write-ahead log has the state's name with this behind it.
const LOG: &str = "-wal";

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove_if_there(path: &Path) -> Result<(), StateError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StateError::Io { action: "remove the unfinished", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// A tag and a lineage, from the kernel's randomness.
fn draw_identity() -> std::io::Result<(SiteTag, String)> {
    use std::io::Read as _;
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0_u8; 20];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let tag: String = bytes[..SiteTag::BYTES].iter().map(|b| char::from(LETTERS[usize::from(b % 32)])).collect();
    let lineage = hexadecimal(&bytes[SiteTag::BYTES..]);
    Ok((SiteTag::new(tag).expect("four of the allowed letters"), lineage))
}
