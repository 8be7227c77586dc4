//! The JSON Schemas of what people and programs write and read.

use clap::ValueEnum;

use super::diagnostics_json::DiagnosticsReport;
use super::stream::{ApplyLine, PlanLine, ValidateLine};
use crate::manifest::schema;
use crate::run::{Control, Record};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaKind {
    /// The manifests of a lab.
    Lab,
    /// `site.yaml`.
    Site,
    /// What `validate --format json` prints.
    Diagnostics,
    /// A line of what `plan --json` prints.
    Plan,
    /// A line of what `apply --json` prints behind its plan.
    Apply,
    /// A line of what `validate --json` prints.
    Validate,
    /// A line of `report.jsonl` in a run's folder.
    Report,
    /// `control.json` in a run's folder.
    Control,
}

impl SchemaKind {
    /// Name of the schema's file in `schemas/`, without its ending.
    pub fn file(self) -> &'static str {
        match self {
            Self::Lab => "lab",
            Self::Site => "site",
            Self::Diagnostics => "diagnostics",
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Validate => "validate",
            Self::Report => "report",
            Self::Control => "control",
        }
    }
}

/// The schema as it stands in `schemas/`.
pub fn text(kind: SchemaKind) -> String {
    let schema = match kind {
        SchemaKind::Lab => schema::lab(),
        SchemaKind::Site => schema::site(),
        SchemaKind::Plan => schema::draft_7_written::<PlanLine<'_>>("a line of labwright plan --json"),
        SchemaKind::Apply => schema::draft_7_written::<ApplyLine<'_>>("a line of labwright apply --json"),
        SchemaKind::Validate => schema::draft_7_written::<ValidateLine<'_>>("a line of labwright validate --json"),
        SchemaKind::Report => schema::draft_7_written::<Record>("a line of a run's report.jsonl"),
        SchemaKind::Control => schema::draft_7_written::<Control>("a run's control.json"),
        SchemaKind::Diagnostics => schema::draft_7::<DiagnosticsReport>("labwright diagnostics"),
    };
    schema::text(&schema)
}
