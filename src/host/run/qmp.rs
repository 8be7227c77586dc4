//! qemu's monitor: one JSON object per line each way, over a socket pair that qemu inherits, so that nobody but the
//! starter can ever speak to it. One thread reads all that qemu says; others may ask, and get their answers from it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

/// How much of one line is kept: answers to what we ask are a few kilobytes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Longest time that a command may take to fit into the socket.
const WRITE_WAIT: Duration = Duration::from_secs(1);

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

impl QmpError {
    /// An answer knows only its number.
    fn of(self, command: &str) -> Self {
        match self {
            Self::Refused { description, .. } => Self::Refused { command: command.to_owned(), description },
            other => other,
        }
    }
}

/// The starter's end of the monitor. It alone reads; an `Asker` of another thread gets its answers through it.
#[derive(Debug)]
pub struct Monitor {
    stream: UnixStream,
    buffer: Vec<u8>,
    heard: VecDeque<Heard>,
    asker: Asker,
}

/// Something that qemu says, to nobody who waits for it.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    Event(Event),
    /// The answer to a command that was told, not asked.
    Answer {
        command: &'static str,
        result: Result<(), String>,
    },
}

/// Something that qemu tells unasked.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

/// Asks qemu from any thread. Whoever holds the monitor must read it meanwhile.
#[derive(Debug, Clone)]
pub struct Asker {
    stream: Arc<UnixStream>,
    open: Arc<Mutex<Open>>,
}

/// What qemu was asked and has not answered.
#[derive(Debug, Default)]
struct Open {
    number: u64,
    takers: BTreeMap<u64, Taker>,
    /// When qemu was first asked what it has said nothing after.
    since: Option<Instant>,
}

/// Who gets an answer.
#[derive(Debug)]
enum Taker {
    Monitor(&'static str),
    Caller(Sender<Result<Value, QmpError>>),
    /// It was a ping.
    Nobody,
}

impl Asker {
    /// Carries out one command and returns its answer.
    pub fn execute(&self, command: &str, arguments: Value, wait: Duration) -> Result<Value, QmpError> {
        let (taker, answer) = channel();
        self.send(command, arguments, Taker::Caller(taker))?;
        match answer.recv_timeout(wait) {
            Ok(answer) => answer.map_err(|error| error.of(command)),
            Err(RecvTimeoutError::Timeout) => Err(silent(command, wait)),
            Err(RecvTimeoutError::Disconnected) => Err(QmpError::Closed),
        }
    }

    /// One short line fits into the socket, whatever qemu does.
    fn send(&self, command: &str, arguments: Value, taker: Taker) -> Result<(), QmpError> {
        self.send_with(command, arguments, None, taker)
    }

