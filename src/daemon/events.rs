//! Who waits for a vm is told of it as it comes: place in the queue, why it waits, where it started, why it ended. All who wait for
//! vms of one lab are told from one look at it, and only what has changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::{mpsc, watch};

use super::bounds::Place;
use super::{Daemon, stream};
use crate::control::view::{Standing, standings};
use crate::model::id::{LabName, VmName};

/// Between two looks at a lab while somebody waits: its queue is asked once for all of them.
const LOOK: Duration = Duration::from_secs(2);
/// A client that reads no more is found out by this.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

type Seen = Arc<BTreeMap<VmName, Standing>>;

/// The labs that somebody waits for.
#[derive(Default)]
pub(super) struct Watched(Mutex<HashMap<LabName, watch::Sender<Seen>>>);

/// A stream of events about one vm that who asks may see. It ends with the vm's record, the daemon, or the client.
pub(super) fn stream(daemon: &Arc<Daemon>, lab: LabName, vm: VmName, place: Place) -> Response {
    let (mut seen, looks) = daemon.watch(lab);
    let (pieces, body) = mpsc::channel(8);
    tokio::spawn(async move {
        let _place = place;
        let mut last = None;
        // What was seen, or looked for, before they asked is not news.
        for _ in 0..looks {
            if seen.changed().await.is_err() {
                return;
            }
        }
        loop {
            let now = seen.borrow_and_update().get(&vm).cloned();
            if now != last
                && let Some(standing) = &now
            {
                let standing = serde_json::to_string(standing).expect("where a vm stands has only string keys");
                if pieces.send(format!("event: standing\ndata: {standing}\n\n").into()).await.is_err() {
                    return;
                }
            }
            last = now;
            match tokio::time::timeout(SIGN_OF_LIFE, seen.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) if pieces.send(": it is as it was\n\n".into()).await.is_err() => return,
                Err(_) => {}
            }
        }
    });
    ([(CACHE_CONTROL, "no-store")], stream::body(body)).into_response()
}

impl Daemon {
    /// Where the vms of a lab stand, and how many looks from now that is so; the first who wants to know begins to look.
    fn watch(self: &Arc<Self>, lab: LabName) -> (watch::Receiver<Seen>, usize) {
        let mut watched = self.watched.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = watched.get(&lab) {
            return (sender.subscribe(), 2);
        }
        let (sender, receiver) = watch::channel(Seen::default());
        watched.insert(lab.clone(), sender);
        tokio::spawn(look(Arc::clone(self), lab));
        (receiver, 1)
    }
}

/// Looks for as long as somebody waits.
async fn look(daemon: Arc<Daemon>, lab: LabName) {
    loop {
        let (context, of) = (daemon.context(), lab.clone());
        let looked = tokio::task::spawn_blocking(move || standings(&context, &of)).await;
        {
            let mut watched = daemon.watched.0.lock().unwrap_or_else(PoisonError::into_inner);
            let waits = watched.get(&lab).is_some_and(|sender| sender.receiver_count() > 0);
            if !waits || daemon.keeper.has_ended() {
                watched.remove(&lab);
                return;
            }
            match (looked, watched.get(&lab)) {
                (Ok(Ok(standings)), Some(sender)) => drop(sender.send(Arc::new(standings))),
                (Ok(Err(error)), _) => tracing::warn!(%lab, %error, "a lab cannot be looked at"),
                _ => {}
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
