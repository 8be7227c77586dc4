//! `labwright vm`: one vm at a time.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::{Ended, LabOption, Listed, apply, collect, get, own, said, shown, vnc};
use crate::client::asks::Power;
use crate::client::looks::Listing;
use crate::client::{Manner, way};
use crate::control::{by_hand, changes, pick, request};
use crate::daemon::messages::GuestAsk;
use crate::exit::Exit;
use crate::host::run::accel::Accelerator;
use crate::model::address::AddressPattern;
use crate::model::id::SnapshotName;
use crate::plan::Wish;
use crate::report::table::{Format, render};
use crate::report::{Ui, aside, full_vm, requests};

/// Start, stop, look at one vm, and take it back in time
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Start vms, whatever their manifest says
    #[command(after_help = "Examples:
  labwright vm start alice-gsr --wait
  labwright vm start exam                 # every vm of the family
  labwright vm start 'a*-gsr' bob-gsr")]
    Start(StartArguments),
    /// Stop vms; the next apply starts those that are to be `running` again
    #[command(after_help = STOP_HELP)]
    Stop(PowerArguments),
    /// Stop vms and start them again, with what their manifest says now; no disk is touched
    #[command(after_help = STOP_HELP)]
    Restart(RestartArguments),
    /// Give vms new disks from their template; the old ones are kept
    ///
    /// A guest that runs is stopped for it and started again; one that is off stays off. The old disks are set aside, where
    /// `labwright get aside` lists them. At a terminal, without `--yes`, you are asked first whether a restart may be enough,
    /// where the guest never had one.
    #[command(after_help = "Examples:
  labwright vm reimage alice-gsr
  labwright vm reimage exam --yes         # every vm of the family
  labwright vm reimage alice-gsr --undo   # the old disks again; those of now are kept in their place")]
    Reimage(ReimageArguments),
    /// Start a vm that has an empty disk from a CD, to install on it
    ///
    /// The CD is in its drive until it is off; it boots from there only for as long as its disk has nothing to boot.
    #[command(after_help = "Example: labwright vm install lab-server --cdrom debian-12.iso --isolate")]
    Install(InstallArguments),
    /// Make a vm of somebody's own from a template, beside those of the manifest
    #[command(after_help = "Examples:
  labwright vm derive gsr --name mine                    # your own
  labwright vm derive gsr --name spare --owner doraz     # vm/doraz/spare")]
    Derive(own::DeriveArguments),
    /// Give a vm of somebody's own other memory or processors, or another CD, from its next start on
    #[command(after_help = "Examples:
  labwright vm set doraz/mine --memory 2G --cpus 2
  labwright vm set doraz/mine --cdrom /srv/images/tools.iso
  labwright vm set doraz/mine --eject")]
    Set(own::SetArguments),
    /// Give a vm of somebody's own another name
    #[command(after_help = "Example: labwright vm rename doraz/mine web      # doraz/web")]
    Rename(own::RenameArguments),
    /// Give up a vm of somebody's own; its disks are set aside
    #[command(after_help = "Example: labwright vm delete doraz/mine")]
    Delete(own::Named),
    /// List vms: your own and those that you may use; the same as `get vms`
    #[command(after_help = "Examples:
  labwright vm list
  labwright vm list 'doraz/*' -o json")]
    List(get::Meant),
    /// Show one vm: its address, what opens its screen, until when it may run, what you may do with it
    #[command(after_help = "Examples:
  labwright vm show doraz/mine
  labwright vm show alice-exam -o json

