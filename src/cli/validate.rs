//! `labwright validate`: the lab's files, checked. No site, state, root or network needed.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::Answer;
use crate::control::manifests::{self, SiteError};
use crate::exit::Exit;
use crate::manifest::{self, Checksums, LoadError, Loaded, Manifest};
use crate::model::id::UserName;
use crate::model::lab::{Desired, Limits, VmGroup};
use crate::model::rules::Rule;
use crate::model::site::SiteContext;
use crate::report::{Checked, diagnostics, diagnostics_ci, diagnostics_json};
use crate::resolve::{across, check_accounts, not_yet_acted_upon, resolve};

/// Check the files of a lab, and say all that is wrong with them.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Folders of labs, a file in one, or a `site.yaml`; several labs are also checked against each other. Without any,
    /// the folder that LABWRIGHT_LAB names, or this one.
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

/// Checks, and writes findings to standard output, since they are what was asked for; `styled` adds colours.
pub fn run(arguments: &ValidateArgs, styled: bool) -> Answer {
    if let Some(code) = &arguments.explain {
        return explain(code);
    }
    // clap's own way would take the variable for an operand, which `--explain` forbids.
    let named = || std::env::var_os("LABWRIGHT_LAB").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let paths = if arguments.paths.is_empty() { vec![named()] } else { arguments.paths.clone() };
    let checked = match check(&paths, arguments.check_users) {
        Ok(checked) => checked,
        Err(error) => return Answer::failure(&error),
    };
    let exit = if checked.diagnostics.has_errors() { Exit::Invalid } else { Exit::Done };
    let out = match arguments.format {
        _ if arguments.json => diagnostics_json::stream(&checked),
        Format::Human if checked.diagnostics.is_empty() => verdict(&checked),
        Format::Human => diagnostics::human(&checked.diagnostics, styled),
        Format::Json => diagnostics_json::json(&checked),
        Format::Github => diagnostics_ci::github(&checked),
        Format::Sarif => diagnostics_ci::sarif(&checked),
        Format::Junit => diagnostics_ci::junit(&checked),
    };
    Answer { exit, out, err: String::new() }
}

fn verdict(checked: &Checked) -> String {
    match checked.files.len() {
        1 => "valid: 1 file\n".to_owned(),
        count => format!("valid: {count} files\n"),
    }
}

fn explain(code: &str) -> Answer {
    if code.eq_ignore_ascii_case("all") {
        return Answer::done(
            Rule::ALL.iter().map(|rule| format!("{}  {}\n", rule.code(), rule.summary())).collect::<String>(),
        );
    }
    match Rule::from_code(code) {
        Some(rule) => Answer::done(format!("{} — {}\n{}", rule.code(), rule.summary(), body(rule))),
        None => Answer {
            exit: Exit::Usage,
            out: String::new(),
            err: format!(
                "error: no rule has the code `{}`\nhint: `labwright validate --explain all` lists them\n",
                diagnostics::shown(code)
            ),
        },
    }
}

/// A page without its heading.
fn body(rule: Rule) -> &'static str {
    rule.page().split_once('\n').map_or("", |(_, body)| body)
}

/// Checks labs and site files, each alone and the labs against each other.
pub fn check(paths: &[PathBuf], check_users: bool) -> Result<Checked, LoadError> {
    let mut checked = Checked::default();
    let mut sound: Vec<(Manifest, Desired)> = Vec::new();
    for path in paths {
        if is_site(path) {
            check_site(path, &mut checked)?;
        } else {
            sound.extend(check_lab(manifest::lab_folder(path), check_users, &mut checked)?);
        }
    }
    let labs: Vec<_> = sound.iter().map(|(manifest, desired)| (manifest, desired)).collect();
    checked.diagnostics.append(across(&labs));
    Ok(checked)
}

fn is_site(path: &Path) -> bool {
    path.is_file() && path.file_name().is_some_and(|name| name == "site.yaml" || name == "site.yml")
}

fn check_site(path: &Path, checked: &mut Checked) -> Result<(), LoadError> {
    checked.files.push(path.display().to_string());
    match manifests::site(path) {
        Ok((_, warnings)) => checked.diagnostics.append(warnings),
        Err(SiteError::Invalid(findings)) => checked.diagnostics.append(findings),
        Err(SiteError::Load(error)) => return Err(error),
    }
    Ok(())
}

/// What the lab wants, if nothing is wrong with it.
fn check_lab(
    folder: &Path,
    check_users: bool,
    checked: &mut Checked,
) -> Result<Option<(Manifest, Desired)>, LoadError> {
    // No site is known here, so a lab is judged against the defaults of one.
    let context = SiteContext {
        all_vms: VmGroup::all_vms_of_one_machine(),
        default_limits: Limits::USER,
        admins: Default::default(),
    };
    let Loaded { manifest, diagnostics } = manifest::load_with(folder, Checksums::All)?;
    let loaded = !diagnostics.has_errors();
    checked.files.extend(manifest.files.iter().map(|file| file.source.name.clone()));
    checked.diagnostics.append(diagnostics);
    let resolved = resolve(&manifest, &context);
    checked.diagnostics.append(resolved.diagnostics);
    let Some(desired) = resolved.desired.filter(|_| loaded) else { return Ok(None) };
    checked.diagnostics.append(not_yet_acted_upon(&manifest, &desired));
    if check_users {
        checked.diagnostics.append(check_accounts(&manifest, &desired, account));
    }
    Ok(Some((manifest, desired)))
}

/// The uid of an account of this system.
fn account(user: &UserName) -> Option<u32> {
    nix::unistd::User::from_name(user.as_str()).ok().flatten().map(|user| user.uid.as_raw())
}
