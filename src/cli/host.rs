//! `labwright host`: this machine as an execution host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Ended, exam};
use crate::client::{Manner, here, of_known_lab, open, program};
use crate::control;
use crate::control::exam::{TIMEOUT_SECONDS_MAX, Which};
use crate::control::host_labs::HostLabs;
use crate::exit::Exit;
use crate::host::RUN_ROOT;
use crate::host::machine::check::Verdict;
use crate::host::machine::setup::{self, Wanted};
use crate::host::process;
use crate::host::run::sweep;
use crate::plan::LostHost;
use crate::report::page::page;
use crate::report::table::Format;
use crate::report::{Failure, Ui};
use crate::state::Recorded;

/// Prepare this machine for guests
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make bridges, drop table and DHCP server, and find out whether KVM boots a guest
    ///
    /// Safe to repeat: what stands already is left alone.
    #[command(after_help = "Example: labwright host setup --lab labs/quickstart")]
    Setup(Labs),
    /// Say in one screen whether this machine can run guests, and what to mend
    ///
    /// With `--exam`, the day before one: a real guest of each template of the lab boots, and must use its address, be
    /// reached by vnc and be isolated. It has scratch disks and a free address, and everything of it is taken away again.
    /// With `--all-hosts` or `--hosts` that is tried on execution hosts, in one job each, with all else that this command
    /// looks at there; the page then shows what is not well, and every line with `-o json`. Meanwhile no `apply` can run.
    #[command(after_help = "Examples:
  labwright host check --lab labs/net                   # this machine, without a guest
  labwright host check --exam labs/net                  # with one
  labwright host check --exam labs/net --all-hosts      # every host, from the submit host: green or red, exit 0 or 5
  labwright host check --exam labs/net --hosts node3,node7")]
    Check(CheckArguments),
    /// Remove what runs that are no more left behind, and nothing else
    Sweep,
    /// Take away what `host setup` made, and nobody else uses
    ///
    /// Refused while a vm of the lab runs, or a session of it is open. What other labs use stays, and is named.
    Teardown(Labs),
    /// Give up a host that is lost, so that the next apply starts its vms elsewhere
    ///
    /// Only for runs that the batch system does not hear of: their vms are `unknown`. Each is given up when its starter
    /// has been silent for so long that it must have suspended its guest (`self_fence`), or when you say that the host
    /// is switched off. Should it come back, its starters read that they must end.
    #[command(after_help = "Examples:
  labwright host forget node7
  labwright host forget node7 --powered-off     # it is: I pulled the plug")]
    Forget(ForgetArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct ForgetArguments {
    /// The host, as `labwright get vms` names it.
    host: String,

    /// Only this lab, by its folder; all labs of the site otherwise.
    #[arg(long, short = 'C', value_name = "FOLDER")]
    lab: Option<PathBuf>,

    /// The host is without power for certain: nothing on it can still write to a disk.
    #[arg(long)]
    powered_off: bool,

    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    labs: Labs,

    /// Boot a real guest of this lab, by its folder, and look at it; needs root.
    #[arg(long, value_name = "FOLDER")]
    exam: Option<PathBuf>,

    /// Seconds that each guest may take to boot and use its address.
    #[arg(long, value_name = "SECONDS", default_value_t = 180, requires = "exam",
        value_parser = clap::value_parser!(u64).range(1..=TIMEOUT_SECONDS_MAX))]
    timeout: u64,

    /// Try every execution host, each in a job of its own; from the submit host.
    #[arg(long, requires = "exam", conflicts_with = "hosts")]
    all_hosts: bool,

    /// Try these execution hosts, each in a job of its own; from the submit host.
    #[arg(long, value_name = "HOST,...", requires = "exam", value_delimiter = ',')]
    hosts: Vec<String>,

    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct Labs {
    /// Folder of a lab whose vm groups this host serves; may be given several times.
    #[arg(long, short = 'C', value_name = "FOLDER", default_value = ".", env = "LABWRIGHT_LAB")]
    lab: Vec<PathBuf>,
}

impl Labs {
    fn read(&self, site: Option<&Path>) -> Result<HostLabs, Failure> {
        let labs = self.lab.iter().map(|folder| of_known_lab(site, folder)).collect::<Result<_, _>>()?;
        Ok(HostLabs::read(labs)?)
    }
}