The password of its screen is told to those who may run it.")]
    Show {
        #[command(flatten)]
        of: own::Named,
        /// How it is written; in words unless this is given.
        #[arg(long, short, value_enum)]
        output: Option<Format>,
    },
    /// Tell where the screens of running vms are, and their passwords
    Vnc(vnc::Arguments),
    /// Take pictures of guests' screens
    #[command(after_help = "Examples:
  labwright vm screen alice-gsr -o guest.png
  labwright vm screen exam -o pictures          # pictures/VM.png for every vm of the family")]
    Screen {
        #[command(flatten)]
        vms: Vms,
        /// Where the PNG goes; a folder, in which each vm has a file of its name, where several vms are meant.
        #[arg(long, short, value_name = "FILE|FOLDER")]
        output: PathBuf,
    },
    /// Let a guest stand still, in memory, until `vm resume`
    #[command(after_help = "Example: labwright vm suspend alice-gsr")]
    Suspend(Vms),
    /// Let a suspended guest go on
    #[command(after_help = "Example: labwright vm resume alice-gsr")]
    Resume(Vms),
    /// Keep memory and disks of a running guest as they are now, to go back to
    ///
    /// The guest stands still while its memory is written into its first disk.
    #[command(after_help = "Examples:
  labwright vm snapshot alice-gsr                # named after the time
  labwright vm snapshot exam before-task-2       # every vm of the family")]
    Snapshot {
        /// Name of a vm or family; `*` stands for anything.
        #[arg(value_name = NAMES)]
        vm: String,
        /// What to call it.
        snapshot: Option<SnapshotName>,
        #[command(flatten)]
        lab: LabOption,
    },
    /// List the snapshots of a vm, whether it runs or not
    #[command(after_help = "Example: labwright vm snapshots alice-gsr")]
    Snapshots {
        /// The vm.
        vm: String,
        #[command(flatten)]
        listed: Listed,
    },
    /// Take running guests back to a snapshot; what they did since is lost
    #[command(after_help = "Examples:
  labwright vm revert alice-gsr before-task-2
  labwright vm revert exam before-task-2         # every vm of the family")]
    Revert(Kept),
    /// Delete a snapshot of running guests
    #[command(after_help = "Example: labwright vm delete-snapshot alice-gsr before-task-2")]
    DeleteSnapshot(Kept),
    /// Print a shell script that starts a vm by hand, for when nothing else works
    ///
    /// It holds the exact commands of a start (ip, bridge, nft, qemu), filter included, and no secret.
    #[command(after_help = "Examples:
  labwright vm export-run alice-gsr >alice.sh       # keep one for every vm before an exam
  sudo sh alice.sh                                  # on a host that has the disks")]
    ExportRun {
        #[command(flatten)]
        vm: One,
        /// What qemu is to use there; by default what the site says, or what was found out on this host.
        #[arg(long, value_parser = accelerator())]
        accel: Option<Accelerator>,
    },
    /// List the files of a vm that are not those of its template
    ///
    /// They are compared by size and time, and read from outside, as `vm collect` does.
    #[command(after_help = "Examples:
  labwright vm changes alice-gsr
  labwright vm changes alice-gsr --set 17 -o csv      # of disks that were set aside")]
    Changes {
        /// The vm.
        vm: String,
        /// Disks that were set aside, by their name in `get aside` or the beginning of their date in UTC.
        #[arg(long, value_name = "SET")]
        set: Option<String>,
        #[command(flatten)]
        listed: Listed,
    },
    /// Read files out of the disks of vms that are off, as submissions
    Collect(collect::Arguments),
    /// Talk to a guest over its serial line; Ctrl-D ends it
    Console(One),
}

/// Vms that are meant.
#[derive(Debug, clap::Args)]
pub(super) struct Vms {
    /// Names of vms or families; `*` stands for anything.
    #[arg(value_name = NAMES, required = true)]
    pub(super) vms: Vec<String>,
    #[command(flatten)]
    pub(super) lab: LabOption,
}

/// Snapshots that are meant.
#[derive(Debug, clap::Args)]
pub(super) struct Kept {
    #[command(flatten)]
    vms: Vms,
    /// One that `labwright vm snapshots NAME` lists.
    snapshot: SnapshotName,
}

/// The vm that is meant.
#[derive(Debug, clap::Args)]
pub(super) struct One {
    /// The vm.
    #[arg(value_name = "VM")]
    vm: String,
    #[command(flatten)]
    lab: LabOption,
}

