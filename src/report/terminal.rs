//! The person at the terminal who has something carried out: sees the plan, is asked, and hears how it goes.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::{Duration, Instant};

use super::{Ui, paint, progress};
use crate::apply::{BatchKind, Goal, Progress, Readiness};
use crate::control::apply::Client;
use crate::disks::Copied;
use crate::plan::Plan;

pub struct Terminal<'a> {
    pub ui: &'a mut Ui,
    /// What was typed, such as `vm start alice-gsr`.
    doing: &'a str,
    is_json: bool,
    /// Counts from now on how often an end is asked for.
    interrupts: fn() -> Arc<AtomicU8>,
    /// How far the guests were at the last look.
    last: Option<Readiness>,
    /// When a line was written about a copy.
    copied: Option<Instant>,
}

/// Where no bar is drawn, a line now and then is enough.
const COPIED_LINES: Duration = Duration::from_secs(10);

impl<'a> Terminal<'a> {
    pub fn new(ui: &'a mut Ui, doing: &'a str, is_json: bool, interrupts: fn() -> Arc<AtomicU8>) -> Self {
        Self { ui, doing, is_json, interrupts, last: None, copied: None }
    }
}

impl Client for Terminal<'_> {
    fn shows(&mut self, plan: &Plan) {
        let already = progress::already(plan);
        if self.is_json {
            return self.ui.data(&super::plan::stream(plan));
        }
        // Of vms that were asked for by name and are as they should be, just that.
        if plan.answers.is_empty() || !plan.is_empty() || !plan.refusals.is_empty() {
            self.ui.data(&paint::plan(&super::plan::text(plan, false)));
        }
        self.ui.data(&already);
    }

    fn agrees(&mut self, plan: &Plan) -> Option<bool> {
        self.ui.confirm(&progress::question(plan, self.doing))
    }

    fn begins(&mut self) -> Arc<AtomicU8> {
        (self.interrupts)()
    }

    fn looks(&mut self, readiness: &Readiness, goal: Goal) {
        let reached = readiness.reached(goal);
        self.ui.progress(&format!("guests {}", goal.word()), reached, readiness.wanted);
        if self.last.as_ref() != Some(readiness) {
            self.ui.say(&progress::guests(readiness, goal));
            self.last = Some(readiness.clone());
        }
    }
}

impl Progress for Terminal<'_> {
    fn batch(&mut self, kind: BatchKind, done: usize, failed: usize, took: Duration) {
        if self.is_json || kind == BatchKind::Record {
            return;
        }
        self.ui.progress_done();
        self.ui.say(&progress::batch(kind, done, failed, took));
    }

    fn retry(&mut self, kind: BatchKind, number: usize, pause: Duration, why: &str) {
        self.ui.say(&progress::retry(kind, number, pause, why));
    }

    fn copies(&mut self, copied: &Copied) {
        let line = progress::copied(copied);
        if let (true, Some(whole)) = (self.ui.draws(), copied.of_bytes) {
            let percent = usize::try_from(copied.bytes * 100 / whole.max(1)).unwrap_or(100);
            return self.ui.progress(&line, percent, 100);
        }
        if self.copied.is_none_or(|last| last.elapsed() >= COPIED_LINES) {
            self.copied = Some(Instant::now());
            self.ui.say(&format!("  {line}"));
        }
    }
}
