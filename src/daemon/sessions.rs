//! Sessions for those who may plan and apply a lab: how they stand, and their times.

use std::sync::Arc;

use axum::Json;

use super::api::{LOOK_TIMEOUT, No};
use super::routes::{Answer, Asked, Method, Route};
use crate::control::ControlError;
use crate::control::own::Lab;
use crate::control::session::{self, Finding, Happened, Sitter, Status, Submission, Wanted, sitters};
use crate::control::view::View;
use crate::model::id::{LabName, SessionName, UserName};
use crate::state::SessionRecord;

const OWNERS: &str = "whoever the site makes an owner of the lab, and admins";

pub(super) fn routes() -> Vec<Route> {
    use Method::{Get, Post};
    vec![
        Route::new(Get, "/v1/labs/{lab}/sessions", "The lab's sessions.", OWNERS, |asked: Asked<LabName>| {
            asked.look_at("session list", |view| view.seen_sessions())
        }),
        Route::new(
            Get,
            "/v1/labs/{lab}/sessions/{session}",
            "Who takes part in a session, and how their times stand.",
            OWNERS,
            people,
        ),
        Route::new(
            Get,
            "/v1/labs/{lab}/sessions/{session}/status",
            "How the machines of a session stand, and the time that their owners lost.",
            OWNERS,
            status,
        ),
        Route::new(
            Get,
            "/v1/labs/{lab}/sessions/{session}/check",
            "Whether a session will find what it needs.",
            OWNERS,
            check,
        ),
        Route::new(
            Get,
            "/v1/labs/{lab}/sessions/{session}/people/{user}",
            "What became of one person in a session.",
            OWNERS,
            story,
        ),
        Route::new(
            Get,
            "/v1/labs/{lab}/sessions/{session}/submissions",
            "How the submission of everybody in a session stands.",
            OWNERS,
            handed_in,
        ),
        Route::new(
            Get,
            "/v1/labs/{lab}/sessions/{session}/record",
            "What happened in an exam, each row with the hash of itself and all before it.",
            OWNERS,
            recorded,
        ),
        Route::new(
            Post,
            "/v1/labs/{lab}/sessions/{session}/times",
            "Moves the times of people in a session, and tells their guests at once.",
            OWNERS,
            times,
        ),
    ]
}

async fn people(asked: Asked<(LabName, SessionName)>) -> Answer<Vec<Sitter>> {
    let (lab, session) = asked.path;
    asked.daemon.look_at(asked.peer, lab, "session show", move |view| sitters(view, &session)).await
}

async fn status(asked: Asked<(LabName, SessionName)>) -> Answer<Status> {
    let (lab, session) = asked.path;
    asked.daemon.look_at(asked.peer, lab, "session status", move |view| session::status(view, &session)).await
}

async fn check(asked: Asked<(LabName, SessionName)>) -> Answer<Vec<Finding>> {
    let (lab, session) = asked.path;
    asked.daemon.look_at(asked.peer, lab, "session check", move |view| session::check(view, &session)).await
}

async fn story(asked: Asked<(LabName, SessionName, UserName)>) -> Answer<Vec<Happened>> {
    let (lab, session, user) = asked.path;
    asked.daemon.look_at(asked.peer, lab, "session show", move |view| session::story(view, &session, &user)).await
}

async fn handed_in(asked: Asked<(LabName, SessionName)>) -> Answer<Vec<Submission>> {
    let (lab, session) = asked.path;
    let show = move |view: &View<'_>| session::submissions(view, &session);
    asked.daemon.look_at(asked.peer, lab, "session submissions", show).await
}

async fn recorded(asked: Asked<(LabName, SessionName)>) -> Answer<SessionRecord> {
    let (lab, session) = asked.path;
    let show = move |view: &View<'_>| session::record(view, &session);
    asked.daemon.look_at(asked.peer, lab, "session record", show).await
}

/// It keeps none of the few places of those who decide, whose turn may take longer than a session can wait.
async fn times(asked: Asked<(LabName, SessionName), Json<Wanted>>) -> Answer<session::Answer> {
    let ((lab, name), Json(wanted)) = (asked.path, asked.body);
    let context = asked.daemon.context_of(&asked.peer, format!("session {} {name}", wanted.doing.verb()));
    let turn = Arc::clone(&asked.daemon.bounds.looks);
    let work = move || {
        let (context, _) = context.of_seen_lab(&lab)?;
        session::act(&context, Lab::AsApplied(&lab), &name, &wanted)
    };
    let told = move || work().map_err(|error: ControlError| No::told(&error));
    asked.daemon.in_turn(&asked.peer, turn, LOOK_TIMEOUT, told).await.map(Json)
}
