//! A lab as it was found at one moment, for all who look at it then: what each of them may see of it is judged for each.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::View;
use crate::control::{Context, ControlError};
use crate::model::id::LabName;
use crate::model::lab::Desired;
use crate::observe::Observed;
use crate::resolve::with_claims;
use crate::state::Recorded;

/// One look.
#[derive(Debug)]
pub struct Look {
    folder: PathBuf,
    desired: Desired,
    recorded: Recorded,
    /// Looked for when somebody first asks: by then the records have been read.
    observed: OnceLock<Observed>,
}

impl Look {
    /// At a lab as it was last applied, with what people asked for by command.
    pub fn at(context: &Context, lab: &LabName) -> Result<Self, ControlError> {
        let (context, desired) = context.of_applied_lab(lab)?;
        let recorded = context.recorded(lab)?;
        let desired = with_claims(&desired, &recorded.claims).into_owned();
        Ok(Self { folder: context.lab_folder, desired, recorded, observed: OnceLock::new() })
    }

    /// For one who looks, and who knows the site.
    pub fn seen_by<T>(&self, context: &Context, see: impl FnOnce(&View<'_>) -> T) -> T {
        let context = context.with_lab(self.folder.clone());
        let (desired, recorded) = (std::borrow::Cow::Borrowed(&self.desired), self.recorded.clone());
        see(&View { context: &context, desired, recorded, shared: Some(&self.observed) })
    }
}
