//! The paths, and what each asks of `control`. Who asks sees what is theirs and what they have a right to; all else is not
//! there, and reads so.
//!
//! `docs/api.md` lists them; the table behind it is `routes`.
//!
//! The `/` in the name of a vm of somebody's own is written `%2F`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::messages::{Derive, Lab, Power, Refusal};
use super::routes::{self, Answer, Asked, Content, EVENTS, Method, Route, TEXT};
use super::{Daemon, Peer, counts, events};
use crate::control::upload::sees_all_labs;
use crate::control::view::{Census, Standing, View, census};
use crate::control::{Code, Context, ControlError};
use crate::model::id::{LabName, UserName, VmName};
use crate::model::lab::Desired;
use crate::report::Failure;
use crate::report::table::word;
use crate::state::StateError;

const BODY_BYTES_MAX: usize = 1 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The queue may be slow, a plan's state locked for a while.
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// For all connections: each request bears the `Peer` that its connection is of.
pub(super) fn router(daemon: Arc<Daemon>) -> Router {
    let (of_whole, of_streamed) = routes::routers();
    of_whole
        .fallback(async || No::of(StatusCode::NOT_FOUND, Code::Usage, "there is no such path"))
        .method_not_allowed_fallback(async || {
            No::of(StatusCode::METHOD_NOT_ALLOWED, Code::Usage, "this path takes another method")
        })
        .layer(middleware::from_fn(whole))
        .merge(of_streamed)
        .layer(middleware::from_fn_with_state(Arc::clone(&daemon), admit))
        .with_state(daemon)
}

pub(super) const IN_LAB: &str = "people whom the lab knows";
const OF_VM: &str = "whom the vm is shown to: its owner, whoever has a right to it, admins";
const MAY_RUN: &str = "its owner, and whoever may run it";

pub(super) fn routes() -> Vec<Route> {
    let labs = Route::new(Method::Get, "/v1/labs", "The labs in which you may see something.", "everybody", labs);
    std::iter::once(labs).chain(of_vms()).chain(of_rest()).collect()
}

fn of_vms() -> Vec<Route> {
    use Method::{Delete, Get, Post};
    vec![
        Route::new(
            Get,
            "/v1/labs/{lab}/vms",
            "The vms that are yours or that you have a right to.",
            IN_LAB,
            |asked: Asked<LabName>| asked.look_at("get vms", |view| view.seen_vms()),
        ),
        Route::new(
            Post,
            "/v1/labs/{lab}/vms",
            "Makes a vm of your own from a template; answers when its disks are there.",
            "whoever may derive from the template",
            |asked: Asked<LabName, Json<Derive>>| async move {
                let key = asked.key()?;
                asked.daemon.derive(asked.peer, asked.path, asked.body.0, key).await.map(Json)
            },
        )
        .once(),
        Route::new(
            Get,
            "/v1/labs/{lab}/vms/{vm}",
            "One vm, with what opens its screen for those who may run it.",
            OF_VM,
            |asked: Asked<(LabName, VmName)>| {
                let (lab, vm) = asked.path;
                asked.daemon.look_at(asked.peer, lab, "vm show", move |view| view.full_vm(&vm))
            },
        ),
        Route::new(
            Delete,
            "/v1/labs/{lab}/vms/{vm}",
            "Gives up a vm of your own: it is stopped, and its disks are set aside.",
            "whoever made it, and admins",
            |asked: Asked<(LabName, VmName)>| async move {
                let (key, (lab, vm)) = (asked.key()?, asked.path);
                asked.daemon.give_up(asked.peer, lab, vm, key).await.map(Json)
            },
        )
        .once(),
        Route::new(
            Post,
            "/v1/labs/{lab}/vms/{vm}/power",
            "Starts, stops or restarts a vm; answers when that is submitted, not when the guest is up.",
            MAY_RUN,
            |asked: Asked<(LabName, VmName), Json<Power>>| async move {
                let (key, (lab, vm)) = (asked.key()?, asked.path);
                asked.daemon.power(asked.peer, lab, vm, asked.body.0, key).await.map(Json)
            },
        )
        .once(),
        Route::raw(
            Get,
            "/v1/labs/{lab}/vms/{vm}/events",
            "Tells where a vm stands, now and whenever that changes: each event is named `standing`, its data is one value.",
            OF_VM,
            Content::of::<Standing>(EVENTS),
            events,
        ),
    ]
}

