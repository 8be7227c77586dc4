//! A request that comes again is not done again. A client that heard no answer asks once more with the same `Idempotency-Key`; who
//! asks, the key and what is asked are one thing, whose answer is kept for a while. What was asked of a daemon that died is known by
//! its claim.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode};
use tokio::sync::watch;

use super::api::No;
use super::messages::Acted;
use crate::control::Code;

const HEADER: &str = "idempotency-key";
/// As long as the longest request may take.
const KEPT: Duration = Duration::from_secs(600);
/// Answers of all accounts; each is some hundred bytes.
const KEPT_MAX: usize = 8192;
const KEY_BYTES_MAX: usize = 64;

type Answer = Result<Acted, No>;
type Asked = (u32, String, String);
type Answered = watch::Receiver<Option<Answer>>;

#[derive(Default)]
pub(super) struct Answers(Mutex<HashMap<Asked, (Instant, Answered)>>);

/// What the client calls its request.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, No> {
    let Some(key) = headers.get(HEADER) else { return Ok(None) };
    let is_plain =
        |key: &&str| (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    let key = key.to_str().ok().filter(is_plain).map(|key| Some(key.to_owned()));
    let what = "an `Idempotency-Key` has 1 to 64 letters and signs of ASCII; nothing was done";
    key.ok_or_else(|| No::of(StatusCode::BAD_REQUEST, Code::Usage, what))
}

impl Answers {
    /// The answer to what was asked under this key, by doing it where nobody has. It is done to its end, whoever still waits for it.
    pub(super) async fn once<F: Future<Output = Answer> + Send + 'static>(
        &self,
        uid: u32,
        key: Option<String>,
        command: &str,
        work: impl FnOnce() -> F,
    ) -> Answer {
        let mut answered = match key {
            Some(key) => self.known((uid, key, command.to_owned()), work),
            None => begin(work()),
        };
        let answer = answered.wait_for(Option::is_some).await.map(|answer| answer.clone());
        answer.ok().flatten().unwrap_or_else(|| Err(No::bug()))
    }

    fn known<F: Future<Output = Answer> + Send + 'static>(&self, asked: Asked, work: impl FnOnce() -> F) -> Answered {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, (since, _)| since.elapsed() < KEPT);
        if answers.len() >= KEPT_MAX {
            let oldest = answers.iter().min_by_key(|(_, (since, _))| *since).map(|(asked, _)| asked.clone());
            drop(oldest.and_then(|oldest| answers.remove(&oldest)));
        }
        answers.entry(asked).or_insert_with(|| (Instant::now(), begin(work()))).1.clone()
    }
}

fn begin(work: impl Future<Output = Answer> + Send + 'static) -> Answered {
    let (answer, answered) = watch::channel(None);
    tokio::spawn(async move {
        let answered = work.await;
        // Whoever waited has gone; it is done all the same.
        drop(answer.send(Some(answered)));
    });
    answered
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// How often it was done for these askers, who ask one after the other or at once.
    fn times(asks: &[(u32, Option<&str>, &str)]) -> u32 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (answers, times) = (Answers::default(), Arc::new(AtomicU32::new(0)));
        runtime.block_on(async {
            for (uid, key, command) in asks {
                let times = Arc::clone(&times);
                let work = || async move {
                    times.fetch_add(1, Ordering::Relaxed);
                    Ok(Acted { vm: "a".parse().unwrap(), changed: true, plan: String::new(), outcome: String::new() })
                };
                assert!(answers.once(*uid, key.map(str::to_owned), command, work).await.is_ok());
            }
        });
        times.load(Ordering::Relaxed)
    }

    #[test]
    fn the_same_of_the_same_person_is_done_once() {
        assert_eq!(times(&[(7, Some("k"), "vm restart a"), (7, Some("k"), "vm restart a")]), 1);
        assert_eq!(times(&[(7, Some("k"), "vm restart a"), (8, Some("k"), "vm restart a")]), 2, "somebody else's");
        assert_eq!(times(&[(7, Some("k"), "vm restart a"), (7, Some("k"), "vm restart b")]), 2, "another vm");
        assert_eq!(times(&[(7, Some("k"), "vm restart a"), (7, Some("l"), "vm restart a")]), 2, "meant twice");
        assert_eq!(times(&[(7, None, "vm restart a"), (7, None, "vm restart a")]), 2);
    }

    #[test]
    fn a_key_is_short_and_plain() {
        let with = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, axum::http::HeaderValue::from_bytes(value).unwrap());
            key(&headers).ok().flatten()
        };
        assert_eq!(with(b"a-7").as_deref(), Some("a-7"));
        assert_eq!((with(b""), with(b"a b"), with(&[b'x'; 65]), with(b"\xff")), (None, None, None, None));
    }
}
