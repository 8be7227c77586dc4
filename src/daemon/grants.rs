//! What people let others do with what is theirs, by command.
//!
//! ```text
//! POST   /v1/labs/{lab}/permissions          lets somebody do something
//! POST   /v1/labs/{lab}/permissions/revoke   takes back what was allowed by command
//! ```

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::routing::post;
use axum::{Extension, Json, Router};

use super::api::No;
use super::messages::Grant;
use super::{Daemon, Peer};
use crate::control::permissions;
use crate::model::id::LabName;
use crate::model::permission::Permission;

type In<T> = Result<Path<T>, PathRejection>;

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
    let (Path(lab), Json(Grant { to, on, allow, force_isolated })) = (lab?, body?);
    let permission = Permission { to, on, allow, force_isolated };
    daemon
        .change_lab(peer, lab, "permission grant", move |context, desired| {
            permissions::grant(context, desired, &permission)
        })
        .await
}

async fn revoke(
    State(daemon): State<Arc<Daemon>>,
    Extension(peer): Extension<Peer>,
    lab: In<LabName>,
    body: Result<Json<Grant>, JsonRejection>,
) -> Result<Json<()>, No> {
    let (Path(lab), Json(Grant { to, on, allow, force_isolated })) = (lab?, body?);
    let permission = Permission { to, on, allow, force_isolated };
    daemon
        .change_lab(peer, lab, "permission revoke", move |context, desired| {
            permissions::revoke(context, desired, &permission).map(drop)
        })
        .await
}
