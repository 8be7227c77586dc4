//! qemu's monitor: one JSON object per line each way, over a socket pair that qemu inherits, so that nobody but the
//! starter can ever speak to it. Events that arrive while an answer is waited for are kept.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How much of one line is kept: answers to what we ask are a few kilobytes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// One short line fits into the socket, whatever qemu does.
const PING_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    #[error("qemu closed its monitor")]
    Closed,
    #[error("qemu gave no answer to `{command}` within {seconds} s")]
    Silent { command: String, seconds: u64 },
    #[error("qemu refused `{command}`: {description}")]
    Refused { command: String, description: String },
    #[error("qemu's monitor said what is not JSON: {line}")]
    Format { line: String },
    #[error("cannot speak to qemu's monitor")]
    Io(#[source] std::io::Error),
}

/// The starter's end of the monitor.
#[derive(Debug)]
pub struct Monitor {
    stream: UnixStream,
    buffer: Vec<u8>,
    events: VecDeque<Event>,
    /// Of the last command. An answer with another number belongs to a command that was given up on.
    number: u64,
    /// When qemu was first asked what it has said nothing after.
    asked: Option<Instant>,
}

/// Something that qemu tells unasked.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

impl Monitor {
    /// A monitor, and the end that qemu is to inherit.
    pub fn pair() -> Result<(Self, UnixStream), QmpError> {
        let (stream, qemu) = UnixStream::pair().map_err(QmpError::Io)?;
        Ok((Self { stream, buffer: Vec::new(), events: VecDeque::new(), number: 0, asked: None }, qemu))
    }

    /// Waits for qemu to be there and ready to take commands.
    pub fn greet(&mut self, wait: Duration) -> Result<(), QmpError> {
        let deadline = Instant::now() + wait;
        let greeting = self.line(deadline)?.ok_or_else(|| silent("(greeting)", wait))?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Format { line: greeting.to_string() });
        }
        self.execute("qmp_capabilities", Value::Null, wait).map(|_| ())
    }

    /// Carries out one command and returns its answer.
    pub fn execute(&mut self, command: &str, arguments: Value, wait: Duration) -> Result<Value, QmpError> {
        self.send(command, arguments, wait)?;
        let deadline = Instant::now() + wait;
        loop {
            let mut answer = self.line(deadline)?.ok_or_else(|| silent(command, wait))?;
            if answer["id"].as_u64().is_some_and(|id| id != self.number) {
                continue;
            }
            if let Some(error) = answer.get("error") {
                let description = error["desc"].as_str().unwrap_or("no reason given").to_owned();
                return Err(QmpError::Refused { command: command.to_owned(), description });
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            self.keep_event(&mut answer);
        }
    }

    fn send(&mut self, command: &str, arguments: Value, wait: Duration) -> Result<(), QmpError> {
        self.number += 1;
        let mut request = json!({ "execute": command, "id": self.number });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let line = format!("{request}\n");
        self.stream.set_write_timeout(Some(wait)).map_err(QmpError::Io)?;
        self.stream.write_all(line.as_bytes()).map_err(|_| QmpError::Closed)?;
        self.asked.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Asks qemu for a sign of life, unless one is outstanding, and waits for nothing.
    pub fn ping(&mut self) -> Result<(), QmpError> {
        match self.asked {
            Some(_) => Ok(()),
            None => self.send("query-status", Value::Null, PING_WAIT),
        }
    }

    /// For how long qemu has owed an answer. Read `event` before: what has arrived and was not read counts for nothing.
    pub fn silence(&self) -> Duration {
        self.asked.map_or(Duration::ZERO, |asked| asked.elapsed())
    }

    /// The next event, if one has arrived.
    pub fn event(&mut self) -> Result<Option<Event>, QmpError> {
        if self.events.is_empty() {
            let now = Instant::now();
            while let Some(mut line) = self.line(now)? {
                self.keep_event(&mut line);
            }
        }
        Ok(self.events.pop_front())
    }

    fn keep_event(&mut self, line: &mut Value) {
        if let Some(name) = line["event"].as_str() {
            self.events.push_back(Event { name: name.to_owned(), data: line["data"].clone() });
        }
    }

    /// The next line, or `None` when the deadline has passed. What has arrived already is taken in any case.
    fn line(&mut self, deadline: Instant) -> Result<Option<Value>, QmpError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                self.asked = None;
                return match serde_json::from_slice(&line) {
                    Ok(value) => Ok(Some(value)),
                    Err(_) => Err(QmpError::Format { line: String::from_utf8_lossy(&line).trim().to_owned() }),
                };
            }
            // A timeout of zero would mean none at all.
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).map_err(QmpError::Io)?;
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(QmpError::Closed),
                Ok(length) if self.buffer.len() + length <= LINE_BYTES_MAX => {
                    self.buffer.extend_from_slice(&chunk[..length]);
                }
                Ok(_) => return Err(QmpError::Format { line: "a line without an end".to_owned() }),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Err(QmpError::Closed),
                Err(source) => return Err(QmpError::Io(source)),
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn silent(command: &str, wait: Duration) -> QmpError {
    QmpError::Silent { command: command.to_owned(), seconds: wait.as_secs() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn events_between_question_and_answer_are_kept() {
        let (mut monitor, mut qemu) = Monitor::pair().unwrap();
        qemu.write_all(
            b"{\"QMP\": {}}\n{\"return\": {}}\n{\"event\": \"STOP\"}\n{\"return\": {\"status\": \"paused\"}}\n",
        )
        .unwrap();
        monitor.greet(SECOND).unwrap();
        let answer = monitor.execute("query-status", Value::Null, SECOND).unwrap();
        assert_eq!(answer["status"], "paused");
        assert_eq!(monitor.event().unwrap().unwrap().name, "STOP");
        assert_eq!(monitor.event().unwrap(), None);
    }

    #[test]
    fn an_owed_answer_is_silence_until_qemu_says_anything() {
        let (mut monitor, mut qemu) = Monitor::pair().unwrap();
        assert_eq!(monitor.silence(), Duration::ZERO);
        monitor.ping().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        monitor.ping().unwrap();
        assert!(monitor.silence() >= Duration::from_millis(5), "the second question does not count anew");
        qemu.write_all(b"{\"return\": {\"status\": \"running\"}, \"id\": 1}\n").unwrap();
        assert_eq!(monitor.event().unwrap(), None);
        assert_eq!(monitor.silence(), Duration::ZERO);
    }

    #[test]
    fn silence_refusal_and_the_end_are_three_things() {
        let (mut monitor, mut qemu) = Monitor::pair().unwrap();
        let wait = Duration::from_millis(20);
        let silent = monitor.execute("stop", Value::Null, wait).unwrap_err();
        assert!(matches!(silent, QmpError::Silent { .. }), "{silent}");
        qemu.write_all(b"{\"return\": {}, \"id\": 1}\n").unwrap();
        qemu.write_all(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no display\"}}\n").unwrap();
        let refused = monitor.execute("screendump", Value::Null, wait).unwrap_err();
        assert_eq!(refused.to_string(), "qemu refused `screendump`: no display");
        drop(qemu);
        let closed = monitor.execute("stop", Value::Null, wait).unwrap_err();
        assert!(matches!(closed, QmpError::Closed), "{closed}");
    }
}
