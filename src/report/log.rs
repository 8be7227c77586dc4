//! What the program says of its own doings, for us: `LABWRIGHT_LOG=debug` shows it. A starter says what it reports and what
//! worries it in any case, in its job's log. That is on shared storage, which may hang: a thread of its own writes it, and
//! words that it cannot take are lost rather than waited for.

use std::io::{Result, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::prelude::*;

/// Lines that may wait for storage.
const LINES_MAX: usize = 256;
/// How long the end of the program waits for its last lines to be written.
const END_WAIT: Duration = Duration::from_secs(2);

/// A log that is written beside everything else.
#[derive(Debug)]
pub struct Log {
    lines: SyncSender<Line>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
enum Line {
    Text(Vec<u8>),
    End,
}

/// Shows what `LABWRIGHT_LOG` asks for on standard error.
pub fn start() {
    let lines = layer().with_writer(std::io::stderr).with_filter(filter("off"));
    tracing_subscriber::registry().with(lines).init();
}

/// The same and at least what a job's log should have, without ever waiting for its storage.
pub fn start_of_job() -> Option<Log> {
    let (lines, written) = sync_channel(LINES_MAX);
    // The starter reads signals as data, which works only where no thread takes them in another way.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).ok()?;
    let spawned = std::thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&written));
    before.thread_set_mask().ok()?;
    // Without threads there will be no guest either, and the reason is told otherwise.
    let thread = spawned.ok()?;
    let log = Log { lines: lines.clone(), thread };
    let layer = layer().with_ansi(false).with_writer(move || Beside(lines.clone())).with_filter(filter("info"));
    tracing_subscriber::registry().with(layer).init();
    Some(log)
}

/// Levels, such as `debug` or `labwright::host=trace,warn`.
fn filter(otherwise: &str) -> Targets {
    let asked =
        std::env::var("LABWRIGHT_LOG").ok().filter(|asked| !asked.is_empty()).and_then(|asked| asked.parse().ok());
    asked.unwrap_or_else(|| otherwise.parse().expect("a level is a filter"))
}

impl Log {
    /// Waits a moment for the last lines.
    pub fn end(self) {
        let deadline = Instant::now() + END_WAIT;
        // A log that is full will not be written in time either.
        if self.lines.try_send(Line::End).is_ok() {
            while !self.thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

fn write_all(lines: &Receiver<Line>) {
    while let Ok(Line::Text(line)) = lines.recv() {
        // There is nowhere to say that the log cannot be written.
        drop(std::io::stderr().write_all(&line));
    }
}

struct Beside(SyncSender<Line>);

impl Write for Beside {
    fn write(&mut self, line: &[u8]) -> Result<usize> {
        drop(self.0.try_send(Line::Text(line.to_vec())));
        Ok(line.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
