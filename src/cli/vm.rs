//! `labwright vm`: one vm at a time.

use std::path::{Path, PathBuf};

use super::{Ended, LabOption, apply, collect, export_run, get, own, show, vnc};
use crate::client::Manner;
use crate::client::asks::Power;
use crate::client::of_known_lab;
use crate::client::way::{self, Way};
use crate::control::request::{self, Guest};
use crate::control::{ControlError, template};
use crate::daemon::messages::{Edit, GuestAsk};
use crate::exit::Exit;
use crate::host::RUN_ROOT;
use crate::host::run::run_folder::serial_socket;
use crate::model::address::{Address, AddressPattern};
use crate::model::id::{SnapshotName, VmName};
use crate::model::lab::Desired;
use crate::plan::Wish;
use crate::report::table::Format;
use crate::report::{Failure, Ui, console, requests, templates};

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
    /// `labwright get aside` lists them.
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
    /// Give a vm of somebody's own other memory or processors, from its next start on
    #[command(after_help = "Example: labwright vm set doraz/mine --memory 2G --cpus 2")]
    Set(own::SetArguments),
    /// Give a vm of somebody's own another name
    #[command(after_help = "Example: labwright vm rename doraz/mine web      # doraz/web")]
    Rename(own::RenameArguments),
    /// Give up a vm of somebody's own; its disks are set aside
    #[command(after_help = "Example: labwright vm delete doraz/mine")]
    Delete(own::DeleteArguments),
    /// List vms: your own and those that you may use; the same as `get vms`
    #[command(after_help = "Examples:
  labwright vm list
  labwright vm list 'doraz/*' -o json")]
    List(get::VmsArguments),
    /// Show one vm: its address, what opens its screen, until when it may run, what you may do with it
    #[command(after_help = "Examples:
  labwright vm show doraz/mine
  labwright vm show alice-exam -o json

The password of its screen is told to those who may run it.")]
    Show(show::Arguments),
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
        #[command(flatten)]
        vm: One,
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
    /// Take running guests back to a snapshot; what they did since is lost
    #[command(after_help = "Examples:
  labwright vm revert alice-gsr before-task-2
  labwright vm revert exam before-task-2         # every vm of the family")]
    Revert {
        #[command(flatten)]
        vms: Vms,
        /// One that `labwright vm snapshots NAME` lists.
        snapshot: SnapshotName,
    },
    /// Delete a snapshot of running guests
    #[command(after_help = "Example: labwright vm delete-snapshot alice-gsr before-task-2")]
    DeleteSnapshot {
        #[command(flatten)]
        vms: Vms,
        /// One that `labwright vm snapshots NAME` lists.
        snapshot: SnapshotName,
    },
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
        #[arg(long, value_enum)]
        accel: Option<export_run::Accel>,
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
    vms: Vec<String>,
    #[command(flatten)]
    lab: LabOption,
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
    /// Image of the CD, which the guests' account must be able to read on every host.
    #[arg(long, value_name = "FILE")]
    cdrom: PathBuf,
    /// Start it isolated or not at all.
    #[arg(long)]
    isolate: bool,
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

