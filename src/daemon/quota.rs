//! What who asks may use, in every lab that knows them; of nobody else.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;

use super::{Daemon, Peer};
use crate::control::quota;

pub(super) async fn own(State(daemon): State<Arc<Daemon>>, Extension(peer): Extension<Peer>) -> impl IntoResponse {
    daemon.look(peer, "quota", quota::own).await
}
