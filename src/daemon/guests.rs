//! What people ask of a vm beside its power: other memory, another name, a snapshot of the guest, a picture of its screen.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};

use super::api::No;
use super::messages::{Edit, GuestAsk, Snapshot};
use super::routes::{Asked, Content, Method, Route};
use super::{Daemon, Peer};
use crate::control::request::{self, Guests};
use crate::control::{Context, ControlError};
use crate::model::id::{LabName, VmName};
use crate::model::lab::Desired;
use crate::run::RequestKind;

const PNG: &str = "image/png";
/// A large memory is written into a disk.
const GUEST_TIMEOUT: Duration = Duration::from_secs(600);

const MAY_CHANGE: &str = "whoever made it, and admins";

type OfVm<B = ()> = Asked<(LabName, VmName), B>;

pub(super) fn routes() -> Vec<Route> {
    use Method::{Get, Post};
    vec![
        Route::new(
            Post,
            "/v1/labs/{lab}/vms/{vm}/edit",
            "Gives a vm of your own other memory or processors, an empty drive, another name; what runs goes on with what it has.",
            MAY_CHANGE,
            |asked: OfVm<Json<Edit>>| async move {
                let (key, (lab, vm)) = (asked.key()?, asked.path);
                asked.daemon.edit(asked.peer, lab, vm, asked.body.0, key).await.map(Json)
            },
        )
        .once(),
        Route::new(
            Post,
            "/v1/labs/{lab}/vms/{vm}/requests",
            "Asks something of a guest that runs, and answers when it is done.",
            "for what is about snapshots, whoever may modify it; for all else, whoever may run it",
            |asked: OfVm<Json<GuestAsk>>| async move {
                let kind: RequestKind = asked.body.0.into();
                // As it is typed.
                let word = if kind == RequestKind::Reset { "restart --hard" } else { request::effect(&kind) };
                let command = format!("vm {word}");
                let ask = move |context: &Context, desired: &Desired, vm: &VmName| {
                    Guests::with_right(context, desired, vm, &kind)?.ask(&kind, &mut |_| {})
                };
                asked.daemon.of_guest(asked.peer, asked.path, command, ask).await.map(Json)
            },
        ),
        Route::new(
            Get,
            "/v1/labs/{lab}/vms/{vm}/snapshots",
            "What a vm can go back to.",
            "whoever may modify it",
            |asked: OfVm| async move {
                let look = move |context: &Context, desired: &Desired, vm: &VmName| {
                    let kind = RequestKind::Snapshot { name: String::new() };
                    let snapshots = Guests::with_right(context, desired, vm, &kind)?.snapshots()?;
                    Ok(snapshots.into_iter().map(Snapshot::from).collect::<Vec<_>>())
                };
                asked.daemon.of_guest(asked.peer, asked.path, "vm snapshots".to_owned(), look).await.map(Json)
            },
        ),
        Route::raw(
            Get,
            "/v1/labs/{lab}/vms/{vm}/screen",
            "A picture of its screen, as it is now.",
            "whoever may run it; whoever may view it, in an open session or if its owner lets them",
            Content::of::<String>(PNG),
            screen,
        ),
    ]
}

async fn screen(asked: OfVm<Request>) -> Result<Response, No> {
    let look = |context: &Context, desired: &Desired, vm: &VmName| {
        Guests::with_right(context, desired, vm, &RequestKind::Screen)?.picture()
    };
    let picture = asked.daemon.of_guest(asked.peer, asked.path, "vm screen".to_owned(), look).await?;
    Ok(Bytes::from(picture).into_response())
}

impl Daemon {
    /// Asks a guest, which may take its time: it keeps none of the few places of those who decide.
    async fn of_guest<T: Send + 'static>(
        self: Arc<Self>,
        peer: Peer,
        (lab, vm): (LabName, VmName),
        command: String,
        ask: impl FnOnce(&Context, &Desired, &VmName) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, No> {
        let context = self.context_of(&peer, format!("{command} {vm}"));
        let turn = Arc::clone(&self.bounds.guests);
        let work = move || {
            let (context, desired) = context.of_seen_lab(&lab)?;
            ask(&context, &desired, &vm)
        };
        self.in_turn(&peer, turn, GUEST_TIMEOUT, move || work().map_err(|error| No::told(&error))).await
    }
}
