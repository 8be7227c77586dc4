//! What one can see of a lab, as plain values: a table, a page and another program are made from the same. Each is typed, and as
//! JSON it is what `-o json` prints. Nothing here changes anything, or knows how it will be shown.
//!
//! ```text
//! vms       each vm where it stands, and the mapping of each that runs
//! status    how a lab stands as a whole
//! screens   where guests' screens are served, and what opens them
//! moment    times, as programs read them
//! ```

mod moment;
mod screens;
mod status;
mod vms;

pub use moment::Moment;
pub use screens::{Screen, Screens};
pub use status::{Freeze, Status};
pub use vms::{Mapping, Name, Vm, VmState, mapping, mappings, state, vms};

use super::{Context, ControlError};
use crate::model::lab::Desired;
use crate::observe::Observed;
use crate::state::Recorded;

/// A value of a listing: what it is picked by.
pub trait Listed {
    fn key(&self) -> &str;

    /// `None`: things of its kind have no owner.
    fn owner(&self) -> Option<&str> {
        None
    }
}

/// A lab as it is recorded at the moment when somebody looks. Who looks is the context's caller.
pub struct View<'c> {
    pub context: &'c Context,
    pub desired: &'c Desired,
    pub recorded: Recorded,
}

impl Context {
    /// Looks at a lab that was opened with this context.
    pub fn view<'c>(&'c self, desired: &'c Desired) -> Result<View<'c>, ControlError> {
        Ok(View { context: self, desired, recorded: self.recorded(&desired.lab)? })
    }
}

impl View<'_> {
    /// What is there now.
    pub fn observed(&self) -> Result<Observed, ControlError> {
        self.context.observe(self.desired, &self.recorded)
    }
}
