//! What one can ask of a site, whoever asks: plain values in, plain values out. Nothing here knows a command line, a terminal, a
//! signal or an exit code, nor takes the account of its own process for the person who asks.
//!
//! ```text
//! manifests   a lab's folder and a site's file as what they mean
//! open        the site, the lab, the state, the scheduler, the DHCP server
//! pick        the vms that names, families and patterns mean
//! power       vms started and stopped as far as who asks may
//! plan        the part of the plan that is meant; plans that were kept; power
//! apply       plan, ask, act, wait
//! validate    whether labs' files are sound
//! view        what one can see of a lab, as plain values
//! request     what is asked of running guests
//! aside       disks that were set aside, and what can be wrong with a wish for them
//! news        runs that ended since somebody looked
//! round       what keeps every lab as it was applied, and what people ask of vms at the same time
//! session     the times of an exam or a class are moved while it is on
//! restore     they come back
//! purge       they are deleted for good
//! collect     files out of the disks of guests that are off
//! import      what exists already becomes a vm's
//! journal     what is done beside any plan, in the history all the same
//! permissions who may do what, and grants by command
//! own         vms that people make for themselves
//! edit        the same vms with other memory, or another name
//! claims      what people asked for by command is taken back
//! forget      a host that is lost is given up
//! cd          CDs that people name
//! check       whether a host and the cluster can run guests
//! exam        the same with real guests, here or in jobs
//! state       the site's memory is made, or a copy takes its place
//! privacy     what the site has about one person, and their being forgotten
//! quota       what people may use at once, and use
//! audit       who asked for what is written down
//! freeze      nothing more shall be done, for the time being
//! by_hand     a start as a script, for when nothing else works
//! upload      a lab whose files its owner sends
//! clear       what the site does not remember any more
//! ways        what of the world the site is reached by
//! readiness   whether this machine can do what a plan asks of it
//! init        a new lab to begin from
//! host_labs   the labs that a host serves, and who still needs what it has
//! error       why a request was not carried out
//! ```

pub mod apply;
pub mod aside;
mod audit;
pub mod by_hand;
pub mod cd;
pub mod changes;
pub mod check;
pub mod claims;
mod clear;
pub mod collect;
pub mod edit;
mod error;
pub mod exam;
pub mod fetched;
pub mod forget;
pub mod freeze;
pub mod hold;
pub mod host_labs;
pub mod import;
pub mod init;
mod journal;
mod look;
pub mod manifests;
pub mod news;
mod open;
pub mod own;
pub mod permissions;
pub mod pick;
pub mod plan;
pub mod power;
pub mod privacy;
pub mod purge;
pub mod quota;
mod readiness;
pub mod request;
pub mod restore;
pub mod restore_as;
pub mod round;
pub mod session;
pub mod state;
pub mod template;
mod told_times;
pub mod unused;
pub mod upload;
pub mod validate;
pub mod view;
mod ways;

pub use error::{Code, ControlError};
pub use open::{Context, SITE_FILE, git_commit, understood};
pub use ways::Ways;

use std::path::{Path, PathBuf};

use crate::access::Person;
use crate::model::audit::Actor;
use crate::model::diagnostic::Diagnostics;
use crate::model::id::LabName;
use crate::scheduler::SchedulerError;
use crate::state::StateError;
use manifests::DesiredError;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// For the history, and for others who find a lock.
    pub name: String,
    /// To whom rights are given.
    pub person: Person,
    /// For the audit.
    pub actor: Actor,
    pub host: String,
    pub process: u32,
    /// What was asked for, in the words of who asked: for the history.
    pub command: String,
    /// The program that jobs run.
    pub program: PathBuf,
}

/// What the caller hears besides the answer.
pub trait Listener: Send + Sync {
    /// What is to be said about manifests or a site's settings; with errors among it, the request ends with that.
    fn findings(&self, findings: &Diagnostics);

    fn note(&self, note: &Note<'_>);
}

/// Something that the caller should know, and that changes nothing about the request.
pub enum Note<'a> {
    /// The state was moved; its paths follow.
    Moved { from: &'a Path, to: &'a Path },
    /// What was done is not in the history.
    NotInHistory { error: &'a StateError },
    /// It is done all the same, since root asks.
    NotAudited { error: &'a StateError },
    /// Of so many runs the times are missing: the batch system's books cannot be read.
    NoBooks { runs: usize, error: &'a SchedulerError },
    /// What is long over was not cleared away.
    NotCleared { error: &'a ControlError },
    /// The lab's folder is not there any more: the lab is as it was last applied from it.
    FolderGone { lab: &'a LabName, folder: &'a Path },
    /// The manifest cannot be used: the lab is as it was last applied.
    AsApplied { lab: &'a LabName, error: &'a DesiredError, context: &'a Context },
    /// Something else than what was agreed to is to be done by now; it is shown next, and asked about.
    PlanMoved { lab: &'a LabName },
}
