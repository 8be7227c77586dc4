//! `labwright host`: this machine as an execution host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Ended;
use crate::client::{Manner, labs, of_known_lab, open, program};
use crate::control;
use crate::control::exam::{self, TIMEOUT_SECONDS_MAX, Which};
use crate::control::host_labs::HostLabs;
use crate::exit::Exit;
use crate::host::RUN_ROOT;
use crate::host::machine::check::Verdict;
use crate::host::machine::setup::{self, Wanted};
use crate::host::process;
use crate::host::run::sweep;
use crate::jobs::Looker;
use crate::plan::LostHost;
use crate::report::page::{self, page};
use crate::report::table::Format;
use crate::report::{Failure, Ui};

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
        Command::Forget(ForgetArguments { host, lab, powered_off, yes }) => {
            let lost = LostHost { name: host.clone(), powered_off: *powered_off };
            labs::forget(&lost, lab.as_deref(), &Manner::asking(*yes), site, ui)
        }
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
    let (context, timeout) = (open(site, lab)?, Duration::from_secs(arguments.timeout));
    let desired = context.desired()?;
    // A site that was made before `state init` made its folders may have none yet.
    context.make_storage()?;
    let onlooker = Looker::new(ui)?;
    let which = match &arguments.hosts {
        _ if arguments.all_hosts => Some(Which::All),
        names => (!names.is_empty()).then(|| Which::Named(names.clone())),
    };
    let (is_green, page) = match which {
        Some(which) => {
            let (hosts, lines) = exam::lines_of_hosts(&context, &desired, &which, timeout, &onlooker)?;
            page::of_hosts(&hosts, lines, &desired.lab, arguments.output)
        }
        None => {
            let lines = exam::lines_of_this_host(&context, &desired, timeout, &onlooker)?;
            page::of_host(&lines, &desired.lab, arguments.output)
        }
    };
    ui.data(&page);
    Ok(if is_green { Exit::Done } else { Exit::NotReady })
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
