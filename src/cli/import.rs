//! `labwright import`: what exists already becomes a vm's.

use std::path::{Path, PathBuf};

use super::{Ended, LabOption, said};
use crate::client::open;
use crate::control::aside::disks_word;
use crate::control::import::{self as control, WantedJob};
use crate::exit::Exit;
use crate::model::address::{Address, Kind};
use crate::report::{Failure, Ui};

/// Take over a disk from elsewhere, or a running job that no record knows
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true),
    after_help = "A disk is copied and stays where it is; its vm must stand in the manifest and was never applied.

A job is taken over after the state was restored from a copy older than the job: only if it has the
lab's mark and our account, and if the files of its run name this vm, its address and its disks. The
vm must not have another run. A job whose submit was cut short needs no import: the next apply
adopts it.

Examples:
  labwright import vm/doraz-old --disk /srv/doraz.qcow2
  labwright plan && labwright import vm/doraz-gsr --job 4711.3"
)]
pub(super) struct Arguments {
    /// The vm, as `vm/NAME`; it must stand in the manifest.
    address: Address,
    /// The disk; several for a vm with several.
    #[arg(long, value_name = "FILE", group = "what")]
    disk: Vec<PathBuf>,
    /// The job, with its task where it has several.
    #[arg(long, value_name = "JOB[.TASK]", group = "what")]
    job: Option<WantedJob>,
    #[command(flatten)]
    lab: LabOption,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let Arguments { address, disk, job, lab } = arguments;
    if address.kind != Kind::Vm {
        return Err(Failure::new(Exit::Usage, format!("{address} has no disks: write `vm/NAME`")));
    }
    let context = open(site, &lab.lab)?;
    let desired = context.desired()?;
    if let Some(job) = job {
        let job = control::job(&context, &desired, address, *job)?;
        return said(ui, &format!("{address} runs as job {job} now; next: `labwright plan`"));
    }
    let ip = control::disks(&context, &desired, address, disk)?;
    let what = disks_word(disk.len());
    said(ui, &format!("{address} has {what} of its own now, at {ip}; next: `labwright apply`"))
}