    fn send_with(
        &self,
        command: &str,
        arguments: Value,
        descriptor: Option<BorrowedFd<'_>>,
        taker: Taker,
    ) -> Result<(), QmpError> {
        let mut open = self.open();
        open.number += 1;
        let number = open.number;
        let mut request = json!({ "execute": command, "id": number });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let line = format!("{request}\n");
        match descriptor {
            None => (&*self.stream).write_all(line.as_bytes()).map_err(|_| QmpError::Closed)?,
            Some(descriptor) => {
                let descriptors = [descriptor.as_raw_fd()];
                let (line, rights) = ([IoSlice::new(line.as_bytes())], [ControlMessage::ScmRights(&descriptors)]);
                let sent = sendmsg::<()>(self.stream.as_raw_fd(), &line, &rights, MsgFlags::MSG_NOSIGNAL, None);
                sent.map_err(|_| QmpError::Closed)?;
            }
        }
        open.takers.insert(number, taker);
        open.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Monitor {
    /// A monitor, and the end that qemu is to inherit.
    pub fn pair() -> Result<(Self, UnixStream), QmpError> {
        let (stream, qemu) = UnixStream::pair().map_err(QmpError::Io)?;
        stream.set_write_timeout(Some(WRITE_WAIT)).map_err(QmpError::Io)?;
        let writer = stream.try_clone().map_err(QmpError::Io)?;
        let asker = Asker { stream: Arc::new(writer), open: Arc::default() };
        Ok((Self { stream, buffer: Vec::new(), heard: VecDeque::new(), asker }, qemu))
    }

    /// For threads that ask while this one reads on.
    pub fn asker(&self) -> Asker {
        self.asker.clone()
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

    /// Carries out one command, waits for its answer and returns it. What else is said meanwhile is kept.
    pub fn execute(&mut self, command: &str, arguments: Value, wait: Duration) -> Result<Value, QmpError> {
        let (taker, answer) = channel();
        self.asker.send(command, arguments, Taker::Caller(taker))?;
        let deadline = Instant::now() + wait;
        loop {
            let line = self.line(deadline)?.ok_or_else(|| silent(command, wait))?;
            self.route(line);
            if let Ok(answer) = answer.try_recv() {
                return answer.map_err(|error| error.of(command));
            }
        }
    }

    /// Gives qemu a command and waits for nothing; the answer is heard some time.
    pub fn tell(&self, command: &'static str) -> Result<(), QmpError> {
        self.asker.send(command, Value::Null, Taker::Monitor(command))
    }

    /// The same with arguments, and with a descriptor that qemu gets, too.
    pub fn tell_with(
        &self,
        command: &'static str,
        arguments: Value,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), QmpError> {
        self.asker.send_with(command, arguments, descriptor, Taker::Monitor(command))
    }

    /// Asks qemu for a sign of life, unless an answer is outstanding, and waits for nothing.
    pub fn ping(&self) -> Result<(), QmpError> {
        match self.unanswered() {
            Some(_) => Ok(()),
            None => self.asker.send("query-status", Value::Null, Taker::Nobody),
        }
    }

    /// Since when qemu has owed an answer. Listen before: what has arrived and was not read counts for nothing.
    pub fn unanswered(&self) -> Option<Instant> {
        self.asker.open().since
    }

    /// The next that qemu has said, if anything has arrived. What it said before it closed the monitor comes before `Closed`.
    pub fn hear(&mut self) -> Result<Option<Heard>, QmpError> {
        let now = Instant::now();
        while self.heard.is_empty() {
            match self.line(now)? {
                Some(line) => self.route(line),
                None => break,
            }
        }
        Ok(self.heard.pop_front())
    }

    /// Gives what qemu said to whom it is for.
    fn route(&mut self, mut line: Value) {
        if let Some(name) = line["event"].as_str() {
            let event = Event { name: name.to_owned(), data: line["data"].clone() };
            return self.heard.push_back(Heard::Event(event));
        }
        let taker = line["id"].as_u64().and_then(|number| self.asker.open().takers.remove(&number));
        let result = match line.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => Err(line["error"]["desc"].as_str().unwrap_or("no reason given").to_owned()),
        };
        match taker {
            Some(Taker::Monitor(command)) => {
                self.heard.push_back(Heard::Answer { command, result: result.map(|_| ()) });
            }
            Some(Taker::Caller(caller)) => {
                let refused = |description| QmpError::Refused { command: String::new(), description };
                // A caller that waits no more has given the command up.
                drop(caller.send(result.map_err(refused)));
            }
            Some(Taker::Nobody) | None => {}
        }
    }

    /// The next line, or `None` when the deadline has passed. What has arrived already is taken in any case.
    fn line(&mut self, deadline: Instant) -> Result<Option<Value>, QmpError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                self.asker.open().since = None;
                return match serde_json::from_slice(&line) {
                    Ok(value) => Ok(Some(value)),
                    Err(_) => Err(QmpError::Format { line: String::from_utf8_lossy(&line).trim().to_owned() }),
                };
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut ready = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Ok(0) if left.is_zero() => return Ok(None),
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(QmpError::Io(errno.into())),
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(QmpError::Closed),
                Ok(length) if self.buffer.len() + length <= LINE_BYTES_MAX => {
                    self.buffer.extend_from_slice(&chunk[..length]);
                }
                Ok(_) => return Err(QmpError::Format { line: "a line without an end".to_owned() }),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Err(QmpError::Closed),
                Err(source) => return Err(QmpError::Io(source)),
            }
        }
    }
}