pub(super) fn run(command: &Command, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let by_daemon = |failure| way::or_by_daemon(site, failure);
    match command {
        Command::Start(arguments) => start(arguments, Wish::Start, site, ui).map_err(by_daemon),
        Command::Stop(arguments) => {
            power(arguments, Wish::Stop, &arguments.acting.options.manner(), site, ui).map_err(by_daemon)
        }
        Command::Restart(RestartArguments { start: StartArguments { power, .. }, hard: true }) => {
            ask(&power.vms, &power.acting.lab, &GuestAsk::Reset, site, ui)
        }
        Command::Restart(RestartArguments { start: arguments, .. }) => {
            start(arguments, Wish::Restart, site, ui).map_err(by_daemon)
        }
        Command::Reimage(ReimageArguments { power: of, undo, waiting }) => {
            let wish = if *undo { Wish::PutBack } else { Wish::Reimage };
            power(of, wish, &of.acting.options.waiting(waiting), site, ui).map_err(by_daemon)
        }
        Command::Install(InstallArguments { vm: One { vm, lab }, cdrom, isolate }) => {
            let cdrom = template::cd(cdrom).map_err(ControlError::from)?;
            let ended = Way::to(site, &lab.lab)?.install(vm, &cdrom, *isolate, &Manner::asking(true), ui)?;
            if let Ok(vm) = vm.strip_prefix("vm/").unwrap_or(vm).parse() {
                ui.say(&templates::next(&vm, None));
            }
            Ok(ended)
        }
        Command::Derive(arguments) => own::derive(arguments, site, ui).map_err(by_daemon),
        Command::Set(arguments) => own::set(arguments, site, ui).map_err(by_daemon),
        Command::Rename(arguments) => own::rename(arguments, site, ui).map_err(by_daemon),
        Command::Delete(arguments) => own::delete(arguments, site, ui).map_err(by_daemon),
        Command::List(arguments) => get::run(&arguments.clone().into(), site, ui),
        Command::Show(arguments) => show::run(arguments, site, ui),
        Command::Vnc(arguments) => vnc::run(arguments, site, ui),
        Command::Screen { vms, output } => Way::to(site, &vms.lab.lab)?.pictures(&vms.vms, output, ui),
        Command::Suspend(vms) => ask(&vms.vms, &vms.lab, &GuestAsk::Suspend, site, ui),
        Command::Resume(vms) => ask(&vms.vms, &vms.lab, &GuestAsk::Resume, site, ui),
        Command::Snapshot { vm, snapshot, lab } => {
            let name = snapshot.clone().unwrap_or_else(request::snapshot_name);
            ask(std::slice::from_ref(vm), lab, &GuestAsk::Snapshot { name }, site, ui)
        }
        Command::Snapshots { vm, output } => {
            ui.data(&requests::snapshots(&Way::to(site, &vm.lab.lab)?.snapshots(&vm.vm)?, *output));
            Ok(Exit::Done)
        }
        Command::Revert { vms, snapshot } => {
            ask(&vms.vms, &vms.lab, &GuestAsk::Revert { name: snapshot.clone() }, site, ui)
        }
        Command::DeleteSnapshot { vms, snapshot } => {
            ask(&vms.vms, &vms.lab, &GuestAsk::DeleteSnapshot { name: snapshot.clone() }, site, ui)
        }
        Command::ExportRun { vm, accel } => {
            let (context, desired) = of_known_lab(site, &vm.lab.lab)?;
            export_run::run(&context, &desired, &vm.vm, *accel, ui)
        }
        Command::Collect(arguments) => collect::run(arguments, site, ui),
        Command::Console(One { vm, lab }) => {
            let (context, Desired { lab, .. }) = match Way::to(site, &lab.lab)? {
                Way::Daemon(_) => return Err(no_console(vm)),
                Way::Here(lab) => *lab,
            };
            let guest = Guest::named(&context, &lab, vm)?;
            context.audit(Some(&lab), vec![Address::vm(&guest.name)])?;
            console::join(&guest.name, &serial_socket(&Path::new(RUN_ROOT).join(guest.run()?.to_string())))?;
            Ok(Exit::Done)
        }
    }
}

/// What only root can reach, on the host that runs the guest.
fn no_console(vm: &str) -> Failure {
    let what =
        "the daemon carries no serial lines: they are for root, on the host that runs the guest; nothing was done";
    let way = format!(
        "`labwright vm show {vm}` tells what opens its screen, `labwright vm screen {vm} -o FILE` takes a picture"
    );
    Failure::new(Exit::Refused, what).hint(way)
}

/// Asks the same of all that are named.
fn ask(words: &[String], lab: &LabOption, ask: &GuestAsk, site: Option<&Path>, ui: &Ui) -> Ended {
    Way::to(site, &lab.lab)?.ask(words, ask, ui)
}

fn start(arguments: &StartArguments, wish: Wish, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let StartArguments { power, memory, isolate, waiting } = arguments;
    let by_name = memory.map_or_else(|| Ok(Vec::new()), |_| power.vms.iter().map(VmName::new).collect());
    let no_name = |error| Failure::from_error(Exit::Usage, &error).within("`--memory` is for vms by name");
    let by_name: Vec<VmName> = by_name.map_err(no_name)?;
    let way = Way::to(site, &power.acting.lab.lab)?;
    let edit = Edit { memory_mib: *memory, ..Edit::default() };
    for vm in &by_name {
        way.edit(vm, &edit, ui)?;
    }
    way.power(&power.power(wish, *isolate), &power.acting.options.waiting(waiting), ui)
}

fn power(arguments: &PowerArguments, wish: Wish, manner: &Manner, site: Option<&Path>, ui: &mut Ui) -> Ended {
    Way::to(site, &arguments.acting.lab.lab)?.power(&arguments.power(wish, false), manner, ui)
}

impl PowerArguments {
    fn power(&self, wish: Wish, isolated: bool) -> Power<'_> {
        Power { vms: &self.vms, wish, isolated, allow: &self.acting.allow }
    }
}
