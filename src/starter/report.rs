//! `report.jsonl` as its one writer keeps it: each record whole and flushed, also where a write or a flush failed before.
//!
//! The report stays small: a heartbeat is written over the one before it, to the same length, so that a reader who comes
//! in between sees one or the other, or a mixture of their digits, but always a whole line.

use std::fs::{File, OpenOptions};
use std::io::Result as IoResult;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::{SignedDuration, Timestamp};

use super::machine::{OBEYS, Reply};
use crate::files::{self, Flush};
use crate::model::id::RunId;
use crate::run::{ANSWERS, Event, REPORT, Record, RunFileError, RunSpec};

/// A write that takes longer says nothing of clocks.
const WRITE_MAX: Duration = Duration::from_secs(1);

/// What the two threads share.
#[derive(Debug)]
pub(super) struct Pulse {
    pub written: Mutex<Instant>,
    pub clock_offset_ms: AtomicI64,
}

impl Pulse {
    /// The storage server's time.
    pub(super) fn server(&self) -> Timestamp {
        let here = Timestamp::now();
        let offset = SignedDuration::from_millis(self.clock_offset_ms.load(Ordering::Relaxed));
        // A clock so wrong that the sum is no time at all is believed as it is.
        here.checked_sub(offset).unwrap_or(here)
    }
}

#[derive(Debug)]
pub(super) enum Order {
    Record(Event),
    Answer { number: u64, result: Reply },
    Finish(Event),
}

/// A report, opened. A file of a server may fail at each of these.
pub(super) trait ReportFile {
    fn bytes(&self) -> IoResult<u64>;
    fn cut(&self, bytes: u64) -> IoResult<()>;
    fn put_at(&self, line: &[u8], at: u64) -> IoResult<()>;
    fn flush(&self) -> IoResult<()>;
    fn modified(&self) -> IoResult<SystemTime>;
}

impl ReportFile for File {
    fn bytes(&self) -> IoResult<u64> {
        Ok(self.metadata()?.len())
    }

    fn cut(&self, bytes: u64) -> IoResult<()> {
        self.set_len(bytes)
    }

    fn put_at(&self, line: &[u8], at: u64) -> IoResult<()> {
        self.write_all_at(line, at)
    }

    fn flush(&self) -> IoResult<()> {
        self.sync_data()
    }

    fn modified(&self) -> IoResult<SystemTime> {
        self.metadata()?.modified()
    }
}

fn open(path: &Path) -> IoResult<Box<dyn ReportFile>> {
    Ok(Box::new(OpenOptions::new().write(true).open(path)?))
}

/// Puts a line where it belongs. What reaches beyond it is of a write that failed, and goes first: a reader must not find
/// its end behind the new line.
fn put(file: &dyn ReportFile, line: &[u8], at: u64) -> IoResult<()> {
    if file.bytes()? > at + line.len() as u64 {
        file.cut(at)?;
    }
    file.put_at(line, at)?;
    file.flush()
}

/// The report's one writer.
pub(super) struct Writer {
    pub folder: PathBuf,
    report: PathBuf,
    run: RunId,
    generation: u64,
    pub heartbeat: Duration,
    /// Length of what is written for good; a failed write is repeated at the same place.
    end: u64,
    /// Where the last record begins, if that is a heartbeat.
    last_heartbeat: Option<u64>,
    pulse: Arc<Pulse>,
    open: fn(&Path) -> std::io::Result<Box<dyn ReportFile>>,
}

impl Writer {
    /// The storage server's time.
    pub(super) fn server(&self) -> Timestamp {
        self.pulse.server()
    }

    /// Of a report that was just made.
    pub(super) fn new(folder: &Path, spec: &RunSpec, pulse: Arc<Pulse>) -> Self {
        Self {
            folder: folder.to_owned(),
            report: folder.join(REPORT),
            run: spec.run.clone(),
            generation: spec.generation,
            heartbeat: Duration::from_secs(spec.timing.heartbeat_seconds),
            end: 0,
            last_heartbeat: None,
            pulse,
            open,
        }
    }

