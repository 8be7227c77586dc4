//! `labwright schema`: JSON Schemas for editors and programs.

use super::Ended;
use crate::exit::Exit;
use crate::report::Ui;
use crate::report::schemas::{SchemaKind, text};

/// Print a JSON Schema (draft 7), for editors and other programs.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What to describe.
    kind: SchemaKind,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> Ended {
    ui.data(&text(arguments.kind));
    Ok(Exit::Done)
}
