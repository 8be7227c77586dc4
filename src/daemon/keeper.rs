//! The loop: one thread that sees to it that every lab of the site stays as it was applied, and does what people ask of vms. It
//! is woken by time, by what starters report, and by requests; what it does is `control::round`.
//!
//! ```text
//!            request ──▶ waiting ──gather──▶ one plan of all that is alike ──begun──▶ done: each is told
//!                           ▲                      │ others work on the vm
//!                           └──────────────────────┘
//! time, report, start ──▶ look ──some lab needs something──▶ keep, each lab by itself
//! ```
//!
//! One decision at a time; what was decided goes on side by side, so that a start never waits for somebody's guest to stop.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::Daemon;
use super::act::{Outcome, outcome};
use super::api::No;
use super::counts::Planning;
use super::messages::Acted;
use super::patience::Patience;
use crate::control::news::News;
use crate::control::round::{self, Asking, Doing, Together, Unwatched};
use crate::control::{Code, ControlError, state};
use crate::error::chain;
use crate::model::id::{LabName, RunId, VmName};
use crate::report;
use crate::run::{self, BEAT_EVERY};

/// How long others who ask the same are waited for: a class begins on a word of its teacher.
const GATHER: Duration = Duration::from_millis(50);
/// How long at most where a plan of the kind is carried out in the lab just then: what it writes would be planned from twice, and all who ask
/// meanwhile are one plan more.
const GATHER_MAX: Duration = Duration::from_secs(1);
/// How long one who asks for a vm that somebody works on waits for that to end, at most.
const PATIENCE: Duration = Duration::from_secs(60);
/// Until such a vm is looked at again.
const LATER: Duration = Duration::from_millis(300);
/// Plans of one kind that are carried out at the same time. While there are so many, what is asked is gathered.
const AT_ONCE: usize = 8;
/// Between two looks, whatever wakes us: guests end by the hundred when a session does.
const LOOKS_APART: Duration = Duration::from_secs(1);
/// Between two copies of the state to the storage, while a session is open.
const COPIES_APART: Duration = Duration::from_secs(50);
/// Between two looks at what starters report.
const POLL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Keeper {
    inbox: Mutex<Inbox>,
    bell: Condvar,
    patience: Mutex<Patience>,
    /// Somebody collects submissions.
    collecting: AtomicBool,
    /// When the state was copied to the storage last.
    copied: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Inbox {
    waiting: Vec<Waiting>,
    /// Something may have to be done that nobody asks for.
    look: bool,
    looking: bool,
    /// The plans that are carried out now.
    busy: Vec<(LabName, Doing)>,
    /// Runs that are not over, as of the last look.
    live: Arc<Vec<RunId>>,
    ended: bool,
}

/// Somebody who waits for an answer.
struct Waiting {
    lab: LabName,
    doing: Doing,
    asking: Asking,
    since: Instant,
    not_before: Instant,
    answer: oneshot::Sender<Result<Acted, No>>,
}

/// What is to be done next.
enum Turn {
    Together(LabName, Doing, Vec<Waiting>),
    Look,
    End,
}

impl Keeper {
    /// What comes of it, once it is done.
    pub(super) async fn ask(&self, lab: LabName, doing: Doing, asking: Asking) -> Result<Acted, No> {
        let (answer, answered) = oneshot::channel();
        let now = Instant::now();
        {
            let mut inbox = self.inbox();
            if inbox.ended {
                return Err(ending());
            }
            inbox.waiting.push(Waiting { lab, doing, asking, since: now, not_before: now + GATHER, answer });
        }
        self.bell.notify_all();
        answered.await.unwrap_or_else(|_| Err(ending()))
    }

    /// Somebody may have to be started, or stopped.
    pub(super) fn wake(&self) {
        self.inbox().look = true;
        self.bell.notify_all();
    }

    /// Nothing more is begun.
    pub(super) fn end(&self) {
        self.inbox().ended = true;
        self.bell.notify_all();
    }

    /// How many wait for an answer.
    pub(super) fn waiting(&self) -> usize {
        self.inbox().waiting.len()
    }

    pub(super) fn live(&self) -> Arc<Vec<RunId>> {
        Arc::clone(&self.inbox().live)
    }

    /// Runs that were begun since the last look.
    fn watch_too(&self, started: &[RunId]) {
        let mut inbox = self.inbox();
        inbox.live = Arc::new(inbox.live.iter().chain(started).cloned().collect());
    }

    pub(super) fn has_ended(&self) -> bool {
        self.inbox().ended
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to do.
    fn next(&self, last_look: &mut Option<Instant>, interval: &dyn Fn() -> Duration) -> Turn {
        let mut inbox = self.inbox();
        loop {
            let interval = interval();
            let now = Instant::now();
            if inbox.ended {
                return Turn::End;
            }
            if let Some((lab, doing)) = inbox.due(now) {
                let is_like = |waiting: &Waiting| waiting.lab == lab && waiting.doing == doing;
                let (due, others) = std::mem::take(&mut inbox.waiting).into_iter().partition(is_like);
                inbox.waiting = others;
                inbox.busy.push((lab.clone(), doing));
                return Turn::Together(lab, doing, due);
            }
            let pause = if inbox.look { LOOKS_APART } else { interval };
            let look_at = last_look.map_or(now, |last| last + pause);
            if look_at <= now && !inbox.looking {
                (inbox.look, inbox.looking, *last_look) = (false, true, Some(now));
                return Turn::Look;
            }
            let asked_at =
                inbox.waiting.iter().filter_map(|waiting| inbox.due_at(waiting)).filter(|at| *at > now).min();
            let until = if inbox.looking { now + interval } else { look_at };
            let patience = asked_at.map_or(until, |at| at.min(until)).saturating_duration_since(now);
            inbox = self.bell.wait_timeout(inbox, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Inbox {
    /// What somebody has waited for long enough.
    fn due(&self, now: Instant) -> Option<(LabName, Doing)> {
        let due = self.waiting.iter().find(|waiting| self.due_at(waiting).is_some_and(|at| at <= now));
        due.map(|waiting| (waiting.lab.clone(), waiting.doing))
    }

    /// `None`: when a plan of its kind ends.
    fn due_at(&self, waiting: &Waiting) -> Option<Instant> {
        let of_kind = self.busy.iter().filter(|(_, doing)| *doing == waiting.doing);
        let is_of_lab = of_kind.clone().any(|(lab, _)| *lab == waiting.lab);
        let gathered = if is_of_lab { waiting.since + GATHER_MAX } else { waiting.not_before };
        (of_kind.count() < AT_ONCE).then(|| gathered.max(waiting.not_before))
    }
}

/// Runs until `Keeper::end`; what was begun by then is finished and recorded.
pub(super) fn run(daemon: &Arc<Daemon>) {
    let mut last_look = None;
    std::thread::scope(|scope| {
        scope.spawn(|| watch(daemon));
        loop {
            match daemon.keeper.next(&mut last_look, &|| interval(daemon)) {
                Turn::End => break,
                Turn::Look => drop(scope.spawn(|| look(daemon))),
                Turn::Together(lab, doing, waiting) => {
                    // The next plan is made of what this one has decided.
                    let (begun, decided) = mpsc::sync_channel::<()>(1);
                    scope.spawn(move || together(daemon, &lab, doing, waiting, begun));
                    // Nothing is ever sent: it is dropped when the work begins, or where none does.
                    assert!(decided.recv().is_err());
                }
            }
        }
    });
    for waiting in std::mem::take(&mut daemon.keeper.inbox().waiting) {
        answer(waiting, Err(ending()));
    }
}

/// As the site's file says by now.
fn interval(daemon: &Daemon) -> Duration {
    Duration::from_secs(daemon.context().site.daemon.interval_seconds)
}

/// A run that ends wakes the loop at once, and one that is to rest for another time is told so.
fn watch(daemon: &Daemon) {
    let (mut news, mut last) = (News::default(), interval(daemon));
    let mut next_beat = Instant::now();
    while !daemon.keeper.has_ended() {
        if std::mem::replace(&mut last, interval(daemon)) != last {
            daemon.keeper.bell.notify_all();
        }
        if Instant::now() >= next_beat {
            next_beat = Instant::now() + BEAT_EVERY;
            // Storage that takes nothing is told by all others who use it; starters then do as if there was nobody here.
            run::beat(&daemon.context().site.storage.runs).unwrap_or_default();
        }
        if news.has_ends(&daemon.context(), &daemon.keeper.live()) {
            daemon.keeper.wake();
        }
        std::thread::sleep(POLL);
    }
}

fn ending() -> No {
    No::of(StatusCode::SERVICE_UNAVAILABLE, Code::NotReady, "the daemon is ending; nothing was done, try again")
}

/// Who waits no more has gone; what was done is done.
fn answer(waiting: Waiting, answer: Result<Acted, No>) {
    drop(waiting.answer.send(answer));
}

fn together(daemon: &Daemon, lab: &LabName, doing: Doing, waiting: Vec<Waiting>, begun: mpsc::SyncSender<()>) {
    let asked: Vec<Asking> = waiting.iter().map(|waiting| waiting.asking.clone()).collect();
    let mut client = Unwatched::new(Arc::clone(&daemon.interrupts));
    let planning = Planning::begin();
    let decided = planning.clone();
    client.begun = Some(Box::new(move || {
        decided.end();
        drop(begun);
    }));
    let done = round::together(&daemon.context(), lab, doing, &asked, &mut client);
    daemon.counts.planned(&planning);
    if let Ok(Together { done, .. }) = &done {
        daemon.keeper.watch_too(&done.summary.started);
    }
    let mut later = Vec::new();
    match done {
        Ok(Together { done, refused }) => {
            for (waiting, refused) in waiting.into_iter().zip(refused) {
                match refused {
                    Some(error) => answer(waiting, Err(No::told(&error))),
                    None => match outcome(&waiting.asking, &done.plan, &done.summary) {
                        Outcome::Told(told) => answer(waiting, told),
                        Outcome::Later(_) if waiting.since.elapsed() < PATIENCE => later.push(waiting),
                        Outcome::Later(no) => answer(waiting, Err(no)),
                    },
                }
            }
        }
        Err(error) => waiting.into_iter().for_each(|waiting| answer(waiting, Err(No::told(&error)))),
    }
    let mut inbox = daemon.keeper.inbox();
    if let Some(at) = inbox.busy.iter().position(|busy| *busy == (lab.clone(), doing)) {
        inbox.busy.remove(at);
    }
    let not_before = Instant::now() + LATER;
    inbox.waiting.extend(later.into_iter().map(|waiting| Waiting { not_before, ..waiting }));
    drop(inbox);
    daemon.keeper.bell.notify_all();
}

/// Looks at the whole site, and does what some lab needs.
fn look(daemon: &Daemon) {
    let keeper = &daemon.keeper;
    let may_start = |lab: &LabName, vm: &VmName| {
        keeper.patience.lock().unwrap_or_else(PoisonError::into_inner).may_start(lab, vm, Instant::now())
    };
    let planning = Planning::begin();
    let looked = round::look(&daemon.context(), &may_start);
    daemon.counts.planned(&planning);
    let (mut labs, mut waiting) = (BTreeMap::new(), Vec::new());
    match looked {
        Ok(look) => {
            keeper.inbox().live = Arc::new(look.live);
            (labs, waiting) = (look.labs, look.waiting);
        }
        Err(error) => tracing::warn!(error = chain(&error), "the site cannot be looked at"),
    }
    std::thread::scope(|scope| {
        for (lab, found) in labs {
            match found {
                Ok(_) => drop(scope.spawn(move || keep(daemon, &lab, &may_start))),
                Err(error) => tracing::warn!(%lab, error = chain(&error), "a lab cannot be looked at"),
            }
        }
    });
    keeper.inbox().looking = false;
    keeper.bell.notify_all();
    collect(daemon, waiting);
}

/// While a session is open, the storage has a copy of the state that is not much older than a minute.
fn copy_state(daemon: &Daemon) {
    let mut copied = daemon.keeper.copied.lock().unwrap_or_else(PoisonError::into_inner);
    if copied.is_some_and(|at| at.elapsed() < COPIES_APART) {
        return;
    }
    match state::copy_for_sessions(&daemon.context()) {
        Ok(_) => *copied = Some(Instant::now()),
        Err(error) => tracing::warn!(error = chain(&error), "the state cannot be copied to the storage"),
    }
}

/// Collects what sessions wait for. Others look meanwhile: to read many disks takes its time.
fn collect(daemon: &Daemon, labs: Vec<LabName>) {
    let collecting = &daemon.keeper.collecting;
    if collecting.swap(true, Ordering::AcqRel) {
        return;
    }
    copy_state(daemon);
    for (lab, came) in round::submissions(&daemon.context(), labs, report::collect::WORDS) {
        match came {
            // Their guests are not off yet, or none could be read a moment ago.
            Ok(0) => {}
            Ok(vms) => tracing::info!(%lab, vms, "submissions are collected"),
            Err(error) => tracing::warn!(%lab, error = chain(&error), "submissions are not all collected"),
        }
    }
    collecting.store(false, Ordering::Release);
}

fn keep(daemon: &Daemon, lab: &LabName, may_start: &round::MayStart<'_>) {
    let mut client = Unwatched::new(Arc::clone(&daemon.interrupts));
    let planning = Planning::begin();
    let decided = planning.clone();
    client.begun = Some(Box::new(move || decided.end()));
    let kept = round::keep(&daemon.context(), lab, may_start, &mut client);
    daemon.counts.planned(&planning);
    match kept {
        Ok(done) => {
            tracing::info!(%lab, plan = done.plan.counts(), failed = done.summary.failed.len(), "kept as it was applied");
            for failure in &done.summary.failed {
                tracing::warn!(%lab, address = %failure.address, detail = failure.detail, "cannot {}", failure.effect);
            }
            let started = done.plan.starts().cloned();
            let mut patience = daemon.keeper.patience.lock().unwrap_or_else(PoisonError::into_inner);
            started.for_each(|vm| patience.started(lab, &vm, Instant::now()));
        }
        // By now it needs nothing that may be done.
        Err(ControlError::PlanRefused) => {}
        Err(error) => tracing::warn!(%lab, error = chain(&error), "a lab cannot be kept as it was applied"),
    }
}
