//! What whoever asks should know besides the answer, in words.

use super::{command, diagnostics};
use crate::control::Note;
use crate::control::manifests::DesiredError;
use crate::error::chain;
use crate::model::diagnostic::Severity;

pub fn words(note: &Note<'_>) -> String {
    match note {
        Note::Moved { from, to } => {
            format!("the state was moved from {} to {}; its paths follow", from.display(), to.display())
        }
        Note::NotInHistory { error } => format!("warning: this is not in the history: {}", chain(error)),
        Note::NotAudited { error } => {
            format!("warning: this is done, and it is not in the audit that you asked for it: {}", chain(error))
        }
        Note::NoBooks { runs, error } => {
            format!("the times of {runs} runs are missing: the batch system's books cannot be read: {}", chain(error))
        }
        Note::NotCleared { error } => format!("warning: what is long over is not cleared away: {}", chain(error)),
        Note::FolderGone { lab, folder } => {
            format!("warning: {} is gone; this is lab `{lab}` as it was last applied from it", folder.display())
        }
        Note::AsApplied { lab, error, context } => {
            let why = match error {
                DesiredError::Load(error) => format!("the manifest cannot be read: {error}"),
                DesiredError::Invalid(found) => format!(
                    "the manifest has {}: see `{}`",
                    diagnostics::plural(found.count(Severity::Error), "error"),
                    command(context, "validate")
                ),
            };
            format!("warning: {why}; this is lab `{lab}` as it was last applied")
        }
        Note::PlanMoved { lab } => {
            format!("lab `{lab}` changed meanwhile; nothing was done, and this is the plan now:")
        }
    }
}