impl Drop for Monitor {
    /// Nobody waits for answers that nobody reads.
    fn drop(&mut self) {
        self.asker.open().takers.clear();
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

    fn name(heard: Option<Heard>) -> Option<String> {
        match heard? {
            Heard::Event(event) => Some(event.name),
            Heard::Answer { command, result } => Some(format!("{command}: {result:?}")),
        }
    }

    #[test]
    fn events_between_question_and_answer_are_kept() {
        let (mut monitor, mut qemu) = Monitor::pair().unwrap();
        qemu.write_all(
            b"{\"QMP\": {}}\n{\"return\": {}, \"id\": 1}\n{\"event\": \"STOP\"}\n\
              {\"return\": {\"status\": \"paused\"}, \"id\": 2}\n",
        )
        .unwrap();
        monitor.greet(SECOND).unwrap();
        let answer = monitor.execute("query-status", Value::Null, SECOND).unwrap();
        assert_eq!(answer["status"], "paused");
        assert_eq!(name(monitor.hear().unwrap()).as_deref(), Some("STOP"));
        assert_eq!(monitor.hear().unwrap(), None);
    }

    /// The last that a guest says is that it powers itself off; then its qemu is gone.
    #[test]
    fn what_was_said_before_the_end_comes_before_the_end() {
        let (mut monitor, mut qemu) = Monitor::pair().unwrap();
        qemu.write_all(b"{\"event\": \"SHUTDOWN\"}\n{\"event\": \"STOP\"}\n").unwrap();
        drop(qemu);
        assert_eq!(name(monitor.hear().unwrap()).as_deref(), Some("SHUTDOWN"));
        assert_eq!(name(monitor.hear().unwrap()).as_deref(), Some("STOP"));
        assert!(matches!(monitor.hear(), Err(QmpError::Closed)));
    }

    #[test]
    fn an_owed_answer_is_silence_until_qemu_says_anything() {
        let (mut monitor, mut qemu) = Monitor::pair().unwrap();
        assert_eq!(monitor.unanswered(), None);
        monitor.ping().unwrap();
        let since = monitor.unanswered();
        assert!(since.is_some());
        monitor.ping().unwrap();
        assert_eq!(monitor.unanswered(), since, "the second question does not count anew");
        qemu.write_all(b"{\"return\": {\"status\": \"running\"}, \"id\": 1}\n").unwrap();
        assert_eq!(monitor.hear().unwrap(), None);
        assert_eq!(monitor.unanswered(), None);
    }

    #[test]
    fn silence_refusal_and_the_end_are_three_things() {
        let (mut monitor, mut qemu) = Monitor::pair().unwrap();
        let wait = Duration::from_millis(20);
        let silent = monitor.execute("stop", Value::Null, wait).unwrap_err();
        assert!(matches!(silent, QmpError::Silent { .. }), "{silent}");
        qemu.write_all(b"{\"return\": {}, \"id\": 1}\n").unwrap();
        qemu.write_all(b"{\"id\": 2, \"error\": {\"class\": \"GenericError\", \"desc\": \"no display\"}}\n").unwrap();
        let refused = monitor.execute("screendump", Value::Null, wait).unwrap_err();
        assert_eq!(refused.to_string(), "qemu refused `screendump`: no display");
        drop(qemu);
        let closed = monitor.execute("stop", Value::Null, wait).unwrap_err();
        assert!(matches!(closed, QmpError::Closed), "{closed}");
    }

    /// Whoever only tells waits for nothing, and whoever asks from beside gets the answer that is meant for it.
    #[test]
    fn each_answer_goes_to_whom_it_is_for() {
        let (mut monitor, mut qemu) = Monitor::pair().unwrap();
        monitor.tell("stop").unwrap();
        let asker = monitor.asker();
        let beside = std::thread::spawn(move || asker.execute("query-jobs", Value::Null, 20 * SECOND));
        let mut asked = [0; 4096];
        let mut text = String::new();
        while !text.contains("query-jobs") {
            let length = qemu.read(&mut asked).unwrap();
            text.push_str(std::str::from_utf8(&asked[..length]).unwrap());
        }
        let refusal = b"{\"return\": [7], \"id\": 2}\n{\"id\": 1, \"error\": {\"desc\": \"no\"}}\n";
        qemu.write_all(refusal).unwrap();
        assert_eq!(name(monitor.hear().unwrap()).as_deref(), Some("stop: Err(\"no\")"));
        assert_eq!(beside.join().unwrap().unwrap(), json!([7]));
        let asker = monitor.asker();
        drop((monitor, qemu));
        assert!(matches!(asker.execute("query-jobs", Value::Null, SECOND), Err(QmpError::Closed)));
    }
}
