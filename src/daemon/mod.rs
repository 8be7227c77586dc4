//! The site's daemon: people who are not root ask for their vms here, over a unix socket. In: HTTP requests, each of the account
//! that the kernel names. Out: what `control` answers, as JSON; what it refuses, with its words. And the loop that keeps every lab as
//! it was applied. It decides nothing itself, and root needs it for nothing.
//!
//! ```text
//! socket    the socket, who is at its other end, and how much of us anybody may take
//! current   the site as its file says it now
//! bounds    how many at once, in all and of one account
//! api       the paths, and what each asks of `control`
//! routes    the table of them
//! openapi   the table as an OpenAPI document
//! reference the same for people
//! ask       what changes something, from its request to its answer
//! looks     one look for all who ask at a moment
//! act       what an ask means, and what became of it, in words
//! once      a request that comes again is not done again
//! keeper    the loop
//! patience  vms whose runs keep failing are left alone for a while
//! events    who waits for a vm is told of it as it comes
//! stream    an answer that comes piece by piece
//! counts    how much of what was done, for Prometheus
//! notify    what systemd is told
//! quota     what who asks may use
//! grants    what people let others do
//! guests    what people ask of a vm beside its power
//! sessions  the times of an exam or a class are moved
//! tables    users, groups and permissions
//! templates what vms derive from is installed and published
//! aside     disks that were set aside
//! labs      whole labs that their owners send
//! messages  what goes over the wire, for both ends; `client` is the other
//! ```
//!
//! A lab is as it was last applied, with what people asked for by command: never what its folder's files say meanwhile, which
//! others may write.

mod act;
mod api;
mod aside;
mod ask;
mod bounds;
mod counts;
mod current;
mod events;
mod grants;
mod guests;
mod keeper;
pub mod lab_messages;
mod labs;
mod looks;
pub mod messages;
mod notify;
mod once;
mod openapi;
mod patience;
mod quota;
mod reference;
mod routes;
mod sessions;
mod socket;
mod stream;
mod tables;
mod templates;

pub use openapi::document;
pub use reference::reference;
pub use socket::{ServeError, Started, serve};

use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use crate::access::Person;
use crate::control::{Caller, Context};
use crate::model::audit::{Account, Actor, Via};
use bounds::Bounds;
use counts::Counts;
use current::Current;
use events::Watched;
use keeper::Keeper;
use looks::Looks;
use once::Answers;

/// Where the socket is unless somebody says otherwise.
pub const SOCKET: &str = "/run/labwright/api.sock";

/// What all requests share.
pub struct Daemon {
    site: Current,
    bounds: Bounds,
    keeper: Keeper,
    answers: Answers,
    watched: Watched,
    looks: Looks,
    counts: Counts,
    /// More than 0 from when we are to end: what is under way is finished and recorded.
    interrupts: Arc<AtomicU8>,
}

impl Daemon {
    pub fn new(context: Context) -> Self {
        Self {
            site: Current::new(context),
            bounds: Bounds::as_files_allow(),
            keeper: Keeper::default(),
            answers: Answers::default(),
            watched: Watched::default(),
            looks: Looks::default(),
            counts: Counts::default(),
            interrupts: Arc::default(),
        }
    }

    /// The site, for ourselves.
    fn context(&self) -> Context {
        self.site.context()
    }
}

/// Who is at the other end of a connection, from the kernel: the account that made it, whoever else may hold it by now.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    uid: u32,
    name: String,
    person: Person,
}

impl Peer {
    /// As `control` knows them, with what they ask for in the words of a command line.
    fn caller(&self, daemon: &Caller, command: String) -> Caller {
        let login = (!matches!(self.person, Person::Nobody)).then(|| self.name.clone());
        let actor = Actor { account: Account { uid: self.uid, login }, behind: None, via: Via::Socket };
        Caller { name: self.name.clone(), person: self.person.clone(), actor, command, ..daemon.clone() }
    }
}
