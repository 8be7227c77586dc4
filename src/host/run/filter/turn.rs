//! Whose turn it is to change the rules of this host. The kernel begins a listing anew whenever somebody changes rules
//! meanwhile, so that a hundred starters that write at one moment would keep each other's reading back from ever ending.
//! They take turns instead: for one change and its reading back, in nftables and ebtables alike.
//!
//! ```text
//! /run/labwright/rules.turn    root's; who has it locked changes rules, who waits for it is counted by the kernel.
//!                              It holds the last generation of rules in which the host's own were read back and stood
//! ```
//!
//! The kernel takes the lock back from a holder that ends. A holder may also be suspended, by a batch system for example,
//! and nobody knows for how long: who has waited for one holder for `PATIENCE` goes on without, as slowly as all did before
//! there were turns, and says so. A line that moves is waited in, however long it is: with those who go on without, it would
//! move no more. So a turn is for speed and never for truth, and whatever keeps it from being taken fails nothing.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{major, minor};

use super::generation::Generation;

/// A change takes between 10 ms and some 100, on a host of a hundred runs that is busy with them.
const PATIENCE: Duration = Duration::from_secs(10);
const FILE: &str = "rules.turn";

/// Where a process waits for its turn.
#[derive(Debug)]
pub struct Turns {
    path: PathBuf,
    patience: Duration,
    /// Whether the line is waited in, for who watches over this process.
    is_in_line: Arc<AtomicBool>,
    /// A place that was given up. It is taken again, so that a process never has more than one.
    given_up: Option<Arc<Place>>,
}

/// Held for one change and its reading back.
#[derive(Debug)]
#[must_use = "a turn ends when it is dropped"]
pub struct Turn {
    lock: Option<Flock<File>>,
    missed: Option<NoTurn>,
}

/// Why rules were changed out of turn. Nothing is wrong with them.
#[derive(Debug, thiserror::Error)]
pub enum NoTurn {
    #[error(
        "rules of this host were changed out of turn: another program has kept {path} for {} s, and {waiting} wait for it",
        waited.as_secs()
    )]
    Overdue { path: PathBuf, waited: Duration, waiting: usize },
    #[error("rules of this host were changed out of turn: cannot lock {path}")]
    Lock { path: PathBuf, source: std::io::Error },
}

impl Turns {
    /// Nothing is opened or made before a turn is taken.
    pub fn new(run_root: &Path) -> Self {
        Self { path: run_root.join(FILE), patience: PATIENCE, is_in_line: Arc::default(), given_up: None }
    }

    /// Waits for this process's turn, or goes without.
    pub fn take(&mut self) -> Turn {
        self.is_in_line.store(true, Ordering::Relaxed);
        let waited = self.wait();
        self.is_in_line.store(false, Ordering::Relaxed);
        match waited {
            Ok(lock) => Turn::begin(lock),
            Err(missed) => {
                tracing::warn!(error = %crate::error::chain(&missed));
                Turn { lock: None, missed: Some(missed) }
            }
        }
    }

    /// Tells another thread whether the line is waited in.
    pub fn in_line(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_in_line)
    }

    /// A turn, where nobody else has it.
    pub fn take_if_free(&self) -> Option<Turn> {
        match self.try_lock() {
            Ok(Ok(lock)) => Some(Turn::begin(lock)),
            Ok(Err(_)) => None,
            // Turns that nobody can take hold nobody up.
            Err(missed) => Some(Turn { lock: None, missed: Some(missed) }),
        }
    }

    /// How many wait for their turn now; as far as the kernel shows them to this process.
    pub fn waiting(&self) -> usize {
        let Ok(file) = std::fs::symlink_metadata(&self.path) else { return 0 };
        let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
        waiters(&locks, &format!("{:02x}:{:02x}:{}", major(file.dev()), minor(file.dev()), file.ino()))
    }

    fn wait(&mut self) -> Result<Flock<File>, NoTurn> {
        loop {
            let holder = self.holder_since();
            let place = match self.given_up.take().filter(|place| place.take_again()) {
                Some(place) => place,
                None => match self.try_lock()? {
                    Ok(lock) => return Ok(lock),
                    Err(file) => Place::queue(file).map_err(|source| self.failed(source))?,
                },
            };
            if let Some(locked) = place.wait(self.patience) {
                return locked.map_err(|errno| self.failed(errno.into()));
            }
            self.given_up = Some(place);
            if self.holder_since() == holder {
                let waiting = self.waiting();
                return Err(NoTurn::Overdue { path: self.path.clone(), waited: self.patience, waiting });
            }
        }
    }

    fn holder_since(&self) -> Option<SystemTime> {
        std::fs::symlink_metadata(&self.path).and_then(|file| file.modified()).ok()
    }

    /// The lock, or the file where somebody else has it locked.
    fn try_lock(&self) -> Result<Result<Flock<File>, File>, NoTurn> {
        let file = self.open().map_err(|source| self.failed(source))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Ok(lock)),
            Err((file, Errno::EWOULDBLOCK)) => Ok(Err(file)),
            Err((_, errno)) => Err(self.failed(errno.into())),
        }
    }

    fn failed(&self, source: std::io::Error) -> NoTurn {
        NoTurn::Lock { path: self.path.clone(), source }
    }

    fn open(&self) -> std::io::Result<File> {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let file = options.open(&self.path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::Error::other("it is not a plain file")) }
    }
}

