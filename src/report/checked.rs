//! What a check of manifests came to.

use crate::model::diagnostic::{Diagnostic, Diagnostics};

/// Files and what is wrong with them.
#[derive(Debug, Default)]
pub struct Checked {
    /// Every file that was read, as it is shown.
    pub files: Vec<String>,
    pub diagnostics: Diagnostics,
}

impl Checked {
    /// The findings, most severe first.
    pub(super) fn sorted(&self) -> Vec<&Diagnostic> {
        let mut sorted: Vec<&Diagnostic> = self.diagnostics.list.iter().collect();
        sorted.sort_by(|a, b| a.order().cmp(&b.order()));
        sorted
    }
}
