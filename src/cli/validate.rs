//! `labwright validate`: the lab's files, checked. No site, state, root or network needed.

use std::path::PathBuf;

use super::{Ended, lab_of_environment, shown};
use crate::client::{own_lab, way};
use crate::control::validate::check;
use crate::exit::Exit;
use crate::report::findings::{self, Format};
use crate::report::{Failure, Ui, diagnostics_json};

/// Check the files of a lab, and say all that is wrong with them.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Folders of labs, a file in one, or a `site.yaml`; several labs are also checked against each other, and against the
    /// site. Without any, the folder that LABWRIGHT_LAB names, or this one.
    #[arg(value_name = "FOLDER")]
    paths: Vec<PathBuf>,
    /// How findings are written.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// One JSON object per line; `labwright schema validate` describes it.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Also check that every user has an account on this system.
    #[arg(long)]
    check_users: bool,
    /// Explain a rule by its code, such as LW002, and check nothing; `all` lists the rules.
    #[arg(long, value_name = "CODE", conflicts_with_all = ["paths", "format", "json", "check_users"])]
    explain: Option<String>,
}

/// Findings go to standard output, since they are what was asked for.
pub(super) fn run(arguments: &Arguments, ui: &Ui) -> Ended {
    if let Some(code) = &arguments.explain {
        return shown(ui, &findings::explained(code)?);
    }
    // clap's own way would take the variable for an operand, which `--explain` forbids.
    let named = || vec![lab_of_environment().unwrap_or_else(|| PathBuf::from("."))];
    let paths = if arguments.paths.is_empty() { named() } else { arguments.paths.clone() };
    let checked = check(&paths, arguments.check_users).map_err(|error| Failure::from_error(Exit::Failed, &error))?;
    if let [path] = &paths[..]
        && !arguments.json
        && arguments.format == Format::Human
        && let Some((text, is_wrong)) = way::daemon(None).and_then(|client| own_lab::validate(client, path, ui))
    {
        ui.data(&text);
        return Ok(if is_wrong { Exit::Invalid } else { Exit::Done });
    }
    ui.data(&match arguments.json {
        true => diagnostics_json::stream(&checked),
        false => findings::text(&checked, arguments.format, ui.is_styled()),
    });
    Ok(if checked.diagnostics.has_errors() { Exit::Invalid } else { Exit::Done })
}
