//! `labwright schema`: what people and programs write and read, described for other programs.

use super::{Ended, shown};
use crate::report::Ui;
use crate::schemas::{self, SchemaKind};

/// Print a JSON Schema (draft 7) for editors and other programs, or the OpenAPI document of the daemon's API.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What to describe.
    kind: SchemaKind,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> Ended {
    shown(ui, &schemas::text(arguments.kind))
}
