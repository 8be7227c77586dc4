//! `labwright host`: this machine as an execution host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Ended;
use crate::client::hosts::{self, Trial};
use crate::client::{Manner, labs};
use crate::control::exam::{TIMEOUT_SECONDS_MAX, Which};
use crate::jobs::Looker;
use crate::plan::LostHost;
use crate::report::Ui;
use crate::report::table::Format;

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

pub(super) fn run(command: &Command, site: Option<&Path>, ui: &mut Ui) -> Ended {
    match command {
        Command::Setup(Labs { lab }) => hosts::set_up(lab, site, ui),
        Command::Check(CheckArguments { exam: Some(lab), timeout, all_hosts, hosts, output, .. }) => {
            let named = || (!hosts.is_empty()).then(|| Which::Named(hosts.clone()));
            let which = if *all_hosts { Some(Which::All) } else { named() };
            let trial = Trial { which, timeout: Duration::from_secs(*timeout), output: *output };
            hosts::try_exam(lab, &trial, &|| Looker::new(ui), site, ui)
        }
        Command::Check(CheckArguments { labs: Labs { lab }, output, .. }) => hosts::check(lab, *output, site, ui),
        Command::Sweep => hosts::sweep(ui),
        Command::Teardown(Labs { lab }) => hosts::take_down(lab, site, ui),
        Command::Forget(ForgetArguments { host, lab, powered_off, yes }) => {
            let lost = LostHost { name: host.clone(), powered_off: *powered_off };
            labs::forget(&lost, lab.as_deref(), &Manner::asking(*yes), site, ui)
        }
    }
}
