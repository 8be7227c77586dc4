//! The paper's tables, each as far as it is who asks' to see.
//!
//! ```text
//! GET    /v1/labs/{lab}/users
//! GET    /v1/labs/{lab}/user-groups
//! GET    /v1/labs/{lab}/vm-groups
//! GET    /v1/labs/{lab}/permissions
//! GET    /v1/labs/{lab}/claims
//! ```

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{MethodRouter, get};
use axum::{Extension, Router};
use serde::Serialize;

use super::api::In;
use super::{Daemon, Peer};
use crate::control::ControlError;
use crate::control::view::View;
use crate::model::id::LabName;

pub(super) fn router() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/v1/labs/{lab}/users", table("get users", |view| view.seen_users()))
        .route("/v1/labs/{lab}/user-groups", table("get user-groups", |view| view.seen_user_groups()))
        .route("/v1/labs/{lab}/vm-groups", table("get vm-groups", |view| view.seen_vm_groups()))
        .route("/v1/labs/{lab}/permissions", table("get permissions", |view| view.seen_permissions()))
        .route("/v1/labs/{lab}/claims", table("get claims", |view| view.seen_claims()))
}

fn table<R: Serialize + Send + 'static>(
    command: &'static str,
    see: fn(&View<'_>) -> Result<Vec<R>, ControlError>,
) -> MethodRouter<Arc<Daemon>> {
    get(async move |daemon: State<Arc<Daemon>>, peer: Extension<Peer>, lab: In<LabName>| {
        daemon.0.look_at(peer.0, lab, command, see).await
    })
}