pub(super) fn run(command: &Command, site: Option<&Path>, ui: &mut Ui) -> Ended {
    match command {
        Command::Setup(labs) => set_up(labs, site, ui),
        Command::Check(arguments @ CheckArguments { exam: Some(lab), .. }) => exam(lab, arguments, site, ui),
        Command::Check(arguments) => {
            let labs = arguments.labs.read(site)?;
            let lines = control::check::lines(&labs.groups(), &labs.site, &program()?);
            ui.data(&page(&lines, arguments.output));
            let is_red = lines.iter().any(|line| line.verdict == Verdict::Failed);
            Ok(if is_red { Exit::NotReady } else { Exit::Done })
        }
        Command::Sweep => {
            refuse_without_root()?;
            let swept = sweep::sweep(Path::new(RUN_ROOT));
            tell(ui, &swept.removed, "nothing to do: no dead run left anything");
            let failure = || Failure::of_all(Exit::Failed, "cannot sweep this host", &swept.errors);
            if swept.errors.is_empty() { Ok(Exit::Done) } else { Err(failure()) }
        }
        Command::Teardown(labs) => take_down(labs, site, ui),
        Command::Forget(arguments) => forget(arguments, site, ui),
    }
}

fn set_up(labs: &Labs, site: Option<&Path>, ui: &Ui) -> Ended {
    refuse_without_root()?;
    let labs = labs.read(site)?;
    for place in labs.settle()? {
        ui.say(&format!("  disks and runs are kept in {}: guests cannot enter the lab's folder", place.display()));
    }
    let groups = labs.all_groups();
    let done = setup::setup(&Wanted::new(&groups, &labs.site))?;
    tell(ui, &done, "nothing to do: all of it stands already");
    Ok(Exit::Done)
}

fn take_down(labs: &Labs, site: Option<&Path>, ui: &Ui) -> Ended {
    refuse_without_root()?;
    let labs = labs.read(site)?;
    labs.refuse_while_needed(jiff::Timestamp::now())?;
    let groups = labs.groups();
    let done = setup::teardown_beside(&Wanted::new(&groups, &labs.site), &labs.others)
        .map_err(|errors| Failure::of_all(Exit::Failed, "cannot take down this host", &errors))?;
    tell(ui, &done, "nothing to do: none of it is there");
    Ok(Exit::Done)
}

/// The usual page, then a trial with real guests.
fn exam(lab: &Path, arguments: &CheckArguments, site: Option<&Path>, ui: &Ui) -> Ended {
    refuse_without_root()?;
    let which = match &arguments.hosts {
        _ if arguments.all_hosts => Some(Which::All),
        names if names.is_empty() => None,
        names => Some(Which::Named(names.clone())),
    };
    let (timeout, output) = (Duration::from_secs(arguments.timeout), arguments.output);
    exam::run(&exam::Wanted { lab, which, timeout, output }, site, ui)
}

/// Gives a host up, lab by lab.
fn forget(arguments: &ForgetArguments, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let ForgetArguments { host, lab, powered_off, yes } = arguments;
    let context = open(site, lab.as_deref().unwrap_or(Path::new(".")))?;
    let lost = LostHost { name: host.clone(), powered_off: *powered_off };
    let labs = control::forget::labs(&context, &lost, lab.is_some())?;
    let mut worst = Exit::Done;
    for (context, desired) in &labs {
        let make = |recorded: &Recorded| control::forget::plan(context, desired, recorded, &lost);
        let manner = Manner::asking(*yes);
        let ended = here::carry_out(context, desired, &make, &manner, &format!("host forget {host}"), ui);
        // What one lab refuses holds up no other.
        let ended = ui.ended(ended);
        worst = if worst == Exit::Done { ended } else { worst };
    }
    if labs.is_empty() {
        ui.say(&format!("nothing to do: no vm on {host} is unknown; the batch system takes some time to miss a host"));
    } else if worst == Exit::Done {
        ui.say("the next `labwright apply` starts them elsewhere");
    }
    Ok(worst)
}

fn tell(ui: &Ui, done: &[String], nothing: &str) {
    for line in done {
        ui.say(&format!("  {line}"));
    }
    if done.is_empty() {
        ui.say(&format!("  {nothing}"));
    }
}

fn refuse_without_root() -> Result<(), Failure> {
    if process::is_root() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "bridges, filters and DHCP servers take root; nothing was changed")
        .hint("run it again with `sudo`"))
}
