//! What people let others do with what is theirs, by command.
//!
//! ```text
//! POST   /v1/labs/{lab}/permissions          lets somebody do something
//! POST   /v1/labs/{lab}/permissions/revoke   takes back what was allowed by command
//! ```

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::routing::post;
use axum::{Extension, Json, Router};

use super::api::{In, No};
use super::messages::Grant;
use super::{Daemon, Peer};
use crate::control::{Context, ControlError, permissions};
use crate::model::id::LabName;
use crate::model::lab::Desired;
use crate::model::permission::Permission;

pub(super) fn router() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/v1/labs/{lab}/permissions", post(grant))
        .route("/v1/labs/{lab}/permissions/revoke", post(revoke))
}

async fn grant(
    State(daemon): State<Arc<Daemon>>,
    Extension(peer): Extension<Peer>,
    lab: In<LabName>,
    body: Result<Json<Grant>, JsonRejection>,
) -> Result<Json<()>, No> {
    change(daemon, peer, lab, body, "permission grant", permissions::grant).await
}

async fn revoke(
    State(daemon): State<Arc<Daemon>>,
    Extension(peer): Extension<Peer>,
    lab: In<LabName>,
    body: Result<Json<Grant>, JsonRejection>,
) -> Result<Json<()>, No> {
    let revoke =
        |context: &Context, lab: &Desired, given: &Permission| permissions::revoke(context, lab, given).map(drop);
    change(daemon, peer, lab, body, "permission revoke", revoke).await
}

async fn change(
    daemon: Arc<Daemon>,
    peer: Peer,
    lab: In<LabName>,
    body: Result<Json<Grant>, JsonRejection>,
    command: &str,
    act: fn(&Context, &Desired, &Permission) -> Result<(), ControlError>,
) -> Result<Json<()>, No> {
    let (Path(lab), Json(Grant { to, on, allow, force_isolated })) = (lab?, body?);
    let permission = Permission { to, on, allow, force_isolated };
    daemon.change_lab(peer, lab, command, move |context, desired| act(context, desired, &permission)).await
}
