//! Effects that go together, and what their thread says of them to the loop.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::BatchKind;
use super::retry::EffectError;
use crate::disks::Copied;
use crate::plan::{Action, ActionId};
use crate::state::Change;

/// Effects that are carried out together.
pub(super) struct Batch {
    pub(super) kind: BatchKind,
    pub(super) actions: Vec<Action>,
}

/// What a batch says of one action: what is recorded from now on, or what went wrong.
pub(super) type ActionResult = (ActionId, Result<Vec<Change>, String>);

/// From a batch's thread to the loop.
pub(super) enum Message {
    /// Outcomes of a batch, and how long its effects took.
    Results { kind: BatchKind, results: Vec<ActionResult>, took: Duration },
    /// Effects that are tried again after a pause, and why.
    Retry { kind: BatchKind, number: usize, pause: Duration, why: String },
    /// How far a copy is.
    Copied(Copied),
    /// The batch's thread is done.
    End(BatchKind),
}

/// How one action went in one try.
pub(super) type Attempt = (ActionId, Result<Vec<Change>, EffectError>);

/// Without the question whether another try would help.
pub(super) fn final_results(attempts: Vec<Attempt>) -> Vec<ActionResult> {
    attempts.into_iter().map(|(id, result)| (id, result.map_err(|error| error.detail))).collect()
}

pub(super) fn send(sender: &Sender<Message>, kind: BatchKind, results: Vec<ActionResult>, began: Instant) {
    if !results.is_empty() {
        // The loop waits for every batch; if it ended on an error of the state, the journal's open lines tell the next apply.
        drop(sender.send(Message::Results { kind, results, took: began.elapsed() }));
    }
}

pub(super) fn tell_of_retry(sender: &Sender<Message>, kind: BatchKind, number: usize, pause: Duration, why: &str) {
    // As above: without the loop there is nobody to tell.
    drop(sender.send(Message::Retry { kind, number, pause, why: why.to_owned() }));
}
