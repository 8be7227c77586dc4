//! What one can see of a lab, as plain values: a table, a page and another program are made from the same. Each is typed, and as
//! JSON it is what `-o json` prints. Nothing here changes anything, or knows how it will be shown.
//!
//! ```text
//! vms       each vm where it stands, and the mapping of each that runs
//! disks     templates, disks, and disks that were set aside
//! versions  what of a template was published, and which vms stand on it
//! full      one vm, for who uses it
//! people    users, their groups, permissions, sessions
//! networks  vm groups, and how full they are
//! jobs      what runs and ran, and what that used
//! claims    what people asked for by command
//! seen      the part of it that who looks may know of
//! standing  where each vm stands, for those who wait for one
//! status    how a lab stands as a whole
//! screens   where guests' screens are served, and what opens them
//! explain   why one thing is as it is
//! origin    where in the manifest a thing is written
//! history   who applied what
//! look      a lab at one moment, for all who look then
//! listed    which values of a listing are meant
//! moment    times, as programs read them
//! ```

mod claims;
mod disks;
mod explain;
mod full;
mod history;
mod jobs;
mod listed;
mod look;
mod moment;
mod networks;
mod origin;
mod people;
mod screens;
mod seen;
mod standing;
mod status;
mod versions;
mod vms;

pub use claims::Claim;
pub use disks::{Aside, Disk, Template};
pub use explain::{Explanation, Past, PastClaim, RecordedAs, Run, Said};
pub use full::{FullVm, Login};
pub use history::{Act, Apply, Effect, acts, effects_of, history};
pub use jobs::{Job, Usage};
pub use listed::{Listed, Only, listed};
pub use look::Look;
pub use moment::Moment;
pub use networks::VmGroup;
pub use people::{Permission, Session, User, UserGroup};
pub use screens::{Screen, Screens};
pub use standing::{Census, Standing, census, standings};
pub use status::{Freeze, Status};
pub use versions::Version;
pub use vms::{Mapping, Name, Vm, VmState, mapping, mappings, state, vms};

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{Context, ControlError, understood};
use crate::model::lab::Desired;
use crate::observe::Observed;
use crate::resolve::with_claims;
use crate::state::Recorded;

/// A lab as it is recorded at the moment when somebody looks. Who looks is the context's caller.
pub struct View<'c> {
    pub context: &'c Context,
    /// With what people asked for by command.
    pub desired: Cow<'c, Desired>,
    pub recorded: Cow<'c, Recorded>,
    /// What is there, where others look at the same moment.
    shared: Option<&'c Look>,
}

impl Context {
    /// Looks at a lab that was opened with this context.
    pub fn view<'c>(&'c self, desired: &'c Desired) -> Result<View<'c>, ControlError> {
        let recorded = self.recorded(&desired.lab)?;
        let (desired, recorded) = (with_claims(desired, &recorded.claims), Cow::Owned(recorded));
        Ok(View { context: self, desired, recorded, shared: None })
    }
}

impl View<'_> {
    /// What is there now.
    pub fn observed(&self) -> Result<Arc<Observed>, ControlError> {
        match self.shared {
            Some(look) => look.observed(self.context),
            None => self.context.observe(&self.desired, &self.recorded).map(Arc::new),
        }
    }

    /// What is recorded of the lab, as values.
    pub(in crate::control) fn applied(&self) -> Result<Desired, ControlError> {
        understood(self.desired.lab.clone(), &self.recorded)
    }
}

/// For `serialize_with`, of what is recorded: its fields by name, so that two of them can be compared by line.
fn sorted<T: Serialize, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::to_value(value).map_err(serde::ser::Error::custom)?.serialize(serializer)
}
