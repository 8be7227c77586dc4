//! The table of all that can be asked: from it come the router, the OpenAPI document and the reference. A route's path, body and
//! answer are the types of the function that answers it, so that the document says what the daemon does.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Extension, Json, Router};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api::No;
use super::{Daemon, Peer, api, aside, grants, guests, labs, once, openapi, quota, sessions, tables, templates};

pub(super) type Answer<T> = Result<Json<T>, No>;

/// One thing that can be asked.
pub(super) struct Route {
    pub(super) method: Method,
    /// Each `{name}` in it is one of `openapi::parameter`.
    pub(super) path: &'static str,
    /// What it does, as a sentence.
    pub(super) what: &'static str,
    /// Who may ask, and of what.
    pub(super) who: &'static str,
    pub(super) takes: Option<Content>,
    pub(super) gives: Content,
    /// Takes an `Idempotency-Key`: what comes again under it is not done again.
    pub(super) is_once: bool,
    /// Its body is read by who answers, once it is known that it may be sent.
    is_streamed: bool,
    on: MethodRouter<Arc<Daemon>>,
}

/// A body: what kind it is, and its values.
pub(super) struct Content {
    pub(super) kind: &'static str,
    pub(super) schema: fn(&mut SchemaGenerator) -> Schema,
}

pub(super) const JSON: &str = "application/json";
pub(super) const EVENTS: &str = "text/event-stream";
pub(super) const NDJSON: &str = "application/x-ndjson";
pub(super) const TEXT: &str = "text/plain; version=0.0.4";

impl Content {
    pub(super) fn of<T: JsonSchema>(kind: &'static str) -> Self {
        Self { kind, schema: |generator| generator.subschema_for::<T>() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Method {
    Get,
    Post,
    Delete,
}

impl Method {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }

    fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// What was asked: who asks, the names in the path, the body.
pub(super) struct Asked<P, B = ()> {
    pub(super) daemon: Arc<Daemon>,
    pub(super) peer: Peer,
    pub(super) path: P,
    pub(super) body: B,
    pub(super) headers: HeaderMap,
}

impl<P, B> Asked<P, B> {
    /// What the client calls this request; for routes that are `once`.
    pub(super) fn key(&self) -> Result<Option<String>, No> {
        once::key(&self.headers)
    }
}

/// A body as a route takes it.
pub(super) trait Body: Sized + Send {
    fn read(request: Request) -> impl Future<Output = Result<Self, No>> + Send;
    fn content() -> Option<Content>;
}

/// None, or none that is looked at.
impl Body for () {
    async fn read(_: Request) -> Result<Self, No> {
        Ok(())
    }

    fn content() -> Option<Content> {
        None
    }
}

impl<T: DeserializeOwned + JsonSchema + Send> Body for Json<T> {
    async fn read(request: Request) -> Result<Self, No> {
        use axum::extract::FromRequest as _;
        Ok(Self::from_request(request, &()).await?)
    }

    fn content() -> Option<Content> {
        Some(Content::of::<T>(JSON))
    }
}

impl Route {
    /// One that answers a value.
    pub(super) fn new<P, B, T, F>(
        method: Method,
        path: &'static str,
        what: &'static str,
        who: &'static str,
        act: impl Fn(Asked<P, B>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        B: Body + 'static,
        T: Serialize + JsonSchema,
        F: Future<Output = Answer<T>> + Send + 'static,
    {
        let act = move |asked: Asked<P, Request>| {
            let act = act.clone();
            async move {
                let Asked { daemon, peer, path, body, headers } = asked;
                let asked = Asked { daemon, peer, path, body: B::read(body).await?, headers };
                act(asked).await.map(|answer| answer.into_response())
            }
        };
        Self { takes: B::content(), ..Self::raw(method, path, what, who, Content::of::<T>(JSON), act) }
    }

    /// One that makes its answer itself.
    pub(super) fn raw<P, F>(
        method: Method,
        path: &'static str,
        what: &'static str,
        who: &'static str,
        gives: Content,
        act: impl Fn(Asked<P, Request>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        F: Future<Output = Result<Response, No>> + Send + 'static,
    {
        let kind = gives.kind;
        let answer = async move |State(daemon): State<Arc<Daemon>>,
                                 Extension(peer): Extension<Peer>,
                                 path: Result<Path<P>, PathRejection>,
                                 request: Request| {
            let (Path(path), headers) = (path?, request.headers().clone());
            let mut answer = act(Asked { daemon, peer, path, body: request, headers }).await?;
            answer.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static(kind));
            Ok::<_, No>(answer)
        };
        let on = on(method.filter(), answer);
        Self { method, path, what, who, takes: None, gives, is_once: false, is_streamed: false, on }
    }

    /// What comes again under the same key is not done again.
    pub(super) fn once(self) -> Self {
        Self { is_once: true, ..self }
    }

    /// A body that who answers reads.
    pub(super) fn reads(self, takes: Content) -> Self {
        Self { takes: Some(takes), is_streamed: true, ..self }
    }

    /// The names in its path, in their order.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }
}

/// All that there is, by path.
pub(super) fn all() -> Vec<Route> {
    let rooms = [
        api::routes(),
        quota::routes(),
        tables::routes(),
        templates::routes(),
        aside::routes(),
        sessions::routes(),
        grants::routes(),
        guests::routes(),
        labs::routes(),
        openapi::routes(),
    ];
    let mut all: Vec<Route> = rooms.into_iter().flatten().collect();
    all.sort_by_key(|route| (route.path, route.method));
    all
}

/// The table's routes: those whose bodies are read before they are begun, and the others.
pub(super) fn routers() -> (Router<Arc<Daemon>>, Router<Arc<Daemon>>) {
    let router =
        |routes: Vec<Route>| routes.into_iter().fold(Router::new(), |router, route| router.route(route.path, route.on));
    let (streamed, whole) = all().into_iter().partition(|route| route.is_streamed);
    (router(whole), router(streamed))
}
