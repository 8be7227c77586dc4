//! How much of what was done since the daemon began, and what of it Prometheus reads: numbers alone, nobody's name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use crate::run::Dropped;

#[derive(Debug, Default)]
pub(super) struct Counts {
    plans: AtomicU64,
    plan_micros: AtomicU64,
    requests: AtomicU64,
    /// Answers that are a no, by their status.
    refused: Mutex<BTreeMap<u16, u64>>,
}

/// What is so at this moment.
pub(super) struct Now {
    /// Guests by where they stand.
    pub(super) guests: BTreeMap<String, usize>,
    /// Of the guests that run; `None` where the filter counts nothing, and then no number is told.
    pub(super) dropped: Option<Dropped>,
    pub(super) connections: usize,
    /// Asks that wait for the loop.
    pub(super) waiting: usize,
    /// What the batch system was asked for so far.
    pub(super) queue_calls: [(&'static str, u64); 5],
}

/// One look at a lab and its plan, until it is decided: what is done then is another matter.
#[derive(Debug, Clone)]
pub(super) struct Planning {
    began: Instant,
    decided: Arc<OnceLock<Instant>>,
}

impl Planning {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), decided: Arc::default() }
    }

    pub(super) fn end(&self) {
        self.decided.get_or_init(Instant::now);
    }
}

impl Counts {
    /// One plan was made, and maybe carried out since.
    pub(super) fn planned(&self, planning: &Planning) {
        let took = planning.decided.get_or_init(Instant::now).duration_since(planning.began);
        self.plans.fetch_add(1, Ordering::Relaxed);
        self.plan_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// One request was answered.
    pub(super) fn answered(&self, status: u16) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if status >= 400 {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
        }
    }

    /// In the text format that Prometheus reads.
    pub(super) fn text(&self, now: &Now) -> String {
        let mut text = Metrics::default();
        text.head("labwright_guests", "gauge", "Vms by where they stand.");
        for (state, number) in &now.guests {
            text.line("labwright_guests", &format!("{{state=\"{state}\"}}"), number);
        }
        let head = "Frames of guests that run now, and towards them, that their filters have dropped, at least.";
        if let Some(dropped) = now.dropped {
            text.head("labwright_dropped_frames", "gauge", head);
            for (reason, frames) in dropped.by_reason() {
                text.line("labwright_dropped_frames", &format!("{{reason=\"{reason}\"}}"), frames);
            }
        }
        text.one("labwright_connections", "gauge", "Connections that are open.", now.connections);
        text.one("labwright_asks_waiting", "gauge", "Starts, stops and the like that wait for the loop.", now.waiting);
        let plans = self.plans.load(Ordering::Relaxed);
        text.head("labwright_plan_seconds", "summary", "How long the loop took to look and plan.");
        let seconds = self.plan_micros.load(Ordering::Relaxed) as f64 / 1e6;
        text.line("labwright_plan_seconds_sum", "", seconds);
        text.line("labwright_plan_seconds_count", "", plans);
        let head = "What the batch system was asked for.";
        text.head("labwright_queue_calls_total", "counter", head);
        for (call, number) in now.queue_calls {
            text.line("labwright_queue_calls_total", &format!("{{call=\"{call}\"}}"), number);
        }
        let requests = self.requests.load(Ordering::Relaxed);
        text.one("labwright_requests_total", "counter", "Requests that were answered.", requests);
        text.head("labwright_refused_total", "counter", "Requests that were refused or failed, by HTTP status.");
        for (status, number) in &*self.refused.lock().unwrap_or_else(PoisonError::into_inner) {
            text.line("labwright_refused_total", &format!("{{code=\"{status}\"}}"), number);
        }
        text.0
    }
}

#[derive(Default)]
struct Metrics(String);

impl Metrics {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes all");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        writeln!(self.0, "{name}{labels} {value}").expect("a string takes all");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        self.line(name, "", value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_done_after_a_decision_is_no_planning() {
        let began = Instant::now();
        let planning = Planning { began, decided: Arc::default() };
        let decided = planning.clone();
        decided.decided.set(began + Duration::from_millis(1500)).unwrap();
        decided.end();
        let counts = Counts::default();
        counts.planned(&planning);
        let dropped = Dropped { arp: 7, ..Dropped::default() };
        let calls = [("list", 2); 5];
        let now = |dropped| Now { guests: BTreeMap::new(), dropped, connections: 0, waiting: 0, queue_calls: calls };
        let text = counts.text(&now(Some(dropped)));
        assert!(
            !counts.text(&now(None)).contains("labwright_dropped_frames"),
            "what nobody counts is not told as zero"
        );
        let lines = [
            "labwright_plan_seconds_sum 1.5",
            "labwright_plan_seconds_count 1",
            "_calls_total{call=\"list\"} 2",
            "_frames{reason=\"arp\"} 7",
        ];
        assert!(lines.iter().all(|line| text.contains(&format!("{line}\n"))), "{text}");
    }
}
