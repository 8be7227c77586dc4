//! How much of what was done since the daemon began, and what of it Prometheus reads: numbers alone, nobody's name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Counts {
    rounds: AtomicU64,
    round_micros: AtomicU64,
    requests: AtomicU64,
    /// Answers that are a no, by their status.
    refused: Mutex<BTreeMap<u16, u64>>,
}

/// What is so at this moment.
pub(super) struct Now {
    /// Guests by where they stand.
    pub(super) guests: BTreeMap<String, usize>,
    pub(super) connections: usize,
    /// Asks that wait for the loop.
    pub(super) waiting: usize,
}

impl Counts {
    /// Does one round of the loop.
    pub(super) fn timed<T>(&self, round: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = round();
        self.rounds.fetch_add(1, Ordering::Relaxed);
        self.round_micros.fetch_add(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        done
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
        text.one("labwright_connections", "gauge", "Connections that are open.", now.connections);
        text.one("labwright_asks_waiting", "gauge", "Starts, stops and the like that wait for the loop.", now.waiting);
        let rounds = self.rounds.load(Ordering::Relaxed);
        text.head("labwright_plan_seconds", "summary", "How long the loop took to look, plan and act.");
        let seconds = self.round_micros.load(Ordering::Relaxed) as f64 / 1e6;
        text.line("labwright_plan_seconds_sum", "", seconds);
        text.line("labwright_plan_seconds_count", "", rounds);
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