pub(super) const NAMES: &str = "VM|FAMILY|GLOB";

const STOP_HELP: &str =
    "In an open session, a vm that is named by its own name is meant. Of a family or a pattern, each vm
must be allowed: `--allow 'vm/*-gsr'`.

Examples:
  labwright vm stop alice-gsr
  labwright vm stop exam --yes            # every vm of the family";

#[derive(Debug, clap::Args)]
pub(super) struct PowerArguments {
    /// Names of vms or families; `*` stands for anything.
    #[arg(value_name = NAMES, required = true)]
    vms: Vec<String>,
    #[command(flatten)]
    acting: Acting,
}

/// What those have in common that act on vms which are named.
#[derive(Debug, clap::Args)]
pub(super) struct Acting {
    /// Do what a guard refuses, for this address, such as `vm/ana-gsr`.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) allow: Vec<AddressPattern>,
    #[command(flatten)]
    pub(super) lab: LabOption,
    #[command(flatten)]
    pub(super) options: apply::Options,
}

#[derive(Debug, clap::Args)]
pub(super) struct StartArguments {
    #[command(flatten)]
    power: PowerArguments,
    /// Memory from this start on, of a vm that somebody made by command; as `vm set` does.
    #[arg(long, value_name = "SIZE", value_parser = own::memory)]
    memory: Option<u32>,
    /// Start it isolated or not at all; where isolation is forced on you, say by this that you know.
    #[arg(long)]
    isolate: bool,
    #[command(flatten)]
    waiting: apply::Waiting,
}

