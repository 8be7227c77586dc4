//! The paper's tables, each as far as it is who asks' to see.

use schemars::JsonSchema;
use serde::Serialize;

use super::api::IN_LAB;
use super::routes::{Asked, Method, Route};
use crate::control::ControlError;
use crate::control::view::View;
use crate::model::id::LabName;

pub(super) fn routes() -> Vec<Route> {
    vec![
        table("/v1/labs/{lab}/users", "You; for admins, everybody.", "get users", |view| view.seen_users()),
        table(
            "/v1/labs/{lab}/user-groups",
            "The predefined groups and those that you are in, without who else is in them.",
            "get user-groups",
            |view| view.seen_user_groups(),
        ),
        table("/v1/labs/{lab}/vm-groups", "The networks of what you see.", "get vm-groups", |view| {
            view.seen_vm_groups()
        }),
        table(
            "/v1/labs/{lab}/permissions",
            "What is granted to you and to groups that you are in.",
            "get permissions",
            |view| view.seen_permissions(),
        ),
        table(
            "/v1/labs/{lab}/claims",
            "What you asked for, and what others did about vms of yours.",
            "get claims",
            |view| view.seen_claims(),
        ),
    ]
}

fn table<R: Serialize + JsonSchema + Send + 'static>(
    path: &'static str,
    what: &'static str,
    command: &'static str,
    see: fn(&View<'_>) -> Result<Vec<R>, ControlError>,
) -> Route {
    Route::new(Method::Get, path, what, IN_LAB, move |asked: Asked<LabName>| asked.look_at(command, see))
}