/// What else is in a lab, and the site's numbers.
fn of_rest() -> Vec<Route> {
    use Method::Get;
    vec![
        Route::new(
            Get,
            "/v1/labs/{lab}/templates",
            "The templates that are yours or that you have a right to.",
            IN_LAB,
            |asked: Asked<LabName>| asked.look_at("get templates", |view| view.seen_templates()),
        ),
        Route::new(Get, "/v1/labs/{lab}/mappings", "Where your vms run now.", IN_LAB, |asked: Asked<LabName>| {
            asked.look_at("get mappings", |view| view.seen_mappings())
        }),
        Route::new(
            Get,
            "/v1/labs/{lab}/permissions/effective",
            "All that you may do, and why.",
            IN_LAB,
            |asked: Asked<LabName>| asked.look_at("permission check", |view| Ok(view.own_rights())),
        ),
        Route::raw(
            Get,
            "/metrics",
            "Numbers of the whole site for Prometheus, without anybody's name.",
            "admins, and the accounts under `daemon: { metrics: [...] }` in site.yaml",
            Content::of::<String>(TEXT),
            metrics,
        ),
    ]
}

/// Who asks too often is told when to come again; every answer is counted.
async fn admit(
    State(daemon): State<Arc<Daemon>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let answer = match daemon.bounds.rates.take(peer.uid, Instant::now()) {
        Ok(()) => next.run(request).await,
        Err(_) => {
            let what = "you ask too often; nothing was done";
            No::of(StatusCode::TOO_MANY_REQUESTS, Code::Refused, what).into_response()
        }
    };
    daemon.counts.answered(answer.status().as_u16());
    answer
}

/// A request is begun when all of it is here: one that is slow or endless holds no place among those that work.
async fn whole(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let too_long = "the body is longer than 1 MiB, or ends before its end; nothing was done";
    match read_whole(body, BODY_BYTES_MAX, BODY_TIMEOUT, too_long).await {
        Ok(body) => next.run(Request::from_parts(head, body.into())).await,
        Err(no) => no.into_response(),
    }
}

/// All of a body, or why not.
pub(super) async fn read_whole(body: Body, bytes_max: usize, patience: Duration, too_long: &str) -> Result<Bytes, No> {
    let read = tokio::time::timeout(patience, to_bytes(body, bytes_max)).await;
    read.map_err(|_| No::of(StatusCode::REQUEST_TIMEOUT, Code::Usage, "the body takes too long; nothing was done"))?
        .map_err(|_| No::of(StatusCode::PAYLOAD_TOO_LARGE, Code::Usage, too_long))
}

async fn labs(asked: Asked<()>) -> Answer<Vec<Lab>> {
    let (daemon, now) = (Arc::clone(&asked.daemon), Instant::now());
    let known = move |context: &Context, name: &LabName| -> Result<bool, ControlError> {
        let look = daemon.looks.at(context, name, now)?;
        Ok(look.seen_by(context, |view| view.refuse_stranger().is_ok()))
    };
    let work = move |context: &Context| {
        let mut seen = Vec::new();
        for name in context.labs()? {
            match known(context, &name) {
                Ok(true) => seen.push(Lab { name }),
                Ok(false) => {}
                // The others are not hidden by it.
                Err(error) => tracing::warn!(%name, %error, "a lab cannot be looked at"),
            }
        }
        Ok(seen)
    };
    asked.daemon.look(asked.peer, "get labs", work).await
}

async fn events(asked: Asked<(LabName, VmName), Request>) -> Result<Response, No> {
    let Asked { daemon, peer, path: (lab, vm), .. } = asked;
    let place = daemon.bounds.streams.take(peer.uid).ok_or_else(too_many)?;
    let seen = vm.clone();
    let look = Arc::clone(&daemon).look_at(peer, lab.clone(), "vm start", move |view| view.require_vm(&seen));
    look.await.map(drop)?;
    Ok(events::stream(&daemon, lab, vm, place))
}

