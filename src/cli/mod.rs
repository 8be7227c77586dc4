//! The command line: clap types, one file per command, no logic. A command answers how it ended, or why it did not; only the end of
//! `main` turns that into text and an exit code. What the program runs of itself is in `jobs`.

mod apply;
mod claim;
mod collect;
mod completions;
mod destroy;
mod explain;
mod freeze;
mod get;
mod history;
mod hold;
mod host;
mod import;
mod init;
mod manual;
mod own;
mod permission;
mod plan;
mod privacy;
mod purge;
mod quota;
mod reconcile;
mod restore;
mod schema;
mod serve;
mod session;
mod state;
mod status;
mod template;
mod validate;
mod vm;
mod vnc;

use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::client::{Ended, Way, of_known_lab};
use crate::control::Context;
use crate::exit::Exit;
use crate::model::lab::Desired;
use crate::report::table::Format;
use crate::report::{self, Colour, Failure, Ui, log};

/// Turns a git folder of YAML into a running computer lab: one virtual machine per student, as batch jobs.
#[derive(Debug, Parser)]
#[command(name = "labwright", version, max_term_width = 100, after_help = crate::exit::HELP, disable_help_subcommand = true)]
struct Arguments {
    /// Settings of the installation. Without it, and without /etc/labwright/site.yaml, this machine alone is the site
    /// and everything is kept in the lab's `.labwright` folder.
    #[arg(long, global = true, env = "LABWRIGHT_SITE", value_name = "FILE")]
    site: Option<PathBuf>,

    /// Colours: `auto` (on a terminal, unless NO_COLOR is set), `always` or `never`.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t, hide_possible_values = true)]
    color: Colour,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Arguments),
    Validate(validate::Arguments),
    Plan(plan::Arguments),
    Apply(apply::Arguments),
    Destroy(destroy::Arguments),
    Status(status::Arguments),
    Get(get::Arguments),
    Explain(explain::Arguments),
    History(history::Arguments),
    Import(import::Arguments),
    Restore(restore::Arguments),
    Purge(purge::Arguments),
    Hold(hold::Arguments),
    Quota(quota::Arguments),
    #[command(subcommand)]
    Privacy(privacy::Command),
    Freeze(freeze::FreezeArguments),
    Thaw(freeze::ThawArguments),
    #[command(subcommand)]
    Vm(vm::Command),
    #[command(subcommand)]
    Template(template::Command),
    #[command(subcommand)]
    Session(session::Command),
    #[command(subcommand)]
    Permission(permission::Command),
    #[command(subcommand)]
    Claim(claim::Command),
    #[command(subcommand)]
    State(state::Command),
    Schema(schema::Arguments),
    Completions(completions::Arguments),
    Man(manual::Arguments),
    /// Print the help of a command
    #[command(hide = true)]
    Help {
        command: Vec<String>,
    },
    /// Print the version
    #[command(hide = true)]
    Version,
    #[command(subcommand)]
    Host(host::Command),
    Serve(serve::Arguments),
    Reconcile(reconcile::Arguments),
}

/// A lab's folder, as most commands take it.
#[derive(Debug, clap::Args)]
struct LabFolder {
    /// Folder of the lab's manifests. Without it, the one that LABWRIGHT_LAB names, or this one.
    #[arg(value_name = "LAB")]
    place: Option<PathBuf>,

    /// The same, written as an option.
    #[arg(long = "lab", short = 'C', value_name = "FOLDER")]
    option: Option<PathBuf>,
}

impl LabFolder {
    fn folder(&self) -> Result<PathBuf, Failure> {
        match self.folder_and_operand() {
            (folder, None) => Ok(folder),
            (folder, Some(other)) => {
                let what = format!("the lab is named twice: {} and `--lab {}`", other.display(), folder.display());
                Err(Failure::new(Exit::Usage, what))
            }
        }
    }

    /// For commands that take other operands too: where the option names the lab, the first operand is one of those.
    fn folder_and_operand(&self) -> (PathBuf, Option<&PathBuf>) {
        match (&self.option, &self.place) {
            (Some(option), place) => (option.clone(), place.as_ref()),
            (None, Some(place)) => (place.clone(), None),
            (None, None) => (lab_of_environment().unwrap_or_else(|| PathBuf::from(".")), None),
        }
    }
}

