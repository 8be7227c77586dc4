//! Labs that people plan and apply from their own accounts: the site says whose they are. Who may not is told so before a byte of
//! what they send is looked at; the files themselves are read in a process without rights (`control::upload`).
//!
//! The answer is a stream of lines, each a `Told`. A lab of others is not there, whatever a plan says of their addresses.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::Response;
use sha2::Digest as _;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, channel};

use super::api::{No, read_whole, too_many};
use super::lab_messages::{Agreed, LabRequest, Told};
use super::routes::{Asked, Content, Method, NDJSON, Route};
use super::stream;
use crate::apply::{BatchKind, Goal, Progress, Readiness};
use crate::control::apply::{Client, Done, Request as Wanted, reconcile};
use crate::control::plan::Scope;
use crate::control::upload::{self, Meaning};
use crate::control::{Code, Context, ControlError};
use crate::disks::Copied;
use crate::model::hexadecimal;
use crate::model::id::LabName;
use crate::model::lab::Desired;
use crate::plan::{Ground, Plan};
use crate::report::{self, progress};
use crate::state::Recorded;

/// The first line and the files.
const BODY_BYTES_MAX: usize = upload::BYTES_MAX as usize + (8 << 20);
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
const TOO_LONG: &str = "the lab's files are too long, or end before their end; nothing was done";
const PARALLELISM: usize = 4;
/// Lines that wait for a client; one that reads no more holds up its own apply alone.
const LINES: usize = 64;
/// A client that has not taken a line for so long has gone.
const LINE_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether it has.
const LINE_PAUSE: Duration = Duration::from_millis(20);

pub(super) fn routes() -> Vec<Route> {
    let of = |doing: Doing, path, what| {
        let answers = Content::of::<Told>(NDJSON);
        let who = "whoever the site makes an owner of the lab, and admins";
        let route = Route::raw(Method::Post, path, what, who, answers, move |asked| answer(doing, asked));
        route.reads(Content::of::<LabRequest>(NDJSON))
    };
    vec![
        of(Doing::Validate, "/v1/labs/{lab}/validate", "Says what is wrong in the lab's files."),
        of(Doing::Plan, "/v1/labs/{lab}/plan", "Says what an apply would change."),
        of(Doing::Apply, "/v1/labs/{lab}/apply", "Makes the lab as its files say, as far as that was agreed to."),
        of(
            Doing::Destroy,
            "/v1/labs/{lab}/destroy",
            "Stops all of the lab and sets its disks aside, as far as that was agreed to.",
        ),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Validate,
    Plan,
    Apply,
    Destroy,
}

impl Doing {
    fn word(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Destroy => "destroy",
        }
    }
}

async fn answer(doing: Doing, asked: Asked<LabName, Request>) -> Result<Response, No> {
    let Asked { daemon, peer, path: lab, body: request, .. } = asked;
    let place = daemon.bounds.requests.take(peer.uid).ok_or_else(too_many)?;
    let context = daemon.context_of(&peer, format!("{} {lab}", doing.word()));
    let (asker, named) = (context.clone(), lab.clone());
    let may = tokio::task::spawn_blocking(move || asker.audited(None, upload::require_owner(&asker, &named)));
    may.await.map_err(|_| No::bug())?.map_err(|error| No::told(&error))?;
    let upload = daemon.bounds.uploads.take(peer.uid).ok_or_else(too_many)?;
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > BODY_BYTES_MAX) {
        return Err(No::of(StatusCode::PAYLOAD_TOO_LARGE, Code::Usage, TOO_LONG));
    }
    let body = read_whole(request.into_body(), BODY_BYTES_MAX, BODY_TIMEOUT, TOO_LONG).await?;
    let (sender, receiver) = channel(LINES);
    let interrupts = Arc::clone(&daemon.interrupts);
    tokio::task::spawn_blocking(move || {
        let _place = place;
        let mut teller = Teller { to: sender, interrupts, agreed: Agreed::ToNothing, is_gone: false };
        let understood = understand(doing, &context, &lab, &body, &mut teller);
        drop((body, upload));
        let done =
            understood.and_then(|(wanted, context, desired)| carry_out(doing, &context, &desired, wanted, &mut teller));
        if let Err(no) = done {
            teller.tell(&Told::No(no.into_refusal()));
        }
    });
    Ok(Response::new(stream::body(receiver)))
}

/// What is wanted of the lab.
fn understand(
    doing: Doing,
    context: &Context,
    lab: &LabName,
    body: &[u8],
    teller: &mut Teller,
) -> Result<(LabRequest, Context, Desired), No> {
    let end = body.iter().position(|byte| *byte == b'\n').unwrap_or(body.len());
    let (line, files) = (&body[..end], body.get(end + 1..).unwrap_or_default());
    let wanted: LabRequest = serde_json::from_slice(line)
        .map_err(|error| No::of(StatusCode::BAD_REQUEST, Code::Usage, format!("{error}; nothing was done")))?;
    let context = context.audited(None, upload::at(context, lab, &wanted.folder)).map_err(|error| No::told(&error))?;
    if doing == Doing::Destroy {
        return Ok((wanted, context, Desired::nothing(lab.clone())));
    }
    match upload::receive(&context, lab, files, wanted.is_styled).map_err(|error| No::told(&error))? {
        Meaning::Lab { desired, findings } => {
            teller.tell(&Told::Findings(findings));
            Ok((wanted, context, *desired))
        }
        Meaning::Invalid { findings } => {
            teller.tell(&Told::Findings(findings));
            Err(No::told(&ControlError::InvalidManifest))
        }
    }
}

