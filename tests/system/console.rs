//! A guest asked over its serial port.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Guests boot by translation, on machines that do other work beside.
pub(crate) const BOOT_WAIT: Duration = Duration::from_secs(300);

/// The line agent of the quickstart guest.
pub(crate) struct Console {
    lines: BufReader<UnixStream>,
}

impl Console {
    pub(crate) fn open(path: &Path) -> Self {
        let started = Instant::now();
        loop {
            if let Ok(stream) = UnixStream::connect(path) {
                stream.set_read_timeout(Some(BOOT_WAIT)).unwrap();
                let mut console = Self { lines: BufReader::new(stream) };
                // Whatever the boot has printed ends before the first answer.
                console.lines.get_mut().write_all(b"\n").unwrap();
                console.run("true");
                return console;
            }
            assert!(started.elapsed() < BOOT_WAIT, "the console {} never came", path.display());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Has the guest run a shell line, and waits for nothing.
    pub(crate) fn send(&mut self, line: &str) {
        writeln!(self.lines.get_mut(), "{line}").unwrap();
    }

    /// Has the guest begin with a shell line, which it has when this returns.
    pub(crate) fn begin(&mut self, line: &str) {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        let mark = format!("@{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        self.send(&format!("echo {mark}; {line}"));
        loop {
            let text = self.line();
            if text.ends_with(&mark) && !text.contains("echo") {
                return;
            }
        }
    }

    /// Runs a shell line in the guest; its exit code and output.
    pub(crate) fn run(&mut self, line: &str) -> (i32, String) {
        self.begin(line);
        let mut output = String::new();
        loop {
            let text = self.line();
            if let Some(code) = text.strip_prefix("##END ") {
                return (code.parse().unwrap(), output);
            }
            output.push_str(&text);
            output.push('\n');
        }
    }

    fn line(&mut self) -> String {
        let mut text = String::new();
        self.lines.read_line(&mut text).expect("the guest answers");
        text.trim_end().to_owned()
    }
}