#[derive(Debug, clap::Args)]
pub(super) struct RestartArguments {
    #[command(flatten)]
    start: StartArguments,
    /// Press the reset button, where a guest hears nothing any more: it goes on with the settings that it was started with.
    #[arg(long, conflicts_with_all = ["isolate", "memory", "allow", "wait", "json"])]
    hard: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct InstallArguments {
    #[command(flatten)]
    vm: One,
    #[command(flatten)]
    from: Cd,
    /// Start it isolated or not at all.
    #[arg(long)]
    isolate: bool,
}

/// What somebody installs from.
#[derive(Debug, clap::Args)]
pub(super) struct Cd {
    /// Image of the CD, which the guests' account must be able to read on every host.
    #[arg(long, value_name = "FILE")]
    pub(super) cdrom: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct ReimageArguments {
    #[command(flatten)]
    power: PowerArguments,
    /// Put back the disks that were set aside last.
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    waiting: apply::Waiting,
}

/// As qemu calls them.
fn accelerator() -> impl TypedValueParser<Value = Accelerator> {
    let names = [Accelerator::Kvm, Accelerator::Tcg].map(Accelerator::as_str);
    PossibleValuesParser::new(names).map(|word| if word == "kvm" { Accelerator::Kvm } else { Accelerator::Tcg })
}

pub(super) fn run(command: &Command, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let by_daemon = |failure| way::or_by_daemon(site, failure);
    match command {
        Command::Start(arguments) => start(arguments, Wish::Start, site, ui).map_err(by_daemon),
        Command::Stop(arguments) => {
            power(arguments, Wish::Stop, &arguments.acting.options.manner(), site, ui).map_err(by_daemon)
        }
        Command::Restart(RestartArguments { start: StartArguments { power, .. }, hard: true }) => {
            power.acting.lab.way(site)?.ask(&power.vms, &GuestAsk::Reset, ui)
        }
        Command::Restart(RestartArguments { start: arguments, .. }) => {
            start(arguments, Wish::Restart, site, ui).map_err(by_daemon)
        }
        Command::Reimage(ReimageArguments { power: of, undo, waiting }) => {
            let (way, manner) = (of.acting.lab.way(site)?, of.acting.options.waiting(waiting));
            match undo {
                true => way.power(&of.power(Wish::PutBack, false), &manner, ui).map_err(by_daemon),
                false => way.reimage(&of.power(Wish::Reimage, false), &manner, ui).map_err(by_daemon),
            }
        }
        Command::Install(InstallArguments { vm: One { vm, lab }, from: Cd { cdrom }, isolate }) => {
            lab.way(site)?.install(vm, cdrom, *isolate, ui)
        }
        Command::Derive(arguments) => own::derive(arguments, site, ui).map_err(by_daemon),
        Command::Set(arguments) => own::set(arguments, site, ui).map_err(by_daemon),
        Command::Rename(arguments) => own::rename(arguments, site, ui).map_err(by_daemon),
        Command::Delete(named) => own::delete(named, site, ui).map_err(by_daemon),
        Command::List(meant) => get::list(Listing::Vms, meant, site, ui),
        Command::Show { of: own::Named { vm, lab }, output } => {
            shown(ui, &full_vm::text(&lab.way(site)?.vm(vm)?, *output))
        }
        Command::Vnc(arguments) => vnc::run(arguments, site, ui),
        Command::Screen { vms: Vms { vms, lab }, output } => lab.way(site)?.pictures(vms, output, ui),
        Command::Suspend(Vms { vms, lab }) => lab.way(site)?.ask(vms, &GuestAsk::Suspend, ui),
        Command::Resume(Vms { vms, lab }) => lab.way(site)?.ask(vms, &GuestAsk::Resume, ui),
        Command::Snapshot { vm, snapshot, lab } => {
            let name = snapshot.clone().unwrap_or_else(request::snapshot_name);
            lab.way(site)?.ask(std::slice::from_ref(vm), &GuestAsk::Snapshot { name }, ui)
        }
        Command::Snapshots { vm, listed: Listed { lab, output } } => {
            shown(ui, &requests::snapshots(&lab.way(site)?.snapshots(vm)?, *output))
        }
        Command::Revert(Kept { vms: Vms { vms, lab }, snapshot: name }) => {
            lab.way(site)?.ask(vms, &GuestAsk::Revert { name: name.clone() }, ui)
        }
        Command::DeleteSnapshot(Kept { vms: Vms { vms, lab }, snapshot: name }) => {
            lab.way(site)?.ask(vms, &GuestAsk::DeleteSnapshot { name: name.clone() }, ui)
        }
        Command::ExportRun { vm: One { vm, lab }, accel } => {
            let (context, desired) = lab.known(site)?;
            let recorded = context.recorded(&desired.lab)?;
            let name = pick::one(&desired.lab, vm, &recorded)?;
            let script = by_hand::of_vm(&context, &desired, &recorded, &name, *accel)?;
            shown(ui, &script.text)?;
            script.running.map_or(Ok(Exit::Done), |running| said(ui, &requests::runs(&name, &running)))
        }
        Command::Changes { vm, set, listed: Listed { lab, output } } => {
            let (context, desired) = lab.known(site)?;
            let found = changes::changes(&context, &desired, vm, set.as_deref())?;
            aside::changes(&found).iter().for_each(|line| ui.say(line));
            shown(ui, &render(&found.files, *output))
        }
        Command::Collect(arguments) => collect::run(arguments, site, ui),
        Command::Console(One { vm, lab }) => lab.way(site)?.console(vm),
    }
}

fn start(arguments: &StartArguments, wish: Wish, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let StartArguments { power, memory, isolate, waiting } = arguments;
    let way = power.acting.lab.way(site)?;
    if let Some(memory_mib) = memory {
        way.set_memory(&power.vms, *memory_mib, ui)?;
    }
    way.power(&power.power(wish, *isolate), &power.acting.options.waiting(waiting), ui)
}

fn power(arguments: &PowerArguments, wish: Wish, manner: &Manner, site: Option<&Path>, ui: &mut Ui) -> Ended {
    arguments.acting.lab.way(site)?.power(&arguments.power(wish, false), manner, ui)
}

impl PowerArguments {
    fn power(&self, wish: Wish, isolated: bool) -> Power<'_> {
        Power { vms: &self.vms, wish, isolated, allow: &self.acting.allow }
    }
}
