//! Who asks at a command line, and what such a person hears: `control` knows neither.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::access::Person;
use crate::control::{Caller, Context, Listener, Note};
use crate::exit::Exit;
use crate::host::{process, whence};
use crate::model::diagnostic::Diagnostics;
use crate::model::id::UserName;
use crate::model::lab::Desired;
use crate::model::site::Site;
use crate::report::{self, Failure, Ui, typed};

/// Options of the program as a whole, which say where it works and not what it does.
const NOT_OF_COMMANDS: [&str; 2] = ["--site", "--color"];

/// The site, and the lab in a folder.
pub fn open(site: Option<&Path>, lab: &Path) -> Result<Context, Failure> {
    Ok(Context::new(site, lab, caller()?, Arc::new(Terminal))?)
}

/// The same on the worst of days: a lab is known by its folder or its name.
pub fn of_known_lab(site: Option<&Path>, lab: &Path) -> Result<(Context, Desired), Failure> {
    Ok(Context::of_known_lab(site, lab, caller()?, Arc::new(Terminal))?)
}

/// A site by its file, for a request that is about no lab's folder.
pub fn of_site_file(site: Option<&Path>) -> Result<Context, Failure> {
    Ok(Context::of_site_file(site, caller()?, Arc::new(Terminal))?)
}

/// A site whose settings are known, for a request that is about no lab's folder.
pub fn of_site(site: Site) -> Result<Context, Failure> {
    Ok(Context::of_site(site, "/".into(), caller()?, Arc::new(Terminal)))
}

fn caller() -> Result<Caller, Failure> {
    Ok(Caller {
        name: process::who(),
        person: person(),
        actor: whence::actor(),
        host: process::host_name(),
        process: std::process::id(),
        command: typed::without(
            &NOT_OF_COMMANDS,
            std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()),
        ),
        program: program()?,
    })
}

/// Root acts on the state itself, and nobody is above root. Of an account without a valid login name nothing is known.
fn person() -> Person {
    match process::account().map(UserName::new) {
        _ if process::is_root() => Person::Root,
        Some(Ok(name)) => Person::User(name),
        _ => Person::Nobody,
    }
}

/// This program as it is installed, for the jobs that it submits.
pub fn program() -> Result<PathBuf, Failure> {
    let program = process::program();
    program.map_err(|error| Failure::from_error(Exit::Failed, &error).within("cannot find out where this program is"))
}

/// The person who looks on.
struct Terminal;

impl Listener for Terminal {
    fn findings(&self, findings: &Diagnostics) {
        let ui = Ui::default();
        ui.say_rendered(&report::diagnostics::human(findings, ui.is_styled()));
    }

    fn note(&self, note: &Note<'_>) {
        Ui::default().say(&report::notes::words(note));
    }
}