/// Numbers of the whole site: for root, its admins, and the accounts that the site names.
async fn metrics(asked: Asked<(), Request>) -> Result<Response, No> {
    let Asked { daemon, peer, .. } = asked;
    let context = daemon.context_of(&peer, "metrics".to_owned());
    let is_named = |user: &UserName| context.site.daemon.metrics.contains(user);
    if !sees_all_labs(&context) && !peer.person.user().is_some_and(is_named) {
        let what =
            "numbers of the whole site are for its admins; an admin may name you under `daemon: { metrics: [...] }`";
        return Err(No::of(StatusCode::FORBIDDEN, Code::Refused, what));
    }
    let Json(Census { vms, dropped }) = Arc::clone(&daemon).look(peer, "metrics", census).await?;
    let now = counts::Now {
        guests: vms.into_iter().map(|(state, number)| (word(&state), number)).collect(),
        dropped,
        connections: daemon.bounds.connections.all(),
        waiting: daemon.keeper.waiting(),
        queue_calls: daemon.context().queue_calls().counts(),
    };
    Ok(daemon.counts.text(&now).into_response())
}

impl<B> Asked<LabName, B> {
    /// What who asks sees of the lab.
    pub(super) async fn look_at<T: Serialize + Send + 'static>(
        self,
        command: &str,
        see: impl FnOnce(&View<'_>) -> Result<T, ControlError> + Send + 'static,
    ) -> Answer<T> {
        self.daemon.look_at(self.peer, self.path, command, see).await
    }
}

impl Daemon {
    /// A lab that who asks may know of, and what they see of it.
    pub(super) async fn look_at<T: Serialize + Send + 'static>(
        self: Arc<Self>,
        peer: Peer,
        lab: LabName,
        command: &str,
        see: impl FnOnce(&View<'_>) -> Result<T, ControlError> + Send + 'static,
    ) -> Answer<T> {
        let (daemon, now) = (Arc::clone(&self), Instant::now());
        let work = move |context: &Context| {
            let look = daemon.looks.at(context, &lab, now)?;
            look.seen_by(context, |view| {
                view.refuse_stranger()?;
                see(view)
            })
        };
        self.look(peer, command, work).await
    }

    pub(super) async fn look<T: Serialize + Send + 'static>(
        self: Arc<Self>,
        peer: Peer,
        command: &str,
        work: impl FnOnce(&Context) -> Result<T, ControlError> + Send + 'static,
    ) -> Answer<T> {
        let context = self.context_of(&peer, command.to_owned());
        let turn = Arc::clone(&self.bounds.looks);
        self.in_turn(&peer, turn, LOOK_TIMEOUT, move || {
            context.audited(None, work(&context)).map_err(|error| No::told(&error))
        })
        .await
        .map(Json)
    }

    /// Changes what is recorded of a lab that who asks may know of.
    pub(super) async fn change_lab(
        self: Arc<Self>,
        peer: Peer,
        lab: LabName,
        command: &str,
        change: impl FnOnce(&Context, &Desired) -> Result<(), ControlError> + Send + 'static,
    ) -> Answer<()> {
        let context = self.context_of(&peer, command.to_owned());
        let turn = Arc::clone(&self.bounds.acts);
        let work = move || {
            let (context, desired) = context.of_seen_lab(&lab)?;
            change(&context, &desired)
        };
        self.in_turn(&peer, turn, LOOK_TIMEOUT, move || work().map_err(|error| No::told(&error))).await.map(Json)
    }

    pub(super) fn context_of(&self, peer: &Peer, command: String) -> Context {
        let context = self.context();
        context.with_caller(peer.caller(&context.caller, command))
    }

    /// Does it on a thread that may wait, once it is its turn. What is too late for its client goes on.
    pub(super) async fn in_turn<T: Send + 'static>(
        &self,
        peer: &Peer,
        turn: Arc<Semaphore>,
        patience: Duration,
        work: impl FnOnce() -> Result<T, No> + Send + 'static,
    ) -> Result<T, No> {
        let place = self.bounds.requests.take(peer.uid).ok_or_else(too_many)?;
        let done = async {
            let turn = turn.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let (_turn, _place) = (turn, place);
                work()
            })
            .await
        };
        match tokio::time::timeout(patience, done).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(No::bug()),
            Err(_) => Err(too_late()),
        }
    }
}

