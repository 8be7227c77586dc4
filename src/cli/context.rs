//! Who asks at a command line, and what such a person hears: `control` knows neither.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::typed;
use crate::access::Person;
use crate::control::manifests::DesiredError;
use crate::control::{Caller, Context, Listener, Note};
use crate::error::chain;
use crate::exit::Exit;
use crate::model::diagnostic::{Diagnostics, Severity};
use crate::model::id::UserName;
use crate::model::lab::Desired;
use crate::model::site::Site;
use crate::report::{self, Failure, Ui, command};

/// The site, and the lab in a folder.
pub(super) fn open(site: Option<&Path>, lab: &Path) -> Result<Context, Failure> {
    Ok(Context::new(site, lab, caller()?, Arc::new(Terminal))?)
}

/// The same on the worst of days: a lab is known by its folder or its name.
pub(super) fn of_known_lab(site: Option<&Path>, lab: &Path) -> Result<(Context, Desired), Failure> {
    Ok(Context::of_known_lab(site, lab, caller()?, Arc::new(Terminal))?)
}

/// A site by its file, for a request that is about no lab's folder.
pub(super) fn of_site_file(site: Option<&Path>) -> Result<Context, Failure> {
    Ok(Context::of_site_file(site, caller()?, Arc::new(Terminal))?)
}

/// A site whose settings are known, for a request that is about no lab's folder.
pub(super) fn of_site(site: Site) -> Result<Context, Failure> {
    Ok(Context::of_site(site, "/".into(), caller()?, Arc::new(Terminal)))
}

fn caller() -> Result<Caller, Failure> {
    Ok(Caller {
        name: whoami(),
        person: person(),
        host: hostname(),
        process: std::process::id(),
        command: typed::command(),
        program: program()?,
    })
}

/// Root acts on the state itself, and nobody is above root. Of an account without a valid login name nothing is known.
fn person() -> Person {
    let uid = nix::unistd::geteuid();
    let name = nix::unistd::User::from_uid(uid).ok().flatten().and_then(|user| UserName::new(user.name).ok());
    match name {
        Some(name) if !uid.is_root() => Person::User(name),
        _ if uid.is_root() => Person::Root,
        _ => Person::Nobody,
    }
}

/// This program as it is installed, for the jobs that it submits.
pub(super) fn program() -> Result<PathBuf, Failure> {
    let running = std::env::current_exe()
        .map_err(|source| Failure::from_error(Exit::Failed, &source).within("cannot find out where this program is"))?;
    Ok(installed(&running).unwrap_or(running))
}

/// Once an upgrade has put another file in its place, what runs has a name that leads nowhere; jobs run what is there now.
fn installed(running: &Path) -> Option<PathBuf> {
    let place = running.to_str()?.strip_suffix(" (deleted)")?;
    (!running.exists()).then(|| place.into())
}

/// The person who looks on.
struct Terminal;

impl Listener for Terminal {
    fn findings(&self, findings: &Diagnostics) {
        let ui = Ui::default();
        ui.say_rendered(&report::diagnostics::human(findings, ui.is_styled()));
    }

    fn note(&self, note: &Note<'_>) {
        Ui::default().say(&words(note));
    }
}

fn words(note: &Note<'_>) -> String {
    match note {
        Note::Moved { from, to } => {
            format!("the state was moved from {} to {}; its paths follow", from.display(), to.display())
        }
        Note::NotInHistory { error } => format!("warning: this is not in the history: {}", chain(error)),
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
                    report::diagnostics::plural(found.count(Severity::Error), "error"),
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

pub(super) fn whoami() -> String {
    let uid = nix::unistd::getuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

pub(super) fn hostname() -> String {
    nix::unistd::gethostname().map_or_else(|_| "unknown".into(), |name| name.to_string_lossy().into_owned())
}
