//! What a check of manifests came to, in the format that is asked for; and the rules that it goes by.

use clap::ValueEnum;

use super::{Failure, diagnostics, diagnostics_ci, diagnostics_json};
use crate::control::validate::Checked;
use crate::exit::Exit;
use crate::model::rules::Rule;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// For programs; `labwright schema diagnostics` describes it.
    Json,
    /// Annotations of GitHub's workflows.
    Github,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// JUnit's XML.
    Junit,
}

/// `styled` adds colours.
pub fn text(checked: &Checked, format: Format, styled: bool) -> String {
    match format {
        Format::Human if checked.diagnostics.is_empty() => match checked.files.len() {
            1 => "valid: 1 file\n".to_owned(),
            count => format!("valid: {count} files\n"),
        },
        Format::Human => diagnostics::human(&checked.diagnostics, styled),
        Format::Json => diagnostics_json::json(checked),
        Format::Github => diagnostics_ci::github(checked),
        Format::Sarif => diagnostics_ci::sarif(checked),
        Format::Junit => diagnostics_ci::junit(checked),
    }
}

/// The rule that has this code, or all of them.
pub fn explained(code: &str) -> Result<String, Failure> {
    if code.eq_ignore_ascii_case("all") {
        return Ok(Rule::ALL.iter().map(|rule| format!("{}  {}\n", rule.code(), rule.summary())).collect());
    }
    let unknown = || {
        Failure::new(Exit::Usage, format!("no rule has the code `{}`", diagnostics::shown(code)))
            .hint("`labwright validate --explain all` lists them")
    };
    Rule::from_code(code).map(page).ok_or_else(unknown)
}

/// What a rule asks for, and why.
fn page(rule: Rule) -> String {
    let body = rule.page().split_once('\n').map_or("", |(_, body)| body);
    format!("{} — {}\n{body}", rule.code(), rule.summary())
}
