//! One request, one answer. What changes something bears a key, so that it can be asked again when the daemon was restarted in the
//! middle.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::daemon::lab_messages::Told;
use crate::daemon::messages::Refusal;

/// A listing of the largest lab is smaller.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The daemon gives up before.
const TIMEOUT: Duration = Duration::from_secs(660);
/// How long a daemon that broke off is waited for: systemd starts it again within a second or two.
const COMES_BACK: Duration = Duration::from_secs(10);
/// Between two tries where somebody asks more often than they may: nothing was done then.
const TOO_OFTEN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(3)];
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Drawn anew at each reading.
const KEYS: &str = "/proc/sys/kernel/random/uuid";

/// Why there is no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot reach the daemon at {}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("the daemon at {} broke off", socket.display())]
    Broken { socket: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the daemon at {} did not answer in time", socket.display())]
    Late { socket: PathBuf },
    #[error("the daemon at {} answers what cannot be understood ({status})", socket.display())]
    Answer { socket: PathBuf, status: StatusCode, source: serde_json::Error },
    #[error("cannot draw a name for this request from {KEYS}")]
    Key { source: io::Error },
    /// Its own words.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

/// Where a daemon listens.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, ClientError> {
        until_answered(|| self.ask(Method::GET, path, Bytes::new(), None))
    }

    /// What is no JSON.
    pub fn get_bytes(&self, path: &[&str]) -> Result<Vec<u8>, ClientError> {
        until_answered(|| self.answer(Method::GET, path, Bytes::new(), None).map(|(_, bytes)| bytes.to_vec()))
    }

    pub fn delete<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, ClientError> {
        self.ask_once(Method::DELETE, path, Bytes::new())
    }

    pub fn post<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).expect("a message has only string keys");
        self.ask_once(Method::POST, path, body.into())
    }

    /// What a daemon does not know again that has come in another's place: where it breaks off, who asked looks what came of it.
    pub fn post_but_once<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).expect("a message has only string keys");
        self.ask(Method::POST, path, body.into(), None)
    }

    /// Asks until there is an answer, and is never done twice.
    fn ask_once<T: DeserializeOwned>(&self, method: Method, path: &[&str], body: Bytes) -> Result<T, ClientError> {
        let drawn = std::fs::read_to_string(KEYS);
        let key = drawn.map_err(|source| ClientError::Key { source })?.trim().to_owned();
        until_answered(|| self.ask(method.clone(), path, body.clone(), Some(&key)))
    }

    /// Listens to a stream of events until `heard` has heard enough; whether it had in time.
    pub fn listen<T: DeserializeOwned>(
        &self,
        path: &[&str],
        timeout: Duration,
        heard: &mut dyn FnMut(T) -> bool,
    ) -> Result<bool, ClientError> {
        let listen = async {
            // One that was listened to for long enough is no error.
            tokio::time::timeout(timeout, self.hear(path, timeout, heard)).await.unwrap_or(Ok(false))
        };
        self.run(listen)
    }

    async fn hear<T: DeserializeOwned>(
        &self,
        path: &[&str],
        patience: Duration,
        heard: &mut dyn FnMut(T) -> bool,
    ) -> Result<bool, ClientError> {
        let answer = self.begin(Method::GET, path, Bytes::new(), None).await?;
        let is_enough = self.lines(answer, patience, |line| match line.strip_prefix(b"data: ") {
            Some(data) => serde_json::from_slice(data).map(&mut *heard),
            None => Ok(false),
        });
        match is_enough.await? {
            true => Ok(true),
            false => Err(self.broken("the stream ended")),
        }
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: Bytes,
        key: Option<&str>,
    ) -> Result<T, ClientError> {
        let (status, text) = self.answer(method, path, body, key)?;
        serde_json::from_slice(&text).map_err(|source| self.unclear(status, source))
    }

    /// A yes, as it is.
    fn answer(
        &self,
        method: Method,
        path: &[&str],
        body: Bytes,
        key: Option<&str>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let ask = || async {
            let exchange = self.exchange(method.clone(), path, body.clone(), key);
            tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| self.late())?
        };
        let mut patience = TOO_OFTEN.into_iter();
        let (status, text) = loop {
            let (status, text) = self.run(ask())?;
            match patience.next().filter(|_| status == StatusCode::TOO_MANY_REQUESTS) {
                Some(pause) => std::thread::sleep(pause),
                None => break (status, text),
            }
        };
        if status.is_success() { Ok((status, text)) } else { Err(self.refused(status, &text)) }
    }

    /// Sends a lab and hears, line by line, how it goes.
    pub fn send_lab(&self, path: &[&str], body: Vec<u8>, hear: &mut dyn FnMut(Told)) -> Result<(), ClientError> {
        self.run(async {
            let sent = tokio::time::timeout(TIMEOUT, self.begin(Method::POST, path, body.into(), None)).await;
            let answer = sent.map_err(|_| self.late())??;
            let heard = self.lines(answer, TIMEOUT, |line| {
                hear(serde_json::from_slice(line)?);
                Ok(false)
            });
            heard.await.map(drop)
        })
    }

    /// One exchange, on a runtime of its own.
    fn run<T>(&self, exchange: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| ClientError::Connect { socket: self.socket.clone(), source })?;
        runtime.block_on(exchange)
    }

    /// Hears an answer line by line as it comes, until one was enough; whether one was. `patience` is for each piece of it.
    async fn lines(
        &self,
        answer: Response<Incoming>,
        patience: Duration,
        mut is_enough: impl FnMut(&[u8]) -> serde_json::Result<bool>,
    ) -> Result<bool, ClientError> {
        let (status, mut body) = (answer.status(), answer.into_body());
        if !status.is_success() {
            let text = tokio::time::timeout(patience, self.whole(body)).await.map_err(|_| self.late())??;
            return Err(self.refused(status, &text));
        }
        let mut heard = Vec::new();
        while let Some(frame) = tokio::time::timeout(patience, body.frame()).await.map_err(|_| self.late())? {
            let frame = frame.map_err(|error| self.broken(error))?;
            heard.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = heard.drain(..=end).collect();
                if is_enough(&line).map_err(|source| self.unclear(status, source))? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn whole(&self, body: Incoming) -> Result<Bytes, ClientError> {
        let text = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        text.map(|text| text.to_bytes()).map_err(|error| self.broken(error))
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), source: source.into() }
    }

    fn late(&self) -> ClientError {
        ClientError::Late { socket: self.socket.clone() }
    }

    fn unclear(&self, status: StatusCode, source: serde_json::Error) -> ClientError {
        ClientError::Answer { socket: self.socket.clone(), status, source }
    }

    /// A no, in the daemon's own words.
    fn refused(&self, status: StatusCode, text: &[u8]) -> ClientError {
        serde_json::from_slice(text).map_or_else(|source| self.unclear(status, source), ClientError::Refused)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &[&str],
        body: Bytes,
        key: Option<&str>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let answer = self.begin(method, path, body, key).await?;
        Ok((answer.status(), self.whole(answer.into_body()).await?))
    }

    /// An answer whose body is still to come.
    async fn begin(
        &self,
        method: Method,
        path: &[&str],
        body: Bytes,
        key: Option<&str>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|source| ClientError::Connect { socket: self.socket.clone(), source })?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        // It ends with the runtime, which is this one request's.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(uri(path))
            .header("host", "labwright")
            .header("content-type", "application/json");
        let request = match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        let request = request.body(Full::new(body)).expect("a path of escaped segments is a path");
        sender.send_request(request).await.map_err(|error| self.broken(error))
    }
}

