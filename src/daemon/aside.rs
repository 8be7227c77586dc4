//! Disks that were set aside: people see theirs and have them back, and who owns a lab keeps them from every purge.

use std::sync::Arc;

use axum::Json;

use super::api::{IN_LAB, No};
use super::ask::ACT_TIMEOUT;
use super::messages::{Hold, Restore};
use super::routes::{Answer, Asked, Method, Route};
use crate::control::hold;
use crate::control::restore::{self, Moved, Wanted};
use crate::model::id::{LabName, VmName};

type OfVm<B> = Asked<(LabName, VmName), B>;

pub(super) fn routes() -> Vec<Route> {
    use Method::{Get, Post};
    vec![
        Route::new(
            Get,
            "/v1/labs/{lab}/aside",
            "Disks of yours that were set aside; of everybody, for those who own the lab.",
            IN_LAB,
            |asked: Asked<LabName>| asked.look_at("get aside", |view| view.seen_aside()),
        ),
        Route::new(
            Post,
            "/v1/labs/{lab}/vms/{vm}/restore",
            "Puts disks of a vm that is off back which were set aside; those of now are set aside in their place.",
            "whoever may reimage the vm; for one that has left, whoever owns the lab",
            restore,
        ),
        Route::new(
            Post,
            "/v1/labs/{lab}/vms/{vm}/hold",
            "Keeps all disks that a vm has and had from every purge, or lets them go.",
            "whoever the site makes an owner of the lab, and admins",
            hold,
        ),
    ]
}

async fn restore(asked: OfVm<Json<Restore>>) -> Answer<Vec<Moved>> {
    let ((lab, vm), Json(which)) = (asked.path, asked.body);
    let context = asked.daemon.context_of(&asked.peer, format!("restore {vm}"));
    let turn = Arc::clone(&asked.daemon.bounds.copies);
    let daemon = Arc::clone(&asked.daemon);
    let work = move || {
        let (context, desired) = context.of_seen_lab(&lab)?;
        let (wanted, mut moved) = (Wanted { vms: vec![vm.to_string()], which: which.into() }, Vec::new());
        restore::restore(&context, &desired, &wanted, &mut |of_one| moved.push(of_one.clone()))?;
        daemon.keeper.wake();
        Ok(moved)
    };
    let told = move || work().map_err(|error| No::told(&error));
    asked.daemon.in_turn(&asked.peer, turn, ACT_TIMEOUT, told).await.map(Json)
}

async fn hold(asked: OfVm<Json<Hold>>) -> Answer<()> {
    let ((lab, vm), Json(wanted)) = (asked.path, asked.body);
    let command = format!("hold {vm}");
    let change =
        move |context: &_, desired: &_| hold::hold(context, desired, &[vm.to_string()], &wanted.into()).map(drop);
    asked.daemon.change_lab(asked.peer, lab, &command, change).await
}
