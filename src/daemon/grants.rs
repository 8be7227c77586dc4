//! What people let others do with what is theirs, by command.

use axum::Json;

use super::messages::Grant;
use super::routes::{Answer, Asked, Method, Route};
use crate::control::{Context, ControlError, permissions};
use crate::model::id::LabName;
use crate::model::lab::Desired;
use crate::model::permission::Permission;

const MAY_SHARE: &str = "the thing's owner where the site lets owners share, and admins";

pub(super) fn routes() -> Vec<Route> {
    let revoke =
        |context: &Context, lab: &Desired, given: &Permission| permissions::revoke(context, lab, given).map(drop);
    vec![
        Route::new(
            Method::Post,
            "/v1/labs/{lab}/permissions",
            "Lets somebody do something with a thing.",
            MAY_SHARE,
            |asked| change(asked, "permission grant", permissions::grant),
        ),
        Route::new(
            Method::Post,
            "/v1/labs/{lab}/permissions/revoke",
            "Takes back all that was given by command on a thing.",
            MAY_SHARE,
            move |asked| change(asked, "permission revoke", revoke),
        ),
    ]
}

async fn change(
    asked: Asked<LabName, Json<Grant>>,
    command: &str,
    act: fn(&Context, &Desired, &Permission) -> Result<(), ControlError>,
) -> Answer<()> {
    let Json(Grant { to, on, allow, force_isolated }) = asked.body;
    let permission = Permission { to, on, allow, force_isolated };
    asked
        .daemon
        .change_lab(asked.peer, asked.path, command, move |context, desired| act(context, desired, &permission))
        .await
}
