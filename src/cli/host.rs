//! `labwright host`: this machine as an execution host.

use std::path::{Path, PathBuf};

use super::Ended;
use super::context::Context;
use crate::exit::Exit;
use crate::host::RUN_ROOT;
use crate::host::check::{self, Line, Verdict};
use crate::host::setup::{self, Wanted};
use crate::host::sweep;
use crate::report::table::{Format, Row, render};
use crate::report::{Failure, Ui};
use crate::resolve::VmGroup;
use crate::site::Storage;

/// Prepare this machine for guests
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make bridges, drop table and DHCP server, and find out whether KVM boots a guest
    ///
    /// Safe to repeat: what stands already is left alone.
    #[command(after_help = "Example: labwright host setup --lab labs/quickstart")]
    Setup(Labs),
    /// Say in one screen whether this machine can run guests, and what to mend
    Check(CheckArguments),
    /// Remove what runs that are no more left behind, and nothing else
    Sweep,
    /// Take away what `host setup` made
    Teardown(Labs),
}

#[derive(Debug, clap::Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    labs: Labs,

    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct Labs {
    /// Folder of a lab whose vm groups this host serves; may be given several times.
    #[arg(long, short = 'C', value_name = "FOLDER", default_value = ".", env = "LABWRIGHT_LAB")]
    lab: Vec<PathBuf>,
}

pub(super) fn run(command: &Command, site: Option<&Path>, ui: &Ui) -> Ended {
    match command {
        Command::Setup(labs) => with_wanted(labs, site, ui, &|wanted, _| {
            refuse_without_root()?;
            let done = setup::setup(wanted).map_err(|error| failure("prepare", &[&error]))?;
            tell(ui, &done, "nothing to do: all of it stands already");
            Ok(Exit::Done)
        }),
        Command::Check(arguments) => with_wanted(&arguments.labs, site, ui, &|wanted, storage| {
            let lines = check::check(wanted, storage);
            ui.data(&render(&lines, arguments.output));
            let well = lines.iter().all(|line| line.verdict != Verdict::Failed);
            Ok(if well { Exit::Done } else { Exit::NotReady })
        }),
        Command::Sweep => {
            refuse_without_root()?;
            let swept = sweep::sweep(Path::new(RUN_ROOT));
            tell(ui, &swept.removed, "nothing to do: no dead run left anything");
            let errors: Vec<&dyn std::error::Error> =
                swept.errors.iter().map(|error| error as &dyn std::error::Error).collect();
            if errors.is_empty() { Ok(Exit::Done) } else { Err(failure("sweep", &errors)) }
        }
        Command::Teardown(labs) => with_wanted(labs, site, ui, &|wanted, _| {
            refuse_without_root()?;
            let done = setup::teardown(wanted).map_err(|errors| {
                failure("take down", &errors.iter().map(|error| error as &dyn std::error::Error).collect::<Vec<_>>())
            })?;
            tell(ui, &done, "nothing to do: none of it is there");
            Ok(Exit::Done)
        }),
    }
}

/// What the host is to offer to these labs.
fn with_wanted(labs: &Labs, site: Option<&Path>, ui: &Ui, act: &dyn Fn(&Wanted<'_>, &Storage) -> Ended) -> Ended {
    let mut groups: Vec<VmGroup> = Vec::new();
    let mut last = None;
    for lab in &labs.lab {
        let context = Context::new(site, lab, ui)?;
        groups.extend(context.desired(ui)?.vm_groups.into_values());
        last = Some(context);
    }
    let Some(Context { site, .. }) = last else { return Ok(Exit::Done) };
    let wanted = Wanted {
        groups: &groups,
        network: &site.network,
        qemu: &site.qemu,
        service_user: &site.service_user,
        run_root: Path::new(RUN_ROOT),
    };
    act(&wanted, &site.storage)
}

fn tell(ui: &Ui, done: &[String], nothing: &str) {
    for line in done {
        ui.say(&format!("  {line}"));
    }
    if done.is_empty() {
        ui.say(&format!("  {nothing}"));
    }
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] = &["what", "verdict", "found", "mend"];
    fn cells(&self) -> Vec<String> {
        let mend = self.mend.clone().unwrap_or_default();
        vec![self.what.to_owned(), self.verdict.as_str().to_owned(), self.found.clone(), mend]
    }
}

fn refuse_without_root() -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "bridges, filters and DHCP servers take root; nothing was changed")
        .hint("run it again with `sudo`"))
}

fn failure(what: &str, errors: &[&dyn std::error::Error]) -> Failure {
    let mut failure = Failure::new(Exit::Failed, format!("cannot {what} this host"));
    failure.causes = errors.iter().map(|error| crate::apply::chain(*error)).collect();
    failure
}
