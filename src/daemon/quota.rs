//! What who asks may use, in every lab that knows them; of nobody else.

use super::routes::{Asked, Method, Route};
use crate::control::quota;

pub(super) fn routes() -> Vec<Route> {
    let own = |asked: Asked<()>| asked.daemon.look(asked.peer, "quota", quota::own);
    vec![Route::new(
        Method::Get,
        "/v1/quota",
        "What you may use, and what you use, in each of your labs.",
        "everybody",
        own,
    )]
}