impl Turn {
    /// The time of the file tells those who wait that there is another holder. Nothing hangs on it but how long they wait.
    fn begin(lock: Flock<File>) -> Self {
        drop(lock.set_modified(SystemTime::now()));
        Self { lock: Some(lock), missed: None }
    }

    /// Whether somebody in turn has read the host's own rules in this generation, so that nobody need read them again.
    pub fn knows(&self, generation: Generation) -> bool {
        let Some(lock) = &self.lock else { return false };
        let mut noted = [0; NOTE_BYTES];
        matches!(lock.read_at(&mut noted, 0), Ok(NOTE_BYTES)) && noted == *note(generation).as_bytes()
    }

    /// Tells those who come after. Whoever finds nothing reads for itself.
    pub fn tell(&self, generation: Generation) {
        if let Some(lock) = &self.lock {
            drop(lock.write_all_at(note(generation).as_bytes(), 0));
        }
    }

    /// Why this change is out of turn, if it is.
    pub fn missed(&mut self) -> Option<NoTurn> {
        self.missed.take()
    }
}

const NOTE_BYTES: usize = 30;

fn note(Generation { namespace, number }: Generation) -> String {
    format!("{namespace:020} {number:08x}\n")
}

/// A place in the kernel's line, kept by a thread of its own.
#[derive(Debug, Default)]
struct Place {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Waited,
    /// The turn will end as it begins.
    GivenUp,
    Come(Result<Flock<File>, Errno>),
    Over,
}

