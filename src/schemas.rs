//! Schemas of what people and programs write and read, as they stand in `schemas/`.

use clap::ValueEnum;

use crate::daemon;
use crate::manifest::schema;
use crate::report::diagnostics_json::DiagnosticsReport;
use crate::report::stream::{ApplyLine, PlanLine, ValidateLine};
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
    /// What `labwright serve` answers and takes, as an OpenAPI 3.1 document.
    Api,
}

impl SchemaKind {
    /// Name of the schema's file in `schemas/`.
    pub fn file(self) -> String {
        let value = self.to_possible_value().expect("all kinds can be named");
        let what = if self == Self::Api { "openapi" } else { "schema" };
        format!("{}.{what}.json", value.get_name())
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
        SchemaKind::Api => return schema::text(&daemon::document()),
        SchemaKind::Diagnostics => schema::draft_7::<DiagnosticsReport>("labwright diagnostics"),
    };
    schema::text(&schema)
}