/// Asks again where the daemon broke off, until another one is in its place.
fn until_answered<T>(ask: impl Fn() -> Result<T, ClientError>) -> Result<T, ClientError> {
    let mut broken_at: Option<Instant> = None;
    loop {
        let asked = ask();
        let may_come_back = match &asked {
            Err(ClientError::Broken { .. }) => broken_at.get_or_insert_with(Instant::now).elapsed() < COMES_BACK,
            Err(ClientError::Connect { .. }) => broken_at.is_some_and(|at| at.elapsed() < COMES_BACK),
            _ => false,
        };
        if !may_come_back {
            return asked;
        }
        std::thread::sleep(ASK_AGAIN);
    }
}

/// A path of these segments, each escaped as a whole.
fn uri(segments: &[&str]) -> String {
    let mut uri = "/v1".to_owned();
    for segment in segments {
        uri.push('/');
        for byte in segment.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => uri.push(char::from(byte)),
                b'.' if !matches!(*segment, "." | "..") => uri.push('.'),
                byte => write!(uri, "%{byte:02X}").expect("a string takes all"),
            }
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_stays_one() {
        assert_eq!(uri(&["labs", "net101", "vms", "doraz/mine"]), "/v1/labs/net101/vms/doraz%2Fmine");
        assert_eq!(uri(&["labs", "..", "a b?c"]), "/v1/labs/%2E%2E/a%20b%3Fc");
    }
}