impl Place {
    fn queue(file: File) -> std::io::Result<Arc<Self>> {
        let place = Arc::new(Self::default());
        let own = Arc::clone(&place);
        std::thread::Builder::new().name("turn".to_owned()).stack_size(64 << 10).spawn(move || {
            let locked = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
            let mut state = own.state();
            *state = if matches!(*state, State::Waited) { State::Come(locked) } else { State::Over };
            own.changed.notify_one();
        })?;
        Ok(place)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a place that was given up is still kept.
    fn take_again(&self) -> bool {
        let mut state = self.state();
        let is_kept = matches!(*state, State::GivenUp);
        if is_kept {
            *state = State::Waited;
        }
        is_kept
    }

    /// The turn, unless it does not come within `patience`.
    fn wait(&self, patience: Duration) -> Option<Result<Flock<File>, Errno>> {
        let waited = self.changed.wait_timeout_while(self.state(), patience, |state| matches!(state, State::Waited));
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        match std::mem::replace(&mut *state, State::Over) {
            State::Come(locked) => Some(locked),
            _ => {
                *state = State::GivenUp;
                None
            }
        }
    }
}

/// `7: -> FLOCK ADVISORY WRITE 4711 00:1a:99 0 EOF` waits for a lock on the file 99 of 00:1a.
fn waiters(locks: &str, file: &str) -> usize {
    let waits = |line: &&str| line.contains(" -> ") && line.split_whitespace().any(|word| word == file);
    locks.lines().filter(waits).count()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::AtomicU32;
    use std::time::Instant;

    use super::*;

    fn impatient(root: &Path) -> Turns {
        Turns { patience: Duration::from_millis(20), ..Turns::new(root) }
    }

    #[test]
    fn one_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let (inside, turns) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let mut own = Turns::new(root.path());
                    for _ in 0..20 {
                        let mut turn = own.take();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "somebody else has the turn");
                        assert!(turn.missed().is_none());
                        turns.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(turns.into_inner(), 16 * 20);
        let mode = root.path().join(FILE).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn who_has_waited_long_enough_goes_without_and_says_so() {
        let root = tempfile::tempdir().unwrap();
        let held = Turns::new(root.path()).take();
        let mut late = impatient(root.path());
        assert!(late.take_if_free().is_none());
        assert!(matches!(late.take().missed(), Some(NoTurn::Overdue { .. })));
        while late.waiting() == 0 {
            std::thread::yield_now();
        }
        // It still waits, but never twice.
        let said = late.take().missed().unwrap().to_string();
        let path = root.path().join(FILE);
        let expected = format!(
            "rules of this host were changed out of turn: another program has kept {} for 0 s, and 1 wait for it",
            path.display()
        );
        assert_eq!(said, expected);
        drop(held);
        late.patience = PATIENCE;
        let mut turn = late.take();
        assert!(turn.missed().is_none());
        assert_eq!(late.waiting(), 0);
        drop(turn);
        assert!(late.take_if_free().unwrap().missed().is_none());
    }

    #[test]
    fn a_line_that_moves_is_waited_in() {
        let root = tempfile::tempdir().unwrap();
        let held = Turns::new(root.path()).take();
        let mut last = Turns { patience: Duration::from_millis(700), ..Turns::new(root.path()) };
        std::thread::scope(|scope| {
            let last = scope.spawn(|| last.take());
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(1700) {
                // As each of many holders does, one after the other.
                held.lock.as_ref().unwrap().set_modified(SystemTime::now()).unwrap();
                std::thread::yield_now();
            }
            assert!(!last.is_finished(), "it went on without its turn");
            drop(held);
            assert!(last.join().unwrap().missed().is_none());
        });
    }

    /// Also while its process lives, and does other things.
    #[test]
    fn a_turn_that_nobody_waits_for_any_more_ends_as_it_begins() {
        let root = tempfile::tempdir().unwrap();
        let held = Turns::new(root.path()).take();
        let mut late = impatient(root.path());
        assert!(late.take().missed().is_some());
        while late.waiting() == 0 {
            std::thread::yield_now();
        }
        let mut next = Turns::new(root.path());
        std::thread::scope(|scope| {
            let next = scope.spawn(|| next.take());
            while late.waiting() == 1 {
                std::thread::yield_now();
            }
            drop(held);
            assert!(next.join().unwrap().missed().is_none());
        });
        assert!(late.take().missed().is_none());
    }

    #[test]
    fn who_comes_next_knows_what_was_read_in_turn_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let now = Generation { namespace: 4026531840, number: 7 };
        let mut turns = Turns::new(root.path());
        let first = turns.take();
        assert!(!first.knows(now), "nobody has told anything");
        first.tell(now);
        let mut other = impatient(root.path());
        let without = other.take();
        assert!(!without.knows(now), "who has no turn reads for itself");
        without.tell(Generation { number: 8, ..now });
        drop(first);
        let next = turns.take();
        assert!(next.knows(now));
        assert!(!next.knows(Generation { number: 8, ..now }));
        assert!(!next.knows(Generation { namespace: 1, ..now }), "another network has rules of its own");
    }

    /// Root follows no link and waits for no pipe.
    #[test]
    fn what_cannot_be_locked_holds_nobody_up() {
        let root = tempfile::tempdir().unwrap();
        let (file, target) = (root.path().join(FILE), root.path().join("target"));
        std::os::unix::fs::symlink(&target, &file).unwrap();
        assert!(matches!(Turns::new(root.path()).take().missed(), Some(NoTurn::Lock { .. })));
        assert!(!target.exists());
        std::fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(Turns::new(root.path()).take().missed(), Some(NoTurn::Lock { .. })));
        assert!(matches!(Turns::new(&root.path().join("absent")).take().missed(), Some(NoTurn::Lock { .. })));
    }

    #[test]
    fn only_who_waits_for_this_file_is_counted() {
        let locks = "1: FLOCK  ADVISORY  WRITE 17 00:1a:99 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 18 00:1a:99 0 EOF\n\
            1:  -> FLOCK  ADVISORY  WRITE 19 00:1a:99 0 EOF\n2: FLOCK  ADVISORY  WRITE 20 00:1a:990 0 EOF\n\
            2: -> FLOCK  ADVISORY  WRITE 21 00:1a:990 0 EOF\n";
        assert_eq!(waiters(locks, "00:1a:99"), 2);
        assert_eq!(waiters(locks, "00:1b:99"), 0);
    }
}