/// The folder of the lab that is meant where none is named.
fn lab_of_environment() -> Option<PathBuf> {
    std::env::var_os("LABWRIGHT_LAB").map(PathBuf::from)
}

/// A lab's folder, for commands whose operand is something else.
#[derive(Debug, Clone, clap::Args)]
struct LabOption {
    /// Folder of the lab's manifests.
    #[arg(long, short = 'C', value_name = "FOLDER", default_value = ".", env = "LABWRIGHT_LAB")]
    lab: PathBuf,
}

impl LabOption {
    fn way(&self, site: Option<&Path>) -> Result<Way, Failure> {
        Way::to(site, &self.lab)
    }

    fn known(&self, site: Option<&Path>) -> Result<(Context, Desired), Failure> {
        of_known_lab(site, &self.lab)
    }
}

/// What all that list something of a lab have in common.
#[derive(Debug, Clone, clap::Args)]
struct Listed {
    #[command(flatten)]
    lab: LabOption,

    /// How the listing is written.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Does what the command line says.
pub fn main() -> Exit {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return report::usage(&error),
    };
    arguments.color.set();
    log::start();
    let mut ui = Ui::default();
    let ended = run(arguments, &mut ui);
    ui.ended(ended)
}

fn run(arguments: Arguments, ui: &mut Ui) -> Ended {
    let site = arguments.site.as_deref();
    match arguments.command {
        Command::Validate(arguments) => validate::run(&arguments, ui),
        Command::Plan(arguments) => plan::run(&arguments, site, ui),
        Command::Apply(arguments) => apply::run(&arguments, site, ui),
        Command::Destroy(arguments) => destroy::run(&arguments, site, ui),
        Command::Status(arguments) => status::run(&arguments, site, ui),
        Command::Get(arguments) => get::run(&arguments, site, ui),
        Command::Explain(arguments) => explain::run(&arguments, site, ui),
        Command::Import(arguments) => import::run(&arguments, site, ui),
        Command::Restore(arguments) => restore::run(&arguments, site, ui),
        Command::Purge(arguments) => purge::run(&arguments, site, ui),
        Command::Hold(arguments) => hold::run(&arguments, site, ui),
        Command::History(arguments) => history::run(&arguments, site, ui),
        Command::Quota(arguments) => quota::run(&arguments, site, ui),
        Command::Privacy(command) => privacy::run(&command, site, ui),
        Command::Freeze(arguments) => freeze::freeze(&arguments, site, ui),
        Command::Thaw(arguments) => freeze::thaw(&arguments, site, ui),
        Command::Vm(command) => vm::run(&command, site, ui),
        Command::Template(command) => template::run(&command, site, ui),
        Command::Session(command) => session::run(&command, site, ui),
        Command::Permission(command) => permission::run(&command, site, ui),
        Command::Claim(command) => claim::run(&command, site, ui),
        Command::State(command) => state::run(&command, site, ui),
        Command::Init(arguments) => init::run(&arguments, ui),
        Command::Schema(arguments) => schema::run(&arguments, ui),
        Command::Host(command) => host::run(&command, site, ui),
        Command::Serve(arguments) => serve::run(&arguments, site),
        Command::Reconcile(arguments) => reconcile::run(&arguments, site, ui),
        Command::Completions(arguments) => completions::run(&arguments, &mut Arguments::command(), ui),
        Command::Man(arguments) => manual::run(&arguments, Arguments::command(), ui),
        Command::Help { command } => shown(ui, &report::manual::help(Arguments::command(), &command)?),
        Command::Version => shown(ui, &Arguments::command().render_version()),
    }
}

/// What was asked for, and no more than that.
fn shown(ui: &Ui, data: &str) -> Ended {
    ui.data(data);
    Ok(Exit::Done)
}

/// What was done.
fn said(ui: &Ui, line: &str) -> Ended {
    ui.say(line);
    Ok(Exit::Done)
}