/// One account has its share.
pub(super) fn too_many() -> No {
    No::of(StatusCode::TOO_MANY_REQUESTS, Code::Refused, "you ask for too much at once; nothing was done")
}

/// What was begun goes on.
pub(super) fn too_late() -> No {
    let late = "it takes longer than you can be kept waiting; what was begun goes on";
    No::of(StatusCode::GATEWAY_TIMEOUT, Code::NotReady, late)
}

/// A no, with its status.
#[derive(Debug, Clone)]
pub(super) struct No {
    status: StatusCode,
    refusal: Refusal,
}

impl No {
    pub(super) fn of(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, refusal: Refusal { code, message: message.into(), causes: Vec::new(), hint: None } }
    }

    pub(super) fn bug() -> Self {
        Self::of(StatusCode::INTERNAL_SERVER_ERROR, Code::Failed, "this is a bug of labwright")
    }

    pub(super) fn into_refusal(self) -> Refusal {
        self.refusal
    }

    pub(super) fn told(error: &ControlError) -> Self {
        if let Some(message) = about_others(error) {
            return Self::of(status(error), error.code(), message);
        }
        let Failure { message, causes, hint, .. } = error.into();
        Self { status: status(error), refusal: Refusal { code: error.code(), message, causes, hint } }
    }

    pub(super) fn because(mut self, causes: Vec<String>, hint: Option<String>) -> Self {
        self.refusal.causes = causes;
        self.refusal.hint = hint;
        self
    }
}

impl IntoResponse for No {
    fn into_response(self) -> Response {
        let mut answer = (self.status, Json(self.refusal)).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }
}

impl From<PathRejection> for No {
    fn from(rejection: PathRejection) -> Self {
        Self::of(rejection.status(), Code::Usage, rejection.body_text())
    }
}

impl From<JsonRejection> for No {
    fn from(rejection: JsonRejection) -> Self {
        Self::of(rejection.status(), Code::Usage, rejection.body_text())
    }
}

/// Words for what would tell of others' things otherwise: their names, and what they type.
fn about_others(error: &ControlError) -> Option<&'static str> {
    match error {
        ControlError::State(StateError::Locked { .. } | StateError::InUse { .. }) => {
            Some("the site is busy with somebody else's request; nothing was done, try again")
        }
        ControlError::State(StateError::Given { .. } | StateError::Stale { .. }) => {
            Some("something else was decided meanwhile; nothing was done, try again")
        }
        ControlError::UnknownAddress { .. } => {
            Some("there is nothing of this name that you may know of; nothing was done")
        }
        _ => None,
    }
}

fn status(error: &ControlError) -> StatusCode {
    use crate::access::Refused;
    use crate::control::aside::AsideError;
    use crate::control::pick::PickError;
    use crate::control::request::RequestError;
    use crate::control::session::SessionError;
    match error {
        ControlError::NotAllowed { refused: Refused::NotKnown, .. }
        | ControlError::NoSuchLab { .. }
        | ControlError::NotOwner { .. }
        | ControlError::NoUser { .. }
        | ControlError::UnknownAddress { .. }
        | ControlError::Request(RequestError::NoSnapshot { .. })
        | ControlError::Session(SessionError::NoRecord { .. })
        | ControlError::Aside(AsideError::None { .. } | AsideError::NoSet { .. })
        | ControlError::Pick(PickError::NothingFits { .. } | PickError::Unknown { .. }) => StatusCode::NOT_FOUND,
        ControlError::State(
            StateError::Locked { .. }
            | StateError::Held { .. }
            | StateError::Stale { .. }
            | StateError::OverQuota { .. }
            | StateError::OverStorage { .. },
        )
        | ControlError::Request(RequestError::SnapshotThere { .. })
        | ControlError::Aside(
            AsideError::NotOff { .. } | AsideError::NothingWaits { .. } | AsideError::NotHeld { .. },
        )
        | ControlError::NameTaken { .. } => StatusCode::CONFLICT,
        _ => match error.code() {
            Code::Refused => StatusCode::FORBIDDEN,
            Code::Invalid | Code::Usage => StatusCode::BAD_REQUEST,
            Code::NotReady => StatusCode::CONFLICT,
            Code::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}
