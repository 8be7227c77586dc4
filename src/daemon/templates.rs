//! Templates that their owners install by hand and publish, and what was published of each.

use std::sync::Arc;

use axum::Json;

use super::api::{IN_LAB, No};
use super::ask::ACT_TIMEOUT;
use super::messages::{Acted, Install, Publish};
use super::routes::{Answer, Asked, Method, Route};
use crate::control::template::{self, Made, Wanted};
use crate::control::view::Version;
use crate::model::id::{LabName, TemplateName};

const MAY_CHANGE: &str = "the template's owner, whoever may modify it, and admins";

type OfTemplate<B = ()> = Asked<(LabName, TemplateName), B>;

pub(super) fn routes() -> Vec<Route> {
    use Method::{Get, Post};
    vec![
        Route::new(
            Post,
            "/v1/labs/{lab}/templates/{template}/install",
            "Makes a vm with a template's empty disk, as its owner's, and starts it with a CD in its drive.",
            MAY_CHANGE,
            install,
        )
        .once(),
        Route::new(
            Get,
            "/v1/labs/{lab}/templates/{template}/versions",
            "What was published of a template, and which of the vms that you see stand on it.",
            IN_LAB,
            versions,
        ),
        Route::new(
            Post,
            "/v1/labs/{lab}/templates/{template}/versions",
            "Makes the disks of a vm that is off a template's next version; answers when it is published. If that takes too long for \
             you, it goes on: the versions show it.",
            "whoever may modify both",
            publish,
        ),
    ]
}

async fn install(asked: OfTemplate<Json<Install>>) -> Answer<Acted> {
    let (key, (lab, template)) = (asked.key()?, asked.path);
    asked.daemon.install(asked.peer, lab, template, asked.body.0, key).await.map(Json)
}

async fn versions(asked: OfTemplate) -> Answer<Vec<Version>> {
    let (lab, template) = asked.path;
    asked.daemon.look_at(asked.peer, lab, "template versions", move |view| view.seen_versions(&template)).await
}

/// It copies whole disks, and keeps none of the few places of those who decide.
async fn publish(asked: OfTemplate<Json<Publish>>) -> Answer<Made> {
    let ((lab, template), Json(Publish { vm, note })) = (asked.path, asked.body);
    let context = asked.daemon.context_of(&asked.peer, format!("template publish {vm} --as {template}"));
    let turn = Arc::clone(&asked.daemon.bounds.copies);
    let work = move || {
        let (context, desired) = context.of_seen_lab(&lab)?;
        template::publish(&context, &desired, &Wanted { vm: vm.to_string(), template, note })
    };
    let told = move || work().map_err(|error| No::told(&error));
    asked.daemon.in_turn(&asked.peer, turn, ACT_TIMEOUT, told).await.map(Json)
}