fn carry_out(
    doing: Doing,
    context: &Context,
    desired: &Desired,
    wanted: LabRequest,
    teller: &mut Teller,
) -> Result<(), No> {
    let LabRequest { targets, allow, refresh_only, agreed, folder, .. } = wanted;
    let scope = Scope { targets, allow, refresh_only };
    let is_admin = upload::sees_all_labs(context);
    let make = |recorded: &Recorded| -> Result<Plan, ControlError> {
        let plan = scope.plan(context, desired, recorded)?;
        Ok(if is_admin { plan } else { without_others(plan) })
    };
    let told = |error: ControlError| No::told(&error);
    match (doing, &agreed) {
        (Doing::Validate, _) => return Ok(()),
        (Doing::Plan, _) | (_, Agreed::ToNothing) => {
            let plan = make(&context.recorded(&desired.lab).map_err(told)?).map_err(told)?;
            teller.shows(&plan);
            return Ok(());
        }
        (Doing::Apply | Doing::Destroy, Agreed::To(_) | Agreed::ToAll) => {}
    }
    let doing = format!("{} {}", doing.word(), folder.display());
    let is_agreed = agreed == Agreed::ToAll;
    teller.agreed = agreed;
    let request = Wanted { doing: &doing, parallelism: PARALLELISM, is_root: true, is_agreed, together: None };
    match reconcile(context, desired, &make, &request, teller) {
        Ok(Done { plan, summary }) => {
            let again = format!("labwright {doing}");
            let text = match plan.is_empty() {
                true => String::new(),
                false => report::apply::text(&summary, &again, Some("labwright get mappings")),
            };
            let is_whole = summary.failed.is_empty() && !summary.interrupted;
            teller.tell(&Told::Outcome { text, stream: report::apply::stream(&summary), is_whole });
            Ok(())
        }
        // What is there to say was said with the plan.
        Err(ControlError::NotConfirmed) => Ok(()),
        Err(error) => Err(No::told(&error)),
    }
}

/// Of other labs there is nothing to know.
fn without_others(mut plan: Plan) -> Plan {
    for refusal in &mut plan.refusals {
        if let Ground::RangeOverlaps { range, .. } = refusal.why {
            refusal.why = Ground::RangeTaken { range };
        }
    }
    plan
}

/// Who sent a lab and hears how it goes.
struct Teller {
    to: Sender<Bytes>,
    interrupts: Arc<AtomicU8>,
    agreed: Agreed,
    /// Nobody listens any more.
    is_gone: bool,
}

impl Teller {
    fn tell(&mut self, told: &Told) {
        let mut line = serde_json::to_vec(told).expect("a message has only string keys");
        line.push(b'\n');
        let (mut line, begun) = (Bytes::from(line), Instant::now());
        // What was begun is finished, whether somebody listens or not.
        while !self.is_gone {
            match self.to.try_send(line) {
                Ok(()) => return,
                Err(TrySendError::Full(back)) if begun.elapsed() < LINE_PATIENCE => {
                    line = back;
                    std::thread::sleep(LINE_PAUSE);
                }
                Err(_) => {
                    tracing::debug!("a client hears no more");
                    self.is_gone = true;
                    return;
                }
            }
        }
    }
}

impl Client for Teller {
    fn shows(&mut self, plan: &Plan) {
        let digest = digest(plan);
        let (plan_told, agreed) = (Box::new(plan.clone()), self.agreed.clone());
        self.tell(&match agreed {
            Agreed::To(other) if other != digest => Told::Moved { plan: plan_told, digest },
            // They have seen it.
            Agreed::To(_) => return,
            Agreed::ToNothing | Agreed::ToAll => Told::Plan { plan: plan_told, digest },
        });
    }

    fn agrees(&mut self, plan: &Plan) -> Option<bool> {
        Some(self.agreed == Agreed::To(digest(plan)))
    }

    fn begins(&mut self) -> Arc<AtomicU8> {
        Arc::clone(&self.interrupts)
    }

    fn looks(&mut self, _: &Readiness, _: Goal) {}
}

impl Progress for Teller {
    fn batch(&mut self, kind: BatchKind, done: usize, failed: usize, took: Duration) {
        if kind != BatchKind::Record {
            self.tell(&Told::Progress(progress::batch(kind, done, failed, took)));
        }
    }

    fn retry(&mut self, kind: BatchKind, number: usize, pause: Duration, why: &str) {
        self.tell(&Told::Progress(progress::retry(kind, number, pause, why)));
    }

    fn copies(&mut self, copied: &Copied) {
        self.tell(&Told::Progress(format!("  {}", progress::copied(copied))));
    }
}

/// Of what a plan does: two with the same one do the same.
fn digest(plan: &Plan) -> String {
    hexadecimal(&sha2::Sha256::digest(plan.deeds()))
}