    pub(super) fn pulse_age(&self) -> Duration {
        self.pulse.written.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    pub(super) fn carry_out(&mut self, order: &Order) -> Result<(), RunFileError> {
        match order {
            Order::Record(event) | Order::Finish(event) => self.write(event.clone()),
            Order::Answer { number, result } => {
                let event = match result {
                    Ok(None) => Event::Answer { number: *number, file: None, error: None },
                    Ok(Some(picture)) => {
                        let file = format!("{number}.png");
                        self.write_answer(&file, picture)?;
                        Event::Answer { number: *number, file: Some(file), error: None }
                    }
                    Err(error) => Event::Answer { number: *number, file: None, error: Some(error.clone()) },
                };
                self.write(event)
            }
        }
    }

    fn write_answer(&self, name: &str, content: &[u8]) -> Result<(), RunFileError> {
        let answers = self.folder.join(ANSWERS);
        std::fs::create_dir_all(&answers).map_err(|source| RunFileError::Io {
            action: "create",
            path: answers.clone(),
            source,
        })?;
        Ok(files::write_atomically(&answers.join(name), content, 0o640, Flush::Now)?)
    }

    /// Opened anew each time, as the protocol asks: a descriptor held open may point to a file that is no more.
    fn write(&mut self, event: Event) -> Result<(), RunFileError> {
        let beats = event == Event::Heartbeat;
        let at = if beats { self.last_heartbeat.unwrap_or(self.end) } else { self.end };
        // Whole seconds, so that every heartbeat has the same length.
        let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second());
        let now = now.expect("a second that was now is in the range of timestamps");
        let version = (at == 0).then_some(Record::VERSION);
        let obeys = (at == 0).then(|| OBEYS.map(str::to_owned).to_vec());
        let record = Record { version, obeys, run: self.run.clone(), generation: self.generation, at: now, event };
        let mut line = serde_json::to_vec(&record).expect("a record has only string keys");
        line.push(b'\n');
        let io = |source| RunFileError::Io { action: "write", path: self.report.clone(), source };
        let file = (self.open)(&self.report).map_err(io)?;
        let (began, before) = (Instant::now(), SystemTime::now());
        put(&*file, &line, at).map_err(io)?;
        self.note_clock(&*file, before);
        self.end = at + line.len() as u64;
        self.last_heartbeat = beats.then_some(at);
        *self.pulse.written.lock().unwrap_or_else(PoisonError::into_inner) = began;
        Ok(())
    }

    /// The server stamps what we write with its own clock. Of a write that took long nobody knows when that was.
    fn note_clock(&self, file: &dyn ReportFile, before: SystemTime) {
        let is_known = self.end > 0;
        if is_known && before.elapsed().is_ok_and(|took| took > WRITE_MAX) {
            return;
        }
        let Ok(stamp) = file.modified() else { return };
        let signed = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let offset = match before.duration_since(stamp) {
            Ok(ahead) => signed(ahead),
            Err(behind) => -signed(behind.duration()),
        };
        self.pulse.clock_offset_ms.store(offset, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::run::formats::SPEC_1;
    use crate::run::read_report;

    /// Takes everything, and fails to flush while it is told to.
    struct Failing(File);

    static FAILS: AtomicBool = AtomicBool::new(false);

    impl ReportFile for Failing {
        fn bytes(&self) -> IoResult<u64> {
            self.0.bytes()
        }

        fn cut(&self, bytes: u64) -> IoResult<()> {
            self.0.cut(bytes)
        }

        fn put_at(&self, line: &[u8], at: u64) -> IoResult<()> {
            self.0.put_at(line, at)
        }

        fn flush(&self) -> IoResult<()> {
            if FAILS.load(Ordering::Relaxed) { Err(std::io::ErrorKind::StorageFull.into()) } else { self.0.flush() }
        }

        fn modified(&self) -> IoResult<SystemTime> {
            self.0.modified()
        }
    }

    /// The server takes a record and cannot flush it: nobody may count on it, and what comes next is as long as it is.
    #[test]
    fn a_flush_that_fails_loses_nothing_and_garbles_nothing() {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join(REPORT)).unwrap();
        let long_ago = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let pulse = Arc::new(Pulse { written: Mutex::new(long_ago), clock_offset_ms: AtomicI64::new(0) });
        let spec: RunSpec = serde_json::from_str(SPEC_1).unwrap();
        let mut writer = Writer::new(folder.path(), &spec, Arc::clone(&pulse));
        writer.open = |path| Ok(Box::new(Failing(OpenOptions::new().write(true).open(path)?)));
        let events = || read_report(folder.path()).unwrap().into_iter().map(|record| record.event).collect::<Vec<_>>();
        let record = |event: &Event| Order::Record(event.clone());

        let prepared = Event::Prepared { host: "h1".into() };
        let long = Event::Warning { message: "long".repeat(100) };
        for (refused, next) in
            [(&Event::Heartbeat, &Event::Ready), (&long, &Event::Heartbeat), (&long, &Event::Resumed)]
        {
            let before = events();
            FAILS.store(true, Ordering::Relaxed);
            assert!(writer.carry_out(&record(refused)).is_err());
            FAILS.store(false, Ordering::Relaxed);
            writer.carry_out(&record(next)).unwrap();
            assert_eq!(events(), [before, vec![next.clone()]].concat(), "after {refused:?}");
        }
        // The next heartbeat goes over none but its like.
        writer.carry_out(&record(&Event::Heartbeat)).unwrap();
        writer.carry_out(&record(&Event::Heartbeat)).unwrap();
        writer.carry_out(&record(&prepared)).unwrap();
        let expected = [Event::Ready, Event::Heartbeat, Event::Resumed, Event::Heartbeat, prepared];
        assert_eq!(events(), expected);
        assert!(*pulse.written.lock().unwrap() > long_ago);
    }
}
